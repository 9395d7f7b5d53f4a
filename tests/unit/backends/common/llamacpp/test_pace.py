"""The number of threads of a step."""

from backends.common.llamacpp.pace import Pace


def test_all_threads_are_used_while_steps_are_fast():
    pace = Pace(2)
    for seconds in (0.010, 0.012, 0.019, 0.011) * 20:
        pace.record(1, 50, seconds)
    assert pace.threads == 2


def test_slow_steps_remove_a_thread_for_a_while():
    pace = Pace(2)
    for _ in range(20):
        pace.record(1, 50, 0.010)
    for _ in range(8):
        if pace.threads == 2:
            pace.record(1, 50, 0.030)
    assert pace.threads == 1
    for _ in range(128):
        assert pace.threads == 1
        pace.record(1, 50, 0.015)
    assert pace.threads == 2


def test_a_step_with_more_tokens_may_take_longer():
    pace = Pace(2)
    for _ in range(20):
        pace.record(1, 50, 0.010)
        pace.record(16, 50, 0.080)
        pace.record(1, 5_000, 0.030)
    assert pace.threads == 2


def test_one_thread_is_never_removed():
    pace = Pace(1)
    for seconds in (0.01, *[0.1] * 20):
        pace.record(1, 50, seconds)
    assert pace.threads == 1

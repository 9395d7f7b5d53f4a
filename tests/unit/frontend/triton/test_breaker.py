"""The circuit breaker of an instance: when it opens, how long, and what closes it again."""

import random
import time

import pytest

from frontend.triton.breaker import Breaker


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def changes():
    return []


@pytest.fixture
def breaker(clock, changes):
    return Breaker(clock=clock, jitter=lambda: 0.0, on_change=changes.append)


def fail(breaker, times=5):
    for _ in range(times):
        breaker.admit().failed()


def test_opens_after_failures_in_a_row(breaker, changes):
    fail(breaker, 4)
    breaker.admit().succeeded()
    fail(breaker, 4)
    assert (breaker.state, breaker.failures, breaker.retry_after) == ("closed", 4, 0)
    assert breaker.opened_at is None
    fail(breaker, 1)
    assert (breaker.state, breaker.failures) == ("open", 5)
    assert breaker.opened_at == breaker.last_failure_at
    assert not breaker.admits()
    assert breaker.admit() is None
    assert changes == ["open"]


def test_becomes_half_open_when_its_time_is_over_without_a_request(breaker, clock, changes):
    fail(breaker)
    clock.now += 20
    assert breaker.retry_after == 40
    clock.now += 39.9
    assert breaker.state == "open"
    clock.now += 0.1
    assert breaker.state == "half_open"
    assert breaker.admits()
    assert breaker.retry_after == 0
    assert changes == ["open", "half_open"]


def test_half_open_admits_one_trial_at_a_time(breaker, clock, changes):
    fail(breaker)
    clock.now += 60
    trial = breaker.admit()
    assert not breaker.admits()
    assert breaker.admit() is None
    assert breaker.retry_after == 1
    trial.succeeded()
    assert breaker.state == "half_open"
    breaker.admit().succeeded()
    assert (breaker.state, breaker.failures) == ("closed", 0)
    first, second = breaker.admit(), breaker.admit()
    assert first
    assert second
    assert changes == ["open", "half_open", "closed"]


def test_a_failed_trial_opens_again_for_twice_as_long_up_to_ten_minutes(breaker, clock):
    fail(breaker)
    for seconds in (60, 120, 240, 480, 600, 600):
        assert breaker.retry_after == seconds
        clock.now += seconds
        breaker.admit().succeeded()  # one success is not enough to close it
        breaker.admit().failed()
    clock.now += 600
    for _ in range(2):
        breaker.admit().succeeded()
    fail(breaker)
    assert breaker.retry_after == 60


def test_successes_of_an_earlier_half_open_period_do_not_count(breaker, clock):
    fail(breaker)
    clock.now += 60
    breaker.admit().succeeded()
    breaker.admit().failed()
    clock.now += 120
    breaker.admit().succeeded()
    assert breaker.state == "half_open"


def test_long_open_time_is_not_cut_to_the_maximum(clock):
    breaker = Breaker(1, 1, 900.0, clock, lambda: 0.0)
    for _ in range(2):
        breaker.admit().failed()
        assert breaker.retry_after == 900
        clock.now += 900


def test_jitter_adds_up_to_ten_percent(clock):
    for jitter, seconds in ((0.0, 60), (0.5, 63), (1.0, 66)):
        breaker = Breaker(clock=clock, jitter=lambda jitter=jitter: jitter)
        fail(breaker)
        assert breaker.retry_after == pytest.approx(seconds)


def test_a_ticket_counts_once(breaker, clock):
    ticket = breaker.admit()
    for _ in range(10):
        ticket.failed()
    assert breaker.failures == 1
    ticket.succeeded()
    assert breaker.failures == 1


def test_abandoned_requests_are_neither_successes_nor_failures(breaker, clock):
    fail(breaker, 4)
    breaker.admit().abandoned()
    assert (breaker.state, breaker.failures) == ("closed", 4)
    fail(breaker, 1)
    clock.now += 60
    for _ in range(3):
        breaker.admit().abandoned()
    assert breaker.state == "half_open"
    assert breaker.admits()


def test_outcomes_of_requests_from_before_it_opened_do_not_count(breaker, clock):
    early = [breaker.admit() for _ in range(6)]
    fail(breaker)
    early[0].failed()
    early[1].succeeded()
    assert (breaker.state, breaker.failures, breaker.retry_after) == ("open", 5, 60)
    clock.now += 60
    assert breaker.state == "half_open"
    trial = breaker.admit()
    early[2].succeeded()
    early[3].failed()
    early[4].abandoned()
    assert breaker.state == "half_open"
    assert not breaker.admits()  # the trial is still in progress
    trial.succeeded()
    breaker.admit().succeeded()
    early[5].failed()
    assert (breaker.state, breaker.failures) == ("closed", 0)


def test_a_trial_without_an_outcome_counts_as_a_failure_when_it_expires(breaker, clock, changes):
    fail(breaker)
    clock.now += 60
    trial = breaker.admit()
    clock.now += 59
    assert breaker.state == "half_open"
    clock.now += 1
    trial.succeeded()  # too late
    assert (breaker.state, breaker.failures, breaker.retry_after) == ("open", 6, 120)
    assert changes == ["open", "half_open", "open"]


def test_a_trial_expires_at_its_time_even_if_no_request_comes(breaker, clock, changes):
    fail(breaker)
    clock.now += 60
    breaker.admit()
    clock.now += 60 + 120
    assert breaker.state == "half_open"
    assert breaker.last_failure_at == breaker.opened_at == pytest.approx(time.time() - 120, abs=5)
    assert changes == ["open", "half_open", "open", "half_open"]


def test_reset_closes_and_ignores_earlier_requests(breaker, clock):
    fail(breaker)
    clock.now += 60
    breaker.admit().failed()  # the next time would be doubled
    breaker.reset()
    assert (breaker.state, breaker.failures) == ("closed", 0)
    early = [breaker.admit() for _ in range(5)]
    breaker.reset()  # the instance was restarted
    for ticket in early:
        ticket.failed()
    assert (breaker.state, breaker.failures) == ("closed", 0)
    fail(breaker)
    assert breaker.retry_after == 60


def test_a_successful_probe_ends_the_open_time_but_never_closes(breaker, changes):
    breaker.probe_succeeded()
    assert breaker.state == "closed"
    fail(breaker)
    for _ in range(5):
        breaker.probe_succeeded()
    assert breaker.state == "half_open"
    breaker.admit().failed()
    assert breaker.retry_after == 120
    assert changes == ["open", "half_open", "open"]


def test_a_probe_does_not_admit_a_second_trial(breaker):
    fail(breaker)
    breaker.probe_succeeded()
    assert breaker.admit()
    breaker.probe_succeeded()
    assert breaker.admit() is None


def test_forced_open_stays_open_until_reset(breaker, clock, changes):
    early = breaker.admit()
    breaker.force_open()
    early.succeeded()
    clock.now += 100_000
    breaker.probe_succeeded()
    assert breaker.state == "open"
    assert breaker.admit() is None
    assert breaker.retry_after == 60
    assert breaker.opened_at
    breaker.reset()
    assert breaker.admit()
    assert changes == ["open", "closed"]


def test_on_change_sees_the_new_state(clock):
    seen = []
    breaker = Breaker(clock=clock, on_change=lambda state: seen.append((state, breaker.state, breaker.admits())))
    fail(breaker)
    clock.now += 66
    assert breaker.state == "half_open"
    assert seen == [("open", "open", False), ("half_open", "half_open", True)]


class Reference:
    """A breaker that is simulated second by second, with its tickets in a list."""

    def __init__(self):
        self.state, self.failures, self.successes, self.left, self.length = "closed", 0, 0, 0, 10
        self.tickets, self.trial, self.trial_left, self.forced, self.changes = {}, None, 0, False, []

    def go(self, state):
        if state != self.state:
            self.changes.append(state)
        self.state, self.successes, self.trial = state, 0, None
        self.tickets.clear()

    def fail(self):
        self.failures += 1
        if self.state == "half_open" or self.failures == 3:
            self.left, self.length = self.length, min(self.length * 2, 600)
            self.go("open")

    def second(self):
        self.left = max(self.left - 1, 0)
        if self.trial is not None:
            self.trial_left -= 1
            if self.trial_left == 0:
                self.fail()
        if self.state == "open" and self.left == 0 and not self.forced:
            self.go("half_open")

    def admit(self, number):
        if self.state == "open" or (self.state == "half_open" and self.trial is not None):
            return False
        self.tickets[number] = True
        if self.state == "half_open":
            self.trial, self.trial_left = number, 60
        return True

    def report(self, number, outcome):
        if not self.tickets.pop(number, False):
            return
        if number == self.trial:
            self.trial = None
        if outcome == "failed":
            self.fail()
        elif outcome == "succeeded" and self.state == "closed":
            self.failures = 0
        elif outcome == "succeeded":
            self.successes += 1
            if self.successes == 2:
                self.reset()

    def reset(self):
        self.failures, self.length, self.forced = 0, 10, False
        self.go("closed")

    def force_open(self):
        self.forced = True
        self.go("open")

    def probe_succeeded(self):
        if self.state == "open" and not self.forced:
            self.go("half_open")


@pytest.mark.parametrize("seed", range(4))
def test_behaves_like_a_simulation_second_by_second(seed):
    rng, clock, changes = random.Random(seed), Clock(), []
    breaker = Breaker(3, 2, 10.0, clock, lambda: 0.0, changes.append)
    reference, tickets, visited = Reference(), {}, set()
    for number in range(4000):
        action = rng.random()
        if action < 0.35:
            ticket = breaker.admit()
            assert (ticket is not None) == reference.admit(number)
            if ticket:
                tickets[number] = ticket
        elif action < 0.75 and tickets:
            chosen = rng.choice(list(tickets))
            outcome = rng.choice(("failed", "failed", "succeeded", "succeeded", "abandoned"))
            getattr(tickets[chosen], outcome)()
            reference.report(chosen, outcome)
            if rng.random() < 0.9:  # otherwise, its outcome is reported again later
                del tickets[chosen]
        elif action < 0.97:
            seconds = rng.choice((1, 3, 11, 70))
            clock.now += seconds
            for _ in range(seconds):
                reference.second()
        else:
            command = rng.choice(("reset", "probe_succeeded", "probe_succeeded", "force_open"))
            getattr(breaker, command)()
            getattr(reference, command)()
        if rng.random() < 0.7:  # otherwise, several changes become due before the breaker is asked again
            assert (breaker.state, breaker.failures) == (reference.state, reference.failures)
            trial_possible = reference.state == "half_open" and reference.trial is None
            assert breaker.admits() == (reference.state == "closed" or trial_possible)
            visited.add(breaker.state)
    assert breaker.state == reference.state
    assert changes == reference.changes
    assert visited == {"closed", "open", "half_open"}
    assert len(changes) > 50

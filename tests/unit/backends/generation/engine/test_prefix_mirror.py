"""The books of OpenVINO's prefix cache. tests/heavy/test_prefix_mirror.py compares them with the real cache."""

import numpy as np
import pytest

from backends.generation.engine.prefix_mirror import PrefixMirror


def ids(*ranges):
    return np.concatenate([np.arange(*each) for each in ranges]).astype(np.int64)


@pytest.fixture
def mirror():
    return PrefixMirror(100)


def run(mirror, prompt, answer=(1, 2), request_id=1):
    cached = mirror.start(request_id, prompt)
    mirror.add_tokens(request_id, list(answer))
    mirror.end(request_id)
    return cached


def test_a_prompt_is_cached_except_for_its_last_token(mirror):
    assert run(mirror, ids((0, 70))) == 0
    assert run(mirror, ids((0, 70))) == 64
    # The partial block has the first token of the answer too, so the prompt alone does not match it.
    assert run(mirror, ids((0, 70), (1, 2), (500, 510))) == 71
    assert run(mirror, ids((0, 64))) == 63
    assert run(mirror, ids((0, 40), (600, 610))) == 32
    assert run(mirror, ids((1, 70))) == 0


def test_the_last_token_of_an_answer_is_not_cached(mirror):
    run(mirror, ids((0, 10)), answer=[7, 8, 9])
    assert run(mirror, np.array([*range(10), 7, 8, 9, 5]), answer=[1]) == 12


def test_a_partial_block_that_is_continued_loses_its_old_key(mirror):
    run(mirror, ids((0, 10)), answer=[7, 8])
    for end, answer, cached in (([3, 4], [1], 11), ([5, 6], [1, 2], 11), ([8, 9], [1], 0)):
        # An answer of one token does not change the key.
        assert run(mirror, np.array([*range(10), 7, *end]), answer) == cached


def test_a_partial_block_that_gets_full_loses_its_old_key(mirror):
    run(mirror, ids((0, 10)), answer=[7, 8])
    begin = [*range(10), 7]
    assert run(mirror, np.array([*begin, *range(100, 120)]), answer=[1]) == 11
    assert run(mirror, np.array([*begin, *range(200, 221)]), answer=[1]) == 11
    assert run(mirror, np.array([*begin, *range(300, 310)]), answer=[1]) == 0
    assert run(mirror, np.array([*begin, *range(200, 240)]), answer=[1]) == 32


def test_what_running_requests_share_is_uncertain(mirror):
    assert mirror.start(1, ids((0, 70))) == 0
    assert mirror.start(2, ids((0, 70))) is None
    assert mirror.start(3, ids((1, 70))) == 0
    mirror.add_tokens(1, [5])
    assert mirror.start(4, ids((0, 64))) == 63
    assert mirror.start(5, ids((0, 70), (200, 210))) is None


def test_only_recent_blocks_are_certain_after_many(mirror):
    for start in range(0, 200_000, 1_000):
        run(mirror, ids((start, start + 31)))
    assert run(mirror, ids((199_000, 199_031), (1, 2), (5, 6))) == 32
    assert run(mirror, ids((120_000, 120_031), (1, 2), (5, 6))) is None
    assert run(mirror, ids((300_000, 300_031))) == 0
    assert len(mirror._known) <= 200


def test_nothing_is_certain_after_a_request_without_any_token(mirror):
    mirror.start(1, ids((0, 70)))
    mirror.end(1)
    assert run(mirror, ids((100, 170))) is None


def test_nothing_is_certain_if_running_requests_fill_the_cache(mirror):
    mirror.start(1, ids((0, 1_400)))
    assert mirror.start(2, ids((5_000, 5_010))) is None


def test_a_cache_of_unknown_size_is_uncertain():
    assert run(PrefixMirror(0), ids((0, 70))) is None

"""The sampler, against probabilities computed directly from the definitions."""

from collections import Counter

import numpy as np
import pytest

from backends.generation.llamacpp.sampler import InvalidLogits, Sampler

END = np.array([7], np.int32)
LOGITS = np.array([2.0, 1.0, 0.5, 0.0, -1.0, -2.0, -3.0, 1.5], np.float32)


def sample(count=1, prompt=(), **parameters):
    sampler = Sampler(parameters, prompt, END)
    return [sampler.choose(LOGITS.copy()) for _ in range(count)]


def shares(count=20_000, **parameters):
    """Return the share of each token among independent choices."""
    sampler = Sampler(parameters | {"seed": 3}, (), END)
    found = Counter(sampler.choose(LOGITS.copy()).token for _ in range(count))
    return [found[token] / count for token in range(len(LOGITS))]


def softmax(logits):
    weights = np.exp(np.asarray(logits, np.float64))
    return weights / weights.sum()


def test_at_temperature_zero_the_most_likely_token_is_chosen():
    assert [choice.token for choice in sample(3, temperature=0)] == [0, 0, 0]


def test_the_same_seed_yields_the_same_tokens():
    assert sample(50, seed=5) == sample(50, seed=5) != sample(50, seed=6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_as_frequent_as_the_temperature_says(temperature):
    assert shares(temperature=temperature) == pytest.approx(softmax(LOGITS / temperature), abs=0.015)


def test_top_k_keeps_the_most_likely_tokens():
    allowed = np.where(np.isin(np.arange(8), [0, 1, 7]), LOGITS, -np.inf)
    assert shares(top_k=3) == pytest.approx(softmax(allowed), abs=0.015)


def test_top_p_keeps_the_smallest_set_that_reaches_it():
    order, probabilities = np.argsort(-LOGITS), softmax(LOGITS)
    for top_p in (0.3, 0.5, 0.75, 0.99):
        size = int((np.cumsum(probabilities[order]) < top_p).sum()) + 1
        kept = {token for token, share in enumerate(shares(5_000, top_p=top_p)) if share}
        assert kept == set(order[:size].tolist())


def test_min_p_keeps_tokens_by_their_share_of_the_most_likely():
    limit = 0.3
    kept = {token for token, share in enumerate(shares(5_000, min_p=limit)) if share}
    assert kept == set(np.flatnonzero(softmax(LOGITS) >= limit * softmax(LOGITS).max()).tolist())


def test_a_bias_is_added_to_the_logits():
    assert sample(temperature=0, logit_bias={"0": -100})[0].token == 7
    assert sample(temperature=0, logit_bias={"5": 100})[0].token == 5


def test_penalties_count_the_tokens_of_the_answer():
    assert [choice.token for choice in sample(4, temperature=0, presence_penalty=0.8)] == [0, 7, 0, 0]
    assert [choice.token for choice in sample(4, temperature=0, frequency_penalty=0.8)] == [0, 7, 0, 1]


def test_the_repetition_penalty_counts_the_prompt_too():
    assert sample(temperature=0, prompt=(0,), repetition_penalty=1.5)[0].token == 7
    # A negative logit is multiplied.
    sampler = Sampler({"temperature": 0, "repetition_penalty": 2.0}, (0, 1), END)
    assert sampler.choose(np.array([-1.0, -1.2, -1.5, -9, -9, -9, -9, -9], np.float32)).token == 2


def test_no_end_token_before_min_tokens_or_with_ignore_eos():
    ending = np.array([0, 0, 0, 0, 0, 0, 0, 9], np.float32)
    sampler = Sampler({"temperature": 0, "min_tokens": 2}, (), END)
    assert [sampler.choose(ending.copy()).token for _ in range(3)] == [0, 0, 7]
    sampler = Sampler({"temperature": 0, "ignore_eos": True}, (), END)
    assert [sampler.choose(ending.copy()).token for _ in range(3)] == [0, 0, 0]


def test_log_probabilities_are_those_of_the_model():
    choice = sample(temperature=0, logprobs=True, top_logprobs=3, logit_bias={"0": -100})[0]
    expected = np.log(softmax(LOGITS))
    assert choice.logprob == pytest.approx(expected[7], abs=1e-5)
    assert [token for token, _ in choice.top] == [0, 7, 1]
    assert [value for _, value in choice.top] == pytest.approx(expected[[0, 7, 1]], abs=1e-5)
    assert sample(temperature=0, logprobs=True)[0].top == ()


def test_logits_that_are_not_numbers_are_an_error():
    for bad in (np.nan, -np.inf):
        with pytest.raises(InvalidLogits):
            Sampler({}, (), END).choose(np.full(8, bad, np.float32))

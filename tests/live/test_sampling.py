"""Sampling parameters with a real model: the test of a parameter fails if the parameter is ignored."""

import math

import openai
import pytest

from tests.support.sampling import STORY, ask, check_streams

LIST = "Repeat the word apple fifty times, with nothing in between."


# The greedy answer to this has no two tokens that are almost equally likely, so rounding does not change it.
COUNT = "Count from 1 to 20."


def generate(client, *args, **fields):
    return ask(client, *args, **fields).choices[0].message.content


@pytest.fixture(scope="module")
def greedy(client):
    return generate(client, COUNT, temperature=0)


def test_temperature_0_is_greedy_regardless_of_the_seed(client, greedy):
    assert generate(client, COUNT, temperature=0, seed=99) == greedy
    assert generate(client, COUNT, temperature=1.5) != greedy


def test_same_seed_yields_the_same_text(client):
    one, two, other = (generate(client, temperature=1.2, seed=seed) for seed in (1, 1, 2))
    assert one == two != other


@pytest.mark.parametrize(
    "fields", [{"top_p": 0.000001}, {"extra_body": {"top_k": 1}}, {"extra_body": {"min_p": 0.9999}}]
)
def test_filter_that_keeps_one_token_yields_the_greedy_text(client, greedy, fields):
    assert generate(client, COUNT, temperature=1.5, **fields) == greedy


@pytest.mark.parametrize(
    "fields", [{"frequency_penalty": 2}, {"presence_penalty": 2}, {"extra_body": {"repetition_penalty": 1.8}}]
)
def test_penalties_increase_word_variety(client, fields):
    def variety(**given):
        words = generate(client, LIST, temperature=0, max_tokens=80, **given).lower().replace(",", " ").split()
        return len(set(words)) / len(words)

    assert variety(**fields) > 1.5 * variety()


def test_negative_penalty_reduces_word_variety(client):
    plain, fewer = (
        generate(client, STORY, temperature=0, max_tokens=80, frequency_penalty=p).lower().split() for p in (0, -2)
    )
    assert len(set(fewer)) / len(fewer) < len(set(plain)) / len(plain)


def test_min_tokens_delays_the_end(client):
    short = ask(client, "Say: hi", temperature=0, max_tokens=100)
    assert short.choices[0].finish_reason == "stop"
    minimum = short.usage.completion_tokens + 30
    longer = ask(client, "Say: hi", temperature=0, max_tokens=200, extra_body={"min_tokens": minimum})
    assert longer.usage.completion_tokens >= minimum


def test_ignore_eos_generates_up_to_the_limit(client):
    completion = ask(client, "Say: hi", max_tokens=60, extra_body={"ignore_eos": True})
    assert (completion.usage.completion_tokens, completion.choices[0].finish_reason) == (60, "length")


@pytest.mark.parametrize("stream", [False, True])
def test_choices_differ(client, stream):
    completion = ask(client, temperature=1.3, n=3, stream=stream)
    if stream:
        texts = {0: "", 1: "", 2: ""}
        for chunk in completion:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
        found = list(texts.values())
    else:
        found = [choice.message.content for choice in completion.choices]
        assert 3 < completion.usage.completion_tokens <= 3 * 40
    assert len(set(found)) == 3
    assert all(found)


def test_logprobs_cover_the_text_with_and_without_streaming_and_are_lower_at_a_high_temperature(client):
    choice = ask(client, COUNT, temperature=0, logprobs=True).choices[0]
    entries = choice.logprobs.content
    assert bytes(byte for entry in entries for byte in entry.bytes).decode() == choice.message.content
    assert all(-20 < entry.logprob <= 0 for entry in entries)
    assert math.exp(sum(entry.logprob for entry in entries) / len(entries)) > 0.2  # greedy tokens are likely on average
    hot = ask(client, COUNT, temperature=2, logprobs=True).choices[0].logprobs.content
    assert sum(entry.logprob for entry in hot) / len(hot) < sum(entry.logprob for entry in entries) / len(entries)
    chunks = list(ask(client, COUNT, temperature=0, logprobs=True, stream=True))
    parts = [chunk.choices[0].logprobs for chunk in chunks if chunk.choices]
    streamed = [entry for part in parts if part for entry in part.content]
    assert [entry.token for entry in streamed] == [entry.token for entry in entries]


def test_unsupported_parameters_are_rejected(client):
    for fields in ({"logprobs": True, "top_logprobs": 5}, {"logit_bias": {"50": -100}}):
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, **fields)
        assert caught.value.param in fields
        assert caught.value.code == "unsupported_parameter"


def test_streams_match_non_streamed_responses(client):
    check_streams(client, 12)

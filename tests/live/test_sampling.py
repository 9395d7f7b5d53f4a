"""Every sampling field does what it says: with the real model, and tests that fail if the field is ignored."""

import math

import openai
import pytest

from tests.support.sampling import STORY, ask, check_streams

LIST = "Repeat the word apple fifty times, with nothing in between."


def said(client, *args, **fields):
    return ask(client, *args, **fields).choices[0].message.content


@pytest.fixture(scope="module")
def greedy(client):
    return said(client, temperature=0)


def test_temperature_0_is_greedy_whatever_the_seed(client, greedy):
    assert said(client, temperature=0, seed=99) == greedy
    assert said(client, temperature=1.5) != greedy


def test_a_seed_makes_the_text_again(client):
    one, two, other = (said(client, temperature=1.2, seed=seed) for seed in (1, 1, 2))
    assert one == two != other


@pytest.mark.parametrize(
    "fields", [{"top_p": 0.000001}, {"extra_body": {"top_k": 1}}, {"extra_body": {"min_p": 0.9999}}]
)
def test_where_one_token_is_left_it_is_the_greedy_one(client, greedy, fields):
    assert said(client, temperature=1.5, **fields) == greedy


@pytest.mark.parametrize(
    "fields", [{"frequency_penalty": 2}, {"presence_penalty": 2}, {"extra_body": {"repetition_penalty": 1.8}}]
)
def test_penalties_make_for_more_different_words(client, fields):
    def variety(**given):
        words = said(client, LIST, temperature=0, max_tokens=80, **given).lower().replace(",", " ").split()
        return len(set(words)) / len(words)

    assert variety(**fields) > 1.5 * variety()


def test_negative_penalties_make_for_fewer(client):
    plain, fewer = (
        said(client, STORY, temperature=0, max_tokens=80, frequency_penalty=p).lower().split() for p in (0, -2)
    )
    assert len(set(fewer)) / len(fewer) < len(set(plain)) / len(plain)


def test_min_tokens_keeps_it_from_ending(client):
    short = ask(client, "Say: hi", temperature=0, max_tokens=100)
    assert short.choices[0].finish_reason == "stop"
    wanted = short.usage.completion_tokens + 30
    longer = ask(client, "Say: hi", temperature=0, max_tokens=200, extra_body={"min_tokens": wanted})
    assert longer.usage.completion_tokens >= wanted


def test_ignore_eos_goes_on_to_the_limit(client):
    completion = ask(client, "Say: hi", max_tokens=60, extra_body={"ignore_eos": True})
    assert (completion.usage.completion_tokens, completion.choices[0].finish_reason) == (60, "length")


@pytest.mark.parametrize("stream", [False, True])
def test_choices_differ(client, stream):
    asked = ask(client, temperature=1.3, n=3, stream=stream)
    if stream:
        texts = {0: "", 1: "", 2: ""}
        for chunk in asked:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
        found = list(texts.values())
    else:
        found = [choice.message.content for choice in asked.choices]
        assert 3 < asked.usage.completion_tokens <= 3 * 40
    assert len(set(found)) == 3
    assert all(found)


def test_log_probabilities(client):
    choice = ask(client, temperature=0, logprobs=True).choices[0]
    entries = choice.logprobs.content
    assert bytes(byte for entry in entries for byte in entry.bytes).decode() == choice.message.content
    assert all(-20 < entry.logprob <= 0 for entry in entries)
    assert math.exp(sum(entry.logprob for entry in entries) / len(entries)) > 0.2  # greedy: never improbable
    hot = ask(client, temperature=2, logprobs=True).choices[0].logprobs.content
    assert sum(entry.logprob for entry in hot) / len(hot) < sum(entry.logprob for entry in entries) / len(entries)
    chunks = list(ask(client, temperature=0, logprobs=True, stream=True))
    parts = [chunk.choices[0].logprobs for chunk in chunks if chunk.choices]
    streamed = [entry for part in parts if part for entry in part.content]
    assert [entry.token for entry in streamed] == [entry.token for entry in entries]


def test_what_the_engine_cannot_give_is_refused(client):
    for fields in ({"logprobs": True, "top_logprobs": 5}, {"logit_bias": {"50": -100}}):
        with pytest.raises(openai.BadRequestError) as failure:
            ask(client, **fields)
        assert failure.value.param in fields
        assert failure.value.code == "unsupported_parameter"


def test_a_stream_equals_the_plain_answer(client):
    check_streams(client, 12)

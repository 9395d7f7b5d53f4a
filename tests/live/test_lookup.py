"""Tests prompt-lookup decoding (`prompt_lookup`), in which the engine drafts output tokens from the prompt."""

import json

import pytest
from openai import OpenAI

from tests.support.live import MODEL, metric, url, user, wait_until
from tests.support.stack import make_repository, running_stack

TEXT = "The old lighthouse on the northern cape was built in 1872 by forty men who carried every stone up the cliff."
REPEAT = f"Repeat this text word for word: {TEXT}"


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    repository = make_repository(tmp_path_factory.mktemp("lookup"), MODEL, {"prompt_lookup": "3"})
    with running_stack([MODEL], "--model-repository", str(repository)) as settings:
        yield settings


@pytest.fixture(scope="module")
def client(stack):
    return OpenAI(base_url=url(stack, "/v1"), api_key="unused", max_retries=0, timeout=60)


def ask(client, text=REPEAT, **options):
    return client.chat.completions.create(model=MODEL, messages=user(text), **{"temperature": 0} | options)


def test_usage_counts_every_token(client):
    completion = ask(client)
    assert TEXT in completion.choices[0].message.content
    assert completion.choices[0].finish_reason == "stop"
    # The usage counts the end-of-sequence token, which is not in the logprobs.
    assert completion.usage.completion_tokens == len(ask(client, logprobs=True).choices[0].logprobs.content) + 1


def test_stream_matches_non_streamed_response(client):
    plain = ask(client)
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == plain.choices[0].message.content
    assert chunks[-1].usage == plain.usage


@pytest.mark.parametrize("maximum", [1, 2, 5, 10])
def test_max_tokens_is_never_exceeded(client, maximum):
    completion = ask(client, max_tokens=maximum)
    assert (completion.usage.completion_tokens, completion.choices[0].finish_reason) == (maximum, "length")


def test_stop_string_ends_the_text_and_is_never_leaked(client):
    choice = ask(client, stop=["cape"]).choices[0]
    assert choice.message.content.endswith("on the northern ")
    assert choice.finish_reason == "stop"


def test_same_seed_yields_the_same_text_and_another_seed_a_different_text(client):
    texts = [
        ask(client, "Tell me a story.", temperature=1, seed=seed, max_tokens=40).choices[0].message.content
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_output_is_json_with_the_keys_of_the_schema(client):
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer", "maximum": 150}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    response_format = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema, "strict": True}}
    for seed in range(10):
        completion = ask(client, "Describe a person.", temperature=1, seed=seed, response_format=response_format)
        assert set(json.loads(completion.choices[0].message.content)) == {"name", "age"}


def test_choices_differ_while_another_stream_runs_and_a_disconnect_stops_that_stream(client, stack):
    abandoned = ask(client, "Tell me a story.", stream=True, max_tokens=4000, extra_body={"ignore_eos": True})
    next(iter(abandoned))
    assert len({choice.message.content for choice in ask(client, n=4, temperature=1, max_tokens=30).choices}) > 1
    abandoned.close()
    wait_until(lambda: metric(stack, "running") == 0, 3, "the engine to stop the work of a disconnected client")

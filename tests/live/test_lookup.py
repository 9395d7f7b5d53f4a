"""A model whose `prompt_lookup` is on: it guesses tokens from the prompt, and answers as it would without."""

import json

import pytest
from openai import OpenAI

from tests.support.live import MODEL, metric, url, user, wait_until
from tests.support.stack import repository_with, running_stack

TEXT = "The old lighthouse on the northern cape was built in 1872 by forty men who carried every stone up the cliff."
REPEAT = f"Repeat this text word for word: {TEXT}"


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    repository = repository_with(tmp_path_factory.mktemp("lookup"), MODEL, {"prompt_lookup": "3"})
    with running_stack([MODEL], "--model-repository", str(repository)) as settings:
        yield settings


@pytest.fixture(scope="module")
def client(stack):
    return OpenAI(base_url=url(stack, "/v1"), api_key="unused", max_retries=0, timeout=60)


def ask(client, text=REPEAT, **options):
    return client.chat.completions.create(model=MODEL, messages=user(text), **{"temperature": 0} | options)


def test_it_answers_and_counts(client):
    completion = ask(client)
    assert TEXT in completion.choices[0].message.content
    assert completion.choices[0].finish_reason == "stop"
    # The token that ended it is counted, and not told of.
    assert completion.usage.completion_tokens == len(ask(client, logprobs=True).choices[0].logprobs.content) + 1


def test_a_stream_is_the_plain_answer(client):
    plain = ask(client)
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == plain.choices[0].message.content
    assert chunks[-1].usage == plain.usage


@pytest.mark.parametrize("maximum", [1, 2, 5, 10])
def test_no_token_too_many(client, maximum):
    completion = ask(client, max_tokens=maximum)
    assert (completion.usage.completion_tokens, completion.choices[0].finish_reason) == (maximum, "length")


def test_a_stop_string_is_not_passed(client):
    choice = ask(client, stop=["cape"]).choices[0]
    assert choice.message.content.endswith("on the northern ")
    assert choice.finish_reason == "stop"


def test_a_seed_gives_one_text_and_others_give_others(client):
    texts = [
        ask(client, "Tell me a story.", temperature=1, seed=seed, max_tokens=40).choices[0].message.content
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_it_keeps_to_a_schema(client):
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer", "maximum": 150}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema, "strict": True}}
    for seed in range(10):
        completion = ask(client, "Describe a person.", temperature=1, seed=seed, response_format=form)
        assert set(json.loads(completion.choices[0].message.content)) == {"name", "age"}


def test_several_at_once_and_one_that_leaves(client, stack):
    left = ask(client, "Tell me a story.", stream=True, max_tokens=4000, extra_body={"ignore_eos": True})
    next(iter(left))
    assert len({choice.message.content for choice in ask(client, n=4, temperature=1, max_tokens=30).choices}) > 1
    left.close()
    wait_until(lambda: metric(stack, "running") == 0, 3, "an engine that has stopped for who left")

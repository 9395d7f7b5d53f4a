"""A model whose configuration says that it thinks, made to do so by a regular expression, as no real one is at hand."""

import pytest
from openai import OpenAI

from tests.support.live import MODEL, url, user
from tests.support.stack import repository_with, running_stack

FORM = {"guided_regex": r"<think>[a-z ]{20,40}</think>(Yes|No)\."}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    repository = repository_with(tmp_path_factory.mktemp("thinker"), MODEL, {"reasoning": "think"})
    with running_stack([MODEL], "--model-repository", str(repository)) as settings:
        yield OpenAI(base_url=url(settings, "/v1"), api_key="unused", max_retries=0, timeout=60)


def ask(client, **options):
    options = {"temperature": 1, "seed": 5, "extra_body": FORM} | options
    return client.chat.completions.create(model=MODEL, messages=user("Is Tokyo in Japan?"), **options)


def test_thoughts_are_told_apart_and_counted(client):
    completion = ask(client)
    message = completion.choices[0].message
    assert 20 <= len(message.reasoning_content) + 2 <= 42
    assert message.content in ("Yes.", "No.")
    # After the thought come a word, a full stop, and the end.
    assert completion.usage.completion_tokens_details.reasoning_tokens >= completion.usage.completion_tokens - 4
    assert completion.usage.completion_tokens_details.reasoning_tokens < completion.usage.completion_tokens


def test_a_stream_is_the_plain_answer(client):
    plain = ask(client)
    *chunks, last = ask(client, stream=True, stream_options={"include_usage": True})
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert (
        "".join(getattr(d, "reasoning_content", None) or "" for d in deltas)
        == plain.choices[0].message.reasoning_content
    )
    assert "".join(d.content or "" for d in deltas) == plain.choices[0].message.content
    assert last.usage == plain.usage


def test_an_answer_cut_off_in_its_thought_is_all_thought(client):
    completion = ask(client, max_tokens=6)
    assert completion.choices[0].message.content == ""
    assert completion.usage.completion_tokens_details.reasoning_tokens == 6

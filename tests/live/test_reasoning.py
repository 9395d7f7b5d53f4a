"""Chat with a model whose configuration has the parameter `reasoning`.

The catalog has no reasoning model, so a regular expression forces the starter model to write reasoning in `<think>`.
"""

import pytest
from openai import OpenAI

from tests.support.live import MODEL, url, user
from tests.support.stack import make_repository, running_stack

CONSTRAINT = {"guided_regex": r"<think>[a-z ]{20,40}</think>(Yes|No)\."}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    repository = make_repository(tmp_path_factory.mktemp("thinker"), MODEL, {"reasoning": "think"})
    with running_stack([MODEL], "--model-repository", str(repository)) as settings:
        yield OpenAI(base_url=url(settings, "/v1"), api_key="unused", max_retries=0, timeout=60)


def ask(client, **options):
    options = {"temperature": 1, "seed": 5, "extra_body": CONSTRAINT} | options
    return client.chat.completions.create(model=MODEL, messages=user("Is Tokyo in Japan?"), **options)


def test_reasoning_is_separated_and_counted(client):
    completion = ask(client)
    message = completion.choices[0].message
    assert 20 <= len(message.reasoning_content) + 2 <= 42
    assert message.content in ("Yes.", "No.")
    # After the reasoning come a word of one or two tokens, a period and the end-of-sequence token.
    assert completion.usage.completion_tokens_details.reasoning_tokens >= completion.usage.completion_tokens - 4
    assert completion.usage.completion_tokens_details.reasoning_tokens < completion.usage.completion_tokens


def test_stream_matches_non_streamed_response(client):
    plain = ask(client)
    *chunks, last = ask(client, stream=True, stream_options={"include_usage": True})
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert (
        "".join(getattr(d, "reasoning_content", None) or "" for d in deltas)
        == plain.choices[0].message.reasoning_content
    )
    assert "".join(d.content or "" for d in deltas) == plain.choices[0].message.content
    assert last.usage == plain.usage


def test_response_cut_off_during_reasoning_has_no_content(client):
    completion = ask(client, max_tokens=6)
    assert completion.choices[0].message.content == ""
    assert completion.usage.completion_tokens_details.reasoning_tokens == 6

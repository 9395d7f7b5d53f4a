"""Several answers to one conversation, and the log probabilities of their tokens, over a fake Triton."""

import orjson
import pytest

from frontend.errors import EngineFailure, Overloaded
from tests.unit.conftest import chat, delta, last


def ask(client, **fields):
    return client.post("/v1/chat/completions", json=chat(**fields))


def chunks_of(response):
    return [orjson.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]


def test_each_choice_has_its_index_and_the_prompt_counts_once(client, triton):
    for text in ("One", "Two", "Three"):
        triton.will_answer(delta(text), last("!", "stop", 7, 3))
    body = ask(client, n=3, seed=5).get_json()
    assert [(choice["index"], choice["message"]["content"]) for choice in body["choices"]] == [
        (0, "One!"),
        (1, "Two!"),
        (2, "Three!"),
    ]
    assert body["usage"] == {"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 16}
    seeds = [orjson.loads(request["inputs"]["sampling_parameters"])["seed"] for request in triton.requests]
    assert seeds == [5, 6, 7]


def test_a_stream_has_a_role_and_an_end_for_each(client, triton):
    for text in ("One", "Two"):
        triton.will_answer(delta(text), last("!", "length"))
    chunks = chunks_of(ask(client, n=2, stream=True, stream_options={"include_usage": True}))
    for index, text in enumerate(("One!", "Two!")):
        own = [c["choices"][0] for c in chunks if c["choices"] and c["choices"][0]["index"] == index]
        assert own[0]["delta"]["role"] == "assistant"
        assert "".join(choice["delta"].get("content") or "" for choice in own) == text
        assert [choice["finish_reason"] for choice in own if choice["finish_reason"]] == ["length"]
    assert chunks[-1]["usage"]["completion_tokens"] == 6
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_if_one_fails_all_are_stopped(client, triton):
    """But for those that end by themselves: where both meet, Triton's memory suffers."""
    calls = [
        triton.will_answer(delta("One"), last()),
        triton.will_answer(Overloaded("full")),
        triton.will_answer(last()),
        triton.will_answer(delta("Four"), last()),
    ]
    assert ask(client, n=4).status_code == 503
    assert [call.cancelled for call in calls] == [True, False, False, True]


def test_a_failure_in_mid_stream_ends_all(client, triton):
    triton.will_answer(delta("One"), delta("and"), last())
    triton.will_answer(delta("Two"), EngineFailure("gone"))
    response = ask(client, n=2, stream=True)
    assert chunks_of(response)[-1]["error"]["message"] == "gone"


LOGPROBS = [{"token": "Hi", "logprob": -0.5, "bytes": [72, 105]}]


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs(client, triton, stream):
    said = {"logprobs": orjson.dumps(LOGPROBS).decode()}
    triton.will_answer(delta("Hi") | said, last() | {"logprobs": "[]"})
    response = ask(client, logprobs=True, top_logprobs=0, stream=stream)
    wanted = {"content": [LOGPROBS[0] | {"top_logprobs": []}], "refusal": None}
    if stream:
        found = [chunk["choices"][0]["logprobs"] for chunk in chunks_of(response)]
        assert [logprobs for logprobs in found if logprobs] == [wanted]
    else:
        assert response.get_json()["choices"][0]["logprobs"] == wanted
    assert orjson.loads(triton.requests[0]["inputs"]["sampling_parameters"])["logprobs"] is True


def test_alternatives_are_refused_since_the_engine_has_none(client):
    error = ask(client, logprobs=True, top_logprobs=3).get_json()["error"]
    assert (error["param"], error["code"]) == ("top_logprobs", "unsupported_parameter")


def test_a_model_that_reads_or_hears_has_one_answer(client):
    part = {"type": "image_url", "image_url": {"url": "base64://aGk="}}
    error = ask(client, model="tiny-ocr", n=2, messages=[{"role": "user", "content": [part]}]).get_json()["error"]
    assert error["param"] == "n"

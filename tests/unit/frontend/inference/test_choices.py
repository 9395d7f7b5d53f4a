"""Several choices for one conversation, and log probabilities, in chat completions with a fake Triton."""

import orjson
import pytest

from frontend.errors import EngineFailure, Overloaded
from tests.unit.conftest import chat, delta, last


def ask(client, **fields):
    return client.post("/v1/chat/completions", json=chat(**fields))


def chunks_of(response):
    return [orjson.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]


def test_choices_have_indices_and_successive_seeds_and_usage_counts_the_prompt_once(client, triton):
    for text in ("One", "Two", "Three"):
        triton.queue_response(delta(text), last("!", "stop", 7, 3))
    body = ask(client, n=3, seed=5).get_json()
    assert [(choice["index"], choice["message"]["content"]) for choice in body["choices"]] == [
        (0, "One!"),
        (1, "Two!"),
        (2, "Three!"),
    ]
    assert body["usage"] == {"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 16}
    seeds = [orjson.loads(request["inputs"]["sampling_parameters"])["seed"] for request in triton.requests]
    assert seeds == [5, 6, 7]


def test_a_stream_has_a_role_and_a_finish_reason_for_each_choice(client, triton):
    for text in ("One", "Two"):
        triton.queue_response(delta(text), last("!", "length"))
    chunks = chunks_of(ask(client, n=2, stream=True, stream_options={"include_usage": True}))
    for index, text in enumerate(("One!", "Two!")):
        own = [c["choices"][0] for c in chunks if c["choices"] and c["choices"][0]["index"] == index]
        assert own[0]["delta"]["role"] == "assistant"
        assert "".join(choice["delta"].get("content") or "" for choice in own) == text
        assert [choice["finish_reason"] for choice in own if choice["finish_reason"]] == ["length"]
    assert chunks[-1]["usage"]["completion_tokens"] == 6
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_if_one_choice_fails_the_calls_that_still_run_are_cancelled(client, triton):
    """Calls that are about to end are not cancelled, because a cancellation then can corrupt Triton's memory."""
    calls = [
        triton.queue_response(delta("One"), last()),
        triton.queue_response(Overloaded("full")),
        triton.queue_response(last()),
        triton.queue_response(delta("Four"), last()),
    ]
    assert ask(client, n=4, stream=True).status_code == 503
    assert [call.cancelled for call in calls] == [True, False, False, True]


def test_an_error_in_one_choice_during_a_stream_is_the_last_event(client, triton):
    triton.queue_response(delta("One"), delta("and"), last())
    triton.queue_response(delta("Two"), EngineFailure("gone"))
    response = ask(client, n=2, stream=True)
    assert chunks_of(response)[-1]["error"]["message"] == "gone"


LOGPROBS = [{"token": "Hi", "logprob": -0.5, "bytes": [72, 105]}]


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_are_returned(client, triton, stream):
    logprobs = {"logprobs": orjson.dumps(LOGPROBS).decode()}
    triton.queue_response(delta("Hi") | logprobs, last() | {"logprobs": "[]"})
    response = ask(client, logprobs=True, top_logprobs=0, stream=stream)
    expected = {"content": [LOGPROBS[0] | {"top_logprobs": []}], "refusal": None}
    if stream:
        found = [chunk["choices"][0]["logprobs"] for chunk in chunks_of(response)]
        assert [entry for entry in found if entry] == [expected]
    else:
        assert response.get_json()["choices"][0]["logprobs"] == expected
    assert orjson.loads(triton.requests[0]["inputs"]["sampling_parameters"])["logprobs"] is True


def test_top_logprobs_above_zero_are_rejected(client):
    error = ask(client, logprobs=True, top_logprobs=3).get_json()["error"]
    assert (error["param"], error["code"]) == ("top_logprobs", "unsupported_parameter")


def test_ocr_models_reject_n_above_one(client):
    part = {"type": "image_url", "image_url": {"url": "base64://aGk="}}
    error = ask(client, model="tiny-ocr", n=2, messages=[{"role": "user", "content": [part]}]).get_json()["error"]
    assert error["param"] == "n"

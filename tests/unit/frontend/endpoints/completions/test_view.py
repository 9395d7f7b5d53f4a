"""POST /completions with a fake Triton: prompt types, order of choices, usage, errors, and the requests to Triton."""

import numpy as np
import orjson
import pytest

from frontend.endpoints.completions.view import CompletionLogprobs
from frontend.errors import EngineFailure, InvalidRequest
from tests.unit.conftest import delta, last
from tests.unit.frontend.endpoints.chat.test_view import events


def ask(client, prompt="Once", **fields):
    return client.post("/v1/completions", json={"model": "tiny-chat", "prompt": prompt} | fields)


def test_non_streaming_response_has_openais_format(client, triton):
    triton.queue_response(last(" upon", "length", prompt=1, completion=16))
    body = ask(client).get_json()
    assert (body["object"], body["id"][:5], body["model"]) == ("text_completion", "cmpl-", "org/tiny-chat")
    assert body["choices"] == [{"index": 0, "text": " upon", "logprobs": None, "finish_reason": "length"}]
    assert body["usage"] == {"prompt_tokens": 1, "completion_tokens": 16, "total_tokens": 17}


def test_request_fields_reach_the_model(client, triton):
    triton.queue_response(last())
    ask(client, "Once", temperature=0, stop="END", echo=True)
    inputs = triton.requests[0]["inputs"]
    sampling = orjson.loads(inputs.pop("sampling_parameters"))
    assert inputs == {"prompt": "Once"}
    assert sampling == {"temperature": 0, "stop": ["END"], "max_tokens": 16, "stream": False, "echo": True}


def test_token_ids_are_sent_as_little_endian_int32(client, triton):
    triton.queue_response(last())
    ask(client, [5, 70000])
    assert np.frombuffer(triton.requests[0]["inputs"]["token_ids"], "<i4").tolist() == [5, 70000]


@pytest.mark.parametrize("prompts", [["a", "b"], [[1], [2, 3]]])
def test_choices_are_in_prompt_order_and_usage_is_their_sum(client, triton, prompts):
    triton.queue_response(last("A", prompt=2, completion=3))
    triton.queue_response(last("B", "length", prompt=4, completion=5))
    body = ask(client, prompts).get_json()
    assert [(c["index"], c["text"], c["finish_reason"]) for c in body["choices"]] == [
        (0, "A", "stop"),
        (1, "B", "length"),
    ]
    assert body["usage"] == {"prompt_tokens": 6, "completion_tokens": 8, "total_tokens": 14}


def test_each_choice_of_a_prompt_has_its_own_seed(client, triton):
    for text in "abcd":
        triton.queue_response(last(text, prompt=2, completion=3))
    body = ask(client, ["x", "y"], n=2, seed=7).get_json()
    assert [c["text"] for c in body["choices"]] == list("abcd")
    assert body["usage"] == {"prompt_tokens": 4, "completion_tokens": 12, "total_tokens": 16}
    sent = [(r["inputs"]["prompt"], orjson.loads(r["inputs"]["sampling_parameters"])["seed"]) for r in triton.requests]
    assert sent == [("x", 7), ("x", 8), ("y", 7), ("y", 8)]


def test_stream_has_the_choices_in_prompt_order_then_the_usage(client, triton):
    triton.queue_response(delta("A"), TimeoutError(), last("a"))
    triton.queue_response(last("B", "length"))
    received = events(ask(client, ["x", "y"], stream=True, stream_options={"include_usage": True}))
    assert received.count(": waiting") == 1
    *chunks, usage, done = [event for event in received if event != ": waiting"]
    choices = [(c["choices"][0]["index"], c["choices"][0]["text"], c["choices"][0]["finish_reason"]) for c in chunks]
    assert choices == [(0, "A", None), (0, "a", "stop"), (1, "B", "length")]
    assert all(chunk["usage"] is None for chunk in chunks)
    assert {e["object"] for e in (*chunks, usage)} == {"text_completion"}
    assert len({e["id"] for e in (*chunks, usage)}) == 1
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 20)
    assert done == "data: [DONE]"


def test_error_names_the_first_invalid_prompt_and_other_calls_are_cancelled(client, triton):
    calls = [triton.queue_response(delta("a"), last())]
    triton.queue_response(InvalidRequest("no such token", param="prompt[3]"))
    calls += [triton.queue_response(delta("c"), last()), triton.queue_response(TimeoutError())]
    failing = triton.queue_response(InvalidRequest("no such token", param="prompt[0]"))
    response = ask(client, [[1], [2, 2, 2, 9], [3], [4], [5]])
    assert (response.status_code, response.get_json()["error"]["param"]) == (400, "prompt[1][3]")
    assert [call.cancelled for call in calls] == [True, True, True]
    assert not failing.cancelled


@pytest.mark.parametrize(("prompt", "param"), [([9, 9], "prompt[1]"), ("x", "prompt[1]"), (["x"], "prompt[0][1]")])
def test_error_names_the_prompt_by_its_path_in_the_request(client, triton, prompt, param):
    triton.queue_response(InvalidRequest("no", param="prompt[1]"))
    assert ask(client, prompt).get_json()["error"]["param"] == param


def test_error_during_a_stream_is_the_last_event(client, triton):
    triton.queue_response(delta("a"), EngineFailure("broken"))
    second = triton.queue_response(delta("b"), last())
    *_, text, error = events(ask(client, ["x", "y"], stream=True))
    assert (text["choices"][0]["text"], error["error"]["message"]) == ("a", "broken")
    assert second.cancelled


def test_closing_the_stream_cancels_all_calls_to_triton(client, triton):
    calls = [triton.queue_response(delta("a"), last()) for _ in range(2)]
    response = client.post(
        "/v1/completions", json={"model": "tiny-chat", "prompt": ["x", "y"], "stream": True}, buffered=False
    )
    next(response.response)
    response.close()
    assert all(call.cancelled for call in calls)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"prompt": ""}, "prompt", "invalid_value"),
        ({"prompt": None}, "prompt", "missing_parameter"),
        ({"prompt": []}, "prompt", "invalid_value"),
        ({"prompt": ["a", ""]}, "prompt", "invalid_value"),
        ({"prompt": [[]]}, "prompt", "invalid_value"),
        ({"prompt": 3}, "prompt", "invalid_type"),
        ({"prompt": ["a", [1]]}, "prompt", "invalid_type"),
        ({"prompt": [1, "a"]}, "prompt", "invalid_type"),
        ({"prompt": [1, True]}, "prompt", "invalid_type"),
        ({"prompt": [1.5]}, "prompt", "invalid_type"),
        ({"prompt": ["a"] * 65}, "prompt", "invalid_value"),
        ({"n": 65}, "n", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"echo": "yes"}, "echo", "invalid_type"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"stop": ["a", ""]}, "stop", "invalid_value"),
        ({"suffix": "end"}, "suffix", "unsupported_parameter"),
        ({"best_of": 2}, "best_of", "unsupported_parameter"),
        ({"logprobs": 1}, "logprobs", "unsupported_parameter"),
        ({"logprobs": 0, "echo": True}, "logprobs", "unsupported_parameter"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "unsupported_parameter"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
    ],
)
def test_error_for_invalid_input_names_the_field(client, triton, fields, param, code):
    response = client.post("/v1/completions", json={"model": "tiny-chat", "prompt": "a"} | fields)
    error = response.get_json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, param, code)
    assert not triton.requests


def test_prompt_is_required(client):
    error = client.post("/v1/completions", json={"model": "tiny-chat"}).get_json()["error"]
    assert (error["param"], error["code"]) == ("prompt", "missing_parameter")


def test_no_op_values_are_accepted(client, triton):
    triton.queue_response(last())
    assert ask(client, best_of=1, n=1, suffix=None, logprobs=None, logit_bias={}, user="u").status_code == 200


def test_logprobs_have_text_offsets_with_and_without_streaming(client, triton):
    def encode(*tokens):
        return orjson.dumps([{"token": token, "logprob": -0.5, "bytes": list(token.encode())} for token in tokens])

    responses = [delta(" up") | {"logprobs": encode(" up")}, last("on a", "length") | {"logprobs": encode("on", " a")}]
    expected = {
        "tokens": [" up", "on", " a"],
        "token_logprobs": [-0.5] * 3,
        "top_logprobs": None,
        "text_offset": [0, 3, 5],
    }
    triton.queue_response(*responses)
    assert ask(client, logprobs=0).get_json()["choices"][0]["logprobs"] == expected
    assert orjson.loads(triton.requests[0]["inputs"]["sampling_parameters"])["logprobs"] is True
    triton.queue_response(*responses)
    blocks = ask(client, logprobs=0, stream=True).get_data().split(b"\n\n")
    found = [orjson.loads(block[6:])["choices"][0]["logprobs"] for block in blocks if block.startswith(b"data: {")]
    assert [each["text_offset"] for each in found] == [[0], [3, 5]]
    assert [token for each in found for token in each["tokens"]] == expected["tokens"]


def test_text_offset_counts_a_character_that_spans_several_tokens_once():
    pieces = [b"a ", b"\xf0\x9f", b"\x98\x80", b"!"]
    entries = [{"token": piece.decode(errors="replace"), "logprob": 0.0, "bytes": list(piece)} for piece in pieces]
    logprobs = CompletionLogprobs()
    assert logprobs.convert(entries[:2])["text_offset"] + logprobs.convert(entries[2:])["text_offset"] == [0, 2, 2, 3]

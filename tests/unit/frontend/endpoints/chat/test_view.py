"""POST /chat/completions with a fake Triton: response formats, stream events, usage, failures, and model inputs."""

import orjson
import pytest

from frontend.errors import EngineFailure, InvalidRequest, Overloaded
from tests.unit.conftest import chat, delta, last


def events(response):
    """Return the events of a stream: JSON events as objects, and comments and [DONE] as strings."""
    blocks = [block for block in response.get_data().split(b"\n\n") if block]
    return [orjson.loads(b[6:]) if b.startswith(b"data: {") else b.decode() for b in blocks]


def test_client_address_is_sent_to_the_model(client, triton):
    triton.queue_response(last())
    client.post(
        "/v1/chat/completions",
        json={"model": "tiny-chat", "messages": [USER]},
        environ_base={"REMOTE_ADDR": "10.1.2.3"},
    )
    assert triton.requests[0]["client"] == "10.1.2.3"


def test_non_streamed_response_has_openais_format(client, triton):
    triton.queue_response(delta("Hel"), delta("lo"), last("!", "stop", prompt=11, completion=4))
    response = client.post("/v1/chat/completions", json=chat())
    body = response.get_json()
    assert response.status_code == 200
    assert body["object"] == "chat.completion"
    assert body["id"].startswith("chatcmpl-")
    assert body["model"] == "org/tiny-chat"
    assert body["system_fingerprint"].startswith("fp_")
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello!", "refusal": None, "annotations": []},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert body["usage"] == {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15}


def test_stream_events_have_openais_order_and_share_one_id(client, triton):
    triton.queue_response(delta("Hel"), last("lo", "length", prompt=5, completion=2))
    response = client.post("/v1/chat/completions", json=chat(stream=True, stream_options={"include_usage": True}))
    assert response.content_type == "text/event-stream; charset=utf-8"
    role, first, second, finish, usage, done = events(response)
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert [e["choices"][0]["delta"] for e in (first, second, finish)] == [{"content": "Hel"}, {"content": "lo"}, {}]
    assert [e["choices"][0]["finish_reason"] for e in (role, first, second, finish)] == [None, None, None, "length"]
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    assert all(e["usage"] is None for e in (role, first, second, finish))
    assert len({e["id"] for e in (role, first, second, finish, usage)}) == 1
    assert {e["object"] for e in (role, first, second, finish, usage)} == {"chat.completion.chunk"}
    assert done == "data: [DONE]"


def test_stream_omits_usage_by_default(client, triton):
    triton.queue_response(last("Hi"))
    chunks = events(client.post("/v1/chat/completions", json=chat(stream=True)))
    assert all("usage" not in chunk for chunk in chunks[:-1])


def test_comments_are_sent_while_the_model_produces_no_output(client, triton):
    triton.queue_response(delta("a"), TimeoutError(), TimeoutError(), last("b"))
    received = events(client.post("/v1/chat/completions", json=chat(stream=True)))
    assert received.count(": waiting") == 2
    assert received[-1] == "data: [DONE]"


@pytest.mark.parametrize("stream", [False, True])
def test_failure_before_the_first_token_sets_the_http_status_even_with_stream(client, triton, stream):
    call = triton.queue_response(InvalidRequest("too long", param="messages", code="context_length_exceeded"))
    response = client.post("/v1/chat/completions", json=chat(stream=stream))
    assert response.status_code == 400
    assert response.get_json()["error"]["code"] == "context_length_exceeded"
    assert not call.cancelled  # the call has already failed


def test_overload_is_503_with_retry_after(client, triton):
    triton.queue_response(Overloaded("full"))
    response = client.post("/v1/chat/completions", json=chat())
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert response.get_json()["error"]["type"] == "overloaded_error"


def test_failure_during_a_stream_is_sent_as_the_last_event(client, triton):
    call = triton.queue_response(delta("a"), EngineFailure("broken"))
    *_, text, error = events(client.post("/v1/chat/completions", json=chat(stream=True)))
    assert text["choices"][0]["delta"] == {"content": "a"}
    assert error == {"error": {"message": "broken", "type": "api_error", "param": None, "code": "engine_failure"}}
    assert not call.cancelled  # the call has already failed


@pytest.mark.parametrize("stream", [False, True])
def test_missing_finish_reason_is_an_error(client, triton, stream):
    triton.queue_response(delta("a"))
    response = client.post("/v1/chat/completions", json=chat(stream=stream))
    body = events(response)[-1] if stream else response.get_json()
    assert body["error"]["code"] == "engine_failure"


def test_closing_the_response_cancels_the_call(client, triton):
    call = triton.queue_response(delta("a"), delta("b"), delta("c"), last())
    response = client.post("/v1/chat/completions", json=chat(stream=True), buffered=False)
    next(response.response)
    assert not call.cancelled
    response.close()
    assert call.cancelled


def test_a_finished_call_is_not_cancelled(client, triton):
    call = triton.queue_response(delta("a"), last())
    client.post("/v1/chat/completions", json=chat(stream=True)).get_data()
    assert not call.cancelled


@pytest.mark.parametrize(
    ("path", "accept", "stream", "streams"),
    [
        ("/v1/chat/completions", "*/*", None, False),
        ("/chat/completions", "*/*", None, True),
        ("/chat/completions", "application/json", None, False),
        ("/chat/completions", "*/*", False, False),
        ("/v1/chat/completions", "*/*", True, True),
        ("/chat/completions", "application/json", True, True),
    ],
)
def test_default_of_the_stream_field_depends_on_path_and_accept_header(client, triton, path, accept, stream, streams):
    triton.queue_response(last("Hi"))
    response = client.post(path, json=chat(stream=stream), headers={"Accept": accept})
    assert response.content_type.startswith("text/event-stream" if streams else "application/json")
    assert orjson.loads(triton.requests[0]["inputs"]["sampling_parameters"])["stream"] is streams


def test_request_fields_are_sent_to_the_model(client, triton):
    triton.queue_response(last())
    fields = {"temperature": 0.5, "top_p": 0.9, "top_k": 50, "min_p": 0.1, "seed": 3, "stop": "END"}
    fields |= {"frequency_penalty": -1, "presence_penalty": 2, "repetition_penalty": 1.1}
    headers = {"X-Request-Id": "abc-1"}
    client.post("/v1/chat/completions", json=chat(max_tokens=9, **fields), headers=headers)
    request = triton.requests[0]
    assert request["model"] == "tiny-chat"
    assert request["request_id"] == "abc-1"
    assert request["timeout"] == pytest.approx(600, abs=1)
    sampling = orjson.loads(request["inputs"]["sampling_parameters"])
    assert sampling == fields | {"stop": ["END"], "max_tokens": 9, "stream": False}
    assert orjson.loads(request["inputs"]["messages"]) == [{"role": "user", "content": "Hi"}]


DEFAULTS = {"temperature": 0.2, "top_p": 0.9, "top_k": 20, "repetition_penalty": 1.1}
PATHS = ["chat/completions", "completions", "responses"]


def sampled(client, triton, path, **fields):
    triton.queue_response(last())
    body = chat() | fields | ({"input": "a"} if path == "responses" else {"prompt": "a"})
    response = client.post(f"/v1/{path}", json=body)
    assert response.status_code == 200
    sampling = orjson.loads(triton.requests[-1]["inputs"]["sampling_parameters"])
    return {name: value for name, value in sampling.items() if name in DEFAULTS}, response.get_json()


@pytest.mark.parametrize("path", PATHS)
def test_omitted_sampling_parameters_are_the_models_own(client, triton, configure, path):
    configure(generation_defaults=orjson.dumps(DEFAULTS).decode())
    assert sampled(client, triton, path)[0] == DEFAULTS
    sampling, body = sampled(client, triton, path, temperature=0, top_k=5)
    assert sampling == DEFAULTS | {"temperature": 0, "top_k": 5}
    if path == "responses":
        assert (body["temperature"], body["top_p"]) == (0, 0.9)


@pytest.mark.parametrize("path", PATHS)
def test_openais_sampling_defaults_can_be_chosen(make_client, triton, configure, path):
    configure(generation_defaults=orjson.dumps(DEFAULTS).decode())
    sampling, body = sampled(make_client(generation_defaults="openai"), triton, path)
    assert sampling == {}
    if path == "responses":
        assert (body["temperature"], body["top_p"]) == (1, 1)


@pytest.mark.parametrize("defaults", ["{", "[1]", "7", '{"seed": 1}', '{"top_p": "x"}'])
def test_faulty_sampling_defaults_are_an_engine_failure(client, configure, defaults):
    configure(generation_defaults=defaults)
    error = client.post("/v1/chat/completions", json=chat()).get_json()["error"]
    assert (error["code"], "generation_defaults" in error["message"]) == ("engine_failure", True)


def test_max_completion_tokens_overrides_max_tokens(client, triton):
    triton.queue_response(last())
    client.post("/v1/chat/completions", json=chat(max_tokens=9, max_completion_tokens=4))
    assert orjson.loads(triton.requests[0]["inputs"]["sampling_parameters"])["max_tokens"] == 4


def test_text_parts_are_joined_and_developer_messages_become_system_messages(client, triton):
    triton.queue_response(last())
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}]
    client.post("/v1/chat/completions", json=chat(messages=messages))
    expected = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a\nb"}]
    assert orjson.loads(triton.requests[0]["inputs"]["messages"]) == expected


USER = {"role": "user", "content": "Hi"}


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": None}, "model", "missing_parameter"),
        ({"model": 3}, "model", "invalid_type"),
        ({"messages": None}, "messages", "missing_parameter"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": "Hi"}, "messages", "invalid_type"),
        ({"messages": ["Hi"]}, "messages[0]", "invalid_type"),
        ({"messages": [USER, {"role": "user"}]}, "messages[1].content", "missing_parameter"),
        ({"messages": [{"content": "Hi"}]}, "messages[0].role", "missing_parameter"),
        ({"messages": [{"role": "wizard", "content": "Hi"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_type"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content", "invalid_value"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0]", "invalid_value"),
        ({"messages": [{"role": "user", "content": [{"type": "x"}]}]}, "messages[0].content[0].type", "invalid_value"),
        ({"temperature": 2.1}, "temperature", "invalid_value"),
        ({"temperature": -0.1}, "temperature", "invalid_value"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"temperature": True}, "temperature", "invalid_type"),
        ({"top_p": 1.5}, "top_p", "invalid_value"),
        ({"min_p": -1}, "min_p", "invalid_value"),
        ({"top_k": 1.5}, "top_k", "invalid_type"),
        ({"frequency_penalty": 3}, "frequency_penalty", "invalid_value"),
        ({"presence_penalty": -3}, "presence_penalty", "invalid_value"),
        ({"repetition_penalty": 0}, "repetition_penalty", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": "5"}, "max_tokens", "invalid_type"),
        ({"max_completion_tokens": -1}, "max_completion_tokens", "invalid_value"),
        ({"seed": 1.5}, "seed", "invalid_type"),
        ({"stop": ""}, "stop", "invalid_value"),
        ({"stop": 5}, "stop", "invalid_type"),
        ({"stop": ["a", 5]}, "stop[1]", "invalid_type"),
        ({"min_p": 1.0}, "min_p", "invalid_value"),
        ({"top_p": 1e-50}, "top_p", "invalid_value"),
        ({"stop": ["a", ""]}, "stop", "invalid_value"),
        ({"stop": ["a"] * 17}, "stop", "invalid_value"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage", "invalid_type"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": "two"}, "n", "invalid_type"),
        ({"n": 9}, "n", "invalid_value"),
        ({"functions": [{"name": "f"}]}, "functions", "unsupported_parameter"),
        ({"function_call": {"name": "f"}}, "function_call", "unsupported_parameter"),
        ({"logprobs": 1}, "logprobs", "invalid_type"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"top_logprobs": 2, "logprobs": True}, "top_logprobs", "unsupported_parameter"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs", "invalid_value"),
        ({"logit_bias": {"1": 2}}, "logit_bias", "unsupported_parameter"),
        ({"logit_bias": {"one": 2}}, "logit_bias", "invalid_value"),
        ({"logit_bias": {"1": 101}}, "logit_bias", "invalid_value"),
        ({"logit_bias": dict.fromkeys(map(str, range(1_025)), 1)}, "logit_bias", "invalid_value"),
        ({"min_tokens": -1}, "min_tokens", "invalid_value"),
    ],
)
def test_error_for_invalid_input_names_the_field(client, triton, fields, param, code):
    response = client.post("/v1/chat/completions", json=chat(**fields))
    error = response.get_json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, param, code)
    assert error["type"] == "invalid_request_error"
    assert not triton.requests


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1, "tools": [], "tool_choice": "none", "logprobs": False, "logit_bias": {}},
        {"response_format": {"type": "text"}, "stop": None, "temperature": None, "stream_options": None},
        {"user": "u", "metadata": {"a": "b"}, "store": True, "some_future_field": 1},
    ],
)
def test_no_op_values_and_unknown_fields_are_accepted(client, triton, fields):
    triton.queue_response(last())
    assert client.post("/v1/chat/completions", json=chat(**fields)).status_code == 200


@pytest.mark.parametrize("kind", ["image", "image_url", "audio", "input_audio"])
def test_error_for_media_sent_to_a_text_model_names_the_part(client, kind):
    media = {kind: {"url": "file:///etc/passwd", "data": "UklGRg=="}, "audio_url": {"url": "file:///etc/passwd"}}
    parts = [{"type": "text", "text": "What is this?"}, {"type": kind} | media]
    response = client.post("/v1/chat/completions", json=chat(messages=[{"role": "user", "content": parts}]))
    error = response.get_json()["error"]
    assert (response.status_code, error["param"]) == (400, "messages[0].content[1]")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"3", b'{"model": NaN}', b"\xff\xfe", b'{"a":"\\ud800"}', b"[" * 5000]
)
def test_body_that_is_not_a_json_object_is_rejected(client, body):
    response = client.post("/v1/chat/completions", data=body)
    error = response.get_json()["error"]
    assert (response.status_code, error["code"]) == (400, "invalid_json")


def test_body_over_the_size_limit_is_rejected_with_413(make_client):
    response = make_client(max_body_bytes=1000).post("/v1/chat/completions", json=chat(user="x" * 1001))
    assert response.status_code == 413
    assert response.get_json()["error"]["code"] == "payload_too_large"


@pytest.mark.parametrize("name", ["Tiny-Chat", "TINY-CHAT", "ORG/tiny-CHAT"])
def test_model_is_found_in_upper_and_lower_case(client, triton, name):
    triton.queue_response(last())
    assert client.post("/v1/chat/completions", json=chat(model=name)).get_json()["model"] == "org/tiny-chat"
    assert client.get(f"/v1/models/{name}").get_json()["id"] == "org/tiny-chat"

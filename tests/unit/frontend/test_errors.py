"""Error responses have an HTTP status, a request ID, and OpenAI's error object without a stack trace."""

import pytest

from frontend.errors import (
    APIError,
    ClientClosedRequest,
    DeadlineExceeded,
    EngineFailure,
    Forbidden,
    InvalidRequest,
    Overloaded,
    Unavailable,
)
from tests.unit.conftest import chat


def check_format(response, status):
    assert response.status_code == status
    assert response.content_type == "application/json"
    assert response.headers["X-Request-Id"]
    error = response.get_json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["code"]
    assert "Traceback" not in error["message"]
    return error


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (InvalidRequest, 400),
        (Forbidden, 403),
        (ClientClosedRequest, 499),
        (EngineFailure, 500),
        (Unavailable, 503),
        (Overloaded, 503),
        (DeadlineExceeded, 504),
    ],
)
def test_an_error_from_a_model_keeps_its_status_and_message(client, triton, kind, status):
    triton.queue_response(kind("went wrong"))
    assert check_format(client.post("/v1/chat/completions", json=chat()), status)["message"] == "went wrong"


def test_the_message_of_an_unexpected_exception_is_not_leaked(client, triton):
    triton.queue_response(RuntimeError("secret /etc/path"))
    error = check_format(client.post("/v1/chat/completions", json=chat()), 500)
    assert "secret" not in error["message"]


@pytest.mark.parametrize(
    ("path", "body", "param", "message"),
    [
        ("chat/completions", chat(temperature=3), "temperature", "must be less than or equal to 2"),
        ("chat/completions", chat(stop=["a"] * 17), "stop", "must have at most 16 items, not 17"),
        ("chat/completions", chat(stream_options=5), "stream_options", "must be an object"),
        ("chat/completions", chat(messages=5), "messages", "must be an array"),
        ("chat/completions", chat(guided_json=5), "guided_json", "must be an object"),
        ("audio/speech", {"input": "a", "voice": 5}, "voice", "must be a valid string"),
        ("images/generations", {"prompt": " "}, "prompt", "must not be blank"),
    ],
)
def test_validation_error_names_the_field_and_what_is_valid(client, path, body, param, message):
    error = check_format(client.post(f"/v1/{path}", json=body), 400)
    assert (error["param"], error["message"]) == (param, f"Invalid value for '{param}': {message}")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "logit_bias",
            {"1": 2},
            "'logit_bias' is not supported by OpenVINO, the engine of 'org/tiny-chat'; chat models on llama.cpp "
            "support it (see GET /v1/models)",
        ),
        ("function_call", "f", '\'function_call\' must be "none" or "auto"'),
    ],
)
def test_unsupported_fields_and_values_are_rejected_with_an_explanation(client, field, value, message):
    assert check_format(client.post("/v1/chat/completions", json=chat(**{field: value})), 400)["message"] == message


@pytest.mark.parametrize("path", ["/nope", "/v1/nope", "/v1/models/none", "/v1/chat"])
def test_unknown_paths_and_models_are_404(client, path):
    check_format(client.get(path), 404)


def test_wrong_method_is_405_with_allow_header(client):
    response = client.get("/v1/chat/completions")
    check_format(response, 405)
    assert "POST" in response.headers["Allow"]


def test_unknown_model_is_404(client):
    error = check_format(client.post("/v1/chat/completions", json=chat(model="unknown-model")), 404)
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", "model", "model_not_found")


def test_a_request_before_triton_is_reachable_is_503(client, triton):
    triton.down = Unavailable("no Triton")
    error = check_format(client.post("/v1/chat/completions", json=chat()), 503)
    assert (error["message"], error["code"]) == ("Model not initialized", "model_not_loaded")


def test_error_for_a_missing_model_names_the_parameter(client):
    error = check_format(client.post("/v1/chat/completions", json={"messages": []}), 400)
    assert error["message"] == "Invalid request: missing required parameter 'model'"
    assert (error["param"], error["code"]) == ("model", "missing_parameter")


@pytest.mark.parametrize("kind", APIError.__subclasses__())
def test_error_classes_have_a_status_type_and_code(kind):
    assert kind.status >= 400
    assert kind.type
    assert kind.code

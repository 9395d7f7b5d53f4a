"""What each request records: its metrics, its tokens also if the client hangs up, and the header `Server-Timing`."""

import re

import pytest

from tests.unit.conftest import chat, delta, last
from tests.unit.conftest import metric_value as value

pytestmark = pytest.mark.usefixtures("empty_metrics")


def tokens(direction):
    return value("trident_tokens_total", model="org/tiny-chat", direction=direction)


def test_every_response_says_where_the_time_went(client, triton):
    triton.queue_response(last("Hi"))
    for response in (
        client.post("/v1/chat/completions", json=chat()),
        client.get("/v1/models"),
        client.get("/nowhere"),
    ):
        header = response.headers["Server-Timing"]
        assert re.fullmatch(r"queue;dur=\d+\.\d, engine;dur=\d+\.\d, gateway;dur=\d+\.\d", header), header


def test_request_is_counted_when_its_response_ends(client, triton):
    triton.queue_response(delta("Hi"), last())
    response = client.post("/v1/chat/completions", json=chat(stream=True))
    assert value("trident_requests_active", service="chat") == 1
    size = len(response.get_data())
    response.close()
    assert value("trident_requests_active", service="chat") == 0
    assert value("trident_requests_total", service="chat", model="org/tiny-chat", status="200") == 1
    assert value("trident_response_bytes_total", service="chat") == size


def test_rejected_request_is_counted_with_its_status(client):
    client.post("/v1/chat/completions", json=chat(max_tokens=-1)).close()
    assert value("trident_requests_total", service="chat", model="other", status="400") == 1


def test_tokens_are_counted_once_per_call(client, triton):
    triton.queue_response(
        delta("A") | {"num_input_tokens": 7, "num_output_tokens": 1}, delta("B") | {"num_output_tokens": 2}, last("C")
    )
    client.post("/v1/chat/completions", json=chat(stream=True)).get_data()
    assert (tokens("input"), tokens("output")) == (7, 3)
    assert value("trident_time_to_first_token_seconds_count", service="chat", model="org/tiny-chat") == 1


def test_tokens_are_counted_if_the_client_hangs_up(client, triton):
    triton.queue_response(
        delta("A") | {"num_input_tokens": 7, "num_output_tokens": 1}, delta("B") | {"num_output_tokens": 5}, last("C")
    )
    response = client.post("/v1/chat/completions", json=chat(stream=True), buffered=False)
    chunks = response.iter_encoded()
    while b"B" not in next(chunks):
        pass
    response.close()
    assert (tokens("input"), tokens("output")) == (7, 5)


def test_tokens_of_embeddings_are_counted(client):
    client.post("/v1/embeddings", json={"model": "tiny-embedding", "input": ["a", "b"]})
    assert value("trident_tokens_total", model="org/tiny-embedding", direction="input") == 4

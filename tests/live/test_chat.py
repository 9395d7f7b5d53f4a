"""Chat through the complete Trident stack: with the `openai` client, and over plain sockets."""

import base64
import select
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import openai
import orjson
import pytest
import requests

from tests.support.live import MODEL, metric, url, user, wait_until
from tests.support.load import chat_body, run_streams

ID = "HuggingFaceTB/SmolLM2-135M-Instruct"


def ask(client, text, **options):
    return client.chat.completions.create(model=MODEL, messages=user(text), **{"temperature": 0} | options)


def streamed(client, text, **options):
    chunks = list(ask(client, text, stream=True, stream_options={"include_usage": True}, **options))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    finish = [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason]
    return text, finish, chunks[-1].usage


def test_chat_completion_has_text_and_usage(client):
    completion = ask(client, "What is the capital of Japan?")
    assert "Tokyo" in completion.choices[0].message.content
    assert completion.choices[0].finish_reason == "stop"
    assert completion.model == ID
    usage = completion.usage
    assert usage.prompt_tokens > 20
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


@pytest.mark.parametrize("options", [{"max_tokens": 40}, {"max_tokens": 40, "temperature": 1, "seed": 11}])
def test_stream_matches_non_streamed_response(client, options):
    plain = ask(client, "Tell me about foxes.", **options)
    text, finish, usage = streamed(client, "Tell me about foxes.", **options)
    assert text == plain.choices[0].message.content
    assert finish == [plain.choices[0].finish_reason]
    # The first of two equal requests has fewer cached tokens.
    assert usage.model_dump(exclude={"prompt_tokens_details"}) == plain.usage.model_dump(
        exclude={"prompt_tokens_details"}
    )


def test_max_tokens_finishes_with_length(client):
    completion = ask(client, "Count to one hundred.", max_tokens=5)
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage.completion_tokens == 5
    assert ask(client, "Count to one hundred.", max_completion_tokens=3).usage.completion_tokens == 3


def test_stop_string_ends_the_text_and_is_never_leaked(client):
    whole = ask(client, "What is the capital of Japan?").choices[0].message.content
    stop = whole[len(whole) // 2 : len(whole) // 2 + 4]
    completion = ask(client, "What is the capital of Japan?", stop=[stop])
    assert completion.choices[0].message.content == whole[: whole.index(stop)]
    assert completion.choices[0].finish_reason == "stop"
    text, finish, _ = streamed(client, "What is the capital of Japan?", stop=stop)
    assert (text, finish) == (whole[: whole.index(stop)], ["stop"])


def test_stop_string_ends_the_generation_of_a_non_streamed_response(client):
    # Without the stop string, generation would fill the context: over 8,000 tokens, which take more than a minute.
    options = {"stop": [" is"], "extra_body": {"ignore_eos": True}, "timeout": 20}
    completion = ask(client, "What is the capital of Japan?", **options)
    assert completion.choices[0].message.content == "The capital of Japan"
    assert completion.usage.completion_tokens < 10


def test_same_seed_yields_the_same_text(client):
    def story(seed):
        return ask(client, "Tell me a story.", temperature=1, seed=seed, max_tokens=30).choices[0].message.content

    assert story(1) == story(1)
    assert len({story(seed) for seed in (1, 2, 3)}) > 1


def test_texts_differ_without_a_seed(client):
    texts = {ask(client, "Tell me a story.", temperature=1, max_tokens=30).choices[0].message.content for _ in range(3)}
    assert len(texts) > 1


def test_system_message_is_in_the_prompt(client):
    base = ask(client, "Hi", max_tokens=1).usage.prompt_tokens
    messages = [{"role": "system", "content": "You are a pirate captain. " * 5}, *user("Hi")]
    longer = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=1).usage.prompt_tokens
    assert longer > base + 10


# The vocabulary is English, so most non-ASCII characters in these texts take two or three tokens each.
@pytest.mark.parametrize("text", ["🙂🎉 你好，世界！ Ω≈ç√∫", "한국어 — naïve café 👩‍👩‍👧"])
def test_character_split_across_tokens_is_sent_whole(client, text):
    """A `guided_choice` with a single option forces the model to write exactly that text."""
    fields = {"extra_body": {"guided_choice": [text]}}
    chunks = list(ask(client, "Hi", max_tokens=100, stream=True, **fields))
    deltas = [c.choices[0].delta.content for c in chunks if c.choices[0].delta.content]
    assert not any("\ufffd" in delta for delta in deltas)
    assert "".join(deltas) == text
    for limit in range(1, 12):
        content = ask(client, "Hi", max_tokens=limit, **fields).choices[0].message.content
        assert text.startswith(content)


def test_sixteen_concurrent_requests_get_their_own_responses(client):
    def capital(country):
        return ask(client, f"What is the capital of {country}?", max_tokens=24).choices[0].message.content

    countries = ["Japan", "Russia", "Greece", "Egypt"] * 4
    with ThreadPoolExecutor(16) as pool:
        responses = list(pool.map(capital, countries))
    expected = {"Japan": "Tokyo", "Russia": "Moscow", "Greece": "Athens", "Egypt": "Cairo"}
    right = sum(expected[country] in response for country, response in zip(countries, responses, strict=True))
    assert right == 16


def test_two_hundred_streams_all_finish(stack):
    load = run_streams(stack.port, [chat_body(MODEL, f"Number {i}: hello", 5) for i in range(200)])
    assert load.tokens == 1000


class TestBadInput:
    """Invalid requests are rejected and do not affect valid ones."""

    def test_unknown_model_is_404(self, client):
        with pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(model="unknown-model", messages=user("Hi"))
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")

    @pytest.mark.parametrize(
        ("options", "param"),
        [
            ({"temperature": 3}, "temperature"),
            ({"max_tokens": "many"}, "max_tokens"),
            ({"messages": []}, "messages"),
            ({"messages": [{"role": "wizard", "content": "Hi"}]}, "messages[0].role"),
            ({"n": 9}, "n"),
            ({"logprobs": True, "top_logprobs": 3}, "top_logprobs"),
        ],
    )
    def test_invalid_field_is_named(self, client, options, param):
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(**{"model": MODEL, "messages": user("Hi")} | options)
        assert caught.value.param == param

    def test_prompt_longer_than_the_context_is_rejected(self, client):
        with pytest.raises(openai.BadRequestError, match=r"8192 tokens.*resulted in \d{5} tokens") as caught:
            ask(client, "word " * 20_000)
        assert caught.value.code == "context_length_exceeded"

    def test_body_over_5_mb_is_413(self, client):
        with pytest.raises(openai.APIStatusError) as caught:
            ask(client, "x" * 5_100_000)
        assert (caught.value.status_code, caught.value.code) == (413, "payload_too_large")

    def test_malformed_json_is_rejected(self, stack):
        response = requests.post(url(stack, "/v1/chat/completions"), data='{"model": ', timeout=10)
        assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_json")

    def test_invalid_requests_do_not_affect_concurrent_valid_ones(self, client, stack):
        def bad(number):
            body = [b"{", b"[]", orjson.dumps({"model": MODEL, "messages": user("word " * 20_000)})][number % 3]
            return requests.post(url(stack, "/v1/chat/completions"), data=body, timeout=30).status_code

        expected = ask(client, "What is the capital of Japan?").choices[0].message.content
        with ThreadPoolExecutor(8) as pool:
            rejected = pool.map(bad, range(12))
            responses = pool.map(lambda _: ask(client, "What is the capital of Japan?"), range(6))
            assert all("Tokyo" in response.choices[0].message.content for response in responses)
            assert set(rejected) == {400}
        assert ask(client, "What is the capital of Japan?").choices[0].message.content == expected

    def test_binary_noise_causes_no_500_and_does_not_stop_the_server(self, stack):
        with socket.create_connection(("127.0.0.1", stack.port)) as connection:
            connection.sendall(base64.b64decode("AAECAwQFBgcICQ==") * 50 + b"\r\n\r\n")
            assert b"500" not in connection.recv(100)
        assert requests.get(url(stack, "/health"), timeout=10).status_code == 200


class TestClientDisconnect:
    """When a client disconnects, the engine stops the client's request, whether or not the response has begun."""

    @pytest.fixture
    def idle(self, stack):
        """Wait until the engine is idle, according to its metrics, which are published at most once a second."""
        wait_until(lambda: metric(stack, "running") == 0, 10, "an idle engine")

    def disconnect(self, stack, after, **fields):
        body = orjson.loads(chat_body(MODEL, "Tell me a very long story.", 8000)) | fields
        body.pop("stream_options") if not body["stream"] else None
        content = orjson.dumps(body)
        connection = socket.create_connection(("127.0.0.1", stack.port))
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
        connection.sendall(head.encode() + content)
        after(connection)
        connection.close()

    def check_work_stops(self, stack):
        # Allow one second for the work to stop, one for the metric to be published, and half a second as a margin.
        wait_until(lambda: metric(stack, "running") == 0, 2.5, "the engine to stop the work of a disconnected client")

    def test_disconnect_mid_stream_stops_the_generation(self, stack, idle):
        def read_a_little(connection):
            received = b""
            while received.count(b"data: ") < 5:
                received += connection.recv(4096)
            wait_until(lambda: metric(stack, "running") == 1, 3, "a running request")

        self.disconnect(stack, read_a_little, stream=True)
        self.check_work_stops(stack)

    def test_disconnect_before_a_non_streamed_response_stops_the_generation(self, stack, idle):
        self.disconnect(
            stack, lambda _: wait_until(lambda: metric(stack, "running") == 1, 3, "a running request"), stream=False
        )
        self.check_work_stops(stack)

    def test_disconnects_right_after_the_request_leave_nothing_running(self, stack, idle):
        for _ in range(20):
            self.disconnect(stack, lambda _: None, stream=True)
        self.check_work_stops(stack)


def post_briefly(stack, body):
    """Return the response, or None if the request is still queued after 5 seconds."""
    try:
        return requests.post(url(stack, "/v1/chat/completions"), data=body, timeout=5, stream=True)
    except requests.Timeout:
        return None


def connect(stack, body, address):
    """Send a chat request from this local address; return the connection."""
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    connection = socket.create_connection(("127.0.0.1", stack.port), source_address=(address, 0))
    connection.sendall(head + body)
    return connection


def test_full_queue_rejects_requests_and_other_clients_are_served(stack, client):
    body = chat_body(MODEL, "Tell me a very long story.", 4000)
    connections = []
    try:
        connections += [connect(stack, body, "127.0.0.1") for _ in range(400)]
        wait_until(
            lambda: len(rejected(connections)) >= 150,
            20,
            "rejections (one client is limited to 240 of the 320 unfinished requests)",
        )
        # Another client gets its response while hundreds of the first client's requests wait.
        short = chat_body(MODEL, "What is the capital of Japan?", 4)
        with connect(stack, short, "127.0.0.2") as other:
            other.settimeout(30)
            received = b""
            while b"[DONE]" not in received:
                arrived = other.recv(1 << 16)
                assert arrived, received
                received += arrived
        assert received.startswith(b"HTTP/1.1 200")
        wait_until(lambda: metric(stack, "waiting") > 100, 5, "more than 100 queued requests")
        started = time.monotonic()
        # One or two requests of the first client may have ended, but at least one of these 40 new requests is rejected.
        with ThreadPoolExecutor(40) as pool:
            results = list(pool.map(lambda _: post_briefly(stack, body), range(40)))
        responses = [response for response in results if response is not None]
        response = next(response for response in responses if response.status_code == 503)
        assert response.headers["Retry-After"] == "1"
        assert response.json()["error"]["type"] == "overloaded_error"
        for response in responses:
            response.close()
        assert time.monotonic() - started < 10
        # 160 of the 400 requests exceed the client's limit of 240. The 20 requests that the previous test abandoned may
        # still count toward the limit.
        assert len(rejected(connections)) <= 180
        connections += [connect(stack, body, "127.0.0.2") for _ in range(140)]
        wait_until(
            lambda: len(rejected(connections[400:])) >= 15,
            20,
            "rejections (all clients together are limited to 320 unfinished requests)",
        )
    finally:
        for connection in connections:
            connection.close()
    wait_until(lambda: metric(stack, "running") == metric(stack, "waiting") == 0, 20, "an empty queue")
    # The engine becomes idle a moment before the backend stops counting the requests of the closed connections.
    short = chat_body(MODEL, "Hi", 1)
    address = url(stack, "/v1/chat/completions")
    wait_until(lambda: requests.post(address, data=short, timeout=20).status_code == 200, 5, "a request to be accepted")
    assert "Tokyo" in ask(client, "What is the capital of Japan?").choices[0].message.content


def rejected(connections):
    """Return the connections on which a 503 has arrived."""
    readable, _, _ = select.select(connections, [], [], 0)
    return [c for c in readable if c.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 503"]

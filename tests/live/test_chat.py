"""Chat through the whole stack with OpenAI's own client."""

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
    answered = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    finish = [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason]
    return answered, finish, chunks[-1].usage


def test_a_real_answer(client):
    completion = ask(client, "What is the capital of Japan?")
    assert "Tokyo" in completion.choices[0].message.content
    assert completion.choices[0].finish_reason == "stop"
    assert completion.model == ID
    usage = completion.usage
    assert usage.prompt_tokens > 20
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


@pytest.mark.parametrize("options", [{"max_tokens": 40}, {"max_tokens": 40, "temperature": 1, "seed": 11}])
def test_a_stream_is_the_plain_answer_in_pieces(client, options):
    plain = ask(client, "Tell me about foxes.", **options)
    text, finish, usage = streamed(client, "Tell me about foxes.", **options)
    assert text == plain.choices[0].message.content
    assert finish == [plain.choices[0].finish_reason]
    assert usage.model_dump() == plain.usage.model_dump()


def test_max_tokens_ends_with_length(client):
    completion = ask(client, "Count to one hundred.", max_tokens=5)
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage.completion_tokens == 5
    assert ask(client, "Count to one hundred.", max_completion_tokens=3).usage.completion_tokens == 3


def test_a_stop_string_ends_the_answer_and_is_not_in_it(client):
    whole = ask(client, "What is the capital of Japan?").choices[0].message.content
    stop = whole[len(whole) // 2 : len(whole) // 2 + 4]
    completion = ask(client, "What is the capital of Japan?", stop=[stop])
    assert completion.choices[0].message.content == whole[: whole.index(stop)]
    assert completion.choices[0].finish_reason == "stop"
    text, finish, _ = streamed(client, "What is the capital of Japan?", stop=stop)
    assert (text, finish) == (whole[: whole.index(stop)], ["stop"])


def test_a_stop_string_stops_the_engine_of_a_plain_answer_too(client):
    # Without end and limit it would go on for eight thousand tokens, a minute and more.
    options = {"stop": [" is"], "extra_body": {"ignore_eos": True}, "timeout": 20}
    completion = ask(client, "What is the capital of Japan?", **options)
    assert completion.choices[0].message.content == "The capital of Japan"
    assert completion.usage.completion_tokens < 10


def test_the_seed_decides(client):
    def told(seed):
        return ask(client, "Tell me a story.", temperature=1, seed=seed, max_tokens=30).choices[0].message.content

    assert told(1) == told(1)
    assert len({told(seed) for seed in (1, 2, 3)}) > 1


def test_without_a_seed_answers_differ(client):
    texts = {ask(client, "Tell me a story.", temperature=1, max_tokens=30).choices[0].message.content for _ in range(3)}
    assert len(texts) > 1


def test_the_system_message_counts(client):
    base = ask(client, "Hi", max_tokens=1).usage.prompt_tokens
    messages = [{"role": "system", "content": "You are a pirate captain. " * 5}, *user("Hi")]
    longer = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=1).usage.prompt_tokens
    assert longer > base + 10


# The vocabulary is English: every Chinese character and emoji of these answers takes two to four tokens.
@pytest.mark.parametrize("text", ["🙂🎉 你好，世界！ Ω≈ç√∫", "한국어 — naïve café 👩‍👩‍👧"])
def test_characters_split_over_tokens_come_whole(client, text):
    """A choice of one text makes the model write it, whatever the processor's rounding."""
    fields = {"extra_body": {"guided_choice": [text]}}
    chunks = list(ask(client, "Hi", max_tokens=100, stream=True, **fields))
    pieces = [c.choices[0].delta.content for c in chunks if c.choices[0].delta.content]
    assert not any("\ufffd" in piece for piece in pieces)
    assert "".join(pieces) == text
    for limit in range(1, 12):
        content = ask(client, "Hi", max_tokens=limit, **fields).choices[0].message.content
        assert text.startswith(content)


def test_sixteen_at_once_get_their_own_answers(client):
    def capital(country):
        return ask(client, f"What is the capital of {country}?", max_tokens=24).choices[0].message.content

    countries = ["Japan", "Russia", "Greece", "Egypt"] * 4
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(capital, countries))
    expected = {"Japan": "Tokyo", "Russia": "Moscow", "Greece": "Athens", "Egypt": "Cairo"}
    right = sum(expected[country] in answer for country, answer in zip(countries, answers, strict=True))
    assert right == 16


def test_two_hundred_streams_all_finish(stack):
    load = run_streams(stack.port, [chat_body(MODEL, f"Number {i}: hello", 5) for i in range(200)])
    assert load.tokens == 1000


class TestBadInput:
    """Refused at once, in OpenAI's shape, with the field's name."""

    def test_an_unknown_model(self, client):
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
    def test_a_wrong_field(self, client, options, param):
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(**{"model": MODEL, "messages": user("Hi")} | options)
        assert caught.value.param == param

    def test_a_context_that_is_too_long(self, client):
        with pytest.raises(openai.BadRequestError, match=r"8192 tokens.*resulted in \d{5} tokens") as caught:
            ask(client, "word " * 20_000)
        assert caught.value.code == "context_length_exceeded"

    def test_a_body_over_5_mb(self, client):
        with pytest.raises(openai.APIStatusError) as caught:
            ask(client, "x" * 5_100_000)
        assert (caught.value.status_code, caught.value.code) == (413, "payload_too_large")

    def test_malformed_json(self, stack):
        response = requests.post(url(stack, "/v1/chat/completions"), data='{"model": ', timeout=10)
        assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_json")

    def test_bad_requests_among_good_ones_disturb_nobody(self, client, stack):
        def bad(number):
            body = [b"{", b"[]", orjson.dumps({"model": MODEL, "messages": user("word " * 20_000)})][number % 3]
            return requests.post(url(stack, "/v1/chat/completions"), data=body, timeout=30).status_code

        expected = ask(client, "What is the capital of Japan?").choices[0].message.content
        with ThreadPoolExecutor(8) as pool:
            refused = pool.map(bad, range(12))
            answers = pool.map(lambda _: ask(client, "What is the capital of Japan?"), range(6))
            assert all("Tokyo" in answer.choices[0].message.content for answer in answers)
            assert set(refused) == {400}
        assert ask(client, "What is the capital of Japan?").choices[0].message.content == expected

    def test_binary_noise_as_http(self, stack):
        with socket.create_connection(("127.0.0.1", stack.port)) as connection:
            connection.sendall(base64.b64decode("AAECAwQFBgcICQ==") * 50 + b"\r\n\r\n")
            assert b"500" not in connection.recv(100)
        assert requests.get(url(stack, "/health"), timeout=10).status_code == 200


class TestTheClientLeaves:
    """Whoever goes away stops the work, whatever stage it is at."""

    @pytest.fixture
    def idle(self, stack):
        """Nothing runs; the gauges are published once a second."""
        wait_until(lambda: metric(stack, "running") == 0, 10, "an idle engine")

    def leave(self, stack, after, **fields):
        body = orjson.loads(chat_body(MODEL, "Tell me a very long story.", 8000)) | fields
        body.pop("stream_options") if not body["stream"] else None
        content = orjson.dumps(body)
        connection = socket.create_connection(("127.0.0.1", stack.port))
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nContent-Length: {len(content)}\r\n\r\n"
        connection.sendall(head.encode() + content)
        after(connection)
        connection.close()

    def gone(self, stack):
        # A second for the work to stop, one more for the metric to be published.
        wait_until(lambda: metric(stack, "running") == 0, 2.5, "the engine stopped working for a client that left")

    def test_in_the_middle_of_a_stream(self, stack, idle):
        def read_a_little(connection):
            received = b""
            while received.count(b"data: ") < 5:
                received += connection.recv(4096)
            wait_until(lambda: metric(stack, "running") == 1, 3, "a running request")

        self.leave(stack, read_a_little, stream=True)
        self.gone(stack)

    def test_while_waiting_for_a_plain_answer(self, stack, idle):
        self.leave(
            stack, lambda _: wait_until(lambda: metric(stack, "running") == 1, 3, "a running request"), stream=False
        )
        self.gone(stack)

    def test_right_after_asking(self, stack, idle):
        for _ in range(20):
            self.leave(stack, lambda _: None, stream=True)
        self.gone(stack)


def post_briefly(stack, body):
    """Return the answer; None if there is none soon, since the request waits in the queue."""
    try:
        return requests.post(url(stack, "/v1/chat/completions"), data=body, timeout=5, stream=True)
    except requests.Timeout:
        return None


def connect(stack, body, address):
    """Send a chat from an address of this machine; return the connection."""
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    connection = socket.create_connection(("127.0.0.1", stack.port), source_address=(address, 0))
    connection.sendall(head + body)
    return connection


def test_over_the_queues_limit_requests_are_refused_at_once_and_other_clients_are_served(stack, client):
    body = chat_body(MODEL, "Tell me a very long story.", 4000)
    connections = []
    try:
        connections += [connect(stack, body, "127.0.0.1") for _ in range(400)]
        wait_until(lambda: len(refused(connections)) >= 150, 20, "refusals; a client has 240 of 320 places")
        # Another client has its answer while the first one's are made, and hundreds of them wait.
        short = chat_body(MODEL, "What is the capital of Japan?", 4)
        with connect(stack, short, "127.0.0.2") as other:
            other.settimeout(30)
            answered = b""
            while b"[DONE]" not in answered:
                arrived = other.recv(1 << 16)
                assert arrived, answered
                answered += arrived
        assert answered.startswith(b"HTTP/1.1 200")
        wait_until(lambda: metric(stack, "waiting") > 100, 5, "hundreds that wait")
        started = time.monotonic()
        # A place or two may have come free: of forty at least one is refused.
        with ThreadPoolExecutor(40) as pool:
            given = list(pool.map(lambda _: post_briefly(stack, body), range(40)))
        answers = [answer for answer in given if answer is not None]
        response = next(answer for answer in answers if answer.status_code == 503)
        assert response.headers["Retry-After"] == "1"
        assert response.json()["error"]["type"] == "overloaded_error"
        for answer in answers:
            answer.close()
        assert time.monotonic() - started < 10
        # 160 too many, and the twenty that the test before left may not all have been noticed yet.
        assert len(refused(connections)) <= 180
        connections += [connect(stack, body, "127.0.0.2") for _ in range(140)]
        wait_until(lambda: len(refused(connections[400:])) >= 15, 20, "refusals; all clients have 320 places")
    finally:
        for connection in connections:
            connection.close()
    wait_until(lambda: metric(stack, "running") == metric(stack, "waiting") == 0, 20, "an empty queue")
    # The engine is empty a moment before the last of those who left are forgotten.
    short = chat_body(MODEL, "Hi", 1)
    address = url(stack, "/v1/chat/completions")
    wait_until(lambda: requests.post(address, data=short, timeout=20).status_code == 200, 5, "room for one more")
    assert "Tokyo" in ask(client, "What is the capital of Japan?").choices[0].message.content


def refused(connections):
    """The connections on which a 503 has arrived."""
    readable, _, _ = select.select(connections, [], [], 0)
    return [c for c in readable if c.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 503"]

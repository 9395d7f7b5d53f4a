"""Embeddings through the real Triton: what the numbers mean, and that they do not depend on who else asks."""

import random
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
import orjson
import pytest
import requests
from openai import BadRequestError, OpenAI
from scipy.stats import spearmanr
from tokenizers import Tokenizer

from contract.paths import default_model_repository
from tests.support.live import export, url
from tests.support.stack import running_stack

FLOAT, INT8 = "all-minilm-l6-v2", "all-minilm-l6-v2-int8"
SENTENCES = [
    "The cat sat on the mat.",
    "A kitten was sitting on a rug.",
    "Stock prices fell sharply on Monday.",
    "How do I bake bread without yeast?",
    "naïve café — 你好, мир! 🙂",
    "x",
    "In 1905 Albert Einstein published four papers that changed physics, among them the one on special relativity.",
]


@pytest.fixture(scope="module")
def stack():
    export(FLOAT, INT8)
    with running_stack([FLOAT, INT8]) as settings:
        yield settings


@pytest.fixture(scope="module")
def client(stack):
    return OpenAI(base_url=url(stack, "/v1"), api_key="unused", max_retries=0, timeout=120)


def embed(client, texts, model=FLOAT, **options):
    response = client.embeddings.create(model=model, input=texts, **options)
    assert [item.index for item in response.data] == list(range(len(response.data)))
    return np.array([item.embedding for item in response.data])


def texts_of_any_length(count, max_words):
    numbers = random.Random(7)  # noqa: S311
    words = [word.strip(".,") for sentence in SENTENCES[:4] for word in sentence.split()]
    return [f"{i} " + " ".join(numbers.choices(words, k=numbers.randrange(1, max_words))) for i in range(count)]


def reference(texts):
    """Each text by itself through a plain session, mean of its tokens, length 1."""
    folder = default_model_repository() / FLOAT / "1"
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    rows = []
    for text in texts:
        ids = np.array([tokenizer.encode(text).ids])
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        mean = session.run(None, feeds)[0][0].mean(axis=0)
        rows.append(mean / np.linalg.norm(mean))
    return np.array(rows)


def cosines(one, other):
    return (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


class TestEmbeddings:
    def test_as_a_plain_session_computes_them(self, client):
        assert cosines(embed(client, SENTENCES), reference(SENTENCES)).min() >= 0.9999

    def test_int8_is_close_to_float(self, client):
        texts = SENTENCES + texts_of_any_length(40, 60)
        # Without VNNI the processor adds two products in 16 bits, which saturate.
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        limit = 0.99 if "vnni" in flags else 0.96
        assert cosines(embed(client, texts), embed(client, texts, INT8)).min() >= limit

    @pytest.mark.parametrize("model", [FLOAT, INT8])
    def test_similar_where_people_say_so(self, client, model):
        """50 news texts, each pair rated by people (Lee, Pincombe, Welsh 2005)."""
        folder = Path(find_spec("gensim").origin).parent / "test" / "test_data"
        texts = (folder / "lee.cor").read_text(encoding="latin-1").splitlines()
        human = np.loadtxt(folder / "similarities0-1.txt")
        vectors = embed(client, texts, model, extra_body={"truncate": True})
        pairs = np.triu_indices(50, 1)
        assert spearmanr((vectors @ vectors.T)[pairs], human[pairs]).statistic >= 0.45

    def test_meaning_is_near_meaning(self, client):
        vectors = embed(client, SENTENCES)
        similar = vectors @ vectors.T - np.eye(len(SENTENCES))
        assert similar[0].argmax() == 1

    def test_a_vector_does_not_depend_on_its_batch(self, client):
        crowd = texts_of_any_length(100, 80)
        alone = np.concatenate([embed(client, [sentence]) for sentence in SENTENCES])
        together = embed(client, crowd[:50] + SENTENCES + crowd[50:])[50 : 50 + len(SENTENCES)]
        assert np.abs(alone - together).max() <= 1e-5

    def test_2048_texts_keep_their_order(self, client):
        texts = texts_of_any_length(2048, 30)
        vectors = embed(client, texts)
        some = list(range(0, 2048, 97))
        assert np.abs(vectors[some] - reference([texts[i] for i in some])).max() <= 1e-4

    def test_base64_which_the_client_asks_for_equals_float(self, client):
        """The openai package asks for base64 by itself and decodes it."""
        as_float = embed(client, SENTENCES, encoding_format="float")
        assert np.abs(embed(client, SENTENCES) - as_float).max() < 1e-7

    def test_fewer_dimensions(self, client):
        full, short = embed(client, SENTENCES), embed(client, SENTENCES, dimensions=100)
        cut = full[:, :100] / np.linalg.norm(full[:, :100], axis=1, keepdims=True)
        assert short.shape == (len(SENTENCES), 100)
        assert np.abs(short - cut).max() < 1e-6

    def test_token_ids_with_their_special_tokens_are_the_text(self, client):
        tokenizer = Tokenizer.from_file(str(default_model_repository() / FLOAT / "1" / "tokenizer.json"))
        tokenizer.no_padding()
        ids = [tokenizer.encode(sentence).ids for sentence in SENTENCES[:3]]
        assert np.abs(embed(client, ids) - embed(client, SENTENCES[:3])).max() <= 1e-5

    def test_usage_counts_tokens(self, client):
        usage = client.embeddings.create(model=FLOAT, input=["hello world", "hello"]).usage
        assert (usage.prompt_tokens, usage.total_tokens) == (7, 7)  # with [CLS] and [SEP] each


class TestTooLong:
    def test_refused_with_index_and_both_lengths(self, client):
        with pytest.raises(BadRequestError) as caught:
            embed(client, ["fine", "dog " * 400, "fine"])
        error = caught.value.body
        assert (error["param"], error["code"]) == ("input[1]", "context_length_exceeded")
        assert "256" in error["message"]
        assert "402" in error["message"]

    def test_cut_where_that_is_asked_for(self, client):
        cut = embed(client, ["dog " * 400], extra_body={"truncate": True})
        assert np.abs(cut - embed(client, ["dog " * 254])).max() <= 1e-5

    def test_nobody_else_in_the_batch_notices(self, client):
        """Good and bad requests at once, so that Triton puts them into the same batches."""
        expected = embed(client, SENTENCES)

        def ask(number):
            if number % 3:
                return np.abs(embed(client, SENTENCES) - expected).max() <= 1e-5
            with pytest.raises(BadRequestError, match="token"):
                embed(client, ["fine", "dog " * 400] if number % 2 else [[999_999]])
            return True

        with ThreadPoolExecutor(16) as pool:
            assert all(pool.map(ask, range(90)))


def start_raw(stack, body):
    content = orjson.dumps(body)
    connection = socket.create_connection(("127.0.0.1", stack.port))
    head = f"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(content)}\r\n\r\n"
    connection.sendall(head.encode() + content)
    return connection


class TestLoad:
    def test_a_client_that_leaves_stops_its_work(self, client, stack):
        """What it asked for would take ten seconds or more."""
        connection = start_raw(stack, {"model": FLOAT, "input": ["dog " * 250] * 2000, "truncate": True})
        time.sleep(1)
        started = time.monotonic()
        embed(client, ["a short one in between"])
        in_between = time.monotonic() - started
        connection.close()
        time.sleep(1)
        alone = min(timed(lambda: embed(client, ["a short one"])) for _ in range(5))
        assert in_between < 5
        assert alone < 0.2

    def test_beyond_the_queue_is_refused_at_once_and_nothing_is_lost(self, stack):
        body = {"model": FLOAT, "input": "dog " * 250}
        connections = [start_raw(stack, body) for _ in range(500)]
        answers = []
        for connection in connections:
            with connection, connection.makefile("rb") as stream:
                answers.append(stream.read())
        statuses = {int(answer.split(b" ", 2)[1]) for answer in answers}
        refused = [answer for answer in answers if answer.startswith(b"HTTP/1.1 503")]
        assert statuses == {200, 503}
        assert all(b"overloaded_error" in answer and b"Retry-After" in answer for answer in refused)
        assert len(answers) - len(refused) >= 256

    def test_many_at_once(self, client):
        expected = embed(client, SENTENCES)

        def ask(number):
            return np.abs(embed(client, SENTENCES[number % 7]) - expected[number % 7]).max()

        with ThreadPoolExecutor(32) as pool:
            assert max(pool.map(ask, range(640))) <= 1e-5


def timed(action):
    started = time.monotonic()
    action()
    return time.monotonic() - started


@pytest.mark.parametrize("content", ["dog " * 1_200_000, " " * 4_800_000 + "x"])
def test_five_megabytes_of_one_text(stack, client, content):
    """Refused at once, or cut at once: nobody waits for it to be tokenized."""
    address, body = url(stack, "/v1/embeddings"), {"model": FLOAT, "input": content}
    response = requests.post(address, json=body, timeout=30)
    assert response.status_code == 400
    assert f"{len(content)} characters" in response.json()["error"]["message"]
    assert requests.post(address, json=body | {"truncate": True}, timeout=30).status_code == 200
    assert requests.post(address, json=body | {"input": content * 2}, timeout=30).status_code == 413

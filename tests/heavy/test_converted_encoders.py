"""Tests the embeddings of models that are converted with torch: their values, limits and concurrent requests."""

import random
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import requests
from openai import BadRequestError, OpenAI
from scipy.stats import spearmanr
from tokenizers import Tokenizer

from contract.paths import default_model_repository, latest_version
from tests.support.embeddings import (
    check_full_queue_rejects_requests_and_loses_none,
    check_large_request_yields_to_others_and_stops_on_disconnect,
)
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
    rng = random.Random(7)
    words = [word.strip(".,") for sentence in SENTENCES[:4] for word in sentence.split()]
    return [f"{i} " + " ".join(rng.choices(words, k=rng.randrange(1, max_words))) for i in range(count)]


def reference(texts):
    """Return embeddings from a plain ONNX session, one text at a time: the mean token vector, scaled to length 1."""
    folder = latest_version(default_model_repository() / FLOAT)
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
    def test_vectors_match_a_plain_session(self, client):
        assert cosines(embed(client, SENTENCES), reference(SENTENCES)).min() >= 0.9999

    def test_int8_vectors_are_close_to_float_vectors(self, client):
        texts = SENTENCES + texts_of_any_length(40, 60)
        # A processor without VNNI adds two int8 products in 16 bits. The sum can saturate, so the model is less exact.
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        limit = 0.99 if "vnni" in flags else 0.96
        assert cosines(embed(client, texts), embed(client, texts, INT8)).min() >= limit

    @pytest.mark.parametrize("model", [FLOAT, INT8])
    def test_similarity_correlates_with_human_ratings(self, client, model):
        """People rated the similarity of each pair of 50 news texts (Lee, Pincombe, Welsh 2005)."""
        folder = Path(find_spec("gensim").origin).parent / "test" / "test_data"
        texts = (folder / "lee.cor").read_text(encoding="latin-1").splitlines()
        human = np.loadtxt(folder / "similarities0-1.txt")
        vectors = embed(client, texts, model, extra_body={"truncate": True})
        pairs = np.triu_indices(50, 1)
        assert spearmanr((vectors @ vectors.T)[pairs], human[pairs]).statistic >= 0.45

    def test_paraphrase_is_the_most_similar_sentence(self, client):
        vectors = embed(client, SENTENCES)
        similar = vectors @ vectors.T - np.eye(len(SENTENCES))
        assert similar[0].argmax() == 1

    def test_vector_does_not_depend_on_other_texts_in_its_batch(self, client):
        crowd = texts_of_any_length(100, 80)
        alone = np.concatenate([embed(client, [sentence]) for sentence in SENTENCES])
        together = embed(client, crowd[:50] + SENTENCES + crowd[50:])[50 : 50 + len(SENTENCES)]
        assert np.abs(alone - together).max() <= 1e-5

    def test_2048_texts_keep_their_order(self, client):
        texts = texts_of_any_length(2048, 30)
        vectors = embed(client, texts)
        sample = list(range(0, 2048, 97))
        assert np.abs(vectors[sample] - reference([texts[i] for i in sample])).max() <= 1e-4

    def test_base64_equals_float(self, client):
        """The openai package requests base64 by default and decodes it."""
        as_float = embed(client, SENTENCES, encoding_format="float")
        assert np.abs(embed(client, SENTENCES) - as_float).max() < 1e-7

    def test_requesting_fewer_dimensions_returns_the_first_dimensions_normalized(self, client):
        full, short = embed(client, SENTENCES), embed(client, SENTENCES, dimensions=100)
        cut = full[:, :100] / np.linalg.norm(full[:, :100], axis=1, keepdims=True)
        assert short.shape == (len(SENTENCES), 100)
        assert np.abs(short - cut).max() < 1e-6

    def test_token_ids_with_special_tokens_are_equivalent_to_text(self, client):
        tokenizer = Tokenizer.from_file(str(latest_version(default_model_repository() / FLOAT) / "tokenizer.json"))
        tokenizer.no_padding()
        ids = [tokenizer.encode(sentence).ids for sentence in SENTENCES[:3]]
        assert np.abs(embed(client, ids) - embed(client, SENTENCES[:3])).max() <= 1e-5

    def test_usage_counts_tokens(self, client):
        usage = client.embeddings.create(model=FLOAT, input=["hello world", "hello"]).usage
        assert (usage.prompt_tokens, usage.total_tokens) == (7, 7)  # including [CLS] and [SEP] around each text


class TestTooLong:
    def test_too_long_text_is_rejected_with_its_index_and_length(self, client):
        with pytest.raises(BadRequestError) as caught:
            embed(client, ["fine", "dog " * 400, "fine"])
        error = caught.value.body
        assert (error["param"], error["code"]) == ("input[1]", "context_length_exceeded")
        assert "256" in error["message"]
        assert "402" in error["message"]

    def test_too_long_text_is_truncated_on_request(self, client):
        cut = embed(client, ["dog " * 400], extra_body={"truncate": True})
        assert np.abs(cut - embed(client, ["dog " * 254])).max() <= 1e-5

    def test_invalid_requests_do_not_affect_valid_requests_in_their_batch(self, client):
        """The test sends valid and invalid requests concurrently, so that Triton can batch them together."""
        expected = embed(client, SENTENCES)

        def ask(number):
            if number % 3:
                return np.abs(embed(client, SENTENCES) - expected).max() <= 1e-5
            too_long, unknown = (["fine", "dog " * 400], "maximum context length"), ([[999_999]], "Token IDs")
            texts, message = too_long if number % 2 else unknown
            with pytest.raises(BadRequestError, match=message):
                embed(client, texts)
            return True

        with ThreadPoolExecutor(16) as pool:
            assert all(pool.map(ask, range(90)))


class TestLoad:
    def test_large_request_yields_to_others_and_stops_on_disconnect(self, client, stack):
        check_large_request_yields_to_others_and_stops_on_disconnect(
            stack, FLOAT, lambda: embed(client, ["a short text"])
        )

    def test_full_queue_rejects_requests_and_loses_none(self, stack):
        check_full_queue_rejects_requests_and_loses_none(stack, FLOAT)

    def test_concurrent_requests_yield_the_same_vectors_as_single_requests(self, client):
        expected = embed(client, SENTENCES)

        def ask(number):
            return np.abs(embed(client, SENTENCES[number % 7]) - expected[number % 7]).max()

        with ThreadPoolExecutor(32) as pool:
            assert max(pool.map(ask, range(640))) <= 1e-5


@pytest.mark.parametrize("content", ["dog " * 1_200_000, " " * 4_800_000 + "x"])
def test_text_of_4_8_million_characters_is_rejected_or_truncated(stack, client, content):
    """Each request takes less than 30 seconds, because the text is rejected or truncated before it is tokenized."""
    address, body = url(stack, "/v1/embeddings"), {"model": FLOAT, "input": content}
    response = requests.post(address, json=body, timeout=30)
    assert response.status_code == 400
    assert f"{len(content)} characters" in response.json()["error"]["message"]
    assert requests.post(address, json=body | {"truncate": True}, timeout=30).status_code == 200
    assert requests.post(address, json=body | {"input": content * 2}, timeout=30).status_code == 413

"""Embeddings of the starter model through the real Triton: similarity, order, limits, disconnects, a full queue."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import requests
from openai import BadRequestError
from scipy.stats import spearmanr

from tests.support.embeddings import (
    check_full_queue_rejects_requests_and_loses_none,
    check_large_request_yields_to_others_and_stops_on_disconnect,
)
from tests.support.live import url

MODEL = "bge-small-en-v1.5"
SENTENCES = ["The cat sat on the mat.", "A kitten was sitting on a rug.", "Stock prices fell sharply on Monday."]


def embed(client, texts, **options):
    response = client.embeddings.create(model=MODEL, input=texts, **options)
    assert [item.index for item in response.data] == list(range(len(response.data)))
    return np.array([item.embedding for item in response.data])


def test_similarity_correlates_with_human_ratings(client):
    """People rated the similarity of each pair of 50 news texts (Lee, Pincombe, Welsh 2005)."""
    folder = Path(find_spec("gensim").origin).parent / "test" / "test_data"
    texts = (folder / "lee.cor").read_text(encoding="latin-1").splitlines()
    human = np.loadtxt(folder / "similarities0-1.txt")
    vectors = embed(client, texts, extra_body={"truncate": True})
    pairs = np.triu_indices(50, 1)
    assert spearmanr((vectors @ vectors.T)[pairs], human[pairs]).statistic >= 0.45


def test_2048_texts_keep_their_order(client):
    texts = [f"{i} {SENTENCES[i % 3]}" for i in range(2048)]
    vectors = embed(client, texts)
    sample = list(range(0, 2048, 97))
    alone = np.concatenate([embed(client, [texts[i]]) for i in sample])
    assert (vectors[sample] @ alone.T).argmax(axis=1).tolist() == list(range(len(sample)))


def test_base64_and_float_encoding_yield_the_same_vectors(client):
    """The openai package requests base64 by default and decodes it."""
    as_float = embed(client, SENTENCES, encoding_format="float")
    assert np.abs(embed(client, SENTENCES) - as_float).max() < 1e-7


def test_too_long_text_is_rejected_with_its_index_and_length_or_truncated(client):
    with pytest.raises(BadRequestError) as caught:
        embed(client, ["fine", "dog " * 600, "fine"])
    error = caught.value.body
    assert (error["param"], error["code"]) == ("input[1]", "context_length_exceeded")
    assert "512" in error["message"]
    assert "602" in error["message"]
    assert embed(client, ["dog " * 600], extra_body={"truncate": True}).shape == (1, 384)


def test_large_request_yields_to_other_requests_and_stops_on_disconnect(client, stack):
    check_large_request_yields_to_others_and_stops_on_disconnect(stack, MODEL, lambda: embed(client, ["a short text"]))


def test_every_request_to_a_full_queue_gets_a_response_or_a_503(stack):
    check_full_queue_rejects_requests_and_loses_none(stack, MODEL)


def test_text_of_4_8_million_characters_is_rejected_with_its_length(stack):
    body = {"model": MODEL, "input": "dog " * 1_200_000}
    response = requests.post(url(stack, "/v1/embeddings"), json=body, timeout=30)
    assert response.status_code == 400
    assert "4800000 characters" in response.json()["error"]["message"]


def test_vector_does_not_depend_on_the_other_texts(client):
    texts = [
        "Paris",
        "a much longer text " * 12,
        "$1,234.56 + 7% = ?",
        "def add(x, y): return x + y",
        "東京は日本",
        "!!!",
    ]
    texts += [f"Sentence number {number} about something else." for number in range(58)]
    together = np.array([item.embedding for item in client.embeddings.create(model=MODEL, input=texts).data])
    alone = np.array([client.embeddings.create(model=MODEL, input=text).data[0].embedding for text in texts])
    assert (together * alone).sum(axis=1).min() >= 0.9999

"""Embedding and rerank models in GGUF files, through the real Triton, against the same weights in NumPy."""

import numpy as np
import openai
import pytest
import requests
from openai import OpenAI

from backends.common.llamacpp.context import LlamaContext, Piece
from backends.common.llamacpp.vocabulary import LlamaVocabulary
from export.converters.llamacpp import link_gguf
from tests.support.gguf_encoders import RERANK_TEMPLATE, MiniLM, write_tiny_qwen3, write_tiny_qwen3_reranker
from tests.support.gguf_files import copy_gguf, gguf_file
from tests.support.live import MODEL, url
from tests.support.stack import running_stack

TEXTS = [
    "Hello world",
    "The quick brown fox jumps over the lazy dog.",
    "Où est la gare, s'il vous plaît? naïve café",
    "日本語のテキスト",
    "word " * 300,
    "[SEP] text with ##odd tokens & symbols €5, e-mail@x.org",
]
QUERY, DOCUMENTS = "What is a cat?", ["A cat is an animal.", "The stock market fell.", "Dogs are animals, too. " * 20]


@pytest.fixture(scope="module")
def minilm():
    return MiniLM()


@pytest.fixture(scope="module")
def stack(minilm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    files = [
        minilm.write(folder / "mini.gguf"),
        minilm.write(folder / "reranker.gguf", is_reranker=True),
        write_tiny_qwen3_reranker(folder / "qwen3-reranker.gguf"),
        copy_gguf(gguf_file(MODEL), folder / "decoder.gguf", "llama", {"llama.pooling_type": 3}),
    ]
    with running_stack([*map(str, files)], "--model-repository", str(folder / "repository")) as settings:
        yield settings


@pytest.fixture(scope="module")
def client(stack):
    return OpenAI(base_url=url(stack, "/v1"), api_key="unused", max_retries=0, timeout=60)


def embed(client, texts, model="mini", **options):
    return np.array([item.embedding for item in client.embeddings.create(model=model, input=texts, **options).data])


def rerank(stack, model, query, documents, **fields):
    body = {"model": model, "query": query, "documents": documents, "raw_scores": True} | fields
    response = requests.post(url(stack, "/v1/rerank"), json=body, timeout=60)
    assert response.status_code == 200, response.text
    results = sorted(response.json()["results"], key=lambda result: result["index"])
    return [result["score"] for result in results]


def test_the_task_comes_from_the_file(client):
    tasks = {model.id: model.task for model in client.models.list().data}
    assert tasks == {"mini": "embedding", "decoder": "embedding", "reranker": "rerank", "qwen3-reranker": "rerank"}


def test_embeddings_are_those_of_the_published_weights(client, minilm):
    response = client.embeddings.create(model="mini", input=TEXTS)
    for text, item in zip(TEXTS, response.data, strict=True):
        assert np.dot(item.embedding, minilm.embed(text)) == pytest.approx(1, abs=1e-4)
        assert np.linalg.norm(item.embedding) == pytest.approx(1, abs=1e-4)
    assert response.usage.prompt_tokens == sum(len(minilm.tokenizer.encode(text).ids) for text in TEXTS)


def test_a_vector_does_not_depend_on_the_other_texts(client):
    together = embed(client, TEXTS * 30)
    alone = np.concatenate([embed(client, [text]) for text in TEXTS])
    assert np.abs((together.reshape(30, 6, -1) * alone).sum(axis=-1) - 1).max() < 1e-4


def test_token_ids_are_equivalent_to_text(client, minilm):
    ids = minilm.tokenizer.encode(TEXTS[0]).ids
    assert np.dot(embed(client, [ids])[0], embed(client, [TEXTS[0]])[0]) == pytest.approx(1, abs=1e-4)
    with pytest.raises(openai.BadRequestError):
        embed(client, [[99_999_999]])


def test_too_long_texts_are_rejected_with_index_and_length_or_truncated(client, minilm):
    with pytest.raises(openai.BadRequestError) as caught:
        embed(client, ["fine", "dog " * 600])
    assert (caught.value.param, caught.value.code) == ("input[1]", "context_length_exceeded")
    assert "602" in str(caught.value)
    truncated = embed(client, ["dog " * 600], extra_body={"truncate": True})[0]
    assert np.dot(truncated, minilm.embed("dog " * 510)) == pytest.approx(1, abs=1e-4)


def test_scores_are_those_of_the_same_weights(stack, minilm):
    expected = [minilm.score(QUERY, document) for document in DOCUMENTS]
    assert rerank(stack, "reranker", QUERY, DOCUMENTS) == pytest.approx(expected, abs=0.02)
    long = "word " * 600
    shortened = [minilm.score(QUERY, "word " * (512 - 8)), minilm.score("word " * 254, "cat " * 253)]
    found = [
        *rerank(stack, "reranker", QUERY, [long], truncate=True),
        *rerank(stack, "reranker", long, ["cat " * 600], truncate=True),
    ]
    assert found == pytest.approx(shortened, abs=0.05)


def test_a_language_model_reranks_with_the_template_of_its_file(stack, tmp_path):
    version = tmp_path / "model" / "1"
    version.mkdir(parents=True)
    link_gguf(write_tiny_qwen3(tmp_path / "qwen3.gguf"), version, {})
    vocabulary, context = (
        LlamaVocabulary(version),
        LlamaContext(version, cells=512, max_batch=512, max_running=2, threads=2),
    )
    expected = []
    for document in DOCUMENTS:
        ids = vocabulary.encode(RERANK_TEMPLATE.format(query=QUERY, document=document))
        [logits] = context.decode([Piece(0, 0, ids, 1)])
        expected.append(float(logits[9] - logits[7]))
        context.remove(0)
    assert len({round(score, 1) for score in expected}) > 1
    assert rerank(stack, "qwen3-reranker", QUERY, DOCUMENTS) == pytest.approx(expected, abs=0.02)


def test_a_decoder_embeds_with_its_last_token(client):
    vectors = embed(client, ["The cat sat on the mat.", "The cat sat on a mat.", "Stocks fell on Monday."], "decoder")
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    alone = embed(client, ["The cat sat on the mat."], "decoder")[0]
    assert vectors[0] @ alone == pytest.approx(1, abs=1e-2)

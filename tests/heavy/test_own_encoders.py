"""Embedding, rerank and Whisper models in publishers' folders: conversion, comparison with the original, serving."""

import re

import numpy as np
import pytest
import requests
from openai import OpenAI

from contract.paths import default_model_repository, latest_version
from tests.support.live import MODEL, run_in, url
from tests.support.own_models import export_folder
from tests.support.recordings import MOONSHINE, package_files
from tests.support.stack import running_stack

KINDS = ["bert", "mpnet", "xlm-roberta", "modernbert", "qwen3", "cross-encoder"]


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return tmp_path_factory.mktemp("repository")


@pytest.fixture(scope="module")
def recordings():
    return package_files(MOONSHINE)


@pytest.fixture(scope="module", autouse=True)
def cache(recordings, tmp_path_factory):
    """Use an empty cache, because a conversion of an earlier run would not be compared with the original again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIDENT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def exported(repository, tmp_path_factory):
    """Export a tiny encoder of each kind, and Whisper base; return the outputs."""
    folder, outputs = tmp_path_factory.mktemp("published"), {}
    tokenizer = latest_version(default_model_repository() / "bge-small-en-v1.5")
    for kind in KINDS:
        source = latest_version(default_model_repository() / MODEL) if kind == "qwen3" else tokenizer
        run_in(".venv-onnx", "tiny_encoder", source, folder / f"Tiny-{kind}", kind)
        outputs[kind] = export_folder(folder / f"Tiny-{kind}", repository)
    whisper = latest_version(default_model_repository() / "whisper-base")
    run_in(".venv-openvino", "hugging_face_whisper", whisper, folder / "My-Whisper")
    outputs["whisper"] = export_folder(folder / "My-Whisper", repository)
    return outputs


@pytest.fixture(scope="module")
def stack(exported, repository):
    names = [f"tiny-{kind}" for kind in KINDS] + ["my-whisper"]
    with running_stack(names, "--model-repository", str(repository)) as settings:
        yield settings


@pytest.fixture(scope="module")
def client(stack):
    return OpenAI(base_url=url(stack, "/v1"), api_key="unused", max_retries=0, timeout=60)


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_vectors_are_those_of_the_original(exported, kind):
    mean, least = map(float, re.search(r"original ([\d.]+) on average, ([\d.]+) at least", exported[kind]).groups())
    assert mean > 0.99
    assert least > 0.97


def test_scores_and_transcription_are_those_of_the_original(exported):
    assert float(re.search(r"differ by at most ([\d.]+)% of their range", exported["cross-encoder"])[1]) < 15
    assert "the first tokens are those of the original" in exported["whisper"]


def embed(client, kind, texts, **fields):
    vectors = client.embeddings.create(model=f"Tiny-{kind}", input=texts, **fields).data
    return np.array([item.embedding for item in vectors])


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_embeddings_are_normalized_and_independent_of_the_batch(client, kind):
    texts = ["The sea is calm.", "ok", "A long text about nothing in particular. " * 20]
    together = embed(client, kind, texts)
    assert np.linalg.norm(together, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    for text, vector in zip(texts, together, strict=True):
        assert embed(client, kind, text)[0] @ vector > 0.99999


def test_prompts_of_the_publisher_are_used(client):
    plain, query = (embed(client, "bert", "sea", extra_body={"input_type": kind})[0] for kind in ("document", "query"))
    prompted = embed(client, "bert", "Instruct: find it\nQuery:sea", extra_body={"input_type": "document"})[0]
    assert query @ prompted > 0.99999 > query @ plain


def test_reranker_scores_documents(stack):
    body = {
        "model": "Tiny-cross-encoder",
        "query": "sea",
        "documents": ["The sea.", "A mountain.", "Bread and butter."],
    }
    results = requests.post(url(stack, "/v1/rerank"), json=body, timeout=30).json()["results"]
    assert sorted(result["index"] for result in results) == [0, 1, 2]
    scores = [result["relevance_score"] for result in results]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 3


def test_whisper_transcribes(client, recordings):
    with (recordings / "beckett.wav").open("rb") as file:
        text = client.audio.transcriptions.create(model="My-Whisper", file=file).text
    assert len(text.split()) > 5
    assert re.search(r"\b(the|and|you|try|fail)\b", text.lower())


def test_int4_is_rejected_for_encoders(repository, tmp_path):
    tokenizer = latest_version(default_model_repository() / "bge-small-en-v1.5")
    run_in(".venv-onnx", "tiny_encoder", tokenizer, tmp_path / "tiny", "bert")
    assert "encoders have no int4 weights" in export_folder(
        tmp_path / "tiny", repository, "--precision", "int4", code=1
    )

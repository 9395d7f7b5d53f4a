"""A reranker that is a language model: it scores a document by the logits of the words "yes" and "no"."""

import json

import pytest
import requests

from contract.paths import default_model_repository, latest_version
from export.catalog import load_catalog
from tests.support.live import MODEL, export_weights, run_in, url
from tests.support.stack import running_stack


def test_score_is_the_logit_of_yes_minus_the_logit_of_no(tmp_path):
    """The scores of a model with random weights match a computation that follows Qwen3-Reranker's model card."""
    name = "qwen3-reranker-0.6b"
    documents = ["Rust is a language.", "Apples are fruit.", "yes", "no " * 40]
    template = load_catalog()[name].parameters["template"]
    prompts = [template.replace("{query}", "What is Rust?").replace("{document}", document) for document in documents]
    (tmp_path / "prompts.json").write_text(json.dumps(prompts), encoding="utf-8")
    tokenizer = latest_version(default_model_repository() / MODEL) / "tokenizer.json"
    output = run_in(".venv-onnx", "tiny_qwen3_reranker", tokenizer, tmp_path / "w", tmp_path / "prompts.json")
    expected, repository = json.loads(output), export_weights(name, tmp_path / "w")
    with running_stack([name], "--model-repository", str(repository)) as settings:
        question = {"query": "What is Rust?", "documents": documents, "raw_scores": True}
        body = requests.post(url(settings, "/v1/rerank"), json=question, timeout=60).json()
        assert body["model"] == "Qwen/Qwen3-Reranker-0.6B"
        scores = {result["index"]: result["score"] for result in body["results"]}
        assert [scores[i] for i in range(4)] == pytest.approx(expected, abs=2e-3)
        assert max(expected) - min(expected) > 0.5

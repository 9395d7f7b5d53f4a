"""Chat models in publishers' folders: conversion for both engines, comparison with the original, and serving."""

import re

import pytest
from openai import OpenAI

from contract.paths import default_cache, latest_version
from export.converters.self_check import check_chat
from export.fetch import ExportError
from export.llamacpp import fetch_libraries
from tests.support.gguf_files import gguf_file
from tests.support.live import MODEL, run_in, url, user
from tests.support.own_models import export_folder
from tests.support.stack import running_stack

QUESTION = "What is the capital of Japan?"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Return SmolLM2 135M as a folder with safetensors.

    The cache has no conversions, because one of an earlier run would not be compared with the original again.
    """
    folder = tmp_path_factory.mktemp("published") / "SmolLM2-Published"
    run_in(".venv-gguf", "hugging_face_folder", gguf_file(MODEL), folder)
    cache = tmp_path_factory.mktemp("cache")
    (cache / "llama.cpp").symlink_to(fetch_libraries(default_cache(), "cpu").parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIDENT_CACHE", str(cache))
        yield folder


def ratio(output):
    return float(re.search(r"perplexity [\d.]+, ([\d.]+) of the original's", output)[1])


@pytest.mark.parametrize(
    ("flags", "limit"),
    [
        (("--engine", "openvino"), 1.02),
        (("--engine", "openvino", "--precision", "f16"), 1.01),
        (("--engine", "llamacpp"), 1.02),
        (("--engine", "llamacpp", "--precision", "int4"), 1.08),
    ],
)
def test_exported_model_is_as_good_as_the_original_and_answers(published, tmp_path, flags, limit):
    output = export_folder(published, tmp_path, *flags)
    assert 0.98 < ratio(output) <= limit
    with running_stack(["smollm2-published"], "--model-repository", str(tmp_path), engine=flags[1]) as settings:
        client = OpenAI(base_url=url(settings, "/v1"), api_key="unused", max_retries=0, timeout=60)
        [model] = client.models.list().data
        assert model.id == "SmolLM2-Published"
        completion = client.chat.completions.create(
            model=model.id, messages=user(QUESTION), temperature=0, max_tokens=20
        )
        assert "Tokyo" in completion.choices[0].message.content


def test_model_that_loses_too_much_is_refused_and_the_previous_version_stays(published, tmp_path):
    export_folder(published, tmp_path, "--engine", "openvino")
    before = latest_version(tmp_path / "smollm2-published")
    output = export_folder(published, tmp_path, "--engine", "openvino", "--precision", "int4", code=1)
    assert ratio(output) > 1.08
    assert "int4 weights lose too much quality" in output
    assert latest_version(tmp_path / "smollm2-published") == before
    export_folder(published, tmp_path, "--engine", "openvino", "--precision", "int4", "--force")
    assert latest_version(tmp_path / "smollm2-published").name == "2"
    assert "version 1 is restored" in export_folder("smollm2-published", tmp_path, "--rollback")
    assert latest_version(tmp_path / "smollm2-published").name == "1"


@pytest.mark.parametrize(
    ("model_type", "engine"),
    [("qwen3", "openvino"), ("gemma3_text", "openvino"), ("qwen3_moe", "openvino"), ("olmo2", "llamacpp")],
)
def test_architectures_compute_what_the_original_does(published, tmp_path, model_type, engine):
    folder = tmp_path / f"tiny-{model_type.replace('_', '-')}"
    run_in(".venv-openvino", "tiny_chat_model", published, folder, model_type)
    output = export_folder(folder, tmp_path / "repository", "--engine", engine, "--force")
    assert float(re.search(r"correlation ([\d.]+)", output)[1]) > 0.95


def test_model_that_computes_something_else_is_refused_even_with_force(published, tmp_path):
    export_folder(published, tmp_path, "--engine", "llamacpp")
    exported = latest_version(tmp_path / "smollm2-published")
    reference = {"tokens": list(range(100, 200)), "losses": [float(i % 7) for i in range(99)]}
    parameters = {"engine": "llamacpp", "context_length": "8192", "cache_tokens": "1024"}
    with pytest.raises(ExportError, match="does not compute what the original does"):
        check_chat(exported, parameters, reference, {"precision": "int8", "force": "true"})

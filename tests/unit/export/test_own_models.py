"""Entries for users' own models: names, memory, and models with the same name."""

import json
import subprocess
import sys

import numpy as np
import pytest
from gguf import GGUFWriter, PoolingType

from export import own_models
from export.catalog import load_catalog
from export.fetch import ExportError
from export.local_names import free_name, recorded_origin, require_weights
from export.own_models import require_free_name
from tests.unit.export.conftest import local_entry


def folder_of(repository, name, weights):
    folder = repository / name
    folder.mkdir(parents=True)
    (folder / "export.json").write_text(json.dumps({"weights": str(weights)}), encoding="utf-8")


def test_entry_describes_the_file(gguf_model):
    entry = local_entry(gguf_model)
    assert (entry.name, entry.id, entry.description) == ("tiny", "tiny", "llama, 0M parameters, Q8_0")
    assert (entry.license, entry.weights) == ("unknown", str(gguf_model))


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("Qwen2.5-Coder-0.5B-Instruct-Q4_K_M", "qwen2.5-coder-0.5b-instruct-q4_k_m"),
        ("我的模型 (1)", "1"),
        ("模型", "model"),
        ("smollm2-135m", "smollm2-135m-gguf"),  # the catalog has this name
    ],
)
def test_name_is_derived_from_the_file(stem, name):
    assert free_name(stem, "gguf") == name


def test_model_that_does_not_fit_into_memory_is_refused_with_numbers(gguf_model, monkeypatch):
    monkeypatch.setattr(own_models, "memory_limit", lambda: 500_000_000)
    with pytest.raises(ExportError, match=r"tiny needs 0\.6 GB of memory .* this machine has 0\.5 GB"):
        local_entry(gguf_model)


def test_missing_and_damaged_files_are_refused(tmp_path):
    with pytest.raises(ExportError, match="was not found"):
        local_entry(tmp_path / "none.gguf")
    (tmp_path / "text.gguf").write_text("hello " * 100, encoding="utf-8")
    with pytest.raises(ExportError, match="not a GGUF file"):
        local_entry(tmp_path / "text.gguf")


def test_two_files_cannot_have_the_same_name(gguf_model, tmp_path):
    repository, other = tmp_path / "repository", tmp_path / "other" / "tiny.gguf"
    entry = local_entry(gguf_model)
    require_free_name(entry, repository)
    folder_of(repository, "tiny", gguf_model)
    require_free_name(entry, repository)
    other.parent.mkdir()
    other.write_bytes(gguf_model.read_bytes())
    moved = local_entry(other)
    with pytest.raises(ExportError, match="would have the same name as"):
        require_free_name(moved, repository)
    gguf_model.unlink()
    require_free_name(moved, repository)  # the file has moved


def test_folder_of_the_operator_is_not_replaced(gguf_model, tmp_path):
    (tmp_path / "repository" / "tiny").mkdir(parents=True)
    with pytest.raises(ExportError, match="which the export did not create"):
        require_free_name(local_entry(gguf_model), tmp_path / "repository")


def test_names_need_none_of_the_modules_of_a_conversion():
    code = "import sys, export.local_names; print({'gguf', 'numpy', 'openvino', 'tritonclient'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"set()\n"


def test_entry_of_an_embedding_model_leaves_normalization_to_its_file(tmp_path, monkeypatch):
    path = tmp_path / "encoder.gguf"
    writer = GGUFWriter(path, "bert")
    writer.add_pooling_type(PoolingType.CLS)
    writer.add_tensor("weights", np.zeros((8, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    # Without a KV cache, and in the weights of the file whatever the engine of chat models is.
    monkeypatch.setattr(own_models, "memory_limit", lambda: 400_000_000)
    entry = local_entry(path, requantize=True)
    assert (entry.task, entry.backend, entry.converter) == ("embedding", "encoder", "llamacpp-encoder")
    assert "normalize" not in entry.parameters
    assert entry.parameters["max_batch_tokens"] == "512"


def test_missing_files_of_a_model_are_named_with_their_flags(tmp_path):
    version = tmp_path / "m" / "1"
    (version / "adapters").mkdir(parents=True)
    for name, flag in (("model.gguf", "path,"), ("mmproj.gguf", "--mmproj"), ("adapters/a.gguf", "--lora")):
        (version / name).symlink_to("/nowhere/x.gguf")
        with pytest.raises(ExportError, match=f"x.gguf was not found.*{flag}"):
            require_weights(tmp_path / "m")
        (version / name).unlink()
    require_weights(tmp_path / "m")


@pytest.mark.parametrize(
    ("previous", "origin", "same"),
    [
        ("hf:a/b@111", "hf:a/b@222", True),
        ("hf:a/b@111", "ms:a/b@master", False),
        ("hf:a/b@111", "hf:c/b@111", False),
        ("https://example.org/b.gguf", "https://example.com/b.gguf", False),
    ],
)
def test_models_from_elsewhere_have_their_name_to_themselves(gguf_model, tmp_path, previous, origin, same):
    folder = tmp_path / "repository" / "tiny"
    folder.mkdir(parents=True)
    (folder / "export.json").write_text(json.dumps({"origin": previous, "weights": "/x"}), encoding="utf-8")
    entry = local_entry(gguf_model).model_copy(update={"origin": origin})
    if same:
        require_free_name(entry, folder.parent)
    else:
        with pytest.raises(ExportError, match="would have the same name as"):
            require_free_name(entry, folder.parent)
    assert recorded_origin(folder) is None  # it is served as it is


def test_origin_of_a_model_is_a_file_that_still_exists(gguf_model, tmp_path):
    folder_of(tmp_path, "tiny", gguf_model)  # as earlier versions of the export recorded it
    assert recorded_origin(tmp_path / "tiny") == str(gguf_model)
    gguf_model.unlink()
    assert recorded_origin(tmp_path / "tiny") is None
    assert recorded_origin(tmp_path / "missing") is None


@pytest.mark.parametrize(
    ("origin", "is_same"),
    [
        ("hf:Qwen/Qwen3-0.6B@1234", True),
        ("ms:qwen/qwen3-0.6b@master", True),
        (None, True),
        ("hf:someone/qwen3-0.6b@1", False),
        ("/models/qwen3-0.6b.gguf", False),
    ],
)
def test_a_catalog_model_does_not_replace_a_users_own_model(tmp_path, origin, is_same):
    folder = tmp_path / "qwen3-0.6b"
    folder.mkdir()
    (folder / "export.json").write_text(json.dumps({"origin": origin}), encoding="utf-8")
    entry = load_catalog()["qwen3-0.6b"]
    if is_same:
        require_free_name(entry, tmp_path)
    else:
        with pytest.raises(ExportError, match="has a model of your own"):
            require_free_name(entry, tmp_path)

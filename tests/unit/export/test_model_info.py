"""What a publisher's configuration says: tasks, sizes, contexts and memory."""

import json

import pytest

from export import own_models
from export.fetch import ExportError
from export.model_info import read_info
from export.resolve import Choices, plan, resolve
from export.sources.model_files import FolderFiles

CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "max_position_embeddings": 4096,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "hidden_size": 64,
    "torch_dtype": "bfloat16",
}


def write_folder(folder, weights=b"w" * 1000, files=(), **config):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | config), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(weights)
    for name in files:
        (folder / name).write_text("{}", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("architecture", "files", "task"),
    [
        ("Qwen3ForCausalLM", (), "chat"),
        ("GPT2LMHeadModel", (), "chat"),
        ("Qwen3ForCausalLM", ("modules.json",), "embedding"),
        ("BertModel", (), "embedding"),
        ("XLMRobertaModel", ("config_sentence_transformers.json",), "embedding"),
        ("BertForSequenceClassification", (), "rerank"),
        ("WhisperForConditionalGeneration", (), "transcription"),
    ],
)
def test_task_follows_from_the_architecture_and_the_files(tmp_path, architecture, files, task):
    folder = write_folder(tmp_path / "m", files=files, architectures=[architecture], model_type="gpt2")
    assert read_info("m", FolderFiles(folder)).task == task


def test_sizes_and_context_are_read_from_the_configuration(tmp_path):
    info = read_info("m", FolderFiles(write_folder(tmp_path / "m")))
    assert (info.context_length, info.num_parameters) == (4096, 500)
    assert info.kv_bytes_per_token == 2 * 2 * 4 * 2 * 8  # keys and values, float16, layers, heads, size
    nested = write_folder(tmp_path / "n", text_config={"max_position_embeddings": 99, "dtype": "float32"})
    assert read_info("n", FolderFiles(nested)).context_length == 99


def test_precision_depends_on_the_memory(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "m", b"w" * 8_000_000)  # 4 million parameters

    def precision(memory, **choices):
        monkeypatch.setattr(own_models, "memory_limit", lambda: memory)
        return resolve(str(folder), Choices(tmp_path, **choices)).entry.conversion["precision"]

    fixed = own_models.CACHE_BYTES + own_models._OVERHEAD
    assert precision(fixed + 4_300_000) == "int8"
    assert precision(fixed + 3_000_000) == "int4"
    assert precision(fixed + 8_000_000, precision="f16") == "f16"
    for memory, choices in ((fixed + 2_000_000, {}), (fixed + 5_000_000, {"precision": "f16"})):
        with pytest.raises(ExportError, match=r"m needs 0\.6 GB of memory \(0\.0 GB for (int4|f16) weights"):
            precision(memory, **choices)


def test_plan_says_what_an_export_would_do(tmp_path):
    folder = write_folder(tmp_path / "My-Model")
    shown = plan(resolve(str(folder), Choices(tmp_path)), "openvino", tmp_path / "repository")
    assert (shown["name"], shown["task"], shown["engine"]) == ("my-model", "chat", "OpenVINO int8")
    assert (shown["architecture"], shown["context"]) == ("Qwen3ForCausalLM", "4,096 tokens")
    assert "for the KV cache" in shown["memory"]


def test_folder_in_the_cache_of_a_hub_has_the_name_of_its_repository(tmp_path):
    folder = tmp_path / "models--org--Tiny-Chat" / "snapshots" / "0123"
    folder.parent.mkdir(parents=True)
    entry = resolve(str(write_folder(folder)), Choices(tmp_path)).entry
    assert (entry.id, entry.name) == ("org/Tiny-Chat", "tiny-chat")

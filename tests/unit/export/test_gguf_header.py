"""The header of GGUF files: what it says, and what happens with damaged files."""

import struct

import numpy as np
import pytest
from gguf import GGUFWriter

from export.converters import llamacpp
from export.converters.llamacpp import encoder_parameters_of, parameters_of, special_tokens, task_of
from export.converters.template_formats import template_of
from export.fetch import ExportError
from export.gguf_header import InvalidGGUF, projector_image_tokens, read_header


def test_a_header_is_read(gguf_model):
    header = read_header(gguf_model)
    assert (header.architecture, header.num_parameters, header.file_type) == ("llama", 256, "Q8_0")
    # Two layers of two heads with 16 keys and 16 values in two bytes each.
    assert header.kv_bytes_per_token == 2 * 2 * (16 + 16) * 2
    assert special_tokens(header) == {"bos_token": "<s>", "eos_token": "</s>"}
    assert parameters_of(header, template_of(header.metadata)) == {
        "engine": "llamacpp",
        "context_length": "4096",
        "kv_bytes_per_token": "256",
        "reasoning": "think",
        "generation_defaults": '{"temperature": 0.6}',
    }


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-1], "truncated"),
        (lambda content: content[:100], "the file is damaged"),
        (lambda content: content[:300], "truncated or damaged"),
        (lambda content: content[:3], "too short"),
        (lambda content: b"GGML" + content[4:], "not a GGUF file"),
        (lambda content: content[:4] + struct.pack("<I", 9) + content[8:], "version 9 is not supported"),
        (lambda content: content[:8] + struct.pack("<Q", 10**12) + content[16:], "claims 1,000,000,000,000 tensors"),
        (lambda content: content[:16] + struct.pack("<Q", 10**12) + content[24:], "1,000,000,000,000 keys"),
        (lambda content: content[:24] + struct.pack("<Q", 2 << 30) + content[32:], "truncated or damaged"),
        (lambda content: content.replace(b"general.architecture", b"general.architecturE"), "general.architecture"),
    ],
)
def test_damaged_files_are_rejected(gguf_model, damage, message):
    gguf_model.write_bytes(damage(gguf_model.read_bytes()))
    with pytest.raises(InvalidGGUF, match=message):
        read_header(gguf_model)


def test_a_file_in_several_parts_is_rejected(tmp_path):
    writer = GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_uint16("split.count", 3)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(InvalidGGUF, match="split into several files"):
        read_header(tmp_path / "a.gguf")


@pytest.mark.parametrize(
    ("architecture", "values", "task", "parameters"),
    [
        ("llama", {"context_length": 4096}, "chat", None),
        ("bert", {"context_length": 512, "embedding_length": 384}, "embedding", ("512", "mean", "true", "384")),
        ("nomic-bert-moe", {"pooling_type": 1, "context_length": 2048}, "embedding", ("2048", "mean", "true", "0")),
        ("bert", {"pooling_type": 2, "embedding_length": 8}, "embedding", ("512", "cls", "true", "8")),
        (
            "qwen3",
            {"pooling_type": 3, "context_length": 32_768, "embedding_length": 1024},
            "embedding",
            ("8192", "last", "true", "1024"),
        ),
        (
            "gemma-embedding",
            {"pooling_type": 1, "embedding_length": 768, "embedding_length_out": 512, "context_length": 99},
            "embedding",
            ("99", "mean", "true", "512"),
        ),
        ("bert", {"pooling_type": 4, "context_length": 512}, "rerank", ("512", "rank", "false", None)),
        ("qwen2", {"pooling_type": 0, "context_length": 512}, "chat", None),
        ("qwen2", {"pooling_type": [3], "context_length": 512}, "chat", None),
    ],
)
def test_task_and_pooling_come_from_the_header(tmp_path, architecture, values, task, parameters):
    header = read_header(write_header(tmp_path / "a.gguf", architecture, **values))
    assert task_of(header) == task
    if parameters:
        found = encoder_parameters_of(header)
        names = ("context_length", "pooling", "normalize", "dimensions")
        assert tuple(found.get(name) for name in names) == parameters


def test_template_for_rerank_needs_its_placeholders(tmp_path):
    templates = (("Q {query} D {document}", True), ("Q {query}", False), ("D {document} Q {query}", False))
    for template, is_valid in templates:
        values = {"pooling_type": 4, "tokenizer.chat_template.rerank": template}
        header = read_header(write_header(tmp_path / "a.gguf", "qwen3", **values))
        if is_valid:
            assert encoder_parameters_of(header)["template"] == template
        else:
            with pytest.raises(ExportError, match="does not have"):
                encoder_parameters_of(header)


def test_a_model_with_a_classification_head_is_a_reranker(tmp_path):
    for name, task in (("cls.output.weight", "rerank"), ("cls.weight", "rerank"), ("blk.0.attn_q.weight", "embedding")):
        writer = GGUFWriter(tmp_path / "a.gguf", "bert")
        writer.add_tensor(name, np.zeros((1, 32), np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        assert task_of(read_header(tmp_path / "a.gguf")) == task


def test_context_of_encoders_is_limited_by_the_memory_for_outputs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(llamacpp, "memory_limit", lambda: 8 << 30)
    values = {"pooling_type": 1, "context_length": 8_192, "tokenizer.ggml.tokens": ["a"] * 250_000}
    header = read_header(write_header(tmp_path / "a.gguf", "bert", **values))
    assert encoder_parameters_of(header)["context_length"] == "1024"  # 1 GiB for 4 bytes per token of the vocabulary
    assert "1,024 tokens instead of 8,192" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("values", "tokens"),
    [
        ({"clip.projector_type": "qwen2.5vl_merger"}, 1024),
        ({"clip.vision.projector_type": "gemma4v", "clip.projector_type": "gemma4a"}, 512),
        ({"clip.projector_type": "lfm2"}, -1),
        ({"clip.projector_type": ["qwen2vl_merger"]}, -1),
        ({}, -1),
    ],
)
def test_image_tokens_are_limited_where_the_projector_has_no_useful_limit(tmp_path, values, tokens):
    assert projector_image_tokens(read_header(write_header(tmp_path / "a.gguf", "clip", **values))) == tokens


def write_header(path, architecture="llama", **values):
    """Write a header whose keys begin with the architecture, unless they have a prefix already."""
    writer = GGUFWriter(path, architecture)
    for name, value in values.items():
        key = name if name.startswith(("tokenizer.", "clip.")) else f"{architecture}.{name}"
        if isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_int64(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    "values",
    [
        {"context_length": "x"},
        {"context_length": -5},
        {"block_count": 10**14},
        {"block_count": "x"},
        {"embedding_length": [1, -1]},
    ],
)
def test_invalid_values_are_rejected(tmp_path, values):
    with pytest.raises(InvalidGGUF, match=f"invalid 'llama.{next(iter(values))}'"):
        read_header(write_header(tmp_path / "a.gguf", **values))


def test_array_that_would_need_gigabytes_is_rejected(tmp_path):
    key = struct.pack("<Q", 1) + b"a"
    content = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key + struct.pack("<IIQ", 9, 0, 30_000_000)
    path = tmp_path / "a.gguf"
    path.write_bytes(content)
    with path.open("r+b") as file:
        file.truncate(40_000_000)
    with pytest.raises(InvalidGGUF, match="claims an array of 30,000,000 values"):
        read_header(path)


def test_size_of_keys_and_values_is_read(tmp_path):
    recurrent = {"block_count": 64, "embedding_length": 2560, "context_length": 1_048_576}
    path = write_header(tmp_path / "a.gguf", **recurrent)
    header = read_header(path)
    assert header.kv_bytes_per_token == 2 * 2 * 2560 * 64
    without = read_header(write_header(tmp_path / "b.gguf", **recurrent | {"attention.head_count": 0}))
    assert without.kv_bytes_per_token == 0

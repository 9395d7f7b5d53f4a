"""The header of GGUF files: what it says, and what happens with damaged files."""

import struct

import pytest
from gguf import GGUFWriter

from export.converters.llamacpp import parameters_of, special_tokens
from export.gguf_header import InvalidGGUF, read_header


def test_a_header_is_read(gguf_model):
    header = read_header(gguf_model)
    assert (header.architecture, header.num_parameters, header.file_type) == ("llama", 256, "Q8_0")
    # Two layers of two heads with 16 keys and 16 values in two bytes each.
    assert header.kv_bytes_per_token == 2 * 2 * (16 + 16) * 2
    assert special_tokens(header) == {"bos_token": "<s>", "eos_token": "</s>"}
    assert parameters_of(header) == {
        "engine": "llamacpp",
        "context_length": "4096",
        "cache_tokens": str((1 << 30) // 256),
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

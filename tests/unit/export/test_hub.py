"""Models from the Hugging Face hub: which file a name stands for, downloads that break, and clear errors."""

import json
import os
import subprocess
import sys

import pytest

from tests.support.hub import Hub, running_hub

REPOSITORY = "org/Tiny-GGUF"
FILES = {
    "README.md": b"readme",
    "Tiny-Q8_0.gguf": b"q8" * 20_000,
    "Tiny-Q4_K_M.gguf": b"q4" * 10_000,
    "Tiny-IQ4_K_M.gguf": b"iq" * 9_000,
    "sub/Tiny-F16.gguf": b"f16" * 30_000,
}
PROJECTORS = {"mmproj-Tiny-Q8_0.gguf": b"p8" * 100, "mmproj-Tiny-F16.gguf": b"p16" * 200}

FETCH = """
import json, sys
from pathlib import Path
from export.fetch import ExportError
from export.hub import fetch_model
try:
    print(json.dumps([path and str(path) for path in fetch_model(sys.argv[1], Path(sys.argv[2]))]))
except ExportError as error:
    sys.exit(str(error))
"""


@pytest.fixture
def hub():
    with running_hub(
        Hub({REPOSITORY: FILES, "org/Seeing-GGUF": FILES | PROJECTORS, "org/Torch": {"a.bin": b"x"}})
    ) as hub:
        yield hub


@pytest.fixture
def fetch(hub, tmp_path):
    """Return a function that fetches a model in a process of its own, and returns its files or the error."""

    def run(name, **environment):
        given = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"} | environment
        command = [sys.executable, "-c", FETCH, name, str(tmp_path / "cache")]
        result = subprocess.run(command, capture_output=True, encoding="utf-8", env=os.environ | given, timeout=60)
        if result.returncode:
            return result.stderr.strip()
        return json.loads(result.stdout.splitlines()[-1])

    return run


def read(path):
    with open(path, "rb") as file:
        return file.read()


@pytest.mark.parametrize(
    ("name", "file"),
    [
        (f"hf:{REPOSITORY}", "Tiny-Q4_K_M.gguf"),
        (f"hf:{REPOSITORY}:Q8_0", "Tiny-Q8_0.gguf"),
        (f"hf:{REPOSITORY}@main:f16", "sub/Tiny-F16.gguf"),
        (f"hf:{REPOSITORY}:IQ4_K_M", "Tiny-IQ4_K_M.gguf"),
    ],
)
def test_a_name_stands_for_a_file(fetch, name, file):
    model, projector = fetch(name)
    assert model.endswith(file)
    assert read(model) == FILES[file]
    assert projector is None


def test_a_projector_is_fetched_too_and_files_only_once(fetch, hub):
    model, projector = fetch("hf:org/Seeing-GGUF:Q8_0")
    assert (read(model), read(projector)) == (FILES["Tiny-Q8_0.gguf"], PROJECTORS["mmproj-Tiny-F16.gguf"])
    assert len(hub.downloads) == 2
    assert fetch("hf:org/Seeing-GGUF:Q8_0") == [model, projector]
    assert len(hub.downloads) == 2


def test_files_are_used_again_without_a_connection(fetch, hub):
    found = fetch(f"hf:{REPOSITORY}")
    hub.status = 503
    assert fetch(f"hf:{REPOSITORY}") == found
    assert fetch(f"hf:{REPOSITORY}", HF_HUB_OFFLINE="1") == found
    assert fetch(f"hf:{REPOSITORY}", HF_ENDPOINT="http://127.0.0.1:9") == found
    assert "status 503" in fetch(f"hf:{REPOSITORY}:Q8_0")
    assert "HF_HUB_OFFLINE is set" in fetch(f"hf:{REPOSITORY}:Q8_0", HF_HUB_OFFLINE="1")
    assert "cannot be reached" in fetch(f"hf:{REPOSITORY}:Q8_0", HF_ENDPOINT="http://127.0.0.1:9")


def test_a_broken_download_is_resumed(fetch, hub):
    hub.repositories["org/Big"] = {"big.gguf": bytes(range(256)) * 90_000}
    hub.breaks = 1
    model, _ = fetch("hf:org/Big")
    assert read(model) == hub.repositories["org/Big"]["big.gguf"]
    assert len(hub.downloads) == 2
    assert hub.downloads[1][1] > 0


def test_a_file_with_another_hash_is_discarded(fetch, hub):
    hub.corrupted = True
    assert "does not match its sha256" in fetch(f"hf:{REPOSITORY}")
    hub.corrupted = False
    model, _ = fetch(f"hf:{REPOSITORY}")
    assert read(model) == FILES["Tiny-Q4_K_M.gguf"]


def test_a_gated_model_needs_a_token(fetch, hub):
    hub.gated.add(REPOSITORY)
    error = fetch(f"hf:{REPOSITORY}")
    assert "gated" in error
    assert "HF_TOKEN" in error
    model, _ = fetch(f"hf:{REPOSITORY}", HF_TOKEN="hf_secret")
    assert read(model) == FILES["Tiny-Q4_K_M.gguf"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf:org/None-GGUF", "no such repository"),
        (f"hf:{REPOSITORY}@other", "no such revision"),
        (f"hf:{REPOSITORY}:Q2_K", "no file with Q2_K. It has: Tiny-F16, Tiny-IQ4_K_M, Tiny-Q4_K_M, Tiny-Q8_0"),
        ("hf:org/Torch", "has no GGUF file"),
        ("hf:org", "is not a model on the hub"),
        ("hf:../../etc/passwd", "is not a model on the hub"),
    ],
)
def test_unusable_names_are_explained(fetch, name, message):
    error = fetch(name)
    assert message in error
    assert "Traceback" not in error


def test_a_model_in_parts_is_refused(fetch, hub):
    hub.repositories["org/Parts"] = {"Big-Q4_K_M-00001-of-00002.gguf": b"a", "Big-Q4_K_M-00002-of-00002.gguf": b"b"}
    assert "split into several files" in fetch("hf:org/Parts")
    assert hub.downloads == []

"""Models from hubs and URLs: which files a name stands for, downloads that break, and clear errors."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys

import pytest

from export.catalog import load_catalog
from export.fetch import ExportError
from export.resolve import Choices, _catalog_model
from tests.support.hub import COMMIT, Hub, running_hub
from tests.unit.export.conftest import write_gguf

RESOLVE = """
import json, sys
from pathlib import Path
from export.fetch import ExportError
from export.resolve import Choices, resolve
try:
    candidate = resolve(sys.argv[1], Choices(Path(sys.argv[2]), hub=sys.argv[4], trust_remote_code="trust" in sys.argv))
    weights = candidate.fetch() if sys.argv[3] == "fetch" else (None, None)
    print(json.dumps([candidate.entry.model_dump(mode="json"), dict(candidate.facts), *map(str, weights)]))
except ExportError as error:
    sys.exit(str(error))
"""
CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "max_position_embeddings": 4096,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 64,
    "torch_dtype": "bfloat16",
}


@dataclasses.dataclass
class Found:
    """What a process found out about a model."""

    entry: dict
    facts: dict
    path: str
    projector: str

    @property
    def content(self):
        with open(self.path, "rb") as file:
            return file.read()


@pytest.fixture(scope="module")
def gguf_files(tmp_path_factory):
    """Return tiny GGUF files with different contents."""
    folder = tmp_path_factory.mktemp("gguf")
    names = ["Tiny-Q8_0.gguf", "Tiny-Q4_K_M.gguf", "Tiny-IQ4_K_M.gguf", "sub/Tiny-F16.gguf"]
    return {
        name: write_gguf(folder / f"{number}.gguf", (8 + number, 32)).read_bytes() for number, name in enumerate(names)
    }


PROJECTORS = {"mmproj-Tiny-Q8_0.gguf": b"p8" * 100, "mmproj-Tiny-F16.gguf": b"p16" * 200}
GGUF, SEEING, FOLDER = "org/Tiny-GGUF", "org/Seeing-GGUF", "zai-org/Tiny-Chat"


def folder_files(**config):
    return {
        "config.json": json.dumps(CONFIG | config).encode(),
        "model.safetensors": b"weights" * 10_000,
        "tokenizer.json": b"{}",
        "pytorch_model.bin": b"pickle",
        "modeling.py": b"raise SystemExit",
        "onnx/model.onnx": b"onnx",
        "README.md": b"readme",
    }


@pytest.fixture
def hub(gguf_files):
    repositories = {
        GGUF: gguf_files | {"README.md": b"readme"},
        SEEING: gguf_files | PROJECTORS,
        FOLDER: folder_files(),
        "ZhipuAI/Tiny-Chat": folder_files(),
        "tencent/Tiny": folder_files(),
    }
    with running_hub(Hub(repositories)) as hub:
        yield hub


@pytest.fixture
def find(hub, tmp_path):
    """Return a function that resolves a name in a process of its own, and returns what it found or the error."""

    def run(name, step="fetch", default="huggingface", *options, **environment):
        given = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
        given |= {"MODELSCOPE_DOMAIN": hub.url} | environment
        command = [sys.executable, "-c", RESOLVE, name, str(tmp_path / "cache"), step, default, *options]
        result = subprocess.run(command, capture_output=True, encoding="utf-8", env=os.environ | given, timeout=60)
        assert "Traceback" not in result.stderr, result.stderr
        if result.returncode:
            return result.stderr.strip()
        return Found(*json.loads(result.stdout.splitlines()[-1]))

    return run


@pytest.mark.parametrize(
    ("name", "file"),
    [
        (f"hf:{GGUF}", "Tiny-Q4_K_M.gguf"),
        (GGUF, "Tiny-Q4_K_M.gguf"),
        (f"hf:{GGUF}:Q8_0", "Tiny-Q8_0.gguf"),
        (f"{GGUF}@main:f16", "sub/Tiny-F16.gguf"),
        (f"hf:{GGUF}:IQ4_K_M", "Tiny-IQ4_K_M.gguf"),
        (f"ms:{GGUF}:IQ4_K_M", "Tiny-IQ4_K_M.gguf"),
        (f"ms:{GGUF}@v1:Q8_0", "Tiny-Q8_0.gguf"),
        (f"https://huggingface.co/{GGUF}", "Tiny-Q4_K_M.gguf"),
    ],
)
def test_a_name_stands_for_a_gguf_file(find, gguf_files, name, file):
    found = find(name)
    assert found.path.endswith(file)
    assert found.content == gguf_files[file]
    assert found.projector == "None"
    assert found.entry["id"] == file.rpartition("/")[2].removesuffix(".gguf")


def test_a_projector_is_fetched_too_and_files_only_once(find, hub, gguf_files):
    found = find(f"hf:{SEEING}:Q8_0")
    assert found.content == gguf_files["Tiny-Q8_0.gguf"]
    with open(found.projector, "rb") as file:
        assert file.read() == PROJECTORS["mmproj-Tiny-F16.gguf"]
    assert len(hub.downloads) == 2
    assert find(f"hf:{SEEING}:Q8_0") == found
    assert len(hub.downloads) == 2


@pytest.mark.parametrize("name", [f"hf:{FOLDER}", "ms:ZhipuAI/Tiny-Chat"])
def test_a_folder_has_weights_and_no_code(find, name):
    found = find(name)
    assert sorted(os.listdir(found.path)) == ["config.json", "model.safetensors", "tokenizer.json"]
    entry = found.entry
    assert (entry["name"], entry["task"], entry["converter"]) == ("tiny-chat", "chat", "openvino-chat")
    assert entry["conversion"]["engines"] == "openvino llamacpp"
    assert entry["owned_by"] in ("zai-org", "ZhipuAI")
    assert entry["license"] in ("apache-2.0", "apache license 2.0")


def test_only_the_configuration_is_read_to_describe_a_model(find, hub):
    found = find(f"hf:{FOLDER}", "describe")
    assert [name for name, _ in hub.downloads] == ["config.json"]
    assert found.facts["source"] == f"Hugging Face, revision {COMMIT[:12]}"
    assert (found.facts["architecture"], found.facts["context"]) == ("Qwen3ForCausalLM", "4,096 tokens")
    assert find(f"hf:{GGUF}", "describe").facts["context"] == "4,096 tokens"
    assert [name for name, _ in hub.downloads] == ["config.json"]


def test_files_are_used_again_without_a_connection(find, hub):
    for name in (f"hf:{GGUF}", f"hf:{FOLDER}", f"ms:{GGUF}"):
        found = find(name)
        pinned = find(found.entry["origin"])
        hub.status = 503
        assert find(name) == found
        assert find(found.entry["origin"]).path == pinned.path == found.path
        hub.status = 0
    hub.status = 503
    assert find(f"hf:{GGUF}", HF_HUB_OFFLINE="1").path.endswith("Q4_K_M.gguf")
    assert find(f"hf:{GGUF}", HF_ENDPOINT="http://127.0.0.1:9").path.endswith("Q4_K_M.gguf")
    assert "status 503" in find(f"hf:{GGUF}:Q8_0")
    assert "status 503" in find(f"ms:{SEEING}")
    assert "HF_HUB_OFFLINE is set" in find(f"hf:{SEEING}", HF_HUB_OFFLINE="1")
    assert "cannot be reached" in find(f"hf:{SEEING}", HF_ENDPOINT="http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("name", "origin"),
    [
        ("ms:zai-org/Tiny-Chat", "ms:ZhipuAI/Tiny-Chat@master"),
        ("ms:ZhipuAI/Tiny-Chat", "ms:ZhipuAI/Tiny-Chat@master"),
        ("hf:ZhipuAI/Tiny-Chat", f"hf:zai-org/Tiny-Chat@{COMMIT}"),
        ("Tencent-Hunyuan/Tiny", f"hf:tencent/Tiny@{COMMIT}"),
    ],
)
def test_organizations_have_another_name_on_the_other_hub(find, name, origin):
    assert find(name, "describe").entry["origin"] == origin


def test_the_other_hub_is_asked_if_one_cannot_be_reached(find):
    found = find(FOLDER, HF_ENDPOINT="http://127.0.0.1:9")
    assert found.entry["origin"] == "ms:ZhipuAI/Tiny-Chat@master"
    assert found.facts["source"] == "ModelScope, revision master"
    found = find("Tencent-Hunyuan/Tiny", "fetch", "modelscope", MODELSCOPE_DOMAIN="http://127.0.0.1:9")
    assert found.entry["origin"] == f"hf:tencent/Tiny@{COMMIT}"
    # The name of a hub, or a revision, means that one.
    assert "cannot be reached" in find(f"hf:{FOLDER}", HF_ENDPOINT="http://127.0.0.1:9")
    assert "cannot be reached" in find(f"{FOLDER}@main", HF_ENDPOINT="http://127.0.0.1:9")


@pytest.mark.parametrize("prefix", ["hf", "ms"])
def test_a_broken_download_is_resumed(find, hub, tmp_path, prefix):
    hub.repositories["org/Big"] = {"big.gguf": write_gguf(tmp_path / "b.gguf", (180_000, 32)).read_bytes()}
    hub.breaks = 1
    found = find(f"{prefix}:org/Big")
    assert found.content == hub.repositories["org/Big"]["big.gguf"]
    assert len(hub.downloads) == 2
    assert hub.downloads[1][1] > 0


@pytest.mark.parametrize("prefix", ["hf", "ms"])
def test_a_file_with_another_hash_is_discarded(find, hub, gguf_files, prefix):
    hub.corrupted = True
    assert "does not match its sha256" in find(f"{prefix}:{GGUF}")
    hub.corrupted = False
    assert find(f"{prefix}:{GGUF}").content == gguf_files["Tiny-Q4_K_M.gguf"]


@pytest.mark.parametrize(
    ("prefix", "variable", "token"),
    [("hf", "HF_TOKEN", "hf_secret"), ("ms", "MODELSCOPE_API_TOKEN", "ms_secret")],
)
@pytest.mark.parametrize("repository", [GGUF, FOLDER])
def test_a_gated_model_needs_a_token(find, hub, prefix, variable, token, repository):
    hub.gated |= {repository, "ZhipuAI/Tiny-Chat"}  # the second one is what ModelScope calls the folder
    error = find(f"{prefix}:{repository}")
    assert "conditions" in error
    assert variable in error
    assert find(f"{prefix}:{repository}", **{variable: token}).entry["task"] == "chat"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf:org/None-GGUF", "no such repository"),
        ("org/None-GGUF", "no such repository"),
        ("ms:org/None-GGUF", "no such repository"),
        (f"hf:{GGUF}@other", "no such revision"),
        (f"ms:{GGUF}@other", "no such repository or revision"),
        (f"hf:{GGUF}:Q2_K", "no file with Q2_K. It has: Tiny-F16, Tiny-IQ4_K_M, Tiny-Q4_K_M, Tiny-Q8_0"),
        ("hf:org", "is not a model on a hub"),
        ("hf:../../etc/passwd", "is not a model on a hub"),
        ("https://example.org/model.bin", "is not the address of a GGUF file"),
        ("gpt-9", "Unknown model 'gpt-9'"),
    ],
)
def test_unusable_names_are_explained(find, name, message):
    assert message in find(name)


@pytest.mark.parametrize("name", ["hf:org/a--b", "org/a.git"])
def test_ids_that_the_hub_rejects_are_explained(find, name):
    assert "is not a valid ID of a repository" in find(name)


def test_quantized_weights_are_refused(find, hub):
    hub.repositories["org/Quantized"] = folder_files(quantization_config={"quant_method": "gptq", "bits": 4})
    assert "its weights are quantized with gptq" in find("hf:org/Quantized")


def test_code_of_an_encoder_is_refused(find, hub):
    hub.repositories["org/Encoder"] = folder_files(auto_map={"AutoModel": "modeling.X"}) | {"modules.json": b"[]"}
    assert "run only for chat models" in find("hf:org/Encoder", "describe", "huggingface", "trust")


def test_other_hub_is_not_asked_if_connections_are_not_allowed(find):
    assert "HF_HUB_OFFLINE is set" in find(FOLDER, HF_HUB_OFFLINE="1")


def test_files_of_a_branch_that_moved_on_are_downloaded_again(find, hub):
    first = find("ms:ZhipuAI/Tiny-Chat")
    changed = folder_files() | {"model.safetensors": b"another" * 10_000}
    hub.repositories["ZhipuAI/Tiny-Chat"] = changed
    second = find("ms:ZhipuAI/Tiny-Chat")
    assert first.path == second.path
    with open(f"{second.path}/model.safetensors", "rb") as file:
        assert file.read() == changed["model.safetensors"]


def test_weights_of_catalog_models_are_downloaded(find, hub):
    files = folder_files(
        architectures=["Qwen3VLForConditionalGeneration"], model_type="qwen3_vl", vision_config={"a": 1}
    )
    hub.repositories["Qwen/Qwen3-VL-2B-Instruct"] = files | {"preprocessor_config.json": b"{}"}
    found = find("Qwen/Qwen3-VL-2B-Instruct")
    assert (found.entry["name"], found.entry["capabilities"]) == ("qwen3-vl-2b", ["vision"])
    # The hub of this test does not have the pinned commit.
    assert found.facts["source"] == f"Hugging Face, revision {COMMIT[:12]}"
    assert sorted(os.listdir(found.path)) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
    ]


def test_catalog_models_are_found_by_all_their_ids_and_on_both_hubs(find, hub):
    files = folder_files(architectures=["GlmOcrForConditionalGeneration"], model_type="glm_ocr", vision_config={"a": 1})
    hub.repositories |= {"zai-org/GLM-OCR": files, "ZhipuAI/GLM-OCR": files}
    for name in ("glm-ocr", "zai-org/GLM-OCR", "ZhipuAI/GLM-OCR", "zhipuai/glm-ocr"):
        found = find(name, "resolve")
        assert (found.entry["name"], found.entry["id"]) == ("glm-ocr", "zai-org/GLM-OCR")
    found = find("glm-ocr", "fetch", "modelscope")
    assert found.facts["source"] == "ModelScope, revision master"
    assert found.entry["parameters"]["default_prompt"] == "Text Recognition:"
    hub.repositories["AI-ModelScope/RMBG-2.0"] = {"config.json": b"{}", "onnx/model.onnx": b"onnx"}
    assert sorted(os.listdir(find("rmbg-2.0", "fetch", "modelscope").path)) == ["config.json", "onnx"]


def test_a_catalog_model_at_an_address_is_compared_with_its_hash(hub, tmp_path):
    hub.repositories["org/rembg"] = {"u2net.onnx": b"network"}
    address = f"{hub.url}/org/rembg/resolve/main/u2net.onnx#sha256="
    known = load_catalog()["u2net"]
    for digest, is_right in ((hashlib.sha256(b"network").hexdigest(), True), ("0" * 64, False)):
        entry = known.model_copy(update={"url": address + digest, "size": 7})
        candidate = _catalog_model(entry, Choices(tmp_path))
        if is_right:
            assert (candidate.fetch().path / "u2net.onnx").read_bytes() == b"network"
        else:
            with pytest.raises(ExportError, match="does not match its sha256"):
                candidate.fetch()


def test_a_catalog_model_whose_files_are_another_model_is_refused_before_the_weights_are_downloaded(find, hub):
    hub.repositories["zai-org/GLM-OCR"] = folder_files()
    message = "the files are those of the architecture Qwen3ForCausalLM, and zai-org/GLM-OCR is GlmOcrForCond"
    assert message in find("glm-ocr")
    assert not any(name.endswith("safetensors") for name, _ in hub.downloads)


def test_a_model_in_parts_is_refused(find, hub):
    hub.repositories["org/Parts"] = {"Big-Q4_K_M-00001-of-00002.gguf": b"a", "Big-Q4_K_M-00002-of-00002.gguf": b"b"}
    assert "split into several files" in find("hf:org/Parts")
    assert hub.downloads == []


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"README.md": b""}, "it is not a model that Trident can convert"),
        ({"config.json": b"[", "model.safetensors": b""}, "config.json is not valid JSON"),
        (folder_files(architectures=["NewForCausalLM"], model_type="new"), "no engine here can run NewForCausalLM"),
        (folder_files(architectures=["BertForTokenClassification"]), "BertForTokenClassification are not supported"),
        (folder_files(architectures=None), "does not name its 'architectures'"),
        (
            {name: value for name, value in folder_files().items() if name != "model.safetensors"},
            "only in pickle files, which can run code",
        ),
        (
            folder_files() | {"model.safetensors.index.json": b'{"weight_map": {"a": "x-1.safetensors"}}'},
            "the weights are incomplete: x-1.safetensors is missing",
        ),
        ({"../../evil.json": b"{}"}, "a file with the invalid name"),
    ],
)
def test_unusable_repositories_are_refused_before_the_weights_are_downloaded(find, hub, files, message):
    hub.repositories["org/Bad"] = files
    for prefix in ("hf", "ms"):
        assert message in find(f"{prefix}:org/Bad")
    assert not any(name.endswith("safetensors") for name, _ in hub.downloads)


def test_a_version_of_transformers_that_is_not_there_is_named(find, hub):
    hub.repositories["org/New"] = folder_files(architectures=["XForCausalLM"], model_type="gemma4_text")
    assert "needs transformers 5.5 to 5.5 for it, and has 4." in find("hf:org/New")


def test_remote_code_needs_trust(find, hub):
    hub.repositories["org/Code"] = folder_files(
        architectures=["MiniCPMForCausalLM"], model_type="minicpm", auto_map={"AutoModel": "modeling.X"}
    )
    assert "add --trust-remote-code" in find("hf:org/Code")
    assert "modeling.py" in os.listdir(find("hf:org/Code", "fetch", "huggingface", "trust").path)
    # Transformers has this model itself, so the repository's code is neither needed nor fetched.
    hub.repositories["org/Native"] = folder_files(auto_map={"AutoModel": "modeling.X"})
    assert "modeling.py" not in os.listdir(find("hf:org/Native").path)


@pytest.mark.parametrize("fragment", [False, True])
def test_a_file_is_fetched_from_an_address(find, hub, gguf_files, fragment):
    content = gguf_files["Tiny-Q8_0.gguf"]
    digest = hashlib.sha256(content).hexdigest()
    url = f"{hub.url}/{GGUF}/resolve/main/Tiny-Q8_0.gguf" + (f"#sha256={digest}" if fragment else "")
    hub.breaks = 1
    found = find(url)
    assert found.content == content
    assert found.entry["name"] == "tiny-q8_0"
    hub.status = 503
    assert find(url) == found
    hub.status = 0
    if fragment:
        assert "does not match its sha256" in find(url.replace(digest, "0" * 64))

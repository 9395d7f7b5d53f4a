"""Checks that the catalog, the configurations rendered from it, and the backends are consistent."""

import dataclasses
import json
import re
from importlib import import_module
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from contract.parameters import PARAMETERS, read_parameters
from contract.tensors import TENSORS
from export.catalog import load_catalog
from export.converters import CONVERTERS
from export.resolve import Choices, resolve
from export.sources.reference import catalog_name
from export.triton_config import render_config
from frontend.settings import DEFAULT_ALIASES

CHECKOUT = Path(__file__).resolve().parents[2]
FRONTEND_PARAMETERS = {
    "aliases",
    "generation_defaults",
    "default_prompt",
    "task",
    "id",
    "owned_by",
    "created",
    "capabilities",
    "context_length",
    "queue_size",
}

# Architecture of a catalog model → model_type in its config.json, and its part for images or audio.
MODEL_TYPES = {
    "DeepseekOCR2ForCausalLM": ("deepseek_vl_v2", "vision_config"),
    "DeepseekOCRForCausalLM": ("deepseek_vl_v2", "vision_config"),
    "GlmAsrForConditionalGeneration": ("glmasr", "audio_config"),
    "GlmOcrForConditionalGeneration": ("glm_ocr", "vision_config"),
    "HunYuanVLForConditionalGeneration": ("hunyuan_vl", "vision_config"),
    "Lfm2ForCausalLM": ("lfm2", None),
    "Lfm2VlForConditionalGeneration": ("lfm2_vl", "vision_config"),
    "LlamaForCausalLM": ("llama", None),
    "MiniCPMForCausalLM": ("minicpm", None),
    "PaddleOCRVLForConditionalGeneration": ("paddleocr_vl", "vision_config"),
    "Qwen2VLForConditionalGeneration": ("qwen2_vl", "vision_config"),
    "Qwen2_5_VLForConditionalGeneration": ("qwen2_5_vl", "vision_config"),
    "Qwen3ASRForConditionalGeneration": ("qwen3_asr", "thinker_config"),
    "Qwen3ForCausalLM": ("qwen3", None),
    "Qwen3VLForConditionalGeneration": ("qwen3_vl", "vision_config"),
    "Qwen3_5ForConditionalGeneration": ("qwen3_5", "vision_config"),
    "voxcpm": ("voxcpm", None),
    "voxcpm2": ("voxcpm2", None),
}
# The models of AHA 0.2.6, by the IDs that its users write, and the spelling in its API document.
AHA_IDS = [
    "sentence-transformers/all-MiniLM-L6-v2",
    "LiquidAI/LFM2-1.2B",
    "LiquidAI/LFM2.5-1.2B-Instruct",
    "LiquidAI/LFM2-VL-1.6B",
    "LiquidAI/LFM2.5-VL-1.6B",
    "LiquidAI/LFM2.5-VL-450M",
    "OpenBMB/MiniCPM4-0.5B",
    "OpenBMB/MiniCPM5-1B",
    "OpenBMB/VoxCPM-0.5B",
    "OpenBMB/VoxCPM1.5",
    "OpenBMB/VoxCPM2",
    "OpenBMB/VoxCPM-0.5B1.5",
    "Qwen/Qwen2.5-VL-3B-Instruct",
    "Qwen/Qwen2.5-VL-7B-Instruct",
    "Qwen/Qwen3-0.6B",
    "Qwen/Qwen3-1.7B",
    "Qwen/Qwen3-4B",
    "Qwen/Qwen3.5-0.8B",
    "Qwen/Qwen3.5-2B",
    "Qwen/Qwen3.5-4B",
    "Qwen/Qwen3.5-9B",
    "Qwen/Qwen3-ASR-0.6B",
    "Qwen/Qwen3-ASR-1.7B",
    "Qwen/Qwen3-Embedding-0.6B",
    "Qwen/Qwen3-Embedding-4B",
    "Qwen/Qwen3-Embedding-8B",
    "Qwen/Qwen3-Reranker-0.6B",
    "Qwen/Qwen3-Reranker-4B",
    "Qwen/Qwen3-Reranker-8B",
    "Qwen/Qwen3-VL-2B-Instruct",
    "Qwen/Qwen3-VL-4B-Instruct",
    "Qwen/Qwen3-VL-8B-Instruct",
    "Qwen/Qwen3-VL-32B-Instruct",
    "deepseek-ai/DeepSeek-OCR",
    "deepseek-ai/DeepSeek-OCR-2",
    "Tencent-Hunyuan/HunyuanOCR",
    "PaddlePaddle/PaddleOCR-VL",
    "PaddlePaddle/PaddleOCR-VL-1.5",
    "PaddlePaddle/PaddleOCR-VL-1.6",
    "AI-ModelScope/RMBG-2.0",
    "ZhipuAI/GLM-ASR-Nano-2512",
    "ZhipuAI/GLM-OCR",
    "FunAudioLLM/Fun-ASR-Nano-2512",
]
CATALOG = list(load_catalog().values())


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    """Return all entries by their names, with what the configuration of a publisher's folder adds."""
    return {entry.name: _resolved(entry, tmp_path_factory.mktemp(entry.name)) for entry in CATALOG}


def _resolved(entry, folder):
    if not entry.architecture:
        return entry
    if entry.architecture == "FunASRNano":
        (folder / "config.yaml").write_text("model: FunASRNano\n", encoding="utf-8")
        (folder / "model.pt").write_bytes(b"weights")
        return resolve(entry.name, Choices(folder, weights=folder)).entry
    model_type, media = MODEL_TYPES[entry.architecture]
    config = {
        "model_type": model_type,
        "max_position_embeddings": 4096,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "hidden_size": 64,
    }
    config |= {"architecture": entry.architecture} if entry.backend == "speech" else {}
    config |= {"architectures": [entry.architecture]} if entry.backend != "speech" else {}
    config |= {media: {"a": 1}} if media else {}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"weights")
    if entry.backend == "speech":
        (folder / "audiovae.pth").write_bytes(b"weights")
        (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    if entry.task == "embedding":
        (folder / "config_sentence_transformers.json").write_text("{}", encoding="utf-8")
    return resolve(entry.name, Choices(folder, weights=folder)).entry


def test_make_serves_the_starter_models():
    served = re.search(r"^MODELS \?= (.*)$", (CHECKOUT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[
        1
    ].split()
    assert [entry.name for entry in CATALOG if entry.starter] == served


@pytest.mark.parametrize("id", AHA_IDS)
def test_the_catalog_has_every_model_of_aha(id):
    entry = load_catalog()[catalog_name(id)]
    assert id.lower() in map(str.lower, entry.ids)
    assert entry.license != "unknown"
    assert entry.size > 1_000_000
    assert entry.packages or entry.hub


def test_ids_are_unique():
    ids = [id.lower() for entry in CATALOG for id in entry.ids]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("entry", [entry for entry in CATALOG if entry.hub], ids=lambda entry: entry.name)
def test_repositories_and_revisions_are_well_formed(entry):
    for id in filter(None, (entry.hub, entry.modelscope)):
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", id)
    assert entry.revision is None or re.fullmatch("[0-9a-f]{40}", entry.revision)
    assert entry.modelscope != entry.hub


@pytest.mark.parametrize("name", load_catalog())
def test_entry_has_a_converter_a_backend_and_a_task(entries, name):
    entry = entries[name]
    assert entry.converter in CONVERTERS
    assert (CHECKOUT / "backends" / entry.backend / "model.py").exists()
    assert entry.task in TENSORS


@pytest.mark.parametrize("name", load_catalog())
def test_configuration_matches_the_catalog_entry_and_the_task(entries, name):
    entry = entries[name]
    text = render_config(entry, {"context_length": "8192"})
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    assert (config.name, config.backend) == (entry.name, entry.backend)
    assert (parameters["id"], parameters["task"], parameters["owned_by"]) == (entry.id, entry.task, entry.owned_by)
    assert [parameters["id"], *json.loads(parameters.get("aliases", "[]"))] == entry.ids
    assert int(parameters["created"]) > 1_500_000_000
    tensors = TENSORS[entry.task]
    assert config.model_transaction_policy.decoupled == tensors.decoupled
    assert (config.max_batch_size > 0) == config.HasField("dynamic_batching") == tensors.batched


@pytest.mark.parametrize("name", load_catalog())
def test_configuration_has_every_backend_parameter_and_no_unknown_ones(entries, name):
    entry = entries[name]
    from_converter = {"context_length": "2048"}
    from_converter |= {"voice": "heart", "voice_aliases": "{}"} if entry.task == "speech" else {}
    config = text_format.Parse(render_config(entry, from_converter), model_config_pb2.ModelConfig())
    texts = {key: value.string_value for key, value in config.parameters.items()}
    parameters = read_parameters(PARAMETERS[entry.backend], texts)
    assert parameters.device == "CPU"
    # The backend or the frontend reads every parameter of the configuration.
    known = {field.name for field in dataclasses.fields(parameters)} | FRONTEND_PARAMETERS
    assert set(texts) <= known


@pytest.mark.parametrize("entry", [entry for entry in CATALOG if entry.architecture], ids=lambda entry: entry.name)
def test_the_capabilities_of_catalog_models_are_those_of_their_architectures(entries, entry):
    assert entries[entry.name].capabilities == entry.capabilities


def test_aliases_map_to_existing_tasks():
    assert set(DEFAULT_ALIASES.values()) <= set(TENSORS)


@pytest.mark.parametrize("name", CONVERTERS)
def test_conversion_has_a_function_and_lists_its_source_files(name):
    conversion = CONVERTERS[name]
    module, _, function = conversion.function.partition(".")
    assert f"export/converters/{module}.py" in conversion.files
    assert callable(getattr(import_module(f"export.converters.{module}"), function))
    assert conversion.source()

"""The choice between OpenVINO and llama.cpp for chat models published as GGUF."""

import json

import pytest
from gguf import GGUFWriter

from export import engines
from export.catalog import load_catalog
from export.engines import LlamaOptions, with_engine
from export.fetch import ExportError
from tests.unit.export.conftest import local_entry

PREVIOUS = {"openvino": {"parameters": {}}, "llamacpp": {"parameters": {"engine": "llamacpp"}}}


def engine_of(entry):
    assert entry.parameters["engine"] == {"gguf": "openvino", "llamacpp": "llamacpp"}[entry.converter]
    return entry.parameters["engine"]


@pytest.mark.parametrize(("amx", "engine"), [(True, "llamacpp"), (False, "openvino")])
def test_catalog_models_run_on_llamacpp_if_the_cpu_has_amx(monkeypatch, amx, engine):
    monkeypatch.setattr(engines, "_has_amx", lambda: amx)
    entry = with_engine(load_catalog()["smollm2-135m"], "auto", {})
    assert engine_of(entry) == engine
    assert entry.parameters["generation_defaults"] == '{"temperature": 0.2, "top_p": 0.9}'


@pytest.mark.parametrize("previous", ["openvino", "llamacpp"])
def test_engine_of_the_previous_export_is_kept_unless_another_is_set(monkeypatch, previous):
    monkeypatch.setattr(engines, "_has_amx", lambda: previous == "openvino")
    entry = load_catalog()["smollm2-135m"]
    assert engine_of(with_engine(entry, "auto", PREVIOUS[previous])) == previous
    for engine in ("openvino", "llamacpp"):
        assert engine_of(with_engine(entry, engine, PREVIOUS[previous])) == engine


def test_own_files_run_on_llamacpp_unless_openvino_is_set(monkeypatch, gguf_model):
    monkeypatch.setattr(engines, "_has_amx", lambda: False)
    entry = local_entry(gguf_model)
    assert engine_of(with_engine(entry, "auto", {})) == "llamacpp"
    assert engine_of(with_engine(entry, "openvino", {})) == "openvino"


@pytest.mark.parametrize(
    ("engine", "device"), [("llamacpp", "CPU"), ("llamacpp-vulkan", "VULKAN"), ("llamacpp-cuda", "CUDA")]
)
def test_device_of_llamacpp_is_kept_too(engine, device):
    entry = load_catalog()["smollm2-135m"]
    chosen = with_engine(entry, engine, {})
    assert chosen.parameters["device"] == device
    assert chosen.conversion.get("device", "cpu") == device.lower()
    record = {"parameters": {"engine": "llamacpp"}, "conversion": chosen.conversion}
    assert with_engine(entry, "auto", record) == chosen


def test_requantized_weights_are_kept_until_another_engine_is_set():
    entry = load_catalog()["smollm2-135m"]
    chosen = with_engine(entry, "llamacpp", {}, LlamaOptions(requantize=True))
    check = {"check": "smollm2-135m.json"}
    assert chosen.conversion == check | {"device": "cpu", "requantize": "Q8_0"}
    record = {"parameters": {"engine": "llamacpp"}, "conversion": chosen.conversion}
    assert with_engine(entry, "auto", record) == with_engine(entry, "llamacpp", record) == chosen
    moved = with_engine(entry, "llamacpp-vulkan", record)
    assert moved.conversion == check | {"device": "vulkan", "requantize": "Q8_0"}
    assert with_engine(entry, "openvino", record).conversion == check
    with pytest.raises(ExportError, match="--requantize needs --engine llamacpp"):
        with_engine(entry, "openvino", {}, LlamaOptions(requantize=True))


def test_other_models_are_unchanged():
    for name in ("qwen3-vl-2b", "whisper-base"):
        entry = load_catalog()[name]
        assert with_engine(entry, "llamacpp", {}) is entry
        with pytest.raises(ExportError, match="--requantize does not apply"):
            with_engine(entry, "auto", {}, LlamaOptions(requantize=True))


@pytest.fixture
def projector(tmp_path):
    return write_projector(tmp_path / "mmproj.gguf", has_vision_encoder=True, has_audio_encoder=False)


def write_projector(path, architecture="clip", **flags):
    writer = GGUFWriter(path, architecture)
    for name, value in flags.items():
        writer.add_bool(f"clip.{name}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def test_a_projector_adds_what_it_accepts_and_is_kept(projector):
    entry = load_catalog()["smollm2-135m"]
    chosen = with_engine(entry, "llamacpp", {}, LlamaOptions(projector=projector))
    assert chosen.capabilities == ["vision"]
    assert chosen.conversion["mmproj"] == str(projector)
    record = {"parameters": {"engine": "llamacpp"}, "conversion": chosen.conversion}
    assert with_engine(entry, "auto", record) == with_engine(entry, "llamacpp", record) == chosen
    write_projector(projector, has_vision_encoder=True, has_audio_encoder=True)
    changed = with_engine(entry, "auto", record)
    assert changed.capabilities == ["vision", "audio"]
    assert changed.conversion_inputs() != chosen.conversion_inputs()
    projector.unlink()
    assert with_engine(entry, "auto", record) == chosen
    assert with_engine(entry, "openvino", record).capabilities == []


def test_a_projector_is_refused_where_it_does_not_apply(projector, gguf_model, tmp_path):
    entry = load_catalog()["smollm2-135m"]
    with pytest.raises(ExportError, match="--mmproj needs --engine llamacpp"):
        with_engine(entry, "openvino", {}, LlamaOptions(projector=projector))
    with pytest.raises(ExportError, match="--mmproj does not apply"):
        with_engine(load_catalog()["bge-small-en-v1.5"], "auto", {}, LlamaOptions(projector=projector))
    with pytest.raises(ExportError, match="not a projector, but a model of the architecture llama"):
        with_engine(entry, "llamacpp", {}, LlamaOptions(projector=gguf_model))
    with pytest.raises(ExportError, match="accepts neither images nor audio"):
        with_engine(entry, "llamacpp", {}, LlamaOptions(projector=write_projector(tmp_path / "empty.gguf")))
    with pytest.raises(ExportError, match="was not found"):
        with_engine(entry, "llamacpp", {}, LlamaOptions(projector=tmp_path / "missing.gguf"))


def test_a_projector_alone_is_no_model(projector):
    with pytest.raises(ExportError, match=r"is a projector, not a chat model.*--mmproj"):
        local_entry(projector)


def write_lora(path, architecture="llama", kind="adapter"):
    writer = GGUFWriter(path, architecture)
    writer.add_type(kind)
    writer.add_string("adapter.type", "lora")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def test_adapters_are_kept_until_others_are_given(tmp_path):
    entry = load_catalog()["smollm2-135m"]
    first, second = (write_lora(tmp_path / name) for name in ("First One.gguf", "second.gguf"))
    chosen = with_engine(entry, "llamacpp", {}, LlamaOptions(adapters=(first, second)))
    assert json.loads(chosen.conversion["adapters"]) == [str(first), str(second)]
    record = {"parameters": {"engine": "llamacpp"}, "conversion": chosen.conversion}
    assert with_engine(entry, "auto", record) == chosen
    fewer = with_engine(entry, "auto", record, LlamaOptions(adapters=(second,)))
    assert json.loads(fewer.conversion["adapters"]) == [str(second)]
    first.unlink()
    assert with_engine(entry, "auto", record) == chosen


def test_unusable_adapters_are_refused(tmp_path, gguf_model):
    entry = load_catalog()["smollm2-135m"]
    (tmp_path / "other").mkdir()
    twins = tuple(write_lora(folder / "a.gguf") for folder in (tmp_path, tmp_path / "other"))
    for adapters, engine, message in (
        ((gguf_model,), "llamacpp", "not a LoRA adapter, but has the type model"),
        ((write_lora(tmp_path / "b.gguf", kind="model"),), "llamacpp", "not a LoRA adapter"),
        ((tmp_path / "missing.gguf",), "llamacpp", "was not found"),
        (twins, "llamacpp", "the same name"),
        (twins[:1], "openvino", "--lora needs --engine llamacpp"),
    ):
        with pytest.raises(ExportError, match=message):
            with_engine(entry, engine, {}, LlamaOptions(adapters=adapters))


def folder_entry(engines):
    conversion = {"engines": engines, "precision": "int8", "precision_by": "memory"}
    entry = load_catalog()["smollm2-135m"].model_copy(update={"conversion": conversion})
    return entry.model_copy(update={"converter": "openvino-chat" if "openvino" in engines else "llamacpp-chat"})


@pytest.mark.parametrize(
    ("engines_", "amx", "setting", "converter"),
    [
        ("openvino llamacpp", False, "auto", "openvino-chat"),
        ("openvino llamacpp", True, "auto", "llamacpp-chat"),
        ("openvino llamacpp", False, "llamacpp", "llamacpp-chat"),
        ("openvino", True, "auto", "openvino-chat"),
        ("llamacpp", False, "auto", "llamacpp-chat"),
    ],
)
def test_folder_runs_on_an_engine_that_can_run_it(monkeypatch, engines_, amx, setting, converter):
    monkeypatch.setattr(engines, "_has_amx", lambda: amx)
    chosen = with_engine(folder_entry(engines_), setting, {})
    assert chosen.converter == converter
    assert "engines" not in chosen.conversion


def test_folder_is_refused_for_an_engine_that_cannot_run_it():
    with pytest.raises(ExportError, match="llamacpp cannot run smollm2-135m; it runs on openvino"):
        with_engine(folder_entry("openvino"), "llamacpp", {})
    with pytest.raises(ExportError, match="--requantize applies to GGUF files"):
        with_engine(folder_entry("openvino llamacpp"), "llamacpp", {}, LlamaOptions(requantize=True))

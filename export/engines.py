"""Chooses the engine of a chat model that both OpenVINO GenAI and llama.cpp can run: one published as GGUF."""

from pathlib import Path
from typing import Any

from export.catalog import Entry
from export.fetch import ExportError

_CONVERTERS = {"openvino": "gguf", "llamacpp": "llamacpp"}

# The options of llama.cpp's converter.
_OPTIONS = ("device", "requantize")


def with_engine(entry: Entry, engine: str, record: dict[str, Any], *, requantize: bool = False) -> Entry:
    """Return a model's entry for the engine that the setting `engine` names; unchanged if there is no choice.

    With `auto`, the model keeps the engine of its previous export, which `record` describes. Without one, a user's own
    file runs on llama.cpp, and so does a catalog model if the CPU has AMX, with which llama.cpp is faster. With
    `requantize`, or if the previous export had it, llama.cpp gets the weights in Q8_0. Raises ExportError if
    `requantize` does not apply to the model or its engine.
    """
    if entry.converter not in _CONVERTERS.values():
        if requantize:
            raise ExportError(f"--requantize does not apply to {entry.name}, only to chat models published as GGUF")
        return entry
    previous = record["parameters"].get("engine", "openvino") if record else None
    options = {name: value for name, value in record.get("conversion", {}).items() if name in _OPTIONS}
    if engine == "auto" and previous:
        engine = previous
    elif engine == "auto":
        engine = "llamacpp" if entry.converter == "llamacpp" or _has_amx() else "openvino"
    else:
        engine, _, device = engine.partition("-")
        options = {"device": device or "cpu"} | ({"requantize": "Q8_0"} if "requantize" in options else {})
    if engine == "openvino":
        options = {}
    if requantize:
        if engine != "llamacpp":
            raise ExportError(f"{entry.name} runs on OpenVINO; --requantize needs --engine llamacpp")
        options = options | {"requantize": "Q8_0"}
    parameters = entry.parameters | {"engine": engine}
    if engine == "llamacpp":
        parameters |= {"max_num_batched_tokens": "512", "device": options.get("device", "cpu").upper()}
    update = {"converter": _CONVERTERS[engine], "parameters": parameters, "conversion": entry.conversion | options}
    return entry.model_copy(update=update)


def _has_amx() -> bool:
    try:
        return " amx_int8" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False

"""Chooses the engine of a chat model that both OpenVINO GenAI and llama.cpp can run: one published as GGUF."""

import os
from pathlib import Path
from typing import Any

from export.catalog import Entry
from export.fetch import ExportError

_CONVERTERS = {"openvino": "gguf", "llamacpp": "llamacpp"}

# The options of llama.cpp's converter.
_OPTIONS = ("device", "requantize", "mmproj", "mmproj_file", "mmproj_accepts")


def with_engine(
    entry: Entry, engine: str, record: dict[str, Any], *, requantize: bool = False, projector: Path | None = None
) -> Entry:
    """Return a model's entry for the engine that the setting `engine` names; unchanged if there is no choice.

    With `auto`, the model keeps the engine of its previous export, which `record` describes. Without one, a user's own
    file runs on llama.cpp, and so does a catalog model if the CPU has AMX, with which llama.cpp is faster. With
    `requantize`, or if the previous export had it, llama.cpp gets the weights in Q8_0. `projector`, by default that of
    the previous export, is the file that encodes images and audio for llama.cpp. Raises ExportError if `requantize` or
    `projector` does not apply to the model or its engine.
    """
    flag = "--requantize" if requantize else "--mmproj" if projector else None
    if entry.converter not in _CONVERTERS.values():
        if flag:
            raise ExportError(f"{flag} does not apply to {entry.name}, only to chat models published as GGUF")
        return entry
    previous = record["parameters"].get("engine", "openvino") if record else None
    options = {name: value for name, value in record.get("conversion", {}).items() if name in _OPTIONS}
    if engine == "auto" and previous:
        engine = previous
    elif engine == "auto":
        engine = "llamacpp" if entry.converter == "llamacpp" or _has_amx() else "openvino"
    else:
        engine, _, device = engine.partition("-")
        options = options | {"device": device or "cpu"}
    if engine == "openvino":
        options = {}
        if flag:
            raise ExportError(f"{entry.name} runs on OpenVINO; {flag} needs --engine llamacpp")
    if requantize:
        options = options | {"requantize": "Q8_0"}
    if projector or Path(options.get("mmproj", "")).is_file():
        options = options | _projector_options(projector or Path(options["mmproj"]))
    parameters = entry.parameters | {"engine": engine}
    if engine == "llamacpp":
        parameters |= {"max_num_batched_tokens": "512", "device": options.get("device", "cpu").upper()}
    update = {"converter": _CONVERTERS[engine], "parameters": parameters, "conversion": entry.conversion | options}
    if "mmproj" in options:
        update["capabilities"] = [*entry.capabilities, *options["mmproj_accepts"].split()]
    return entry.model_copy(update=update)


def _projector_options(projector: Path) -> dict[str, str]:
    """Return the converter's options for a projector: its path, its state to detect changes, and what it accepts.

    Raises ExportError if the file is not a projector.
    """
    # The launcher imports this module, and must stay small.
    from export.gguf_header import InvalidGGUF, projector_capabilities, read_header

    try:
        accepts = projector_capabilities(read_header(projector))
        stat = projector.stat()
    except FileNotFoundError:
        raise ExportError(f"{projector} was not found") from None
    except InvalidGGUF as error:
        raise ExportError(f"{projector}: {error}") from error
    except OSError as error:
        raise ExportError(f"{projector} cannot be read: {error.strerror}") from error
    return {
        "mmproj": os.path.abspath(projector),
        "mmproj_file": f"{stat.st_size} {stat.st_mtime_ns}",
        "mmproj_accepts": " ".join(accepts),
    }


def _has_amx() -> bool:
    try:
        return " amx_int8" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False

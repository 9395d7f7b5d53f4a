"""Chooses the engine of a chat model: OpenVINO GenAI or llama.cpp."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from export.catalog import Entry
from export.fetch import ExportError

if TYPE_CHECKING:
    from export.gguf_header import GGUFHeader

T = TypeVar("T")

# The format in which a model is published → its converter for each engine.
_CONVERTERS = {
    "gguf": {"openvino": "gguf", "llamacpp": "llamacpp"},
    "folder": {"openvino": "openvino-chat", "llamacpp": "llamacpp-chat"},
    "folder with images": {"openvino": "vision-language", "llamacpp": "llamacpp-chat"},
    "speech recognizer": {"openvino": "openvino-asr", "llamacpp": "llamacpp-asr"},
}

# The options of llama.cpp's converter.
_OPTIONS = (
    "device",
    "requantize",
    "mmproj",
    "mmproj_file",
    "mmproj_accepts",
    "mmproj_image_tokens",
    "adapters",
    "adapter_files",
)


class LlamaOptions(NamedTuple):
    """What `trident export` can add to a model on llama.cpp."""

    requantize: bool = False
    """Whether to convert the weights to Q8_0."""
    projector: Path | None = None
    """The file that encodes images and audio."""
    adapters: tuple[Path, ...] = ()
    """LoRA adapters in GGUF files."""

    @property
    def flag(self) -> str | None:
        """The first flag that is in use."""
        flags = {"--requantize": self.requantize, "--mmproj": self.projector, "--lora": self.adapters}
        return next((flag for flag, value in flags.items() if value), None)


NO_OPTIONS = LlamaOptions()


def with_engine(entry: Entry, engine: str, record: dict[str, Any], given: LlamaOptions = NO_OPTIONS) -> Entry:
    """Return a model's entry for the engine that the setting `engine` names; unchanged if there is no choice.

    With `auto`, the model keeps the engine of its previous export, which `record` describes. Without one, a user's own
    file runs on llama.cpp, and so does another model if the CPU has AMX, with which llama.cpp is faster. A model in a
    publisher's folder runs on the engine that can run it, if only one can. On llama.cpp, options of the previous export
    that are not `given` are kept. Raises ExportError if options are given that do not apply to the model or its engine,
    or whose files are not usable.
    """
    format = next((name for name, known in _CONVERTERS.items() if entry.converter in known.values()), None)
    if format is None:
        if given.flag:
            raise ExportError(f"{given.flag} does not apply to {entry.name}, only to chat models on llama.cpp")
        return entry
    if format != "gguf" and given.requantize:
        raise ExportError(f"--requantize applies to GGUF files; {entry.name} is converted with --precision instead")
    # Exports of catalog models have had no parameter `engine` before there was a choice.
    unnamed = "openvino" if entry.converter == "gguf" else None
    previous = record["parameters"].get("engine", unnamed) if record else None
    options = {name: value for name, value in record.get("conversion", {}).items() if name in _OPTIONS}
    usable = entry.conversion.get("engines", " ".join(_CONVERTERS[format])).split()
    if previous not in usable:
        previous = None
    if engine == "auto" and previous:
        engine = previous
    elif engine == "auto":
        fast = _has_amx() and format in ("gguf", "folder")
        engine = "llamacpp" if entry.converter == "llamacpp" or fast else "openvino"
        engine = engine if engine in usable else usable[0]
    else:
        engine, _, device = engine.partition("-")
        options = options | {"device": device or "cpu"}
    if engine not in usable and entry.backend != "generation":
        engine = usable[0]  # the setting is meant for chat models
    if engine not in usable:
        raise ExportError(f"{engine} cannot run {entry.name}; it runs on {' and '.join(usable)}")
    if engine == "openvino":
        if "mmproj" in options or "adapters" in options:
            print(f"note: {entry.name} has no projector and no adapters on OpenVINO. Give them again for llama.cpp")
        options = {}
        if given.flag:
            raise ExportError(f"{entry.name} runs on OpenVINO; {given.flag} needs --engine llamacpp")
    if entry.backend != "generation":
        if given.flag:
            raise ExportError(f"{given.flag} does not apply to {entry.name}, only to chat models on llama.cpp")
        options = {}
    if given.requantize:
        options = options | {"requantize": "Q8_0"}
    if given.projector or Path(options.get("mmproj", "")).is_file():
        options = options | _projector_options(given.projector or Path(options["mmproj"]))
    known = [Path(path) for path in json.loads(options.get("adapters", "[]"))]
    if given.adapters or (known and all(path.is_file() for path in known)):
        options = options | _adapter_options(given.adapters or known)
    parameters = entry.parameters | {"engine": engine}
    if engine == "llamacpp" and entry.backend == "generation":
        parameters |= {"max_num_batched_tokens": "512", "device": options.get("device", "cpu").upper()}
        if format != "gguf":
            parameters.pop("image_tokens", None)  # the converter determines it
    conversion = {name: value for name, value in entry.conversion.items() if name != "engines"} | options
    update = {"converter": _CONVERTERS[format][engine], "parameters": parameters, "conversion": conversion}
    if "mmproj" in options:
        parameters["image_tokens"] = options["mmproj_image_tokens"]
        update["capabilities"] = list(dict.fromkeys([*entry.capabilities, *options["mmproj_accepts"].split()]))
    return entry.model_copy(update=update)


def _projector_options(projector: Path) -> dict[str, str]:
    """Return the converter's options for a projector: its path, its state to detect changes, and what it accepts.

    Raises ExportError if the file is not a projector.
    """
    # Imported lazily, because the launcher imports this module, and must stay small.
    from export.gguf_header import projector_capabilities, projector_image_tokens

    (accepts, image_tokens), state = _read_with(
        lambda header: (projector_capabilities(header), projector_image_tokens(header)), projector
    )
    return {
        "mmproj": os.path.abspath(projector),
        "mmproj_file": state,
        "mmproj_accepts": " ".join(accepts),
        "mmproj_image_tokens": str(image_tokens),
    }


def _adapter_options(adapters: Sequence[Path]) -> dict[str, str]:
    """Return the converter's options for LoRA adapters: their paths, and their state to detect changes.

    Raises ExportError if a file is not an adapter, or if two have the same name.
    """
    from export.gguf_header import require_adapter
    from export.local_names import adapter_name

    names = [adapter_name(path) for path in adapters]
    if len(set(names)) < len(names):
        raise ExportError(f"two adapters have the same name: {', '.join(names)}. Rename one of the files")
    states = [_read_with(require_adapter, path)[1] for path in adapters]
    paths = [os.path.abspath(path) for path in adapters]
    return {"adapters": json.dumps(paths), "adapter_files": ", ".join(states)}


def _read_with(read: "Callable[[GGUFHeader], T]", path: Path) -> tuple[T, str]:
    """Return what `read` finds in a header, and the file's size and modification time. Raises ExportError."""
    from export.gguf_header import InvalidGGUF, require_header

    header, stat = require_header(path), path.stat()
    try:
        found = read(header)
    except InvalidGGUF as error:
        raise ExportError(f"{path}: {error}") from error
    return found, f"{stat.st_size} {stat.st_mtime_ns}"


def _has_amx() -> bool:
    try:
        return " amx_int8" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False

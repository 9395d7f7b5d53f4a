"""Downloads GGUF files from the Hugging Face hub: `hf:USER/REPO`, `hf:USER/REPO:Q4_K_M`, `hf:USER/REPO@REVISION:Q8_0`.

The files are kept in the cache that other tools for the hub use (`HF_HOME`). `HF_TOKEN` is the token for gated models,
`HF_ENDPOINT` another address of the hub, such as a mirror, and with `HF_HUB_OFFLINE=1` only files that are there
already are used.
"""

import errno
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub import errors as hub_errors
from huggingface_hub.hf_api import ModelInfo

from export.fetch import ExportError
from export.local_names import hub_record
from export.memory import memory_limit

T = TypeVar("T")

_NAME = re.compile(r"hf:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?(?::([\w.-]+))?")

# The quantizations to choose from, if none is given, in order of preference.
_PREFERRED = ("Q4_K_M", "Q4_K_S", "Q5_K_M", "Q8_0", "Q4_0", "F16", "BF16")

# Of projectors, a higher precision costs little.
_PREFERRED_PROJECTORS = ("F16", "BF16", "Q8_0", "F32")

_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$")


class HubFile(NamedTuple):
    """A file of a repository."""

    name: str
    size: int
    sha256: str | None


class HubModel(NamedTuple):
    """A GGUF file on the hub, and the projector that is published beside it, if any."""

    repository: str
    revision: str
    model: HubFile
    projector: HubFile | None


def find_model(name: str) -> HubModel:
    """Return the file that a name stands for. Raises ExportError if there is none, or if the hub cannot be asked."""
    repository, revision, quantization = _parse(name)
    info: ModelInfo = _ask(name, lambda: HfApi().model_info(repository, revision=revision, files_metadata=True))
    files = [
        HubFile(each.rfilename, each.size or 0, each.lfs.sha256 if each.lfs else None)
        for each in info.siblings or ()
        if each.rfilename.lower().endswith(".gguf")
    ]
    projectors = [file for file in files if "mmproj" in file.name.lower()]
    models = [file for file in files if file not in projectors]
    if not models:
        raise ExportError(f"{name}: the repository has no GGUF file. Models in other formats are not supported yet")
    model = _choose(name, models, quantization)
    if _PART.search(model.name):
        raise ExportError(f"{name}: {model.name} is split into several files; merge them with llama-gguf-split first")
    projector = next(iter(_by_preference(projectors, _PREFERRED_PROJECTORS)), None)
    return HubModel(repository, str(info.sha), model, projector)


def fetch_model(name: str, cache: Path) -> tuple[Path, Path | None]:
    """Return the files of the model and its projector, after downloading them if they are missing.

    Without a connection to the hub, the files of the last call for the same name are used. Raises ExportError.
    """
    record = hub_record(name, cache)
    try:
        found = find_model(name)
    except Unreachable:
        if known := _recorded(record):
            print(f"{name}: the hub cannot be reached; using the files that were downloaded before")
            return known
        raise
    _require_memory(name, found)
    model = _download(name, found, found.model, cache)
    projector = _download(name, found, found.projector, cache) if found.projector else None
    record.parent.mkdir(parents=True, exist_ok=True)
    content = {"model": str(model), "projector": str(projector) if projector else None}
    record.write_text(json.dumps(content), encoding="utf-8")
    return model, projector


class Unreachable(ExportError):
    """The hub cannot be reached."""


def _parse(name: str) -> tuple[str, str | None, str | None]:
    match = _NAME.fullmatch(name)
    if not match:
        raise ExportError(f"'{name}' is not a model on the hub: write hf:USER/REPO or hf:USER/REPO:QUANTIZATION")
    return match[1], match[2], match[3]


def _choose(name: str, models: Sequence[HubFile], quantization: str | None) -> HubFile:
    if quantization is None:
        return _by_preference(models, _PREFERRED)[0]
    matching = [file for file in models if _has(file, quantization)]
    if not matching:
        names = ", ".join(sorted(Path(file.name).stem for file in models)[:20])
        raise ExportError(f"{name}: the repository has no file with {quantization}. It has: {names}")
    return min(matching, key=lambda file: len(file.name))


def _by_preference(files: Sequence[HubFile], preferred: Sequence[str]) -> list[HubFile]:
    """Return the files with the preferred quantizations first, then the smaller ones first."""

    def rank(file: HubFile) -> tuple[int, int]:
        found = (index for index, quantization in enumerate(preferred) if _has(file, quantization))
        return next(found, len(preferred)), file.size

    return sorted(files, key=rank)


def _has(file: HubFile, quantization: str) -> bool:
    """Return whether a file's name has a quantization, delimited by other characters."""
    return bool(re.search(rf"(?<![a-z0-9]){re.escape(quantization.lower())}(?![a-z0-9_])", file.name.lower()))


def _require_memory(name: str, found: HubModel) -> None:
    """Raise ExportError if the model cannot fit into memory, before it is downloaded."""
    size, total = found.model.size + (found.projector.size if found.projector else 0), memory_limit()
    if size > total:
        raise ExportError(
            f"{name}: {found.model.name} has {size / 1e9:.1f} GB, and this machine has {total / 1e9:.1f} GB of memory. "
            "Use a smaller quantization"
        )


def _download(name: str, found: HubModel, file: HubFile, cache: Path) -> Path:
    known = try_to_load_from_cache(found.repository, file.name, revision=found.revision)
    if isinstance(known, str):
        path = Path(known)
    else:
        folder = Path(constants.HF_HUB_CACHE)
        free = shutil.disk_usage(_existing(folder)).free
        if file.size > free:
            raise ExportError(
                f"{name}: {file.name} needs {file.size / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB free. "
                "Free some, or set HF_HOME to a folder on another disk"
            )
        print(f"{name}: downloading {file.name} ({file.size / 1e6:,.0f} MB)", flush=True)
        path = Path(_ask(name, lambda: hf_hub_download(found.repository, file.name, revision=found.revision)))
    if file.sha256 and not _is_verified(path, file.sha256, cache):
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise ExportError(f"{name}: the downloaded file {file.name} does not match its sha256. Try again")
    return path


def _is_verified(path: Path, sha256: str, cache: Path) -> bool:
    """Return whether a file has this hash. The result is remembered, because hashing takes long."""
    stat, marker = path.stat(), cache / "hub" / "verified" / sha256
    state = f"{path} {stat.st_size} {stat.st_mtime_ns}"
    if marker.exists() and marker.read_text(encoding="utf-8") == state:
        return True
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            return False
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.write_text(state, encoding="utf-8")
    return True


def _ask(name: str, call: Callable[[], T]) -> T:
    """Return the result of a call to the hub. Raises ExportError."""
    try:
        return call()
    except hub_errors.GatedRepoError:
        raise ExportError(
            f"{name}: the model is gated. Accept its conditions on the hub's page, then set HF_TOKEN to your token"
        ) from None
    except hub_errors.RevisionNotFoundError:
        raise ExportError(f"{name}: the repository has no such revision") from None
    except hub_errors.RepositoryNotFoundError:
        raise ExportError(
            f"{name}: there is no such repository. For a private one, set HF_TOKEN to your token"
        ) from None
    except (hub_errors.LocalEntryNotFoundError, hub_errors.OfflineModeIsEnabled):
        raise Unreachable(f"{name}: HF_HUB_OFFLINE is set, and the file has not been downloaded before") from None
    except hub_errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        raise Unreachable(f"{name}: the hub answered with the status {status}. Try again later") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ExportError(f"{name}: no disk space left. Free some, or set HF_HOME to another disk") from error
        raise _unreachable(name, error) from error
    except Exception as error:
        if "httpx" in type(error).__module__:
            raise _unreachable(name, error) from error
        raise


def _unreachable(name: str, error: Exception) -> Unreachable:
    return Unreachable(
        f"{name}: {constants.ENDPOINT} cannot be reached ({error}). Check the network; HF_ENDPOINT sets a mirror. "
        "Finished parts of downloads are kept"
    )


def _recorded(record: Path) -> tuple[Path, Path | None] | None:
    try:
        content: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    model, projector = Path(content["model"]), content["projector"] and Path(content["projector"])
    return (model, projector) if model.exists() and (projector is None or projector.exists()) else None


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.parent)

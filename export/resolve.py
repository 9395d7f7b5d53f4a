"""Finds out what a name of a model stands for, and what its export would do, before anything large is downloaded."""

import dataclasses
import datetime
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from export.catalog import Entry, load_catalog
from export.engines import with_engine
from export.fetch import ExportError
from export.gguf_header import GGUFHeader, IncompleteGGUF, InvalidGGUF, parse_header, require_header
from export.local_names import free_name
from export.model_info import ModelInfo, read_info
from export.own_models import BYTES_PER_WEIGHT, CACHE_BYTES, Facts, folder_entry, gguf_entry, memory_text
from export.repository import read_record
from export.sources.download import Forbidden, download, read_beginning
from export.sources.gguf_choice import choose_gguf
from export.sources.hugging_face import HuggingFace, is_offline, require_space
from export.sources.listing import (
    Hub,
    Listing,
    RemoteFile,
    UnknownRevision,
    Unreachable,
    read_listing,
    require_sha256,
)
from export.sources.model_files import FolderFiles, HubFiles, ModelFiles, gguf_files, matching_files, needed_files
from export.sources.modelscope import ModelScope, hugging_face_id, modelscope_id
from export.sources.reference import Kind, Reference, parse_reference

# How much of a remote GGUF file is read to find its header, and how much if that is not enough.
_HEADER_BYTES, _MAX_HEADER_BYTES = 8 << 20, 64 << 20

_PREFIXES = {"huggingface": "hf", "modelscope": "ms"}


class Weights(NamedTuple):
    """A model's weights on this machine: a file or folder, and the projector that is published beside it, if any."""

    path: Path | None
    projector: Path | None = None


@dataclass(frozen=True)
class Candidate:
    """A model that can be exported."""

    entry: Entry
    fetch: Callable[[], Weights]
    """Returns the weights, after downloading the missing files. Raises ExportError."""
    facts: Mapping[str, str]
    """What is known about the model, for the user."""


class Choices(NamedTuple):
    """What a user chooses for an export."""

    cache: Path
    engine: str = "auto"
    precision: str = "auto"
    hub: Kind = "huggingface"
    requantize: bool = False
    projector: Path | None = None
    trust_remote_code: bool = False
    force: bool = False
    weights: Path | None = None
    """For a model of the catalog: a folder on this machine to convert instead of what a hub has."""


@dataclass(frozen=True)
class Published:
    """A model as its publisher has it, on a hub or in a folder on this machine."""

    name: str
    """The name that it gets in a model repository."""
    id: str
    owner: str
    created: int
    """In seconds since 1970."""
    files: ModelFiles
    folder: Path | None = None
    """The folder, if it is on this machine."""
    revision: str = ""
    """The commit on the Hugging Face hub."""


class UnknownModel(ExportError):
    """A name stands for no model."""


def resolve(text: str, choices: Choices) -> Candidate:
    """Return the model that a name stands for. Raises ExportError if there is none, or if it cannot be served."""
    reference = parse_reference(text, choices.hub)
    if reference is None:
        raise UnknownModel(
            f"Unknown model '{text}'. Name a model of the catalog (`trident list`), a repository (USER/REPO), the URL "
            "or path of a GGUF file, or a folder (./FOLDER)"
        )
    if reference.kind == "catalog":
        return _catalog_model(load_catalog()[reference.location], choices)
    if reference.kind == "file":
        return _local_file(Path(reference.location), choices)
    if reference.kind == "folder":
        return _local_folder(Path(reference.location), choices)
    if reference.kind == "url":
        return _url(reference, choices)
    return _repository(reference, choices)


def resolve_published(text: str, choices: Choices) -> Published:
    """Return the publisher's files of a chat model, whatever the engines here can run. Raises ExportError."""
    reference = parse_reference(text, choices.hub)
    if reference is None:
        raise UnknownModel(f"Unknown model '{text}': name a repository on the hub (USER/REPO), or a folder (./FOLDER)")
    if reference.kind == "folder":
        folder = Path(reference.location).resolve()
        id, created = _folder_id(folder), folder.stat().st_mtime if folder.exists() else 0
        return Published(free_name(id.rpartition("/")[2], "own"), id, "user", int(created), FolderFiles(folder), folder)
    entry = load_catalog().get(reference.location) if reference.kind == "catalog" else None
    if entry and entry.hub and entry.task == "chat":
        hub, listing = _catalog_listing(entry, choices)
        name, owner = entry.name, entry.owned_by
    elif reference.kind in ("huggingface", "modelscope") and not reference.quantization:
        hub, listing = _find(reference, choices)
        name, owner = free_name(listing.id.rpartition("/")[2], "own"), listing.id.partition("/")[0]
    else:
        raise ExportError(f"{text}: vLLM needs a chat model in the publisher's format, from a hub or in a folder")
    created = datetime.datetime.fromisoformat(listing.created).replace(tzinfo=datetime.UTC).timestamp()
    files = HubFiles(hub, listing)
    # vLLM downloads from the Hugging Face hub.
    if _kind(hub) == "modelscope":
        return Published(name, hugging_face_id(listing.id), owner, int(created), files)
    return Published(name, listing.id, owner, int(created), files, revision=listing.revision)


def plan(candidate: Candidate, engine: str, repository: Path) -> dict[str, str]:
    """Return what an export would do, as what is shown to the user. Raises ExportError."""
    entry = with_engine(candidate.entry, engine, read_record(repository / candidate.entry.name))
    facts = dict(candidate.facts)
    precision = entry.conversion.get("precision", "")
    names = {"openvino": "OpenVINO", "llamacpp": "llama.cpp"}
    engine_name = names.get(entry.parameters.get("engine", ""), "")
    return {
        "model": entry.id,
        "name": entry.name,
        "task": entry.task.replace("_", " "),
        "description": entry.description,
        **facts,
        "license": entry.license,
        "size": f"{entry.size / 1e6:,.0f} MB",
        "engine": " ".join(filter(None, (engine_name or entry.backend, precision))),
    }


def _catalog_model(entry: Entry, choices: Choices) -> Candidate:
    if choices.weights:
        folder = choices.weights.resolve()
        if entry.architecture:
            entry, info = _published(entry, FolderFiles(folder), choices)
            return Candidate(entry, lambda: Weights(folder), {"source": str(choices.weights)} | _shown(info, choices))
        return Candidate(entry, lambda: Weights(folder), {"source": str(choices.weights)})
    if entry.url:
        url = entry.url
        return Candidate(entry, lambda: Weights(_fetch_url(url, entry.size, choices).parent), {"source": url})
    if entry.packages or entry.hub is None:
        source = "the package index" if entry.packages else str(entry.weights)
        return Candidate(entry, lambda: Weights(None), {"source": source})
    if entry.architecture:
        hub, listing = _catalog_listing(entry, choices)
        files = HubFiles(hub, listing)
        entry, info = _published(entry, files, choices)
        needed = needed_files(files, with_code=False, weights=info.weights)
        facts = {"source": _source(hub, listing)} | _shown(info, choices)
        return Candidate(entry, lambda: Weights(files.fetch(needed)), facts)

    def fetch() -> Weights:
        files = HubFiles(*_catalog_listing(entry, choices))
        names = matching_files(files, entry.files) if entry.files else needed_files(files, with_code=False)
        return Weights(files.fetch(names))

    return Candidate(entry, fetch, {"source": f"{_hub(choices.hub, choices).title}, {entry.hub}"})


def _catalog_listing(entry: Entry, choices: Choices) -> tuple[Hub, Listing]:
    """Return what the hub that the user prefers, or else the other one, has of a model of the catalog."""
    newest = Reference(entry.name, choices.hub, str(entry.hub))
    if not entry.revision or choices.hub != "huggingface":  # ModelScope has other commits
        return _find(newest, choices)
    try:
        return _find(newest._replace(revision=entry.revision), choices)
    except UnknownRevision:
        print(f"{entry.name}: the hub does not have the revision {entry.revision[:12]}; using the newest one")
        return _find(newest, choices)


def _published(entry: Entry, files: ModelFiles, choices: Choices) -> tuple[Entry, ModelInfo]:
    """Return a catalog entry with what the publisher's configuration determines, and what that is.

    Raises ExportError if the files are those of another model.
    """
    info = read_info(entry.name, files)
    if info.architecture != entry.architecture:
        raise ExportError(
            f"{entry.name}: the files are those of the architecture {info.architecture}, and {entry.id} is "
            f"{entry.architecture}"
        )
    facts = Facts(id=entry.id, origin=str(entry.weights), size=entry.size)
    # A reranker that is a language model runs on the engine of encoders.
    usable = [name for name in entry.engines if name in info.usable_engines or entry.task != info.task]
    if not usable:
        raise ExportError(f"{entry.name}: {'; '.join(reason for reason in info.engines.values() if reason)}")
    found = folder_entry(info, files, facts, choices)
    engines = {"engines": " ".join(usable)} if "engines" in found.conversion else {}
    update = {
        "converter": found.converter,
        "conversion": found.conversion | engines | entry.conversion,
        "capabilities": list(dict.fromkeys([*found.capabilities, *entry.capabilities])),
        "parameters": found.parameters | entry.parameters,
        "requires": found.requires,
    }
    return entry.model_copy(update=update), info


def _local_file(path: Path, choices: Choices, projector: Path | None = None) -> Candidate:
    header, stat = require_header(path), path.stat()
    facts = Facts(
        id=path.stem,
        origin=str(path.absolute()),
        size=stat.st_size,
        created=datetime.date.fromtimestamp(stat.st_mtime),
    )
    return _gguf(header, facts, choices, lambda: Weights(path.absolute(), projector), {"source": str(path)})


def _local_folder(folder: Path, choices: Choices) -> Candidate:
    if not folder.is_dir():
        raise ExportError(f"{folder} was not found")
    files = FolderFiles(folder)
    ggufs = [RemoteFile(name, size, None) for name, size in files.sizes.items() if name.lower().endswith(".gguf")]
    if ggufs and "config.json" not in files.sizes:
        model, projector = choose_gguf(str(folder), ggufs, None)
        return _local_file(folder / model.name, choices, folder / projector.name if projector else None)
    info = read_info(str(folder), files)
    _require_trust(str(folder), info, choices)
    facts = Facts(
        id=_folder_id(Path(os.path.abspath(folder))),
        origin=str(folder.resolve()),
        created=datetime.date.fromtimestamp(folder.stat().st_mtime),
        size=sum(files.sizes[name] for name in needed_files(files, with_code=False, weights=info.weights)),
    )
    shown = {"source": str(folder)} | _shown(info, choices)
    return Candidate(folder_entry(info, files, facts, choices), lambda: Weights(folder.resolve()), shown)


def _folder_id(folder: Path) -> str:
    """Return the ID of the model in a folder: its name or, in the cache of the Hugging Face hub, the repository's."""
    repository = folder.parents[1].name if len(folder.parents) > 1 else ""
    if folder.parent.name == "snapshots" and repository.startswith("models--"):
        return repository.removeprefix("models--").replace("--", "/")
    return folder.name or "model"


def _url(reference: Reference, choices: Choices) -> Candidate:
    path, url, _ = _url_file(reference.location, choices)
    if path.exists():
        header, size = require_header(path), path.stat().st_size
    else:
        header, size = _remote_header(reference.text, url, {})
    facts = Facts(id=path.stem, origin=reference.text, size=size, created=datetime.date.today())
    shown = {"source": urlsplit(url).hostname or url}
    return _gguf(header, facts, choices, lambda: Weights(_fetch_url(reference.location, size, choices)), shown)


def _url_file(location: str, choices: Choices) -> tuple[Path, str, str]:
    """Return where a file from an address is kept, the address without the hash, and the hash, which may be empty."""
    url, _, sha256 = location.partition("#sha256=")
    file = Path(unquote(urlsplit(url).path)).name
    return choices.cache / "hub" / "url" / hashlib.sha256(url.encode()).hexdigest()[:16] / file, url, sha256


def _fetch_url(location: str, size: int, choices: Choices) -> Path:
    """Return a verified file from an address, after downloading it if it is missing. Raises ExportError."""
    path, url, sha256 = _url_file(location, choices)
    if not path.exists():
        require_space(path.name, size, choices.cache, "TRIDENT_CACHE")
        download(path.name, url, path, {}, size)
    require_sha256(path.name, path, sha256 or None, choices.cache, path.unlink)
    return path


def _repository(reference: Reference, choices: Choices) -> Candidate:
    hub, listing = _find(reference, choices)
    shown = {"source": _source(hub, listing), "gated": "yes" if listing.gated else "no"}
    origin = f"{_PREFIXES[_kind(hub)]}:{listing.id}@{listing.revision}"
    facts = Facts(
        id=listing.id,
        origin=origin,
        owner=listing.id.partition("/")[0],
        license=listing.license,
        created=datetime.date.fromisoformat(listing.created),
    )
    names = {file.name for file in listing.files}
    if reference.quantization or (gguf_files(listing) and "config.json" not in names):
        return _repository_gguf(reference, hub, listing, facts, choices, shown)
    files = HubFiles(hub, listing)
    info = read_info(reference.text, files)
    _require_trust(reference.text, info, choices)
    needed = needed_files(files, with_code=choices.trust_remote_code, weights=info.weights)
    facts = dataclasses.replace(facts, size=sum(files.sizes[name] for name in needed))
    entry = folder_entry(info, files, facts, choices)
    return Candidate(entry, lambda: Weights(files.fetch(needed)), shown | _shown(info, choices))


def _repository_gguf(
    reference: Reference, hub: Hub, listing: Listing, facts: Facts, choices: Choices, shown: Mapping[str, str]
) -> Candidate:
    model, projector = choose_gguf(reference.text, gguf_files(listing), reference.quantization)
    try:
        known = hub.cached(listing, model)
        header = require_header(known) if known else _remote_header(reference.text, *hub.address(listing, model))[0]
    except Forbidden:
        raise hub.denied(listing.id) from None
    facts = dataclasses.replace(
        facts,
        id=Path(model.name).stem,
        size=model.size + (projector.size if projector else 0),
        origin=facts.origin + (f":{reference.quantization}" if reference.quantization else ""),
    )

    def fetch() -> Weights:
        return Weights(hub.fetch(listing, model), hub.fetch(listing, projector) if projector else None)

    return _gguf(header, facts, choices, fetch, {**shown, "file": model.name})


def _gguf(
    header: GGUFHeader, facts: Facts, choices: Choices, fetch: Callable[[], Weights], shown: Mapping[str, str]
) -> Candidate:
    entry = gguf_entry(header, facts, choices)
    context = header.integer("context_length", 0)
    memory = memory_text(facts.size, CACHE_BYTES if entry.task == "chat" else 0)
    known = {"architecture": header.architecture, "context": f"{context:,} tokens", "memory": memory}
    return Candidate(entry, fetch, {**shown, **known})


def _find(reference: Reference, choices: Choices) -> tuple[Hub, Listing]:
    """Return a repository's listing and the hub that has it: the other hub, if the first one cannot be reached."""
    hub = _hub(reference.kind, choices)
    try:
        return hub, read_listing(hub, reference.location, reference.revision, choices.cache)
    except Unreachable as error:
        other: Kind = "modelscope" if reference.kind == "huggingface" else "huggingface"
        translate = modelscope_id if other == "modelscope" else hugging_face_id
        named = reference.text.startswith(("http", *(f"{prefix}:" for prefix in _PREFIXES.values())))
        if "@" in reference.text or named or is_offline():
            raise  # the user named the hub, or a revision that only this hub has
        print(f"{error}\nTrying {_hub(other, choices).title}", flush=True)
        try:
            return (found := _hub(other, choices)), read_listing(
                found, translate(reference.location), None, choices.cache
            )
        except Unreachable:
            raise error from None


def _source(hub: Hub, listing: Listing) -> str:
    return f"{hub.title}, revision {listing.revision[:12]}"


def _hub(kind: str, choices: Choices) -> Hub:
    return ModelScope(choices.cache) if kind == "modelscope" else HuggingFace(choices.cache)


def _kind(hub: Hub) -> str:
    return "modelscope" if isinstance(hub, ModelScope) else "huggingface"


def _remote_header(name: str, url: str, headers: Mapping[str, str]) -> tuple[GGUFHeader, int]:
    """Return the header and the size of a GGUF file on a server, without the rest of it. Raises ExportError."""
    content, size = read_beginning(name, url, headers, _HEADER_BYTES)
    try:
        try:
            return parse_header(content, size), size
        except IncompleteGGUF:
            content, size = read_beginning(name, url, headers, _MAX_HEADER_BYTES)
            return parse_header(content, size), size
    except InvalidGGUF as error:
        raise ExportError(f"{name}: {error}") from error


def _shown(info: ModelInfo, choices: Choices) -> dict[str, str]:
    """Return what the configuration of a publisher's folder says, and the memory that the model needs."""
    size = round(info.num_parameters * BYTES_PER_WEIGHT.get(choices.precision, BYTES_PER_WEIGHT["int8"]))
    context = {"context": f"{info.context_length:,} tokens"} if info.context_length else {}
    memory = memory_text(size, CACHE_BYTES if info.task == "chat" else 0)
    return {"architecture": info.architecture, **context, "memory": memory}


def _require_trust(name: str, info: ModelInfo, choices: Choices) -> None:
    if info.remote_code and info.task != "chat":
        raise ExportError(
            f"{name}: the model needs Python code from its repository, which is run only for chat models. A GGUF file "
            "of the model needs none"
        )
    if info.remote_code and not choices.trust_remote_code:
        raise ExportError(
            f"{name}: the model can only be loaded with Python code from its repository. Read that code; if you trust "
            "it, add --trust-remote-code. It then runs only in the environment for conversions"
        )

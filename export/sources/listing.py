"""What a hub says about a repository: its files and their hashes. The last listing is kept for use without the hub."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol

from export.fetch import DownloadFailed, ExportError

_MAX_FILES = 10_000


class RemoteFile(NamedTuple):
    """A file of a repository."""

    name: str
    size: int
    sha256: str | None


@dataclass(frozen=True)
class Listing:
    """A repository at one commit."""

    id: str
    revision: str
    """The commit or, if the hub has no commits, the revision's name."""
    files: tuple[RemoteFile, ...]
    license: str = "unknown"
    gated: bool = False
    created: str = "1970-01-01"


class Hub(Protocol):
    """A hub that has repositories of models."""

    title: str

    def list_files(self, id: str, revision: str | None) -> Listing:
        """Return a repository's listing. Raises ExportError, and Unreachable if the hub does not answer."""

    def address(self, listing: Listing, file: RemoteFile) -> tuple[str, dict[str, str]]:
        """Return the URL of a file, and the headers with which to request it."""

    def require_space(self, id: str, size: int) -> None:
        """Raise ExportError if so many bytes do not fit on the disk for downloads."""

    def denied(self, id: str) -> ExportError:
        """Return the error for a repository that needs permission."""

    def cached(self, listing: Listing, file: RemoteFile) -> Path | None:
        """Return a file that has been downloaded before, or None."""

    def fetch(self, listing: Listing, file: RemoteFile) -> Path:
        """Return a verified file of a repository, after downloading it if it is missing. Raises ExportError."""


class Unreachable(DownloadFailed):
    """A hub cannot be reached."""


class UnknownRevision(ExportError):
    """A repository has no such branch, tag or commit."""


def read_listing(hub: Hub, id: str, revision: str | None, cache: Path) -> Listing:
    """Return a repository's listing, or the last one of the same revision if the hub cannot be reached.

    A commit never changes, so its listing is read only once. Raises ExportError.
    """
    record = _record(hub, id, revision, cache)
    if revision and re.fullmatch("[0-9a-f]{40}", revision) and (known := _read(record)):
        return known
    try:
        listing = _checked(hub.list_files(id, revision))
    except Unreachable:
        if known := _read(record):
            print(f"{id}: {hub.title} cannot be reached; using the files that were downloaded before")
            return known
        raise
    for path in (record, _record(hub, id, listing.revision, cache)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(dataclasses.asdict(listing)), encoding="utf-8")
    return listing


def _checked(listing: Listing) -> Listing:
    """Raise ExportError if a file would be written outside of the repository's folder, or if there are too many."""
    if len(listing.files) > _MAX_FILES:
        raise ExportError(f"{listing.id}: the repository has {len(listing.files):,} files (limit: {_MAX_FILES:,})")
    for file in listing.files:
        path = PurePosixPath(file.name)
        if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in file.name:
            raise ExportError(f"{listing.id}: the repository has a file with the invalid name '{file.name[:100]}'")
    return listing


def _record(hub: Hub, id: str, revision: str | None, cache: Path) -> Path:
    name = re.sub(r"[^A-Za-z0-9._-]+", "--", f"{hub.title}/{id}@{revision or 'default'}")
    return cache / "hub" / "listings" / f"{name}.json"


def _read(record: Path) -> Listing | None:
    try:
        content: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        return Listing(**content | {"files": tuple(RemoteFile(*file) for file in content["files"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def require_sha256(name: str, path: Path, sha256: str | None, cache: Path, discard: Callable[[], None]) -> None:
    """Raise ExportError, after calling `discard`, if a file has another hash. The result is remembered."""
    if sha256 is None:
        return
    stat, marker = path.stat(), cache / "hub" / "verified" / sha256
    state = f"{path} {stat.st_size} {stat.st_mtime_ns}"
    if marker.exists() and marker.read_text(encoding="utf-8") == state:
        return
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            discard()
            raise DownloadFailed(f"{name}: the downloaded file {path.name} does not match its sha256. Try again")
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.write_text(state, encoding="utf-8")

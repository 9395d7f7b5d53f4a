"""Downloads from ModelScope through its HTTP API.

Files are kept in the cache. `MODELSCOPE_API_TOKEN` is the token for models that need one, and `MODELSCOPE_DOMAIN`
another address of the hub.
"""

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from export.catalog import load_catalog
from export.fetch import ExportError
from export.sources.download import Forbidden, NotFound, download, read_url
from export.sources.hugging_face import announce, require_space
from export.sources.listing import Listing, RemoteFile, Unreachable, require_sha256

_DOMAIN = "www.modelscope.cn"
_REVISION = "master"

# Organizations whose names on ModelScope differ from those on the Hugging Face hub. The catalog has further models.
_ORGANIZATIONS = {"zai-org": "ZhipuAI", "openbmb": "OpenBMB", "tencent": "Tencent-Hunyuan"}


class ModelScope:
    """ModelScope."""

    title = "ModelScope"

    def __init__(self, cache: Path):
        self._cache = cache

    def list_files(self, id: str, revision: str | None) -> Listing:
        """See `Hub`."""
        id = modelscope_id(id)
        base, revision = f"{_endpoint()}/api/v1/models/{id}", revision or _REVISION
        content = self._ask(id, f"{base}/repo/files?Revision={quote(revision, safe='')}&Recursive=True")
        blobs = [file for file in content.get("Files") or () if file.get("Type") != "tree"]
        if not blobs:
            raise ExportError(f"{id}: the repository has no files at the revision {revision}")
        files = tuple(RemoteFile(str(file["Path"]), int(file["Size"]), file.get("Sha256") or None) for file in blobs)
        about = self._ask(id, base)
        license = about.get("License")
        return Listing(id, revision, files, license.lower() if isinstance(license, str) and license else "unknown")

    def address(self, listing: Listing, file: RemoteFile) -> tuple[str, dict[str, str]]:
        """See `Hub`."""
        revision, name = quote(listing.revision, safe=""), quote(file.name, safe="")
        return f"{_endpoint()}/api/v1/models/{listing.id}/repo?Revision={revision}&FilePath={name}", _headers()

    def require_space(self, id: str, size: int) -> None:
        """See `Hub`."""
        require_space(id, size, self._cache, "TRIDENT_CACHE")

    def denied(self, id: str) -> ExportError:
        """See `Hub`."""
        return ExportError(
            f"{id}: the model needs permission. Accept its conditions on ModelScope's page, then set "
            "MODELSCOPE_API_TOKEN to your token"
        )

    def cached(self, listing: Listing, file: RemoteFile) -> Path | None:
        """See `Hub`."""
        path = self._path(listing, file)
        return path if path.exists() and path.stat().st_size == file.size else None

    def _ask(self, id: str, url: str) -> dict[str, Any]:
        """Return the data in a response of the API. Raises ExportError."""
        try:
            answer: dict[str, Any] = json.loads(read_url(id, url, _headers()))
            data: dict[str, Any] = answer["Data"]
        except NotFound:
            raise ExportError(f"{id}: there is no such repository or revision on ModelScope") from None
        except Forbidden:
            raise self.denied(id) from None
        except (ValueError, KeyError, TypeError) as error:
            raise Unreachable(f"{id}: ModelScope's answer was not understood. Try again later") from error
        return data

    def _path(self, listing: Listing, file: RemoteFile) -> Path:
        return self._cache / "hub" / "modelscope" / listing.id / quote(listing.revision, safe="") / file.name

    def fetch(self, listing: Listing, file: RemoteFile) -> Path:
        """See `Hub`."""
        path = self._path(listing, file)
        if path.exists() and path.stat().st_size != file.size:  # the branch has moved on
            path.unlink()
        if path.exists():
            try:
                require_sha256(listing.id, path, file.sha256, self._cache, path.unlink)
            except ExportError:
                print(f"{listing.id}: {file.name} has changed")
        if not path.exists():
            self.require_space(listing.id, file.size)
            announce(listing.id, file)
            try:
                url, headers = self.address(listing, file)
                download(listing.id, url, path, headers, file.size)
            except Forbidden:
                raise self.denied(listing.id) from None
        require_sha256(listing.id, path, file.sha256, self._cache, path.unlink)
        return path


def modelscope_id(id: str) -> str:
    """Return the ID on ModelScope of a repository on the Hugging Face hub."""
    if known := next((entry.modelscope for entry in load_catalog().values() if entry.hub == id), None):
        return known
    organization, _, name = id.partition("/")
    return f"{_ORGANIZATIONS.get(organization, organization)}/{name}"


def hugging_face_id(id: str) -> str:
    """Return the ID on the Hugging Face hub of a repository on ModelScope."""
    if known := next((entry.hub for entry in load_catalog().values() if entry.hub and entry.modelscope == id), None):
        return known
    organization, _, name = id.partition("/")
    ours = {theirs: ours for ours, theirs in _ORGANIZATIONS.items()}
    return f"{ours.get(organization, organization)}/{name}"


def _endpoint() -> str:
    domain = os.environ.get("MODELSCOPE_DOMAIN") or _DOMAIN
    return domain.rstrip("/") if "://" in domain else f"https://{domain}"


def _headers() -> dict[str, str]:
    token = os.environ.get("MODELSCOPE_API_TOKEN")
    return {"User-Agent": "trident"} | ({"Cookie": f"m_session_id={token}"} if token else {})

"""Downloads from the Hugging Face hub.

Files are kept in the cache that other tools for the hub use (`HF_HOME`). `HF_TOKEN` is the token for gated models,
`HF_ENDPOINT` another address of the hub, such as a mirror, and with `HF_HUB_OFFLINE=1` only files that are there
already are used.
"""

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from huggingface_hub import HfApi, constants, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub import errors as hub_errors
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils._headers import build_hf_headers

from export.fetch import ExportError
from export.sources.listing import Listing, RemoteFile, UnknownRevision, Unreachable, require_sha256

T = TypeVar("T")


class HuggingFace:
    """The Hugging Face hub, or its mirror."""

    title = "Hugging Face"

    def __init__(self, cache: Path):
        self._cache = cache

    def list_files(self, id: str, revision: str | None) -> Listing:
        """See `Hub`."""
        from export.sources.modelscope import hugging_face_id  # imports this module

        id = hugging_face_id(id)
        info: ModelInfo = _ask(id, lambda: HfApi().model_info(id, revision=revision, files_metadata=True))
        created = info.last_modified or info.created_at
        license = getattr(info.card_data, "license", None) if info.card_data else None
        return Listing(
            id,
            str(info.sha),
            tuple(
                RemoteFile(each.rfilename, each.size or 0, each.lfs.sha256 if each.lfs else None)
                for each in info.siblings or ()
            ),
            license if isinstance(license, str) else "unknown",
            bool(info.gated),
            created.date().isoformat() if created else "1970-01-01",
        )

    def address(self, listing: Listing, file: RemoteFile) -> tuple[str, dict[str, str]]:
        """See `Hub`."""
        return hf_hub_url(listing.id, file.name, revision=listing.revision), build_hf_headers()

    def require_space(self, id: str, size: int) -> None:
        """See `Hub`."""
        require_space(id, size, Path(constants.HF_HUB_CACHE), "HF_HOME")

    def denied(self, id: str) -> ExportError:
        """See `Hub`."""
        return _denied(id)

    def cached(self, listing: Listing, file: RemoteFile) -> Path | None:
        """See `Hub`."""
        known = try_to_load_from_cache(listing.id, file.name, revision=listing.revision)
        return Path(known) if isinstance(known, str) else None

    def fetch(self, listing: Listing, file: RemoteFile) -> Path:
        """See `Hub`."""
        path = self.cached(listing, file)
        if path is None:
            self.require_space(listing.id, file.size)
            announce(listing.id, file)
            path = Path(_ask(listing.id, lambda: hf_hub_download(listing.id, file.name, revision=listing.revision)))

        def discard() -> None:
            path.resolve().unlink(missing_ok=True)
            path.unlink(missing_ok=True)

        require_sha256(listing.id, path, file.sha256, self._cache, discard)
        return path


def require_space(name: str, size: int, folder: Path, variable: str) -> None:
    """Raise ExportError if so many bytes do not fit on the disk of a folder, which an environment variable sets."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if size > free:
        raise ExportError(
            f"{name}: the download needs {size / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB free. "
            f"Free some, or set {variable} to a folder on another disk"
        )


def announce(name: str, file: RemoteFile) -> None:
    """Announce the download of a large file."""
    if file.size > 1 << 20:
        print(f"{name}: downloading {file.name} ({file.size / 1e6:,.0f} MB)", flush=True)


def _ask(name: str, call: Callable[[], T]) -> T:
    """Return the result of a call to the hub. Raises ExportError."""
    try:
        return call()
    except hub_errors.GatedRepoError:
        raise _denied(name) from None
    except hub_errors.RevisionNotFoundError:
        raise UnknownRevision(f"{name}: the repository has no such revision") from None
    except hub_errors.RepositoryNotFoundError:
        raise ExportError(
            f"{name}: there is no such repository. For a private one, set HF_TOKEN to your token"
        ) from None
    except (hub_errors.LocalEntryNotFoundError, hub_errors.OfflineModeIsEnabled) as error:
        if not is_offline():
            raise _unreachable(name, error) from error
        raise Unreachable(f"{name}: HF_HUB_OFFLINE is set, and the file has not been downloaded before") from None
    except hub_errors.HFValidationError as error:
        raise ExportError(f"{name} is not a valid ID of a repository: {error}") from error
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


def is_offline() -> bool:
    """Return whether the user allows no connections (`HF_HUB_OFFLINE`)."""
    return bool(constants.HF_HUB_OFFLINE)


def _denied(name: str) -> ExportError:
    return ExportError(
        f"{name}: the model is gated. Accept its conditions on the hub's page, then set HF_TOKEN to your token"
    )


def _unreachable(name: str, error: Exception) -> Unreachable:
    return Unreachable(
        f"{name}: {constants.ENDPOINT} cannot be reached ({error}). Check the network; HF_ENDPOINT sets a mirror. "
        "Finished parts of downloads are kept"
    )

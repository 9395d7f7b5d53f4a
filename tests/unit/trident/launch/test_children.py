"""The rotating logs of child processes."""

import subprocess
import sys

from tests.support.live import wait_until
from trident.launch import children
from trident.launch.children import ChildLog, start_child


def log_output(log, text):
    """Run a process that prints `text`, and wait until the last line of `text` is in the log."""
    process = start_child([sys.executable, "-c", f"print({text!r})"], stdout=subprocess.PIPE)
    log.follow(process.stdout)
    last = text.splitlines()[-1]
    wait_until(lambda: log.path.exists() and last in log.path.read_text(encoding="utf-8"), 20, last)


def test_existing_logs_are_renamed_and_kept(tmp_path):
    path = tmp_path / "run" / "triton.log"
    for text in ("first", "second", "third"):
        log_output(ChildLog(path), text)
    assert path.read_text(encoding="utf-8") == "third\n"
    assert (tmp_path / "run" / "triton.log.1").read_text(encoding="utf-8") == "second\n"
    assert (tmp_path / "run" / "triton.log.2").read_text(encoding="utf-8") == "first\n"


def test_log_size_and_file_count_are_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(children, "_MAX_BYTES", 1000)
    log_output(ChildLog(tmp_path / "triton.log"), "\n".join(f"line {i:04}" for i in range(1000)))
    files = sorted(tmp_path.glob("triton.log*"))
    assert len(files) == 5
    assert all(file.stat().st_size <= 1000 for file in files)

"""Exports users' own models from folders, for the heavy suites."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.live import CHECKOUT


def export_folder(folder: Path | str, repository: Path, *flags: str, code: int = 0) -> str:
    """Export a folder into a repository, and return the output. The exit code must be `code`."""
    environment = os.environ | {"TRIDENT_MODEL_REPOSITORY": str(repository)}
    command = [sys.executable, "-m", "trident", "export", str(folder), *flags]
    result = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, encoding="utf-8")
    assert "Traceback" not in result.stderr, result.stderr
    assert result.returncode == code, result.stdout + result.stderr
    return result.stdout + result.stderr

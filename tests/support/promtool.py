"""Prometheus's program promtool, which checks metrics, alerts and configurations."""

import functools
import os
import shutil
import subprocess

from tests.support.debian import unpacked


@functools.cache
def promtool() -> str:
    """Return the path of promtool: $PROMTOOL, the one on PATH, or that of Debian's package. Skips if there is none."""
    found = os.environ.get("PROMTOOL") or shutil.which("promtool")
    return found or str(unpacked("prometheus", "prometheus") / "usr" / "bin" / "promtool")


def check_metrics(text: str) -> None:
    """Check the format of metrics, and the names of Trident's metrics: those of Triton's are Triton's."""
    result = subprocess.run([promtool(), "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
    output = result.stdout + result.stderr
    complaints = [line for line in output.splitlines() if line.startswith(("trident_", "process_", "error"))]
    assert not complaints, output

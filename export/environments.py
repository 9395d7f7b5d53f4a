"""Runs code in separate Python environments, which the Makefile creates when a model first needs them."""

import os
import re
import subprocess
from pathlib import Path

from contract.paths import CHECKOUT
from export.fetch import ExportError


def pinned_version(environment: str, package: str) -> str:
    """Return the version of a package in an environment, from its lock file, without creating the environment."""
    lock = (CHECKOUT / "requirements" / f"{environment}.lock").read_text(encoding="utf-8")
    match = re.search(rf"^{re.escape(package)}==([\w.]+)", lock, re.MULTILINE)
    if not match:
        raise ValueError(f"{environment}.lock does not pin {package}")
    return match[1]


def make(target: str) -> None:
    """Build or update a Makefile target, such as an environment. Raise ExportError if that fails."""
    if subprocess.run(["make", "--silent", target], cwd=CHECKOUT, env=_environment(), check=False).returncode:
        raise ExportError(f"Could not build {target}; see the output above")


def python(environment: str) -> Path:
    """Return the path of the Python interpreter of an environment, a folder in the checkout."""
    return CHECKOUT / environment / "bin" / "python"


def run(environment: str, module: str, *arguments: str) -> str:
    """Return the output of `python -m MODULE ARGUMENTS…`, run in an environment without access to the Hugging Face Hub.

    Create or update the environment first. Raise ExportError if the environment cannot be created or the module fails.
    """
    make(f"{environment}/ready")
    command = [str(python(environment)), "-m", module, *arguments]
    result = subprocess.run(
        command,
        cwd=CHECKOUT,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if result.returncode:
        raise ExportError(f"The conversion failed:\n{_reason(result.stderr)[-2000:]}")
    return result.stdout


def _reason(errors: str) -> str:
    """Return the output of a process that failed, or what stands below the stack trace in it."""
    lines = errors.strip().splitlines()
    traces = [index for index, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    if not traces:
        return errors.strip()
    frames = [index for index in range(traces[-1], len(lines)) if lines[index].startswith("  ")]
    return "\n".join(lines[frames[-1] + 1 :]) if frames else lines[-1]


def _environment() -> dict[str, str]:
    # Conversions need no secrets, and may run code that the user trusts with less than that.
    left_out = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "MODELSCOPE_API_TOKEN")
    inherited = {name: value for name, value in os.environ.items() if name not in left_out}
    quiet = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
    return inherited | quiet | {"PYTHONPATH": str(CHECKOUT)}

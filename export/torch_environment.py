"""The environment with torch, for conversions that need it: a folder of its own, made when it is first wanted."""

import os
import subprocess
from pathlib import Path

from export.fetch import ExportError

_CHECKOUT = Path(__file__).resolve().parents[1]


def run(module: str, *arguments: str) -> None:
    """Run `python -m module arguments…` there, with no network to ask for models. Raises ExportError."""
    made = subprocess.run(["make", "--silent", ".venv-export/ready"], cwd=_CHECKOUT, env=_environment(), check=False)
    if made.returncode:
        raise ExportError("The environment with torch could not be made; see above")
    command = [str(_CHECKOUT / ".venv-export" / "bin" / "python"), "-m", module, *arguments]
    result = subprocess.run(command, cwd=_CHECKOUT, env=_environment(), capture_output=True, text=True, check=False)
    if result.returncode:
        raise ExportError(f"The conversion failed:\n{result.stderr[-2000:]}")


def _environment() -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    quiet = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
    return inherited | quiet | {"PYTHONPATH": str(_CHECKOUT)}

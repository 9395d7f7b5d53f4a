"""The environment with torch, for conversions that need it: a folder of its own, made when it is first wanted."""

import os
import subprocess
from pathlib import Path

from export.fetch import ExportError

_CHECKOUT = Path(__file__).resolve().parents[1]


def run(module: str, *arguments: str) -> None:
    """Run `python -m module arguments…` there, with no network to ask for models. Raises ExportError."""
    for command in (["make", "--no-print-directory", ".venv-export/ready"], [_python(), "-m", module, *arguments]):
        result = subprocess.run(command, cwd=_CHECKOUT, env=_environment(), check=False)
        if result.returncode:
            raise ExportError(f"The conversion failed: {' '.join(command[:3])} ended with {result.returncode}; see above")


def _python() -> str:
    return str(_CHECKOUT / ".venv-export" / "bin" / "python")


def _environment() -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    quiet = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
    return inherited | quiet | {"PYTHONPATH": str(_CHECKOUT)}

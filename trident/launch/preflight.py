"""Startup checks. They report a problem that prevents Trident from running on this machine, and how to fix it."""

import errno
import json
import os
import platform
import socket
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

from contract.paths import CHECKOUT
from frontend.settings import Settings

_ELSEWHERE = "Or use a Triton that runs elsewhere: --triton HOST:PORT."
_MIN_GLIBC = (2, 35)


class LaunchError(Exception):
    """Trident cannot start or continue. The message says why and, if known, how to fix it."""


def check_embedded(settings: Settings) -> None:
    """Raise LaunchError if the embedded Triton cannot run on this machine."""
    _check_platform()
    _check_python()
    _check_wheel()
    names = ("triton_http_port", "triton_grpc_port", "triton_metrics_port")
    for name in names:
        _check_port("127.0.0.1", getattr(settings, name), name)


def check_frontend(settings: Settings) -> None:
    """Raise LaunchError if the frontend cannot listen on its address and port."""
    _check_port(settings.host, settings.port, "port")


def check_gateway(settings: Settings) -> int:
    """Raise LaunchError if the frontend cannot use its limits and keys. Return the version in the store, or 0."""
    is_file = settings.database_url is None
    if (
        is_file
        and not settings.data_folder.exists()
        and not (settings.rate_limits or settings.admin_key_file or settings.otlp_endpoint)
    ):
        return 0
    command = [sys.executable, "-m", "frontend.gateway.startup"]
    environment = os.environ | settings.as_environment()
    result = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, encoding="utf-8", check=False)
    if result.returncode:
        raise LaunchError(result.stderr.strip())
    found = json.loads(result.stdout)
    if found["problem"]:
        raise LaunchError(found["problem"])
    if "warning" in found:
        print(f"trident: {found['warning']}; requests are rejected until it does", flush=True)
    return int(found["version"])


def _check_platform() -> None:
    system, machine = platform.system(), platform.machine()
    if (system, machine) != ("Linux", "x86_64"):
        raise LaunchError(f"The embedded Triton requires Linux on x86-64; this is {system} on {machine}. {_ELSEWHERE}")
    name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "another libc").partition(" ")
    if name != "glibc" or tuple(int(part) for part in version.split(".")[:2]) < _MIN_GLIBC:
        raise LaunchError(
            f"The embedded Triton requires glibc 2.35 or newer (Debian 12, Ubuntu 22.04); this is {name} {version}. "
            f"{_ELSEWHERE}"
        )


def _check_python() -> None:
    if sys.version_info[:2] not in ((3, 11), (3, 12)):
        raise LaunchError(
            f"Python 3.11 or 3.12 is required; this is {platform.python_version()}. "
            "Remove .venv and run `make serve PYTHON=python3.12`."
        )
    if not libpython_folder():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise LaunchError(
            f"libpython{version}.so.1.0 was not found; Triton's Python backend links to it. Install it (Debian and "
            f"Ubuntu: apt install libpython{version}; pyenv: build with --enable-shared), then remove .venv. "
            f"{_ELSEWHERE}"
        )


def libpython_folder() -> Path | None:
    """Return the folder that contains libpython for this Python version, or None if it is not found."""
    library = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    folders = [
        sysconfig.get_config_var("LIBDIR"),
        Path(sys.base_prefix) / "lib",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib64",
    ]
    return next((Path(folder) for folder in folders if folder and (Path(folder) / library).exists()), None)


def _check_wheel() -> None:
    if find_spec("pytriton") is None:
        raise LaunchError(f"Triton's wheel is not installed; run `make install`. {_ELSEWHERE}")


def _check_port(host: str, port: int, name: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            flag = "--" + name.replace("_", "-")
            advice = "check --host"
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                advice = (
                    "if `trident ps` lists an instance there, stop it with `trident stop --port PORT`; otherwise "
                    f"choose another port with {flag}"
                )
            raise LaunchError(f"Cannot listen on {host}:{port} ({error.strerror}): {advice}") from error

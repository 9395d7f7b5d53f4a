"""A Docker engine for tests, and stand-ins for the images of others, for machines that reach no registry of images."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from contract.paths import CHECKOUT
from frontend.settings import Settings

BASE = "trident-test-base"
TRITON_BASE = "trident-test-triton-base"
_PACKAGES = ("docker.io", "mmdebstrap")
_START_SECONDS = 30
_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
# What the base of the images must have. The Dockerfiles install everything else.
_BASE_PACKAGES = "ca-certificates"
_INSTALL = "apt-get update && apt-get install -y --no-install-recommends"
# Like the official image: makes the database at the first start, and then serves it as another user.
_START_POSTGRES = """#!/bin/sh
set -e
data=/var/lib/postgresql/data
chown postgres "$data"
if [ ! -e "$data/PG_VERSION" ]; then
    echo "$POSTGRES_PASSWORD" > /tmp/password
    options="-E UTF8 --locale C.UTF-8 -U $POSTGRES_USER --pwfile /tmp/password -A scram-sha-256"
    su postgres -c "PATH=$PATH initdb -D $data $options" > /dev/null
    echo "host all all all scram-sha-256" >> "$data/pg_hba.conf"
    echo "CREATE DATABASE $POSTGRES_USER" | su postgres -c "PATH=$PATH postgres --single -D $data postgres" > /dev/null
fi
exec su postgres -c "PATH=$PATH exec postgres -D $data -h 0.0.0.0 -k /tmp"
"""
_LIMITS = {"Hard": 4096, "Soft": 4096}


class Docker:
    """The client of an engine at `host`."""

    def __init__(self, host: str):
        self.environment = os.environ | {"DOCKER_HOST": host, "DOCKER_BUILDKIT": "1"}

    def __call__(self, *arguments: str, check: bool = True, timeout: float = 900) -> str:
        """Run a command of the client and return its output. Raises AssertionError if it fails.

        Without `check`, no failure is an error, and standard error is part of the output.
        """
        command = ["/usr/bin/docker", *arguments]
        result = subprocess.run(
            command, env=self.environment, capture_output=True, encoding="utf-8", timeout=timeout, check=False
        )
        if check and result.returncode:
            raise AssertionError(f"{' '.join(arguments[:2])}: {result.stdout}\n{result.stderr}")
        return result.stdout + ("" if check else result.stderr)

    def build(self, name: str, image: str, base: str = BASE) -> str:
        """Build docker/NAME.Dockerfile on a stand-in base as `image`, and return that name."""
        file = str(CHECKOUT / "docker" / f"{name}.Dockerfile")
        self("build", "--network", "host", "--build-arg", f"BASE={base}", "-f", file, "-t", image, str(CHECKOUT))
        return image

    def build_from(
        self, image: str, lines: Sequence[str], files: Mapping[str, Path | str] = MappingProxyType({})
    ) -> str:
        """Build an image from the lines of a Dockerfile. Its context has files, folders, or texts as files."""
        with tempfile.TemporaryDirectory() as name:
            context = Path(name)
            for target, source in files.items():
                if isinstance(source, str):
                    (context / target).write_text(source, encoding="utf-8")
                elif source.is_dir():
                    shutil.copytree(source, context / target)
                else:
                    shutil.copy(source, context / target)
            (context / "Dockerfile").write_text("\n".join(lines) + "\n", encoding="utf-8")
            self("build", "--network", "host", "-t", image, str(context))
        return image

    def size(self, image: str) -> int:
        """Return the size of an image in bytes."""
        return int(self("image", "inspect", "--format", "{{.Size}}", image))


def missing_reason() -> str:
    """Return why no engine can be started here, or an empty text."""
    if os.geteuid() != 0:
        return "needs root to start a Docker engine"
    if all(shutil.which(name) for name in ("dockerd", "mmdebstrap")):
        return ""
    install = ["apt-get", "install", "-y", "--no-install-recommends", *_PACKAGES]
    if subprocess.run(install, capture_output=True, check=False).returncode:
        return f"needs the packages {', '.join(_PACKAGES)}"
    return ""


@contextmanager
def running_docker() -> Iterator[Docker]:
    """Run an engine with an empty store until the block ends. It has the image BASE."""
    # The path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="dk", dir="/tmp", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        settings = {
            "data-root": f"{folder}/data",
            "exec-root": f"{folder}/exec",
            "pidfile": f"{folder}/pid",
            "hosts": [f"unix://{folder}/socket"],
            "storage-driver": "overlay2",
            "default-ulimits": {each: {"Name": each, **_LIMITS} for each in ("nofile", "nproc")},
        }
        (folder / "daemon.json").write_text(json.dumps(settings), encoding="utf-8")
        with (folder / "log").open("w", encoding="utf-8") as log:
            engine = subprocess.Popen(["dockerd", "--config-file", f"{folder}/daemon.json"], stdout=log, stderr=log)
        try:
            docker = Docker(f"unix://{folder}/socket")
            _wait(docker, folder / "log")
            _make_base(docker, folder)
            yield docker
        finally:
            engine.terminate()
            engine.wait(60)
            subprocess.run(["ip", "link", "delete", "docker0"], capture_output=True, check=False)


def _wait(docker: Docker, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while "Server Version" not in docker("info", check=False):
        assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
        time.sleep(0.2)


def _make_base(docker: Docker, folder: Path) -> None:
    """Make the base from Debian's packages, and let pip in it trust the certificates of this machine."""
    archive = Settings().cache / "docker" / "bookworm.tar"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        new = archive.with_suffix(".new")
        options = ["--variant=minbase", "--format=tar", f"--include={_BASE_PACKAGES}"]
        command = ["mmdebstrap", *options, "bookworm", str(new)]
        subprocess.run(command, capture_output=True, check=True)
        new.replace(archive)
    docker("import", str(archive), f"{BASE}-bare")
    files = {"certificates.crt": _BUNDLE, "pip.conf": "[global]\ncert = /etc/certificates.crt\n"}
    docker.build_from(BASE, [f"FROM {BASE}-bare", "COPY certificates.crt pip.conf /etc/"], files)


def make_triton_base(docker: Docker) -> str:
    """Make a stand-in for NVIDIA's image of Triton, from Debian's Python and Triton's wheel, and return its name."""
    wheel = Path(str(find_spec("pytriton").origin)).parent  # type: ignore[union-attr]
    stub = wheel / "tritonserver" / "python_backend_stubs" / "3.11" / "triton_python_backend_stub"
    lines = [
        f"FROM {BASE}",
        f"RUN {_INSTALL} libpython3.11 python3",
        "COPY tritonserver/bin /opt/tritonserver/bin",
        "COPY tritonserver/backends /opt/tritonserver/backends",
        "COPY stub /opt/tritonserver/backends/python/triton_python_backend_stub",
        "COPY libraries /opt/tritonserver/lib",
        "ENV PATH=/opt/tritonserver/bin:$PATH LD_LIBRARY_PATH=/opt/tritonserver/lib",
        "WORKDIR /opt/tritonserver",
    ]
    libraries = wheel.parent / "nvidia_pytriton.libs"
    files = {"tritonserver": wheel / "tritonserver", "libraries": libraries, "stub": stub}
    return docker.build_from(TRITON_BASE, lines, files)


def make_stores(docker: Docker) -> None:
    """Make stand-ins for the images of Redis and PostgreSQL that compose.yaml names, from Debian's packages."""
    docker.build_from("redis:8", [f"FROM {BASE}", f"RUN {_INSTALL} redis-server"])
    lines = [
        f"FROM {BASE}",
        f"RUN {_INSTALL} postgresql",
        "ENV PATH=/usr/lib/postgresql/15/bin:$PATH",
        "COPY --chmod=755 start /start",
        'CMD ["/start"]',
    ]
    docker.build_from("postgres:17", lines, {"start": _START_POSTGRES})

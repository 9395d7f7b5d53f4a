"""A Docker engine for tests, and a base image in place of Debian's, for machines that reach no registry of images."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contract.paths import CHECKOUT
from frontend.settings import Settings

BASE = "trident-test-base"
_PACKAGES = ("docker.io", "mmdebstrap")
_START_SECONDS = 30
_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
# What the base of the images must have. The Dockerfiles install everything else.
_BASE_PACKAGES = "ca-certificates"
_LIMITS = {"Hard": 4096, "Soft": 4096}


class Docker:
    """The client of an engine at `host`."""

    def __init__(self, host: str):
        self._environment = os.environ | {"DOCKER_HOST": host, "DOCKER_BUILDKIT": "1"}

    def __call__(self, *arguments: str, check: bool = True, timeout: float = 900) -> str:
        """Run a command of the client and return its output. Raises AssertionError if it fails.

        Without `check`, no failure is an error, and standard error is part of the output.
        """
        command = ["/usr/bin/docker", *arguments]
        result = subprocess.run(
            command, env=self._environment, capture_output=True, encoding="utf-8", timeout=timeout, check=False
        )
        if check and result.returncode:
            raise AssertionError(f"{' '.join(arguments[:2])}: {result.stdout}\n{result.stderr}")
        return result.stdout + ("" if check else result.stderr)

    def build(self, name: str) -> str:
        """Build docker/NAME.Dockerfile on the stand-in base, and return the image's name."""
        image = f"trident-test-{name}"
        file = str(CHECKOUT / "docker" / f"{name}.Dockerfile")
        self("build", "--network", "host", "--build-arg", f"BASE={BASE}", "-f", file, "-t", image, str(CHECKOUT))
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
    context = folder / "base"
    context.mkdir()
    shutil.copy(_BUNDLE, context / "certificates.crt")
    (context / "pip.conf").write_text("[global]\ncert = /etc/certificates.crt\n", encoding="utf-8")
    lines = [f"FROM {BASE}-bare", "COPY certificates.crt pip.conf /etc/"]
    (context / "Dockerfile").write_text("\n".join(lines) + "\n", encoding="utf-8")
    docker("build", "-t", BASE, str(context))

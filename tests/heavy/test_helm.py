"""The Helm chart: what it renders, what it refuses, and a rendered pod that runs."""

import json
import subprocess
from pathlib import Path

import pytest
import requests
import yaml

from contract.paths import CHECKOUT
from export.targets import TRITON_VERSION
from tests.heavy.conftest import CONTAINER_MODELS
from tests.support.kubernetes_tools import CHART, helm, podman_missing, render, running_podman, validators
from tests.support.live import MODEL, user, wait_until
from tests.support.stack import free_ports

EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
GOLDEN = Path(__file__).with_name("golden")
# What can be read and written of the objects of operators. Pydantic drops unknown fields silently, so that what it
# writes must be what it has read.
ROUND_TRIP = """
import importlib, json, sys
kinds = {"PodMonitor": "cloudcoil.models.prometheus_operator.monitoring.v1",
         "PrometheusRule": "cloudcoil.models.prometheus_operator.monitoring.v1",
         "ScaledObject": "cloudcoil.models.keda.v1alpha1"}
for given in json.load(sys.stdin):
    for path in (kinds[given["kind"]], kinds[given["kind"]].replace(".monitoring.v1", ".v1")):
        try:
            kind = getattr(importlib.import_module(path), given["kind"])
            break
        except ImportError:
            continue
    read = kind.model_validate(given).model_dump(by_alias=True, exclude_unset=True, mode="json")
    assert read == given, (read, given)
    print(given["kind"])
"""


@pytest.mark.parametrize("example", [None, *EXAMPLES], ids=lambda path: path.stem if path else "default")
def test_chart_has_no_findings(example):
    result = helm("lint", "--strict", CHART, *(["-f", example] if example else []))
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_render_as_before(example):
    """To accept a change: `python -m tests.heavy.test_helm`."""
    golden = list(yaml.safe_load_all((GOLDEN / example.name).read_text(encoding="utf-8")))
    assert _without_files(render("-f", example)) == golden


def _without_files(manifests):
    """Return manifests without the contents of other files, which have tests of their own."""
    for each in manifests:
        if each["kind"] == "PrometheusRule":
            each["spec"]["groups"] = [group["name"] for group in each["spec"]["groups"]]
        if each["kind"] == "ConfigMap":
            each["data"] = sorted(each["data"])
    return manifests


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("frontend.replicas=many", "/frontend/replicas"),
        ("mode=cluster", "/mode"),
        ("triton.gpu=1", "gpu"),
        ("models.source=s3", "/models/s3"),
        ("autoscaling.kind=hpa,mode=split", "use keda in split mode"),
        ("data.persistent=true,frontend.replicas=2", "secrets.stores"),
        ("data.persistent=true,autoscaling.kind=keda", "secrets.stores"),
        ("autoscaling.min=0", "/autoscaling/min"),
        ("mode=split,models.volume.accessMode=ReadWriteOncePod", "cannot share the volume"),
    ],
)
def test_wrong_values_are_refused(setting, message):
    result = helm("template", "trident", CHART, "--set", setting)
    assert result.returncode != 0
    assert message in result.stderr


def deployments(*values):
    manifests = render(*(argument for value in values for argument in ("--set", value)))
    return [each for each in manifests if each["kind"] == "Deployment"]


def test_updates_stop_the_old_pod_first_where_a_volume_needs_it():
    def strategies(*values):
        return [each["spec"]["strategy"].get("type") for each in deployments(*values)]

    assert strategies() == ["Recreate"]
    assert strategies("models.volume.accessMode=ReadWriteMany") == [None]
    assert strategies("models.volume.accessMode=ReadWriteMany", "data.persistent=true") == ["Recreate"]
    assert strategies("mode=split") == ["Recreate", "Recreate"]
    assert strategies("mode=split", "models.volume.accessMode=ReadWriteMany") == [None, None]


def test_only_tritons_are_bound_to_nodes_with_gpus():
    values = ["mode=split", "triton.gpus=1", "nodeSelector.gpu=yes"]
    frontend, triton = (each["spec"]["template"]["spec"] for each in deployments(*values))
    assert "nodeSelector" not in frontend
    assert triton["nodeSelector"] == {"gpu": True} or triton["nodeSelector"] == {"gpu": "yes"}
    assert triton["tolerations"][0]["key"] == "nvidia.com/gpu"


def test_engines_are_kept_only_where_the_export_may_write():
    def mount(*values):
        mounts = deployments(*values)[-1]["spec"]["template"]["spec"]["containers"][-1]["volumeMounts"]
        return next(each for each in mounts if each["mountPath"] == "/engines")["name"]

    assert mount("triton.gpus=1") == "models"
    assert mount() == mount("triton.gpus=1", "models.source=volume") == "engines"


def test_dashboard_and_alerts_are_those_of_the_project():
    manifests = render("--set", "monitoring.dashboard=true,monitoring.rules=true")
    by_kind = {each["kind"]: each for each in manifests}
    dashboard = (CHECKOUT / "docker" / "grafana" / "trident.json").read_text(encoding="utf-8")
    assert json.loads(by_kind["ConfigMap"]["data"]["trident.json"]) == json.loads(dashboard)
    alerts = yaml.safe_load((CHECKOUT / "docker" / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))
    assert by_kind["PrometheusRule"]["spec"] == alerts


def test_releases_of_triton_agree():
    dockerfile = (CHECKOUT / "docker" / "triton.Dockerfile").read_text(encoding="utf-8")
    assert f"ARG TRITON_VERSION={TRITON_VERSION}\n" in dockerfile
    assert f"release {TRITON_VERSION}" in (CHART / "values.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_manifests_are_valid(example, tmp_path):
    programs = validators()
    manifests = render("-f", example)
    known = [each for each in manifests if each["apiVersion"].split("/")[0] not in ("keda.sh", "monitoring.coreos.com")]
    for index, each in enumerate(known):
        path = tmp_path / f"{index}.yaml"
        path.write_text(yaml.safe_dump(each), encoding="utf-8")
        command = [programs / "kubernetes-validate", "--strict", "-k", "1.33", path]
        result = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
        assert result.returncode == 0, result.stdout + result.stderr
    others = [each for each in manifests if each not in known]
    command = [programs / "python", "-c", ROUND_TRIP]
    result = subprocess.run(command, input=json.dumps(others), capture_output=True, encoding="utf-8", check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [each["kind"] for each in others]


def test_an_invalid_manifest_is_noticed(tmp_path):
    """Otherwise the test above would pass with anything."""
    programs = validators()
    (deployment,) = (each for each in render() if each["kind"] == "Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(deployment), encoding="utf-8")
    command = [programs / "kubernetes-validate", "--strict", "-k", "1.33", tmp_path / "wrong.yaml"]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


@pytest.fixture(scope="module")
def podman(docker, frontend_image, triton_image, tmp_path_factory):
    if reason := podman_missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("images")
    with running_podman() as program:
        for image in (frontend_image, triton_image):
            docker("save", "-o", str(folder / "image.tar"), image)
            program("load", "-i", folder / "image.tar")
            (folder / "image.tar").unlink()
        yield program


def test_a_rendered_pod_runs(podman, models):
    """Frontend and Triton in one pod, as Podman runs it, on the host's network."""
    port, http, metrics = free_ports(3)
    values = {
        "images": {"registry": "localhost", "tag": "latest"},
        "models": {"source": "volume", "volume": {"existingClaim": "models"}},
        "frontend": {
            "flags": [f"--port={port}", f"--triton=127.0.0.1:{http + 1}"],
            "shutdownDelay": 0,
        },
        "triton": {"flags": [f"--http-port={http}", f"--grpc-port={http + 1}", f"--metrics-port={metrics}"]},
    }
    manifests = render("--set-json", ",".join(f"{key}={json.dumps(value)}" for key, value in values.items()))
    (deployment,) = (each for each in manifests if each["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    pod["hostNetwork"] = True
    # Podman makes a folder of it, in which no shared memory can be made; it has 64 MB in /dev/shm anyway.
    pod["volumes"] = [volume for volume in pod["volumes"] if volume["name"] != "shm"]
    pod["containers"][1]["volumeMounts"] = [
        mount for mount in pod["containers"][1]["volumeMounts"] if mount["name"] != "shm"
    ]
    for container in pod["containers"]:
        # Podman's checks need systemd, and the host's network has no mapped ports.
        for field in ("startupProbe", "livenessProbe", "readinessProbe", "lifecycle", "ports"):
            container.pop(field, None)
    podman("volume", "create", "--opt", "type=none", "--opt", "o=bind", "--opt", f"device={models}", "models")
    podman.play([deployment])

    def answers():
        body = {"model": MODEL, "messages": user("What is the capital of Japan?"), "temperature": 0, "max_tokens": 20}
        try:
            answer = requests.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, timeout=60)
        except requests.ConnectionError:
            return False
        return answer.status_code == 200 and "Tokyo" in answer.json()["choices"][0]["message"]["content"]

    try:
        wait_until(answers, 120, "the pod to answer")
    except AssertionError:
        names = podman("ps", "-a", "--format", "{{.Names}}").split()
        lines = [line for name in names for line in podman("logs", name, check=False).splitlines()]
        raise AssertionError("\n".join(line for line in lines if "rror" in line or "ailed" in line)[-5000:]) from None
    listed = requests.get(f"http://127.0.0.1:{port}/v1/models", timeout=10).json()["data"]
    assert len(listed) == len(CONTAINER_MODELS)


if __name__ == "__main__":
    for path in EXAMPLES:
        text = yaml.safe_dump_all(_without_files(render("-f", path)), sort_keys=True)
        (GOLDEN / path.name).write_text(text, encoding="utf-8")

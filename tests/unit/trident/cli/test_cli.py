"""The `trident` command: its help, and its subcommands for models and instances."""

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


def test_help_is_grouped_and_has_no_python_type_names():
    text = run("serve", "--help")
    positions = [text.index(f"{group.capitalize()}:") for group in GROUPS]
    assert positions == sorted(positions)
    assert (
        text.index("  --host") < text.index("  --port ") < text.index("  --models") < text.index("  --max-body-bytes")
    )
    for word in ("INTEGER", "TEXT", "FLOAT", "PATH", "Optional", "None", "[required]"):
        assert word not in text


def test_help_does_not_import_slow_modules():
    slow = ("pydantic", "flask", "gevent", "numpy", "grpc", "urllib.request")
    code = f"import sys, trident.cli; print([name for name in {slow} if name in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True).stdout
    assert output == "[]\n"


def test_version_and_completion_script_are_printed():
    assert run("--version").startswith("trident, version ")
    assert "_TRIDENT_COMPLETE" in run("completion", "bash")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("trident transc", "transcribe"),
        ("trident run qwen2.5-c", "qwen2.5-coder-0.5b"),
        ("trident serve --mod", "--models"),
    ],
)
def test_words_are_completed(words, found):
    environment = {"_TRIDENT_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    command = [sys.executable, "-c", "from trident.cli import main; main(prog_name='trident')"]
    output = subprocess.run(command, env=os.environ | environment, capture_output=True, encoding="utf-8", check=True)
    assert f"plain,{found}" in output.stdout.splitlines()


def test_list_shows_models_of_the_catalog_and_other_models_of_the_repository(tmp_path):
    (tmp_path / "repository" / "mine").mkdir(parents=True)
    (tmp_path / "repository" / "mine" / "config.pbtxt").touch()
    text = run("list")
    assert all((entry.modelscope or entry.id) in text for entry in load_catalog().values())
    assert "mine" in text
    rows = {row["name"]: row for row in json.loads(run("list", "--json"))}
    assert rows["mine"]["exported"]
    assert not rows["smollm2-135m"]["exported"]
    assert rows["smollm2-135m"]["task"] == "chat"


def test_show_describes_models_of_the_catalog_and_the_repository_and_rejects_unknown_names(tmp_path):
    assert "not exported; to export it, run: trident export smollm2-135m" in run("show", "smollm2-135m")
    (tmp_path / "repository" / "mine").mkdir(parents=True)
    config = 'name: "mine" parameters { key: "task" value { string_value: "chat" } }'
    (tmp_path / "repository" / "mine" / "config.pbtxt").write_text(config, encoding="utf-8")
    assert "task                     chat" in run("show", "mine")
    assert "Unknown model 'nothing'" in run("show", "nothing", code=2)


def test_export_rejects_an_unknown_model():
    assert "Unknown model 'gpt-9'" in run("export", "gpt-9", code=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--all"], "--weights requires exactly one MODEL"),
        (["qwen3-reranker-0.6b", "smollm2-135m"], "--weights requires exactly one MODEL"),
        (["qwen3-reranker-0.6b"], "--weights: 'missing' is not a folder"),
    ],
)
def test_weights_option_requires_a_folder_and_one_model_of_the_catalog(arguments, message):
    assert message in run("export", *arguments, "--weights", "missing", code=2)


def test_failed_export_prints_an_error_without_a_traceback_and_leaves_no_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    text = run("export", "smollm2-135m", code=1)
    assert "Check the network" in text
    assert "Traceback" not in text
    assert not list((tmp_path / "repository").glob("*/"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "0"], "--port: 0 is below the minimum of 1"),
        (["--port", "many"], "--port: 'many' is not a valid integer"),
        (["--triton", "nowhere"], "--triton: 'nowhere' is not a valid HOST:PORT"),
        (["--prot", "5"], "No such option"),
    ],
)
def test_invalid_and_unknown_flags_are_reported(arguments, message):
    assert message in run("serve", *arguments, code=2)


def test_stop_status_and_ps_report_that_no_instance_is_running(tmp_path):
    assert "Trident is not running on port 5999" in run("stop", "--port", "5999")
    assert "Trident is not running on port 5999" in run("status", "--port", "5999", code=1)
    assert run("ps") == "No Trident services found running.\n"


def test_ps_lists_only_running_instances(tmp_path):
    settings = Settings(port=5998, cache=tmp_path / "cache")
    instance = Instance(settings.run_folder)
    with instance.acquire("http://127.0.0.1:9"):
        assert not instance.is_running()
        instance.write_pid()
        assert [row["port"] for row in json.loads(run("ps", "--json"))] == [5998]
    assert not instance.is_running()
    assert json.loads(run("ps", "--json")) == []


def test_stop_terminates_the_launcher(tmp_path):
    code = """
import sys, time
from frontend.settings import Settings
from trident.launch.instance import Instance
instance = Instance(Settings(port=5997, cache=sys.argv[1]).run_folder)
with instance.acquire("http://127.0.0.1:9"):
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


def test_launcher_imports_no_inference_or_web_packages():
    code = "import sys, trident.cli.serve, trident.launch.supervisor, export.repository; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True).stdout
    assert not {"openvino", "openvino_genai", "gevent", "flask"} & set(loaded.split())


@pytest.mark.parametrize("package", ["backends", "export"])
def test_openvino_telemetry_is_disabled(package):
    code = f"import sys, {package}, openvino_genai, openvino.tools.ovc; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True).stdout
    assert "openvino.tools.ovc.telemetry_stub" in loaded.split()
    assert "openvino_telemetry.main" not in loaded.split()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.gguf", "b.gguf", "--mmproj", "p.gguf"], "--mmproj requires exactly one MODEL"),
        (["unknown", "--lora", "p.gguf"], "--lora requires exactly one MODEL, whose file exists"),
        (
            ["a.gguf", "--lora", "p.gguf", "--triton", "host:8001"],
            "--lora does not apply to a Triton that runs elsewhere",
        ),
    ],
)
def test_files_of_a_model_that_cannot_get_them_are_rejected(arguments, message):
    assert message in run("serve", *arguments, code=2)


def test_serve_exports_a_model_with_its_files(monkeypatch):
    commands = []

    class Export(subprocess.Popen):
        def __init__(self, command, **options):
            commands.append(command[3:])
            super().__init__(["sh", "-c", "exit 3"], **options)

    monkeypatch.setattr(subprocess, "Popen", Export)
    run("serve", "a.gguf", "--mmproj", "p.gguf", "--lora", "x.gguf", "--lora", "y.gguf", code=3)
    [[*command, names_to, _]] = commands
    assert command == ["export", "a.gguf", "--mmproj", "p.gguf", "--lora", "x.gguf", "--lora", "y.gguf"]
    assert names_to == "--names-to"

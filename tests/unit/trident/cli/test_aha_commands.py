"""AHA's commands: the lines of its documentation, and the columns and messages that it prints."""

import json
import os
import shlex

import click
import pytest
from click.testing import CliRunner

from export.catalog import load_catalog
from export.fetch import DownloadFailed
from frontend.settings import Settings
from trident.cli import aha, exporting, main, one_request
from trident.launch.instance import Instance

MODEL = "smollm2-135m"

# The commands in the documentation of AHA 0.2.6, with files that exist here, and what Trident runs for each: the model,
# the options of the export, and settings.
SERVED = {
    "cli -m Qwen/Qwen3-VL-2B-Instruct": ("Qwen/Qwen3-VL-2B-Instruct", [], {}),
    "cli -m Qwen/Qwen3-0.6B -a 0.0.0.0 -p 8080": ("Qwen/Qwen3-0.6B", [], {"host": "0.0.0.0", "port": "8080"}),
    "cli -m Qwen/Qwen3-VL-2B-Instruct -p 8080 --save-dir models": (
        "Qwen/Qwen3-VL-2B-Instruct",
        ["--weights", "models/Qwen/Qwen3-VL-2B-Instruct"],
        {"port": "8080"},
    ),
    "cli -m Qwen/Qwen3-VL-2B-Instruct --weight-path model": (
        "Qwen/Qwen3-VL-2B-Instruct",
        ["--weights", "model"],
        {},
    ),
    "cli -m qwen3.5-gguf --gguf-path xxx.gguf --mmproj-path mmproj-xxx.gguf": (
        "{here}/xxx.gguf",
        ["--mmproj", "mmproj-xxx.gguf"],
        {"aliases": {"qwen3.5-gguf": "served"}},
    ),
    "cli -m AI-ModelScope/RMBG-2.0 --artifact-format onnx --onnx-path onnx --tokenizer-dir onnx": (
        "AI-ModelScope/RMBG-2.0",
        ["--weights", "onnx"],
        {},
    ),
    "serv -m Qwen/Qwen3-VL-2B-Instruct": ("Qwen/Qwen3-VL-2B-Instruct", [], {}),
    "serv -m Qwen/Qwen3-VL-2B-Instruct --weight-path model": ("Qwen/Qwen3-VL-2B-Instruct", ["--weights", "model"], {}),
    "serv -m Qwen/Qwen3-VL-2B-Instruct -p 8080": ("Qwen/Qwen3-VL-2B-Instruct", [], {"port": "8080"}),
    "serv -m Qwen/Qwen3-VL-2B-Instruct -a 0.0.0.0": ("Qwen/Qwen3-VL-2B-Instruct", [], {"host": "0.0.0.0"}),
    "serv -m Qwen/Qwen3-0.6B --allow-remote-shutdown": ("Qwen/Qwen3-0.6B", [], {"allow_remote_shutdown": True}),
}
RUN = {
    'run -m OpenBMB/VoxCPM1.5 -i "太阳当空照" -o output.wav --weight-path model': "OpenBMB/VoxCPM1.5",
    'run -m OpenBMB/VoxCPM1.5 -i "file://./input.txt" --weight-path model': "OpenBMB/VoxCPM1.5",
    'run -m OpenBMB/MiniCPM4-0.5B -i "你好" --weight-path model': "OpenBMB/MiniCPM4-0.5B",
    'run -m deepseek-ai/DeepSeek-OCR -i "image.jpg" --weight-path model': "deepseek-ai/DeepSeek-OCR",
    'run -m AI-ModelScope/RMBG-2.0 -i "photo.png" -o "no_bg.png" --weight-path model': "AI-ModelScope/RMBG-2.0",
    'run -m ZhipuAI/GLM-ASR-Nano-2512 -i "请转写这段音频" -i "audio.wav" --weight-path model': (
        "ZhipuAI/GLM-ASR-Nano-2512"
    ),
    'run -m FunAudioLLM/Fun-ASR-Nano-2512 -i "语音转写：" -i "audio.wav" --weight-path model': (
        "FunAudioLLM/Fun-ASR-Nano-2512"
    ),
    'run -m Qwen/Qwen3-0.6B -i "你好" --weight-path model': "Qwen/Qwen3-0.6B",
    'run -m qwen3-0.6b -i "hello" --artifact-format gguf --gguf-path xxx.gguf': "{here}/xxx.gguf",
    'run -m Qwen/Qwen2.5-VL-3B-Instruct -i "请分析图片" -i "image.jpg" --weight-path model': (
        "Qwen/Qwen2.5-VL-3B-Instruct"
    ),
    'run -m Qwen/Qwen3-ASR-0.6B -i "audio.wav" --weight-path model': "Qwen/Qwen3-ASR-0.6B",
    "run -m qwen3.5-gguf -i 你如何看待AI --gguf-path xxx.gguf": "{here}/xxx.gguf",
    "run -m qwen3.5-gguf -i 提取图片中的文本 -i https://host/file --gguf-path xxx.gguf --mmproj-path mmproj-xxx.gguf": (
        "{here}/xxx.gguf"
    ),
}
OTHERS = [
    "ps",
    "ps -c",
    "list",
    "list --json",
    "list -j",
    "delete -m AI-ModelScope/RMBG-2.0",
    "delete --model Qwen/Qwen3-VL-2B-Instruct",
    "--help",
    "cli --help",
    "serv --help",
    "download --help",
    "--version",
    "-V",
]
DOWNLOADS = {
    "download -m Qwen/Qwen3-VL-2B-Instruct": (None, 3),
    "download -m Qwen/Qwen3-VL-2B-Instruct -s models": ("models", 3, "models/Qwen/Qwen3-VL-2B-Instruct"),
    "download -m Qwen/Qwen3-VL-2B-Instruct --download-retries 5": (None, 5),
    "download -m OpenBMB/MiniCPM4-0.5B -s models": ("models", 3, "models/OpenBMB/MiniCPM4-0.5B"),
}


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIDENT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TRIDENT_MODEL_REPOSITORY", str(tmp_path / "repository"))
    monkeypatch.delenv("TRIDENT_URL", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    for folder in ("model", "onnx", "models"):
        (tmp_path / folder).mkdir()
    for file in ("xxx.gguf", "mmproj-xxx.gguf"):
        (tmp_path / file).touch()


def run(line, code=0, stdin=None):
    result = CliRunner().invoke(main, shlex.split(line), input=stdin)
    assert result.exit_code == code, result.output
    return result.output


@pytest.mark.parametrize("line", SERVED)
def test_documented_servers(line, monkeypatch, tmp_path):
    served = []

    def serve(names, options, flags, *, alias):
        given = {name: value for name, value in flags.items() if value not in (None, ())}
        served.append((names[0], options, given | ({"aliases": {alias: "served"}} if alias else {})))

    monkeypatch.setattr(aha, "serve_models", serve)
    monkeypatch.setattr(aha, "_is_exported", lambda *_: True)
    monkeypatch.setattr(aha, "_download", lambda model, *_: (tmp_path / "models" / model).mkdir(parents=True))
    run(line)
    model, options, settings = SERVED[line]
    assert served == [(model.replace("{here}", str(tmp_path)), options, settings)]


@pytest.mark.parametrize("line", RUN)
def test_documented_requests(line, monkeypatch, tmp_path):
    opened = []

    class Opened(Exception):
        pass

    def session(flags, name, *tasks, options):
        opened.append((name, options))
        raise Opened

    monkeypatch.setattr(one_request, "session", session)
    result = CliRunner().invoke(main, shlex.split(line))
    assert isinstance(result.exception, Opened), result.output
    options = ["--weights", "model"] if "--weight-path" in line else []
    options += ["--mmproj", "mmproj-xxx.gguf"] if "--mmproj-path" in line else []
    assert opened == [(RUN[line].replace("{here}", str(tmp_path)), options)]


@pytest.mark.parametrize("line", OTHERS)
def test_other_documented_commands(line):
    run(line)


@pytest.mark.parametrize("line", DOWNLOADS)
def test_documented_downloads(line, monkeypatch):
    calls = []
    monkeypatch.setattr("trident.cli.downloads.retried", lambda _, retries: calls.append((None, retries)) or (0, 0))
    monkeypatch.setattr("trident.cli.downloads.export_candidate", lambda *_: "")
    monkeypatch.setattr(
        "trident.cli.downloads._save_files",
        lambda _, target, folder, __, retries: calls.append((str(folder), retries, str(target))),
    )
    run(line)
    assert calls == [DOWNLOADS[line]]


def test_list_has_ahas_columns():
    lines = run("list").splitlines()
    assert lines[0] == "Available models:"
    assert lines[2] == f"{'Model ID':<40} {'Owner':<20} {'type':<10} Download"
    (rmbg,) = (line for line in lines if line.startswith("AI-ModelScope/RMBG-2.0"))
    assert rmbg == f"{'AI-ModelScope/RMBG-2.0':<40} {'AI-ModelScope':<20} image"


def test_list_marks_models_on_this_machine(tmp_path):
    make_model(tmp_path)
    (line,) = (line for line in run("list").splitlines() if "SmolLM2-135M" in line)
    assert line.endswith("✔")


def test_list_as_json_has_the_keys_of_ahas_code_and_of_its_documentation():
    rows = {row["name"]: row for row in json.loads(run("list -j"))}
    assert set(rows) == set(load_catalog())
    keys = ("model_id", "owner", "type", "downloaded")
    assert [rows["rmbg-2.0"][key] for key in keys] == ["AI-ModelScope/RMBG-2.0", "AI-ModelScope", "image", False]
    kinds = {name: rows[name]["type"] for name in ("qwen3-0.6b", "qwen3-vl-2b", "deepseek-ocr", "pp-ocrv6-small")}
    assert list(kinds.values()) == ["llm", "vlm", "ocr", "ocr"]
    others = ("whisper-base", "voxcpm2", "qwen3-embedding-0.6b", "qwen3-reranker-0.6b")
    assert [rows[name]["type"] for name in others] == ["asr", "tts", "embedding", "reranker"]


def test_list_wide_has_ollamas_columns(tmp_path):
    make_model(tmp_path)
    header, row = run("list --wide").splitlines()
    assert header.split() == ["NAME", "ID", "SIZE", "MODIFIED"]
    assert row.split() == ["HuggingFaceTB/SmolLM2-135M-Instruct", "0123456789ab", "0", "MB", "a", "moment", "ago"]


def test_ps_has_ahas_columns(tmp_path):
    instance = Instance(Settings(port=5998, cache=tmp_path / "cache").run_folder)
    with instance.acquire("http://127.0.0.1:9", {"address": "0.0.0.0", "on_demand": False}):
        instance.write_pid()
        pid = os.getpid()
        header, rule, row = run("ps").splitlines()
        assert header == f"{'Service ID':<20} {'PID':<10} {'Model':<20} {'Port':<10} {'Address':<15} Status"
        assert rule == "-" * 85
        assert row == f"{f'{pid}@5998':<20} {pid:<10} {'N/A':<20} {5998:<10} {'0.0.0.0':<15} Unknown"
        assert run("ps -c") == f"{pid}@5998\n"
        instance.mark_stopping()
        assert json.loads(run("ps --json"))[0]["status"] == "Stopping"
        assert run("ps --wide").split() == ["NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"]
    assert run("ps") == "No Trident services found running.\n"


def test_serv_does_not_download():
    expected = "Error: serv subcommand will not download model, use `weight-path` to pass the model path\n"
    assert run("serv -m Qwen/Qwen3-0.6B", code=1) == expected


def test_download_reports_each_attempt(monkeypatch):
    def fail(*_):
        raise DownloadFailed("the index is unreachable")

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("trident.cli.downloads._fetch", fail)
    monkeypatch.setattr(exporting, "_RETRY_SECONDS", 0.0)
    lines = run("download -m Qwen/Qwen3-0.6B", code=1).splitlines()
    attempts = [line for line in lines if line.startswith("Attempting")]
    assert attempts == [f"Attempting to download model (attempt {n}/3)" for n in (1, 2, 3)]
    assert lines[-1] == "Error: the index is unreachable"


def test_attempt_after_a_failure_succeeds(capsys, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(exporting, "_RETRY_SECONDS", 0.0)
    outcomes = iter([DownloadFailed("broken"), "done"])

    def attempt():
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    assert exporting.retried(attempt, 3) == "done"
    assert "attempt 2/3" in capsys.readouterr().out


def test_unknown_model_is_not_tried_again(monkeypatch):
    text = run("download -m gpt-9", code=2)
    assert text.count("Attempting") == 1
    assert "Unknown model 'gpt-9'" in text


class TestDelete:
    def test_model_that_is_not_there(self, tmp_path):
        expected = f"Model not found: {tmp_path / 'repository' / MODEL} does not exist\n"
        assert run(f"delete -m {MODEL}") == expected

    @pytest.mark.parametrize("answer", ["n\n", "\n", "", "no\n"])
    def test_anything_but_yes_cancels(self, tmp_path, answer):
        folder = make_model(tmp_path)
        text = run("delete -m HuggingFaceTB/SmolLM2-135M-Instruct", stdin=answer)
        assert text.startswith(f"Model ID: HuggingFaceTB/SmolLM2-135M-Instruct\nLocation: {folder}\nSize: 0.00 MB\n")
        assert "Are you sure you want to delete this model? (y/N): " in text
        assert text.endswith("Deletion cancelled.\n")
        assert folder.exists()

    @pytest.mark.parametrize(("line", "answer"), [("", "y\n"), ("", "YES\n"), ("-y", None)])
    def test_yes_deletes(self, tmp_path, line, answer):
        folder = make_model(tmp_path)
        assert f"Model deleted successfully: {folder}\n" in run(f"delete -m {MODEL} {line}", stdin=answer)
        assert not folder.exists()

    def test_conversion_and_downloads_are_deleted_but_not_those_of_other_models(self, tmp_path):
        make_model(tmp_path)
        (own,) = {package.sha256 for package in load_catalog()[MODEL].packages}
        downloads = tmp_path / "cache" / "downloads"
        downloads.mkdir(parents=True)
        kept = downloads / "other.whl"
        for path in (kept, downloads / f"{own}.whl"):
            path.touch()
        (tmp_path / "cache" / "converted" / MODEL).mkdir(parents=True)
        run(f"delete -m {MODEL} -y")
        assert list(downloads.iterdir()) == [kept]
        assert not (tmp_path / "cache" / "converted" / MODEL).exists()

    @pytest.mark.parametrize("is_hub", [True, False])
    def test_files_of_a_hub_are_deleted_and_the_users_own_are_kept(self, tmp_path, is_hub):
        repository = tmp_path / "models--a--b"
        weights = repository / ("snapshots" if is_hub else "mine") / "1"
        for folder in (weights, repository / "blobs", repository / "snapshots" / "2"):
            folder.mkdir(parents=True)
        for name in ("own", "shared", "other"):
            (repository / "blobs" / name).touch()
        for folder, names in ((weights, ("own", "shared")), (repository / "snapshots" / "2", ("shared", "other"))):
            for name in names:
                (folder / name).symlink_to(repository / "blobs" / name)
        make_model(tmp_path, weights=str(weights), name="mine", origin="hf:a/b@1")
        run("delete -m mine -y")
        assert weights.exists() != is_hub
        blobs = {path.name for path in (repository / "blobs").iterdir()}
        assert blobs == ({"shared", "other"} if is_hub else {"own", "shared", "other"})
        assert (repository / "snapshots" / "2" / "shared").exists()

    def test_folder_that_the_user_named_is_kept(self, tmp_path):
        """A snapshot in the hub's cache that Trident has not downloaded: it was named with --weights."""
        weights = tmp_path / "models--a--b" / "snapshots" / "1"
        weights.mkdir(parents=True)
        make_model(tmp_path, weights=str(weights))
        run(f"rm {MODEL}")
        assert weights.exists()

    def test_download_that_another_model_uses_is_kept(self, tmp_path):
        weights = tmp_path / "models--a--b" / "snapshots" / "1"
        weights.mkdir(parents=True)
        for name in ("one", "other"):
            make_model(tmp_path, weights=str(weights), name=name, origin="hf:a/b@1")
        run("rm one")
        assert weights.exists()
        run("rm other")
        assert not weights.exists()

    @pytest.mark.parametrize("given", ["documents", "somebody/documents", "''"])
    def test_folder_that_no_export_made_is_not_deleted(self, tmp_path, given):
        folder = tmp_path / "repository" / "documents"
        folder.mkdir(parents=True)
        (folder / "letter.txt").touch()
        run(f"rm {given}", code=2)
        (folder / "config.pbtxt").touch()
        assert run(f"rm {given}", code=1 if given == "documents" else 2)
        assert (folder / "letter.txt").exists()

    def test_model_of_another_owner_is_not_deleted(self, tmp_path):
        folder = make_model(tmp_path)
        run(f"rm somebody/{MODEL}", code=2)
        assert folder.exists()

    def test_own_model_is_deleted_by_the_name_of_its_origin(self, tmp_path):
        folder = make_model(tmp_path, name="my-model", origin="hf:user/repo@abc123:Q4_K_M")
        run("rm hf:user/repo:Q4_K_M")
        assert not folder.exists()

    def test_rm_deletes_several_and_names_what_is_missing(self, tmp_path):
        folder = make_model(tmp_path)
        assert "The model 'whisper-base' is not on this machine" in run(f"rm {MODEL} whisper-base", code=2)
        assert folder.exists()
        assert run(f"rm {MODEL}") == f"deleted '{MODEL}'\n"
        assert not folder.exists()

    def test_model_in_use_is_not_deleted(self, tmp_path):
        folder = make_model(tmp_path)
        settings = Settings(port=5996, cache=tmp_path / "cache")
        (settings.served_repository / MODEL).mkdir(parents=True)
        instance = Instance(settings.run_folder)
        with instance.acquire("http://127.0.0.1:9"):
            instance.write_pid()
            make_model(tmp_path, name="other")
            text = run(f"rm other {MODEL}", code=1)
            assert "is served on port 5996; first run: trident stop --port 5996" in text
        assert folder.exists()
        assert (tmp_path / "repository" / "other").exists()


def make_model(folder, weights=None, name=MODEL, origin=None):
    """Put an exported model without weights into the model repository, and return its folder."""
    model = folder / "repository" / name
    (model / "1").mkdir(parents=True)
    identifier = load_catalog()[MODEL].id if name == MODEL else name
    config = f'parameters {{ key: "id" value {{ string_value: "{identifier}" }} }}'
    (model / "config.pbtxt").write_text(config, encoding="utf-8")
    record = {"weights": weights, "origin": origin, "parameters": {"fingerprint": "0123456789abcdef"}}
    (model / "export.json").write_text(json.dumps(record), encoding="utf-8")
    return model


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("cli -m x --gguf-path xxx.gguf --weight-path model", "Use only one of"),
        ("cli -m x --gguf-path missing.gguf", "--gguf-path: 'missing.gguf' does not exist"),
        ("cli -m x --weight-path xxx.gguf", "--weight-path: 'xxx.gguf' is not a folder"),
        ("cli -m x --mmproj-path mmproj-xxx.gguf", "--mmproj-path requires --gguf-path"),
        ("cli -m x --artifact-format onnx --gguf-path xxx.gguf", "--artifact-format onnx requires --onnx-path"),
        ("cli -m x --onnx-path onnx --config-path model", "--config-path: put the files beside the ONNX file, in onnx"),
        ("cli -m qwen3-embedding-0.6b --onnx-path onnx", "'qwen3-embedding-0.6b' cannot be read from an ONNX file"),
        ("run -m qwen3.5-0.8b -i hello --onnx-path onnx", "'qwen3.5-0.8b' cannot be read from an ONNX file"),
        ("cli -m x --config-path model", "--config-path requires --gguf-path or --onnx-path"),
        ("cli", "Missing option '-m' / '--model'"),
        ("cli -m x --save-dir models --weight-path model", "--save-dir does not apply"),
        ("download -m ./model -s models", "is not a model of the catalog or of a hub"),
        ("cli -m x -p 99999", "--port: 99999 exceeds the maximum of 65535"),
        ("download", "Missing option '-m' / '--model'"),
        ("delete", "Missing option '-m' / '--model'"),
    ],
)
def test_wrong_arguments(line, message):
    assert message in run(line, code=2)


def test_every_command_has_an_example():
    def commands(command, path):
        yield path, command
        for name, child in getattr(command, "commands", {}).items():
            yield from commands(child, f"{path} {name}")

    assert [path for path, command in commands(main, "trident") if "Example" not in (command.help or "")] == []


def test_help_fits_a_narrow_terminal():
    for name, command in main.commands.items():
        text = command.get_help(click.Context(command, info_name=name, terminal_width=80))
        assert max(map(len, text.splitlines())) <= 100

"""The parts of the commands, such as attachments, logs, facts about models, and the choice of a server."""

import io
import itertools
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from frontend.settings import Settings
from tests.support.fake_api import running_fake_api
from trident.cli import main, progress
from trident.cli.attachments import content_part, media_kind, prompt_content
from trident.cli.load import percentile
from trident.cli.log_files import LogFiles
from trident.launch.instance import Instance


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("photo.PNG", "image"),
        ("https://host/photo.jpg?size=2", "image"),
        ("file://./speech.wav", "audio"),
        ("clip.mp4", "video"),
        ("notes.txt", None),
        ("a sentence about photo.png and more", None),
    ],
)
def test_kind_of_a_file(name, kind):
    assert media_kind(name) == kind


@pytest.mark.parametrize(
    ("prompt", "text", "names"),
    [
        ("What is in {}/a.png?", "What is in?", ["a.png"]),
        ("Look at {}/a.png, and {}/a.png.", "Look at, and.", ["a.png", "a.png"]),
        ("'{}/b c.png' compare \"{}/a.png\"", "compare", ["b c.png", "a.png"]),
        ("'compare {}/a.png'", "'compare '", ["a.png"]),
        (r"{}/b\ c.png describe", "describe", ["b c.png"]),
        ("What's in {}/a.png and what's new", "What's in  and what's new", ["a.png"]),
        ("{}/missing.png", None, []),
        ("{}/notes.txt", None, []),
        ("~nobody/a.png " + "x" * 5000, None, []),
    ],
)
def test_paths_in_a_prompt(tmp_path, prompt, text, names):
    for name in ("a.png", "b c.png", "notes.txt"):
        (tmp_path / name).touch()
    given = prompt.replace("{}", str(tmp_path))
    content, paths = prompt_content(given, ["image"])
    assert paths == [str(tmp_path / name) for name in names]
    if text is None:
        assert content == given
    else:
        assert content[0]["text"] == text
        assert [part["type"] for part in content[1:]] == ["image_url"] * len(names)


def test_file_that_the_model_does_not_accept_stays_in_the_prompt(tmp_path, capsys):
    (tmp_path / "a.wav").touch()
    prompt = f"rename {tmp_path}/a.wav"
    assert prompt_content(prompt, ["image"]) == (prompt, [])
    assert f"{tmp_path}/a.wav is not attached: the model does not accept audio" in capsys.readouterr().err


def test_audio_file_becomes_an_input_audio_part(tmp_path):
    (tmp_path / "a.mp3").write_bytes(b"abc")
    assert content_part(str(tmp_path / "a.mp3")) == {
        "type": "input_audio",
        "input_audio": {"data": "YWJj", "format": "mp3"},
    }


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_percentiles_are_those_of_numpy(count):
    values = np.random.default_rng(count).random(count).tolist()
    for percent in (50, 90, 99):
        assert percentile(values, percent) == pytest.approx(np.percentile(values, percent))


class TestLogs:
    def test_last_lines_of_each_file_and_of_one_model(self, tmp_path):
        api, triton = tmp_path / "frontend.log", tmp_path / "triton.log"
        api.write_text('{"model":"openai/whisper-base"}\n{"model":"other"}\n', encoding="utf-8")
        triton.write_text("loading whisper-base\nloading hibari\n", encoding="utf-8")
        files = [triton, api]
        assert list(LogFiles(files, None).last(1)) == [
            "==> triton.log <==",
            "loading hibari",
            "==> frontend.log <==",
            '{"model":"other"}',
        ]
        of_model = list(LogFiles(files, "whisper-base").last(9))
        assert of_model[1::2] == ["loading whisper-base", '{"model":"openai/whisper-base"}']

    def test_new_lines_also_across_a_rotation(self, tmp_path):
        path = tmp_path / "triton.log"
        path.write_text("old\n", encoding="utf-8")
        files = LogFiles([path], None)
        list(files.last(10))
        with path.open("a", encoding="utf-8") as file:
            file.write("one\ntwo\npart")
        lines = files.new()
        assert [next(lines), next(lines)] == ["one", "two"]
        with path.open("a", encoding="utf-8") as file:
            file.write(" of three\n")
        path.rename(tmp_path / "triton.log.1")
        path.write_text("four\n", encoding="utf-8")
        assert [next(lines), next(lines)] == ["part of three", "four"]

    def test_command(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TRIDENT_CACHE", str(tmp_path))
        result = CliRunner().invoke(main, ["logs", "--port", "5995"])
        assert (result.exit_code, "no logs of a server on port 5995" in result.stderr) == (1, True)
        folder = Settings(port=5995, cache=tmp_path).run_folder
        folder.mkdir(parents=True)
        (folder / "frontend.log").write_text("a line\n", encoding="utf-8")
        assert CliRunner().invoke(main, ["logs", "--port", "5995"]).stdout == "==> frontend.log <==\na line\n"


def test_progress_in_a_pipe_is_plain_lines(monkeypatch):
    output = io.StringIO()
    monkeypatch.setattr(sys, "stderr", output)
    times = itertools.count(10.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(times)))
    progress.prepare_plain_progress()
    with progress.plain_progress():
        for percent in range(0, 101, 5):
            sys.stderr.write(f"\rKimi: downloading: {percent}%\x1b[K")
        sys.stderr.write("\n")
        sys.stderr.write("converting\n")
    lines = output.getvalue().splitlines()
    assert lines[0] == "Kimi: downloading: 0%"
    assert lines[-2:] == ["Kimi: downloading: 100%", "converting"]
    assert 2 < len(lines) < 12
    assert "\r" not in output.getvalue()


class TestChoiceOfTheServer:
    @pytest.fixture(autouse=True)
    def folders(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TRIDENT_CACHE", str(tmp_path))
        for name in ("TRIDENT_URL", "TRIDENT_API_KEY", "TRIDENT_PORT"):
            monkeypatch.delenv(name, raising=False)

    def ask(self, *options):
        result = CliRunner().invoke(main, ["embed", "four", *options])
        assert result.exit_code == 0, result.output
        return result.stdout

    def running(self, tmp_path, port):
        return Instance(Settings(port=port, cache=tmp_path).run_folder)

    def test_instance_on_another_port_is_found_and_gets_the_local_key(self, tmp_path):
        instance = self.running(tmp_path, 5994)
        with running_fake_api() as api, instance.acquire(api.url):
            instance.write_pid()
            instance.write_key()
            assert self.ask() == "[4.0, 0.5]\n"
            key = instance.headers()["Authorization"]
            assert api.last("/v1/embeddings").headers["authorization"] == key
            assert key.startswith("Bearer tr-local-")

    def test_named_port_and_named_url_come_first(self, tmp_path):
        instances = [self.running(tmp_path, port) for port in (5992, 5993)]
        with running_fake_api() as first, running_fake_api() as second, running_fake_api() as remote:
            with instances[0].acquire(first.url), instances[1].acquire(second.url):
                for instance in instances:
                    instance.write_pid()
                    instance.write_key()
                self.ask("--port", "5993")
                self.ask("--url", f"{remote.url}/v1/", "--key", "tr-2")
        assert [bool(api.requests) for api in (first, second, remote)] == [False, True, True]
        assert remote.last("/v1/embeddings").headers["authorization"] == "Bearer tr-2"

    def test_local_key_is_not_sent_to_a_named_url(self, tmp_path):
        instance = self.running(tmp_path, 5991)
        with running_fake_api() as own, running_fake_api() as remote, instance.acquire(own.url):
            instance.write_pid()
            instance.write_key()
            self.ask("--url", remote.url)
        assert "authorization" not in remote.last("/v1/embeddings").headers

    def test_temporary_instance_of_another_command_is_not_used(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TRIDENT_MODEL_REPOSITORY", str(tmp_path / "repository"))
        instance = self.running(tmp_path, 5990)
        with running_fake_api() as api, instance.acquire(api.url):
            instance.write_pid()
            instance.mark_temporary()
            result = CliRunner().invoke(main, ["embed", "x", "-m", "no-such-model"])
        assert not api.requests
        assert "Unknown model 'no-such-model'" in result.stderr

    def test_similar_names_are_suggested(self, tmp_path):
        result = CliRunner().invoke(main, ["run", "qwen3-0.5b", "hi"])
        assert (result.exit_code, "Did you mean qwen3-0.6b" in result.stderr) == (2, True)


class TestFacts:
    def show(self, *arguments):
        result = CliRunner().invoke(main, ["show", *arguments])
        assert result.exit_code == 0, result.output
        return result.stdout

    @pytest.fixture(autouse=True)
    def repository(self, tmp_path, monkeypatch):
        folder = tmp_path / "smollm2-135m"
        (folder / "1").mkdir(parents=True)
        parameters = {"id": "HuggingFaceTB/SmolLM2-135M-Instruct", "task": "chat", "engine": "openvino"}
        parameters |= {"context_length": "8192", "capabilities": "[]", "max_num_seqs": "auto", "cache_tokens": "auto"}
        parameters |= {"cache_size_gb": "1", "kv_bytes_per_token": "23040"}
        config = "".join(
            f'parameters {{ key: "{k}" value {{ string_value: "{v}" }} }}\n' for k, v in parameters.items()
        )
        (folder / "config.pbtxt").write_text(f'name: "smollm2-135m"\n{config}', encoding="utf-8")
        (folder / "1" / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
        monkeypatch.setenv("TRIDENT_MODEL_REPOSITORY", str(tmp_path))

    def test_exported_model(self):
        text = self.show("HuggingFaceTB/smollm2-135m-instruct")
        for line in (
            "task           chat",
            "parameters     135M",
            "context        8,192 tokens",
            "quantization   int8",
            "engine         OpenVINO",
            "tool format    hermes",
            "license        Apache-2.0",
            "  {{ messages }}",
        ):
            assert f"{line}\n" in text

    def test_single_facts_and_json(self):
        assert self.show("smollm2-135m", "--template") == "{{ messages }}\n"
        assert self.show("smollm2-135m", "--license") == "Apache-2.0\n"
        assert "context_length           8192" in self.show("smollm2-135m", "--parameters")
        found = json.loads(self.show("smollm2-135m", "--json"))
        assert (found["engine"], found["configuration"]["engine"]) == ("OpenVINO", "openvino")

    def test_model_that_is_not_exported(self):
        text = self.show("Qwen/Qwen3-0.6B")
        for line in (
            "architecture   Qwen3ForCausalLM",
            "engine         OpenVINO or llama.cpp",
            "size           1503 MB",
        ):
            assert line in text
        assert "not exported; to export it, run: trident export qwen3-0.6b" in text


class TestSearch:
    @pytest.fixture(autouse=True)
    def offline(self, monkeypatch):
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def test_catalog(self):
        result = CliRunner().invoke(main, ["search", "qwen3 asr", "--json"])
        assert [row["name"] for row in json.loads(result.stdout)] == ["qwen3-asr-0.6b", "qwen3-asr-1.7b"]
        assert "only the catalog was searched" in result.stderr
        result = CliRunner().invoke(main, ["search", "--task", "transcription"])
        assert "whisper-base" in result.stdout
        assert "smollm2" not in result.stdout

    def test_hub(self, monkeypatch):
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        rows = [{"id": "user/Qwen3-GGUF", "downloads": 1234, "tags": ["gguf"], "pipeline_tag": "text-generation"}]
        rows += [{"id": "Qwen/Qwen3-0.6B", "downloads": 9, "pipeline_tag": None}]
        with running_fake_api() as hub:
            hub.responses["/api/models"] = lambda _: (200, json.dumps(rows).encode())
            monkeypatch.setattr(constants, "ENDPOINT", hub.url)
            result = CliRunner().invoke(main, ["search", "qwen3-0.6b"])
        assert "search=qwen3-0.6b" in hub.requests[-1].path
        lines = result.stdout.splitlines()
        assert lines[-1].split() == ["user/Qwen3-GGUF", "text-generation", "1,234", "downloads,", "GGUF"]
        assert sum("Qwen3-0.6B" in line or "qwen3-0.6b" in line for line in lines) == 1  # it is in the catalog

    def test_hub_that_cannot_be_reached(self, monkeypatch):
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        result = CliRunner().invoke(main, ["search", "qwen3-0.6b"])
        assert (result.exit_code, "qwen3-0.6b" in result.stdout) == (0, True)
        assert "The Hugging Face hub was not searched: 127.0.0.1 cannot be reached" in result.stderr

    def test_nothing_found(self):
        result = CliRunner().invoke(main, ["search", "no-such-thing"])
        assert (result.exit_code, "No model found for 'no-such-thing'" in result.stderr) == (1, True)

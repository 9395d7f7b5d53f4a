"""The command line against the real server, in a pipe and on a pseudo-terminal."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pexpect
import psutil
import pytest

from export.catalog import load_catalog
from frontend.settings import Settings
from tests.support.images import load_photograph
from tests.support.live import MODEL, STARTERS, metric, wait_until
from tests.support.pages import ENGLISH, render_page
from tests.support.recordings import AUDIOEVAL, package_files
from trident.launch.instance import running_instances

TRIDENT = [sys.executable, "-m", "trident"]
SPEECH, EMBEDDING, RERANK, BACKGROUND = "hibari", "bge-small-en-v1.5", "ms-marco-minilm-l-12-v2", "u2netp"
PROMPT = "What is the capital of Japan?"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder, with a photo, a page and a recording."""
    monkeypatch.chdir(tmp_path)
    load_photograph("astronaut").save(tmp_path / "photo.jpg")
    render_page(ENGLISH).save(tmp_path / "page.png")
    clip = min(package_files(AUDIOEVAL).rglob("*.wav"))
    (tmp_path / "clip.wav").write_bytes(clip.read_bytes())
    return tmp_path


@pytest.fixture
def server(stack, monkeypatch):
    """The settings of a running server that commands find by its port."""
    monkeypatch.setenv("TRIDENT_PORT", str(stack.port))
    return stack


def run(line, stdin=None, code=0):
    """Run a command whose standard streams are pipes, and return what it printed."""
    result = subprocess.run(
        [*TRIDENT, *shlex.split(line)],
        input=stdin or "",
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert result.returncode == code, result.stderr
    return result


@contextmanager
def terminal(line, **environment):
    """Run a command on a pseudo-terminal until the block ends."""
    child = pexpect.spawn(
        TRIDENT[0],
        [*TRIDENT[1:], *shlex.split(line)],
        env=os.environ | environment,
        encoding="utf-8",
        timeout=60,
        dimensions=(40, 120),
    )
    try:
        yield child
    finally:
        child.close(force=True)


def long_response(folder):
    """Write the schema of a response of a thousand numbers."""
    schema = {"type": "array", "minItems": 1000, "items": {"type": "integer", "minimum": 100, "maximum": 99_999}}
    (folder / "long.json").write_text(json.dumps(schema), encoding="utf-8")


class TestPipes:
    def test_run(self, server, folder):
        result = run(f'run {MODEL} --temperature 0 --max-tokens 20 "{PROMPT}"')
        assert "Tokyo" in result.stdout
        assert result.stderr == ""

    def test_text_from_a_pipe(self, server, folder):
        assert "Tokyo" in run(f"run {MODEL} --temperature 0 --max-tokens 20", PROMPT).stdout

    def test_format_by_a_schema(self, server, folder):
        schema = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]}
        (folder / "schema.json").write_text(json.dumps(schema), encoding="utf-8")
        output = run(f'run {MODEL} --format schema.json --max-tokens 60 "Name a city"').stdout
        assert list(json.loads(output)) == ["city"]

    def test_speech_is_transcribed(self, server, folder):
        run('speak "The quick brown fox jumps over the lazy dog." -o fox.mp3')
        assert "quick brown fox" in run("transcribe fox.mp3").stdout
        assert re.search(r"00:00:0\d,\d+ --> ", run("transcribe fox.mp3 --format srt").stdout)

    def test_vectors(self, server, folder):
        first, second = (json.loads(line) for line in run("embed", "hello\nworld\n").stdout.splitlines())
        assert len(first) == len(second) == 384
        assert (
            run('rerank "capital of Japan" "Apples are fruit." "Tokyo is the capital of Japan."')
            .stdout.splitlines()[0]
            .endswith("Tokyo is the capital of Japan.")
        )

    def test_cutout(self, server, folder):
        assert run("cutout photo.jpg -o out").stdout == "out/photo.png\n"
        assert (folder / "out" / "photo.png").read_bytes().startswith(b"\x89PNG")

    def test_ps_status_and_logs(self, server, folder):
        (row,) = (line for line in run("ps").stdout.splitlines() if f"@{server.port} " in line)
        assert row.split()[3:] == [str(server.port), "127.0.0.1", "Running"]
        assert load_catalog()[MODEL].id in run("ps --wide").stdout
        assert json.loads(run("status --json").stdout)["healthy"] is True
        assert MODEL in run(f"logs --model {MODEL}").stdout

    def test_bench(self, server, folder):
        line = f"bench serve -m {MODEL} -c 4 -n 8 --input-tokens 60 --output-tokens 8 --json"
        found = json.loads(run(line).stdout)
        assert (found["requests"], found["failed"], found["output_tokens_mean"]) == (8, 0, 8)
        assert found["input_tokens_mean"] == pytest.approx(60, rel=0.1)

    def test_log_is_followed(self, server, folder):
        with terminal("logs -f -n 1") as child:
            child.expect_exact("==> frontend.log <==")
            run("embed followed")
            child.expect(r'"path":"/v1/embeddings".*' + load_catalog()[EMBEDDING].id)
            child.sendintr()
            child.expect(pexpect.EOF)
            child.close()
            assert child.exitstatus == 130


class TestAhaRun:
    """One request of each task, as AHA's `run` sends it."""

    @pytest.mark.parametrize(
        ("arguments", "result"),
        [
            (f'{MODEL} -i "{PROMPT}"', r"Result: .*\S"),
            ("whisper-base -i clip.wav", r"Result: .*\w"),
            ("pp-ocrv6-small -i page.png", r"Result: A server for models of every kind"),
            (f'{EMBEDDING} -i "hello"', r"Result: \[-?0\.\d+"),
            (
                f'{RERANK} -i "capital of Japan" -i "Apples are fruit.|||Tokyo is the capital."',
                r'Result: \[\{"index": 1',
            ),
            (f'{SPEECH} -i "Good morning" -o speech.wav', r"Output saved to: speech\.wav"),
            (f"{BACKGROUND} -i photo.jpg", r"Output saved to: u_\d+\.png"),
        ],
    )
    def test_task(self, server, folder, arguments, result):
        output = run(f"run -m {arguments}").stdout
        assert re.search(r"^Time elapsed in load model is: \d+\.\d+s$", output, re.MULTILINE)
        assert re.search(r"^Time elapsed in generate is: \d+\.\d+s$", output, re.MULTILINE)
        assert re.search(result, output)


class TestTerminal:
    def test_conversation(self, server, folder):
        with terminal(f"run {MODEL} --temperature 0") as child:
            child.expect_exact("/? for help")
            child.expect_exact(">>> ")
            child.sendline(PROMPT)
            child.expect("Tokyo")
            child.expect_exact(">>> ")
            child.sendline("/set parameter max_tokens 8")
            child.expect_exact(">>> ")
            child.sendline('"""One')
            child.expect_exact("... ")
            child.sendline('two"""')
            child.expect_exact(">>> ")
            child.sendline("/show")
            child.expect_exact("messages  4")
            child.expect_exact(">>> ")
            child.sendline("/save talk.json")
            child.expect_exact("Saved 4 messages to talk.json")
            child.sendline("/clear")
            child.expect_exact("Cleared the conversation")
            child.sendline("/load talk.json")
            child.expect_exact("Loaded 4 messages")
            child.sendline("/set verbose")
            child.expect_exact(">>> ")
            child.sendline("Again")
            child.expect("response tokens: +8")
            child.expect_exact(">>> ")
            child.sendline("/nonsense")
            child.expect_exact("Unknown command '/nonsense'")
            child.sendline("/bye")
            child.expect(pexpect.EOF)
            child.close()
            assert child.exitstatus == 0
        messages = json.loads((folder / "talk.json").read_text(encoding="utf-8"))["messages"]
        assert [message["content"] for message in messages[::2]] == [PROMPT, "One\ntwo"]

    def test_history_is_kept(self, server, folder, monkeypatch):
        data = str(folder / "data")
        for expected in ("first of all", "first of all"):
            with terminal(f"run {MODEL} --max-tokens 4", TRIDENT_DATA=data) as child:
                child.expect_exact(">>> ")
                child.send("\x1b[A" if (folder / "data" / "prompt_history").exists() else "first of all")
                child.expect_exact(expected)
                child.sendline("")
                child.expect_exact(">>> ")
                child.sendeof()
                child.expect(pexpect.EOF)

    def test_ctrl_c_stops_the_response_and_not_the_conversation(self, server, folder):
        """The engine stops as well: without an end, the response would be as long as the context."""
        long_response(folder)
        with terminal(f"run {MODEL}") as child:
            child.expect_exact(">>> ")
            child.sendline("/set format long.json")
            child.expect_exact(">>> ")
            child.sendline("Numbers")
            child.expect(r"\d\D+\d")
            child.sendintr()
            child.expect_exact(">>> ")
            wait_until(lambda: metric(server, "running") == 0, 10, "the engine to stop")
            child.sendline("/show")
            child.expect_exact("messages  2")

    def test_ctrl_c_during_one_prompt_exits_with_130(self, server, folder):
        long_response(folder)
        with terminal(f"run {MODEL} --format long.json Numbers") as child:
            child.expect(r"\d\D+\d")
            child.sendintr()
            child.expect(pexpect.EOF)
            child.close()
            assert child.exitstatus == 130

    def test_dropped_picture_is_read_by_the_ocr_model(self, server, folder):
        with terminal("run pp-ocrv6-small") as child:
            child.expect_exact(">>> ")
            child.sendline(f"'{folder}/page.png'")
            child.expect_exact("Added '")
            child.expect_exact("A server for models of every kind")
            child.sendline("/bye")
            child.expect(pexpect.EOF)

    def test_image_for_a_model_without_vision_stays_text(self, server, folder):
        result = run(f'run {MODEL} --max-tokens 4 "Describe ./photo.jpg"')
        assert "photo.jpg is not attached: the model does not accept images" in result.stderr

    def test_delete_asks(self, folder):
        """With a copy of the settings, so that no real model is deleted."""
        environment = {"TRIDENT_CACHE": str(folder / "cache"), "TRIDENT_MODEL_REPOSITORY": str(folder / "repository")}
        (folder / "cache" / "converted" / MODEL).mkdir(parents=True)
        with terminal(f"delete -m {MODEL}", **environment) as child:
            child.expect_exact("Are you sure you want to delete this model? (y/N): ")
            child.sendline("n")
            child.expect_exact("Deletion cancelled.")
        assert (folder / "cache" / "converted" / MODEL).exists()

    def test_progress_of_a_download_on_a_terminal_and_in_a_pipe(self, folder):
        for is_terminal in (True, False):
            environment = {"TRIDENT_CACHE": str(folder / f"cache{is_terminal}")}
            environment["TRIDENT_MODEL_REPOSITORY"] = str(folder / f"repository{is_terminal}")
            if is_terminal:
                with terminal(f"pull {BACKGROUND}", **environment) as child:
                    child.expect(r"\d+%\|.*\d+(\.\d+)?k?M?B?/s", timeout=120)
                    child.expect(f"{BACKGROUND}: ready")
                    continue
            result = subprocess.run(
                [*TRIDENT, "pull", BACKGROUND],
                env=os.environ | environment,
                capture_output=True,
                timeout=120,
                check=True,
            )
            assert b"\r" not in result.stderr
            assert re.search(
                rb"^u2netp: downloading: 100%, 4\.\d+M of 4\.\d+M, .*/s, 00:00 remaining$", result.stderr, re.M
            )


class TestTemporaryServer:
    """Commands without a running server. They do not see the servers of the other tests, whose cache is another one."""

    @pytest.fixture(autouse=True)
    def cache(self, tmp_path, monkeypatch):
        cache = tmp_path / "cache"
        cache.mkdir()
        for name in ("converted", "downloads"):
            (cache / name).symlink_to(Settings().cache / name)
        monkeypatch.setenv("TRIDENT_CACHE", str(cache))
        return cache

    def test_server_is_started_and_stopped(self, cache):
        result = run(f'run {MODEL} --temperature 0 --max-tokens 20 "{PROMPT}"')
        assert "Tokyo" in result.stdout
        assert result.stderr == f"Starting {MODEL}\n"
        assert list((cache / "run").iterdir()) == []

    def test_local_file_and_its_options(self, cache, folder):
        result = run(f"run -m {EMBEDDING} -i four -o vector.json")
        assert "Output saved to: vector.json" in result.stdout
        assert len(json.loads((folder / "vector.json").read_text(encoding="utf-8"))) == 384

    @pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
    def test_no_process_survives_a_command_that_is_killed(self, cache, signum):
        process = subprocess.Popen([*TRIDENT, "run", MODEL, "Count to a million"], stdout=subprocess.PIPE, text=True)
        process.stdout.read(1)
        (instance,) = running_instances(cache)
        processes = [psutil.Process(instance.pid()), *psutil.Process(instance.pid()).children(recursive=True)]
        assert len(processes) > 3
        process.send_signal(signum)
        assert process.wait(20) == (-9 if signum == signal.SIGKILL else 128 + signum)
        wait_until(lambda: not any(each.is_running() for each in processes), 20, "the processes to exit")
        wait_until(lambda: list((cache / "run").iterdir()) == [], 20, "the run folder to be removed")

    def test_two_commands_at_once(self, cache):
        commands = [
            subprocess.Popen([*TRIDENT, "run", MODEL, "--max-tokens", "4", "Hi"], stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        outputs = [command.communicate(timeout=120)[0] for command in commands]
        assert [command.returncode for command in commands] == [0, 0]
        assert all(outputs)

    def test_all_starters_have_a_default_command(self):
        tasks = {load_catalog()[name].task for name in STARTERS}
        assert {"chat", "embedding", "rerank", "transcription", "speech", "background_removal"} <= tasks


def test_second_export_waits_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIDENT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TRIDENT_MODEL_REPOSITORY", str(tmp_path / "repository"))
    (tmp_path / "cache").mkdir()
    holder = "import sys; from pathlib import Path; from export.repository import export_lock\n"
    holder += f"with export_lock(Path({str(tmp_path / 'cache')!r})): print('held', flush=True); sys.stdin.read(1)"
    with subprocess.Popen(
        [sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        first.stdout.readline()
        with subprocess.Popen([*TRIDENT, "pull", BACKGROUND], stderr=subprocess.PIPE, text=True) as second:
            assert second.stderr.readline().startswith("Another command is changing the models in ")
            time.sleep(0.5)
            assert second.poll() is None
            first.stdin.write("x")
            first.stdin.close()
            assert second.wait(60) == 0
    assert (tmp_path / "repository" / BACKGROUND / "config.pbtxt").exists()


def test_no_network(tmp_path):
    """The index is unreachable: a message that says what to do, after the attempts."""
    environment = {
        "TRIDENT_CACHE": str(tmp_path / "cache"),
        "TRIDENT_MODEL_REPOSITORY": str(tmp_path / "repository"),
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_RETRIES": "0",
    }
    result = subprocess.run(
        [*TRIDENT, "download", "-m", BACKGROUND, "--download-retries", "2"],
        env=os.environ | environment,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert result.returncode == 1
    assert result.stdout.count("Attempting to download model") == 2
    assert "Check the network" in result.stderr
    assert "Traceback" not in result.stderr

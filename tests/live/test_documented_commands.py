"""Runs commands from the READMEs, the quickstarts and the API reference, and the programs in examples/."""

import os
import re
import shutil
import subprocess
import sys

import orjson
import pytest
import requests
from PIL import Image

from contract.paths import CHECKOUT
from tests.support.images import load_photograph
from tests.support.live import STARTERS, url
from tests.support.pages import ENGLISH, render_page
from tests.support.stack import running_stack

EXAMPLES = CHECKOUT / "examples"


def blocks(document, language):
    text = (CHECKOUT / document).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def stack():
    """Trident as `make serve` starts it."""
    with running_stack(STARTERS) as settings:
        yield settings


@pytest.fixture(scope="module")
def folder(stack, tmp_path_factory):
    """A folder with the files that the commands read."""
    path = tmp_path_factory.mktemp("commands")
    load_photograph("astronaut").save(path / "photo.jpg")
    render_page(ENGLISH).save(path / "page.png")
    speech = requests.post(url(stack, "/v1/audio/speech"), json={"input": "Hello from your own machine."}, timeout=60)
    (path / "greeting.mp3").write_bytes(speech.content)
    return path


def run(command, folder, stack):
    """Run a command in `folder`, with the URL of the stack's API in OPENAI_BASE_URL; return its standard output."""
    environment = os.environ | {"OPENAI_BASE_URL": url(stack, "/v1")}
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def run_bash(script, folder, stack):
    script = script.replace("10100", str(stack.port)).replace("curl ", "curl -sSf ")
    return run(["bash", "-euo", "pipefail", "-c", script], folder, stack)


@pytest.mark.parametrize("document", ["README.md", "README.zh-CN.md"])
def test_readme_command_returns_the_documented_response(stack, folder, document):
    (command,) = (block for block in blocks(document, "bash") if "curl" in block)
    output = orjson.loads(run_bash(command, folder, stack))
    (shown,) = map(orjson.loads, blocks(document, "json"))
    assert output["choices"] == shown["choices"]
    cached = output["usage"]["prompt_tokens_details"].pop("cached_tokens")
    assert cached in (0, shown["usage"]["prompt_tokens_details"].pop("cached_tokens"))
    assert output["usage"] == shown["usage"]
    assert set(output) == set(shown)


@pytest.mark.parametrize("document", ["README.md", "README.zh-CN.md"])
def test_readme_run_command_prints_the_documented_text(stack, folder, document):
    text = (CHECKOUT / document).read_text(encoding="utf-8")
    ((command, shown),) = re.findall(r"```bash\n\.venv/bin/trident (run .*?)```\n\n```text\n(.*?)```", text, re.DOTALL)
    assert run_bash(f"{sys.executable} -m trident {command.strip()} --port {stack.port}", folder, stack) == shown


def test_command_line_examples_work(stack, folder, monkeypatch):
    monkeypatch.setenv("TRIDENT_PORT", str(stack.port))
    script = next(block for block in blocks("docs/cli.md", "bash") if block.startswith("trident run qwen"))
    output = run_bash(script.replace("trident ", f"{sys.executable} -m trident "), folder, stack)
    assert "Tokyo" in output
    assert "own machine" in output.splitlines()[-1]


@pytest.mark.parametrize("document", ["docs/quickstart.md", "docs/quickstart.zh-CN.md"])
def test_quickstart_commands_work(stack, folder, document):
    """The commands run in order, because some read files that earlier commands write."""
    commands = [block for block in blocks(document, "bash") if "curl" in block]
    output = run_bash("\n".join(commands), folder, stack)
    assert "The capital of Japan is Tokyo." in output
    assert '"embedding":[' in output
    assert '"relevance_score"' in output
    assert "00:00:00,000 -->" in output
    assert "Hello from your own machine" in output
    assert Image.open(folder / "cut-out.png").mode == "RGBA"
    assert ENGLISH[0] in output
    (program,) = blocks(document, "python")
    assert (
        len(run([sys.executable, "-c", program.replace("10100", str(stack.port))], folder, stack)) > 20
    )  # a random answer


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("chat", "Tokyo"),
        ("completions", "Paris"),
        ("responses", "Tokyo"),
        ("embeddings", '"embedding":['),
        ("rerank", "programming"),
        ("speech", ""),
        ("transcription", "Hello from your own machine"),
        ("background-removal", ""),
        ("ocr", ENGLISH[0]),
    ],
)
def test_first_command_of_api_reference_page_works(stack, folder, page, expected):
    shutil.copy(folder / "greeting.mp3", folder / "speech.mp3")
    command = blocks(f"docs/api/{page}.md", "bash")[0]
    assert expected in run_bash(command, folder, stack)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chat", "completion tokens"),
        ("tools", "get_capital({'country': 'Japan'})\n"),
        ("structured_output", "positive"),
        ("rerank", "Rust is a systems programming language"),
        ("speech_round_trip", "brown fox"),
    ],
)
def test_python_example_works(stack, folder, name, expected):
    assert expected in run([sys.executable, EXAMPLES / f"{name}.py"], folder, stack)


def test_streaming_transcription_example_works(stack, folder):
    output = run([sys.executable, EXAMPLES / "streaming_transcription.py", "greeting.mp3"], folder, stack)
    assert "Hello from your own machine" in output
    assert "seconds of audio" in output


def test_curl_example_works(stack, folder):
    output = run(["bash", EXAMPLES / "curl.sh", "photo.jpg", "page.png"], folder, stack)
    assert '"relevance_score"' in output
    assert "Hello from your own machine" in output
    assert ENGLISH[0] in output


@pytest.mark.skipif(shutil.which("npm") is None, reason="Node is not installed")
def test_node_example_works(stack, folder):
    project = folder / "openai_node"
    shutil.copytree(EXAMPLES / "openai_node", project, ignore=shutil.ignore_patterns("node_modules"))
    run(["npm", "ci", "--no-audit", "--no-fund"], project, stack)
    assert "The capital of Japan is Tokyo." in run(["node", "chat.mjs"], project, stack)


def test_examples_readme_lists_every_example():
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    names = {path.name for path in EXAMPLES.iterdir()} - {"README.md"}
    assert all(f"]({name})" in listed for name in names)

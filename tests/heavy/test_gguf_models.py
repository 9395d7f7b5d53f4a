"""GGUF files of other families on llama.cpp: Qwen in Chinese, a base model, and a model with DeepSeek-R1's template."""

import re
import subprocess
import sys

import pytest
from openai import OpenAI

from tests.support.gguf_files import GEMMA, gguf_file
from tests.support.live import MODEL, url, user
from tests.support.stack import read_config, running_stack

QWEN = "qwen2.5-coder-0.5b"

# The part of DeepSeek-R1's template for conversations without tools.
R1 = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] }}"
    "{% else %}{{ '<｜Assistant｜>' + message['content'].split('</think>')[-1] + '<｜end▁of▁sentence｜>' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def reasoning_file(tmp_path_factory):
    """Return a small model that has DeepSeek-R1's chat template in its file."""
    path = tmp_path_factory.mktemp("gguf") / "r1.gguf"
    command = [sys.executable, "-m", "gguf.scripts.gguf_new_metadata", "--chat-template", R1]
    subprocess.run([*command, str(gguf_file(MODEL)), str(path)], check=True, capture_output=True)
    return path


@pytest.fixture(scope="module")
def client(reasoning_file, tmp_path_factory):
    files = [gguf_file(QWEN), gguf_file("gemma-3-270m", GEMMA), reasoning_file]
    repository = tmp_path_factory.mktemp("repository")
    with running_stack([*map(str, files)], "--model-repository", str(repository), engine="llamacpp") as settings:
        yield OpenAI(base_url=url(settings, "/v1"), api_key="unused", max_retries=0, timeout=120)


def test_qwen_answers_in_chinese_with_its_own_sampling_defaults(client):
    fields = {"temperature": 0, "max_tokens": 60, "logprobs": True, "top_logprobs": 20}
    completion = client.chat.completions.create(model=f"{QWEN}-gguf", messages=user("用一句话解释 Rust。"), **fields)
    text = completion.choices[0].message.content
    assert "Rust" in text
    assert sum("\u4e00" <= character <= "\u9fff" for character in text) > 15
    entries = completion.choices[0].logprobs.content
    assert b"".join(bytes(entry.bytes) for entry in entries).decode() == text
    assert {len(entry.top_logprobs) for entry in entries} == {20}


def test_qwen_calls_a_required_tool(client):
    parameters = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Paris"]}}, "required": ["city"]}
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": parameters}}
    completion = client.chat.completions.create(
        model=f"{QWEN}-gguf", messages=user("How is the weather in Paris?"), tools=[tool], tool_choice="required"
    )
    calls = completion.choices[0].message.tool_calls
    assert calls[0].function.name == "get_weather"
    assert calls[0].function.arguments == '{"city": "Paris"}'


def test_gemma_completes_text(client):
    fields = {"temperature": 0, "max_tokens": 8, "logprobs": 5}
    choice = client.completions.create(model="gemma-3-270m", prompt="The opposite of hot is", **fields).choices[0]
    assert "cold" in choice.text
    assert len(choice.logprobs.top_logprobs) == len(choice.logprobs.tokens)


def test_reasoning_is_inferred_from_the_template(client):
    fields = {"temperature": 0, "max_tokens": 30}
    message = client.chat.completions.create(model="r1", messages=user("What is 2 + 2?"), **fields).choices[0].message
    assert message.reasoning_content
    assert not message.content
    [capabilities] = [model.capabilities for model in client.models.list().data if model.id == "r1"]
    assert "reasoning" in capabilities


def test_models_are_named_after_their_files(client):
    assert {model.id for model in client.models.list().data} == {f"{QWEN}", "gemma-3-270m", "r1"}


def test_tune_measures_both_engines_and_keeps_the_faster_one(tmp_path):
    command = [sys.executable, "-m", "trident", "export", MODEL, "--model-repository", str(tmp_path)]
    result = subprocess.run([*command, "--tune"], capture_output=True, encoding="utf-8", timeout=300)
    assert result.returncode == 0, result.stderr
    for engine in ("OpenVINO", "llama.cpp"):
        assert re.search(rf"{re.escape(engine)} \d+ tokens/s at 1 stream, \d+ at 8 streams", result.stdout)
    engine = read_config(tmp_path / MODEL).parameters["engine"].string_value
    assert f"using {'OpenVINO' if engine == 'openvino' else 'llama.cpp'}" in result.stdout
    # The choice is kept.
    result = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=300)
    assert "up to date" in result.stdout

"""`make serve`, and requests that clients of AHA and JAiRouter send, through curl and Python.

docs/compatibility.md describes AHA and JAiRouter. Test names call JAiRouter "router".
"""

import functools
import http.server
import os
import re
import signal
import subprocess
import threading
from pathlib import Path

import orjson
import pytest
import requests

from tests.support.clips import first_seconds
from tests.support.live import MODEL, shell, url, wait_until
from tests.support.recordings import MOONSHINE, package_files
from tests.support.stack import free_ports

CHECKOUT = Path(__file__).resolve().parents[2]


def test_make_serve_prints_a_working_curl_command_and_make_stop_stops_trident(tmp_path):
    port, http, grpc, metrics = free_ports(4)
    flags = f"--port {port} --triton-http-port {http} --triton-grpc-port {grpc} --triton-metrics-port {metrics}"
    output = tmp_path / "output"
    with output.open("w", encoding="utf-8") as out:
        make = subprocess.Popen(
            ["make", "serve", f"MODELS={MODEL}", f"ARGS={flags}"],
            cwd=CHECKOUT,
            stdout=out,
            stderr=out,
            env=outside_make(),
        )
    try:
        wait_until(
            lambda: "Ctrl-C" in output.read_text(encoding="utf-8") or make.poll() is not None,
            120,
            "the startup message",
        )
        text = output.read_text(encoding="utf-8")
        assert make.poll() is None, text
        (command,) = re.findall(r"^  (curl .*?\\\n.*?)$", text, re.MULTILINE)
        assert "Tokyo" in shell(command)
        stop = ["make", "stop", f"ARGS=--port {port}"]
        stopped = subprocess.run(
            stop, cwd=CHECKOUT, capture_output=True, encoding="utf-8", check=True, env=outside_make()
        )
        assert "Stopped" in stopped.stdout
        assert make.wait(20) == 0, output.read_text(encoding="utf-8")
    finally:
        if make.poll() is None:
            make.send_signal(signal.SIGINT)
            make.wait(30)


def outside_make():
    """Return the environment without the variables that an outer make (`make test`) sets for its children."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MODELS", "ARGS")
    }


CHATS = {
    "simple": '{"model": "Qwen/Qwen3-0.6B", "messages": [{"role": "user", "content": "你好!"}], "max_tokens": 30}',
    "system": '{"model": "Qwen/Qwen3-0.6B", "messages": [{"role": "system", "content": "你是一个有用的助手。"}, '
    '{"role": "user", "content": "用一句话解释 Rust。"}], "max_tokens": 50, "temperature": 0.7}',
    "streamed": '{"model": "Qwen/Qwen3-0.6B", "messages": [{"role": "user", "content": "给我讲个故事"}], '
    '"stream": true, "max_tokens": 30}',
}


@pytest.mark.parametrize("prefix", ["", "/v1"])
@pytest.mark.parametrize("name", CHATS)
def test_aha_chat_through_curl_returns_text(compatible_stack, prefix, name):
    address = url(compatible_stack, f"{prefix}/chat/completions")
    output = shell(f"curl -sN {address} -H 'Content-Type: application/json' -d '{CHATS[name]}'")
    if prefix and name != "streamed":
        completion = orjson.loads(output)
        assert completion["object"] == "chat.completion"
        assert completion["choices"][0]["message"]["content"]
        return
    events = [line.removeprefix("data: ") for line in output.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    chunks = [orjson.loads(event) for event in events[:-1]]
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks)
    assert len({c["id"] for c in chunks}) == 1


def test_aha_python_example_works_without_the_v1_prefix(compatible_stack):
    from openai import OpenAI

    client = OpenAI(base_url=url(compatible_stack, ""), api_key="dummy")
    messages = [{"role": "user", "content": "你好!"}]
    response = client.chat.completions.create(model="Qwen/Qwen3-0.6B", messages=messages, max_tokens=30)
    assert response.choices[0].message.content


def test_aha_health_and_models_return_the_documented_fields(compatible_stack):
    assert orjson.loads(shell(f"curl -s {url(compatible_stack, '/health')}")) == {"status": "ok"}
    models = orjson.loads(shell(f"curl -s {url(compatible_stack, '/models')}"))
    assert models["object"] == "list"
    assert {"id", "object", "created", "owned_by"} <= set(models["data"][0])


ROUTER_CHAT = """{"model": "gpt-3.5-turbo", "messages": [{"role": "system", "content": "你是一个有用的助手。"},
{"role": "user", "content": "你好!"}], "stream": false, "max_tokens": 40, "temperature": 0.7, "top_p": 1.0, "top_k": 50,
"frequency_penalty": 0.0, "presence_penalty": 0.0, "stop": null, "user": "user-123"}"""


def test_router_chat_through_curl_succeeds_with_an_api_key(stack):
    headers = "-H 'Content-Type: application/json' -H 'Authorization: Bearer your-api-key'"
    completion = orjson.loads(
        shell(f"curl -s -X POST '{url(stack, '/v1/chat/completions')}' {headers} -d '{ROUTER_CHAT}'")
    )
    assert completion["object"] == "chat.completion"
    assert completion["choices"][0]["message"]["role"] == "assistant"
    assert set(completion["usage"]) >= {"prompt_tokens", "completion_tokens", "total_tokens"}
    assert completion["system_fingerprint"]


def test_router_chat_accepts_an_alias_and_an_unknown_model(stack, compatible_stack):
    for settings, model in ((stack, "gpt-3.5-turbo"), (compatible_stack, "qwen2.5:7b")):
        body = {"model": model, "messages": [{"role": "user", "content": "你好!"}], "max_tokens": 30}
        headers = {"Content-Type": "application/json", "Authorization": "Bearer your-api-key"}
        response = requests.post(url(settings, "/v1/chat/completions"), headers=headers, json=body, timeout=60)
        assert response.status_code == 200
        assert response.json()["choices"][0]["message"]["content"]


def test_router_stream_ends_with_done(compatible_stack):
    body = {"model": "qwen2.5:7b", "messages": [{"role": "user", "content": "你好!"}], "stream": True, "max_tokens": 20}
    response = requests.post(url(compatible_stack, "/v1/chat/completions"), json=body, timeout=60)
    assert response.headers["Content-Type"].startswith("text/event-stream")
    assert response.text.endswith("data: [DONE]\n\n")


def post(settings, path, body):
    return orjson.loads(shell(f"curl -s {url(settings, path)} -H 'Content-Type: application/json' -d '{body}'"))


@pytest.mark.parametrize("path", ["/embeddings", "/v1/embeddings"])
def test_aha_embeddings_are_returned_in_order(compatible_stack, path):
    one = post(compatible_stack, path, '{"input": "Hello world"}')
    assert (one["object"], len(one["data"][0]["embedding"])) == ("list", 384)
    many = post(compatible_stack, path, '{"input": ["Hello world", "How are you?", "Goodbye"]}')
    assert [item["index"] for item in many["data"]] == [0, 1, 2]


DOCUMENTS = '["机器学习是一种人工智能技术", "苹果是一种水果", "深度学习属于人工智能领域"]'


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
@pytest.mark.parametrize(("top_n", "count"), [("", 3), (', "top_n": 2', 2)])
def test_aha_rerank_returns_top_n_documents(compatible_stack, path, top_n, count):
    output = post(compatible_stack, path, f'{{"query": "人工智能", "documents": {DOCUMENTS}{top_n}}}')
    assert output["object"] == "list"
    assert len(output["results"]) == count
    assert {"index", "relevance_score", "document"} <= set(output["results"][0])


def test_router_embeddings_and_rerank_return_the_documented_fields(compatible_stack):
    headers = {"Authorization": "Bearer your-api-key"}
    body = {"model": "text-embedding-ada-002", "input": "要嵌入的文本", "encoding_format": "float", "user": "user-123"}
    output = requests.post(url(compatible_stack, "/v1/embeddings"), headers=headers, json=body, timeout=60).json()
    assert set(output["usage"]) == {"prompt_tokens", "total_tokens"}
    documents = ["人工智能是计算机科学的一个分支", "机器学习是人工智能的子领域", "深度学习使用神经网络"]
    body = {"model": "rerank-multilingual-v2.0", "query": "什么是人工智能?", "documents": documents, "top_n": 3}
    output = requests.post(
        url(compatible_stack, "/v1/rerank"), headers=headers, json=body | {"return_documents": True}, timeout=60
    ).json()
    assert output["id"].startswith("rerank-")
    assert {"index", "score", "document"} <= set(output["results"][0])
    assert output["usage"]["total_tokens"] > 0


AUDIO = first_seconds()


@pytest.mark.parametrize("path", ["/audio/transcriptions", "/v1/audio/transcriptions"])
@pytest.mark.parametrize("field", ["", "-F language=en", "-F temperature=0.0"])
def test_aha_transcription_through_curl_returns_the_text(compatible_stack, path, field):
    command = f"curl -s -X POST {url(compatible_stack, path)} -H 'Authorization: Bearer NO_NEED'"
    output = orjson.loads(shell(f"{command} -F file='@{AUDIO}' -F model='Qwen/Qwen3-ASR-0.6B' {field}"))
    assert output["text"].startswith("It was the best of times")


ASR = """{"model": "ZhipuAI/GLM-ASR-Nano-2512", "messages": [{"role": "user", "content": [
{"type": "text", "text": "转写这段音频"}, {"type": "audio", "audio_url": {"url": "%s"}}]}]}"""


def test_aha_chat_transcribes_a_local_file_only_if_allowed(compatible_stack, stack):
    body = ASR % f"file://{AUDIO}"
    output = post(compatible_stack, "/v1/chat/completions", body)
    assert output["object"] == "chat.completion"
    assert output["choices"][0]["message"]["content"].startswith("It was the best of times")
    streamed = shell(
        f"curl -sN {url(compatible_stack, '/chat/completions')} -H 'Content-Type: application/json' -d '{body}'"
    )
    assert "best of times" in streamed
    assert streamed.endswith("data: [DONE]\n\n")
    error = post(stack, "/v1/chat/completions", body.replace("ZhipuAI/GLM-ASR-Nano-2512", "whisper-1"))["error"]
    assert (error["code"], error["param"]) == ("file_not_allowed", "messages[0].content[1].audio_url.url")


def test_audio_for_a_chat_model_is_transcribed(compatible_stack):
    body = (ASR % f"file://{package_files(MOONSHINE) / 'two_cities.wav'}").replace(
        '"ZhipuAI/GLM-ASR-Nano-2512"', f'"{MODEL}", "max_tokens": 20'
    )
    output = post(compatible_stack, "/v1/chat/completions", body)
    assert output["usage"]["prompt_tokens"] > 100
    assert output["choices"][0]["message"]["content"]


SPEECH = """{"model": "OpenBMB/VoxCPM-0.5B1.5", "messages": [{"role": "user", "content": [
{"type": "text", "text": "Hello, this is AHA speaking."}%s]}]}"""


def test_aha_speech_is_a_data_url_with_a_wav_file(compatible_stack):
    output = post(compatible_stack, "/audio/speech", SPEECH % "")
    (part,) = output["choices"][0]["message"]["content"]
    assert part["audio_url"]["url"].startswith("data:audio/wav;base64,UklGR")


def test_aha_reference_audio_is_fetched_and_rejected_by_a_model_without_voice_cloning(compatible_stack):
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(http.server.SimpleHTTPRequestHandler, directory=AUDIO.parent)
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        found, missing = (
            post(
                compatible_stack,
                "/audio/speech",
                SPEECH % f', {{"type": "audio", "audio_url": {{"url": "{address}/{name}"}}}}',
            )
            for name in (AUDIO.name, "missing.wav")
        )
        server.shutdown()
    assert found["error"]["code"] == "voice_cloning_unsupported"
    assert missing["error"]["code"] == "media_unreachable"


@pytest.mark.parametrize("voice", ["alloy", "shimmer"])
def test_router_speech_is_mp3(stack, voice):
    body = {"model": "tts-1", "input": "Hello, this is a test.", "voice": voice, "response_format": "mp3", "speed": 1.0}
    response = requests.post(
        url(stack, "/v1/audio/speech"), headers={"Authorization": "Bearer your-api-key"}, json=body, timeout=60
    )
    assert response.headers["Content-Type"] == "audio/mpeg"
    assert len(response.content) > 5000

"""Tests of audio in a conversation, with a fake Triton.

The audio is transcribed for the client or for a chat model, or rejected.
"""

import base64

import orjson
import pytest

from frontend.errors import InvalidRequest
from tests.unit.conftest import chat, last

SOUND = base64.b64encode(b"RIFF").decode()
PARTS = {
    "audio": {"type": "audio", "audio_url": {"url": f"base64://{SOUND}"}},
    "audio_url": {"type": "audio_url", "audio_url": {"url": f"data:audio/wav;base64,{SOUND}"}},
    "input_audio": {"type": "input_audio", "input_audio": {"data": SOUND, "format": "wav"}},
}


def queue_transcript(triton, *texts):
    segments = [{"text": f" {text}", "tokens": [1, 2]} for text in texts]
    end = {"text_output": "", "segments": "[]", "language": "en", "duration": 2.0}
    return triton.queue_response({"text_output": "", "segments": orjson.dumps(segments).decode()}, end)


def ask(client, *parts, **more):
    content = [{"type": "text", "text": "Write this down"}, *parts]
    return client.post("/v1/chat/completions", json=chat(messages=[{"role": "user", "content": content}], **more))


@pytest.mark.parametrize("kind", PARTS)
def test_transcription_model_returns_the_transcript(client, triton, kind):
    queue_transcript(triton, "Hello", "there.")
    body = ask(client, PARTS[kind], model="whisper-1").get_json()
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"]["content"] == "Hello there."
    assert body["usage"]["completion_tokens"] == 4
    (request,) = triton.requests
    assert (request["model"], request["inputs"]["audio"]) == ("tiny-transcription", b"RIFF")


def test_stream_separates_the_transcripts_of_several_files_by_line_breaks(client, triton):
    queue_transcript(triton, "One.")
    queue_transcript(triton, "Two.")
    response = ask(client, PARTS["audio"], PARTS["input_audio"], model="tiny-transcription", stream=True)
    chunks = [orjson.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert text == "One.\nTwo."
    assert response.text.endswith("data: [DONE]\n\n")


def test_unknown_model_name_selects_the_transcription_model_only_if_allowed(make_client, triton):
    client = make_client(unknown_model="default")
    queue_transcript(triton, "Hello.")
    assert ask(client, PARTS["audio"], model="ZhipuAI/GLM-ASR-Nano-2512").status_code == 200
    assert triton.requests[0]["model"] == "tiny-transcription"
    assert ask(make_client(), PARTS["audio"], model="ZhipuAI/GLM-ASR-Nano-2512").status_code == 404


def test_transcription_model_requires_audio(client):
    error = ask(client, model="whisper-1").get_json()["error"]
    assert error["param"] == "model"


@pytest.mark.parametrize("model", ["tiny-chat", "gpt-4o"])
def test_chat_model_rejects_audio(client, triton, model):
    error = ask(client, PARTS["audio"], model=model).get_json()["error"]
    assert (error["param"], error["code"]) == ("messages[0].content[1]", "unsupported_content")
    assert not triton.requests


def test_transcribe_audio_setting_sends_the_transcript_to_a_chat_model(make_client, triton):
    client = make_client(transcribe_audio=True)
    queue_transcript(triton, "Hello", "there.")
    triton.queue_response(last("Hi!"))
    assert ask(client, PARTS["audio"]).get_json()["choices"][0]["message"]["content"] == "Hi!"
    assert [request["model"] for request in triton.requests] == ["tiny-transcription", "tiny-chat"]
    assert orjson.loads(triton.requests[1]["inputs"]["messages"]) == [
        {"role": "user", "content": "Write this down\nHello there."}
    ]


def test_error_for_an_audio_file_names_its_field(client, triton):
    triton.queue_response(InvalidRequest("not audio", param="file", code="invalid_audio"))
    error = ask(client, PARTS["input_audio"], model="whisper-1").get_json()["error"]
    assert (error["param"], error["code"]) == ("messages[0].content[1].input_audio.data", "invalid_audio")
    part = {"type": "audio", "audio_url": {"url": "file:///etc/passwd"}}
    error = ask(client, part, model="whisper-1").get_json()["error"]
    assert (error["param"], error["code"]) == ("messages[0].content[1].audio_url.url", "file_not_allowed")


def test_error_after_the_models_first_response_names_the_field_of_the_audio(client, triton):
    part = {"text_output": "", "segments": "[]"}
    triton.queue_response(part, InvalidRequest("too long", param="file", code="too_long"))
    error = ask(client, PARTS["input_audio"], model="whisper-1").get_json()["error"]
    assert (error["param"], error["code"]) == ("messages[0].content[1].input_audio.data", "too_long")


def test_more_than_sixteen_audio_files_are_rejected(client, triton):
    error = ask(client, *[PARTS["audio"]] * 17, model="whisper-1").get_json()["error"]
    assert error["param"] == "messages[0].content[17].audio_url.url"
    assert not triton.requests

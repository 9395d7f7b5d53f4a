"""POST /audio/speech in OpenAI's and AHA's request formats, and GET /audio/voices, with a fake Triton.

docs/compatibility.md describes AHA.
"""

import base64

import orjson
import pytest

from frontend.errors import ClientClosedRequest, EngineFailure, InvalidRequest, Overloaded

CONTENT = b"RIFFaudio"
DATA = f"data:audio/wav;base64,{base64.b64encode(CONTENT).decode()}"


def chunk(audio, **more):
    return {"audio": audio} | more


def queue_speech(triton):
    return triton.queue_response(chunk(b"one"), chunk(b"two"), chunk(b"", num_input_tokens=5, num_output_tokens=40))


def post(client, path="/v1/audio/speech", **body):
    return client.post(path, json={"model": "tts-1", "input": "Hello.", "voice": "alloy"} | body)


def options(triton):
    return orjson.loads(triton.requests[0]["inputs"]["options"])


@pytest.mark.parametrize("path", ["/audio/speech", "/v1/audio/speech"])
def test_mp3_is_the_default(client, triton, path):
    call = queue_speech(triton)
    response = post(client, path)
    assert (response.data, response.content_type) == (b"onetwo", "audio/mpeg")
    assert not call.cancelled  # the call has already ended
    (request,) = triton.requests
    assert (request["model"], request["inputs"]["text_input"]) == ("tiny-speech", "Hello.")
    assert options(triton) == {"voice": "alloy", "speed": 1.0, "format": "mp3", "reference_text": None}
    assert "reference_audio" not in request["inputs"]


@pytest.mark.parametrize(
    ("response_format", "content_type"),
    [("opus", "audio/ogg"), ("aac", "audio/aac"), ("flac", "audio/flac"), ("wav", "audio/wav"), ("pcm", "audio/pcm")],
)
def test_response_format_sets_the_content_type_and_the_encoder(client, triton, response_format, content_type):
    queue_speech(triton)
    assert post(client, response_format=response_format).content_type == content_type
    assert options(triton)["format"] == response_format


def test_model_and_voice_are_optional_and_the_voice_may_be_an_object(client, triton):
    queue_speech(triton)
    assert client.post("/v1/audio/speech", json={"input": "Hello.", "speed": 4}).status_code == 200
    assert options(triton) == {"voice": None, "speed": 4, "format": "mp3", "reference_text": None}
    queue_speech(triton)
    post(client, voice={"id": "ann"})
    assert orjson.loads(triton.requests[1]["inputs"]["options"])["voice"] == "ann"


def events(response):
    return [orjson.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: ")]


def test_event_stream_has_audio_deltas_usage_and_heartbeats(client, triton):
    triton.queue_response(
        chunk(b"one"), TimeoutError(), chunk(b"two"), chunk(b"", num_input_tokens=5, num_output_tokens=40)
    )
    response = post(client, stream_format="sse")
    *deltas, done = events(response)
    assert b"".join(base64.b64decode(delta["audio"]) for delta in deltas) == b"onetwo"
    assert {delta["type"] for delta in deltas} == {"speech.audio.delta"}
    usage = {"input_tokens": 5, "output_tokens": 40, "total_tokens": 45}
    assert done == {"type": "speech.audio.done", "usage": usage}
    assert ": waiting" in response.text


def test_failure_in_mid_stream_is_an_event_or_aborts_the_audio(client, triton):
    triton.queue_response(chunk(b"one"), EngineFailure("broken"))
    assert events(post(client, stream_format="sse"))[-1]["error"]["message"] == "broken"
    triton.queue_response(chunk(b"one"), EngineFailure("broken"))
    with pytest.raises(EngineFailure):
        _ = post(client).data


def test_client_disconnect_in_mid_stream_is_not_raised(client, triton):
    triton.queue_response(chunk(b"one"), ClientClosedRequest("gone"))
    assert post(client).data == b"one"


@pytest.mark.parametrize(
    "error", [InvalidRequest("no such voice", param="voice", code="voice_not_found"), Overloaded("full")]
)
def test_failure_before_the_first_chunk_keeps_its_http_status(client, triton, error):
    triton.queue_response(error)
    assert post(client).status_code == error.status


def aha(client, *parts, **more):
    content = [{"type": "text", "text": "Hello."}, *parts]
    return client.post("/audio/speech", json={"messages": [{"role": "user", "content": content}]} | more)


STREAMED = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0................LIST\x02\0\0\0xxdata\xff\xff\xff\xffone"
WHOLE = b"RIFF\x31\0\0\0WAVEfmt \x10\0\0\0................LIST\x02\0\0\0xxdata\x03\0\0\0one"


def test_error_about_the_text_in_aha_messages_names_the_field_messages(client, triton):
    triton.queue_response(InvalidRequest("'input' exceeds the limit of 5 characters", param="input"))
    error = aha(client).get_json()["error"]
    assert (error["param"], error["message"]) == ("messages", "'messages' exceeds the limit of 5 characters")


def test_aha_request_returns_a_completion_with_a_wav_file(client, triton):
    end = chunk(b"", num_input_tokens=5, num_output_tokens=40)
    triton.queue_response(chunk(STREAMED[:20]), chunk(STREAMED[20:]), end)
    body = aha(client, {"type": "audio", "audio_url": {"url": DATA}}).get_json()
    assert body["object"] == "chat.completion"
    (part,) = body["choices"][0]["message"]["content"]
    assert part["type"] == "audio"
    assert part["audio_url"]["url"] == f"data:audio/wav;base64,{base64.b64encode(WHOLE).decode()}"
    assert body["usage"] == {"prompt_tokens": 5, "completion_tokens": 40, "total_tokens": 45}
    assert options(triton) == {"voice": None, "speed": 1.0, "format": "wav", "reference_text": None}
    assert triton.requests[0]["inputs"]["reference_audio"] == CONTENT


def test_generated_wav_file_over_the_upload_limit_is_413_and_cancels_the_call(make_client, triton):
    call = triton.queue_response(chunk(STREAMED), chunk(b"x" * 1000), chunk(b"x" * 1000))
    assert aha(make_client(max_upload_bytes=1500)).status_code == 413
    assert call.cancelled


def test_texts_of_all_messages_are_spoken(client, triton):
    triton.queue_response(chunk(STREAMED, num_input_tokens=5, num_output_tokens=40))
    messages = [
        {"role": "user", "content": "One."},
        {"role": "user", "content": [{"type": "text", "text": "Two."}, {"type": "text", "text": "Three."}]},
    ]
    assert client.post("/audio/speech", json={"messages": messages}).status_code == 200
    assert triton.requests[0]["inputs"]["text_input"] == "One.\nTwo.\nThree."


def test_reference_audio_error_names_its_field(client, triton):
    triton.queue_response(InvalidRequest("not audio", param="file", code="invalid_audio"))
    error = aha(client, {"type": "audio", "audio_url": {"url": DATA}}).get_json()["error"]
    assert error["param"] == "messages[0].content[1].audio_url.url"
    part = {"type": "input_audio", "input_audio": {"data": "no base64!"}}
    assert aha(client, part).get_json()["error"]["param"] == "messages[0].content[1].input_audio.data"
    error = aha(client, *[{"type": "audio", "audio_url": {"url": DATA}}] * 2).get_json()["error"]
    assert error["param"] == "messages[0].content[2].audio_url.url"
    triton.queue_response(InvalidRequest("no", param="messages", code="voice_cloning_unsupported"))
    assert aha(client, {"type": "audio", "audio_url": {"url": DATA}}).get_json()["error"]["param"] == "messages"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": " \n"}, "input"),
        ({"input": 3}, "input"),
        ({"input": None}, "input"),
        ({"speed": 9}, "speed"),
        ({"speed": 0.2}, "speed"),
        ({"speed": "fast"}, "speed"),
        ({"response_format": "midi"}, "response_format"),
        ({"stream_format": "websocket"}, "stream_format"),
        ({"voice": 3}, "voice"),
        ({"model": "tiny-chat"}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, "messages[0].content[0]"),
    ],
)
def test_error_for_invalid_input_names_the_field(client, triton, body, param):
    response = post(client, **body)
    assert response.status_code == 400
    assert response.get_json()["error"]["param"].startswith(param)
    assert not triton.requests


def test_unknown_model_is_404(client):
    assert post(client, model="nobody").status_code == 404


def test_upload_limit_applies_to_inline_files_and_body_limit_to_the_rest_of_the_body(make_client, triton):
    client = make_client(max_body_bytes=1000, max_upload_bytes=9000)
    triton.queue_response(chunk(STREAMED, num_input_tokens=5, num_output_tokens=40))
    part = {"type": "audio", "audio_url": {"url": f"base64://{base64.b64encode(b'x' * 8000).decode()}"}}
    assert aha(client, part).status_code == 200
    part["audio_url"]["url"] = f"base64://{base64.b64encode(b'x' * 9001).decode()}"
    assert aha(client, part).status_code == 413
    part["audio_url"]["url"] = f"base64://{base64.b64encode(b'x' * 8000).decode()}"
    assert aha(client, part | {"text": "x" * 1000}).status_code == 413
    part["audio_url"] |= {"more": "x" * 20_000}
    assert aha(client, part).status_code == 413
    small = b'{"messages": [' + b"[]," * 3000 + b"[]]}"
    assert client.post("/audio/speech", data=small).get_json()["error"]["code"] == "payload_too_large"
    assert post(client, input="x" * 1000).status_code == 413
    assert client.post("/audio/speech", data=b" " * 20_000).status_code == 413


def test_voices_are_listed_with_their_aliases(client):
    body = client.get("/v1/audio/voices").get_json()
    assert body["voices"] == [
        {
            "id": "ann",
            "name": "ann",
            "object": "voice",
            "model": "org/tiny-speech",
            "language": "en-US",
            "aliases": ["alloy"],
        }
    ]
    assert client.get("/audio/voices?model=tts-1").get_json() == body
    assert client.get("/audio/voices?model=tiny-chat").status_code == 400


def test_a_model_that_needs_the_text_of_the_reference_gets_it(client, triton, configure):
    configure(needs_transcript="true")
    end = chunk(STREAMED, num_input_tokens=5, num_output_tokens=40)
    triton.queue_response(end)
    assert aha(client, {"type": "audio", "audio_url": {"url": DATA}}, reference_text="given").status_code == 200
    assert options(triton)["reference_text"] == "given"
    last = {"text_output": "", "segments": "[]", "language": "en", "duration": 1.0}
    segments = orjson.dumps([{"text": " heard", "tokens": [1]}]).decode()
    triton.queue_response({"text_output": "", "segments": segments}, last)
    triton.queue_response(end)
    assert aha(client, {"type": "audio", "audio_url": {"url": DATA}}).status_code == 200
    assert [request["model"] for request in triton.requests[-2:]] == ["tiny-transcription", "tiny-speech"]
    assert orjson.loads(triton.requests[-1]["inputs"]["options"])["reference_text"] == "heard"


def test_a_reference_without_speech_is_rejected(client, triton, configure):
    configure(needs_transcript="true")
    triton.queue_response({"text_output": "", "segments": "[]", "language": "", "duration": 1.0})
    error = aha(client, {"type": "audio", "audio_url": {"url": DATA}}).get_json()["error"]
    assert (error["param"], error["code"]) == ("messages[0].content[1].audio_url.url", "invalid_audio")

"""POST /audio/transcriptions and /audio/translations with a fake Triton: form fields, response formats, streams.

docs/compatibility.md describes AHA.
"""

import io
import time

import orjson
import pytest

from contract.languages import LANGUAGES
from frontend.endpoints.audio.transcriptions import to_srt, to_vtt
from frontend.errors import EngineFailure, InvalidRequest

SEGMENTS = [
    {
        "id": 0,
        "start": 0.0,
        "end": 1.5,
        "text": " Hello there.",
        "words": [{"word": " Hello", "start": 0.0, "end": 0.7}],
    },
    {"id": 1, "start": 3661.25, "end": 3662.0, "text": " Bye --> now."},
]


def part(*segments, **more):
    return {"text_output": "", "segments": orjson.dumps(segments).decode()} | more


def queue_transcript(triton):
    return triton.queue_response(part(), part(SEGMENTS[0]), part(SEGMENTS[1]), part(language="en", duration=7.25))


def post(client, path="/v1/audio/transcriptions", content=b"RIFF", **fields):
    form = {name.replace("__", "[]"): value for name, value in fields.items()}
    return client.post(path, data=form | {"file": (io.BytesIO(content), "a.wav")})


@pytest.mark.parametrize("path", ["/audio/transcriptions", "/v1/audio/transcriptions"])
def test_json_is_the_default(client, triton, path):
    call = queue_transcript(triton)
    response = client.post(path, data={"file": (io.BytesIO(b"RIFFaudio"), "a.wav"), "model": "whisper-1"})
    assert response.get_json() == {"text": "Hello there. Bye --> now.", "usage": {"type": "duration", "seconds": 7}}
    assert not call.cancelled  # the call has already ended
    (request,) = triton.requests
    assert (request["model"], request["inputs"]["audio"]) == ("tiny-transcription", b"RIFFaudio")
    assert orjson.loads(request["inputs"]["options"]) == {
        "task": "transcribe",
        "language": None,
        "prompt": None,
        "temperature": 0.0,
        "word_timestamps": False,
        "vad": True,
    }


def test_fields_reach_the_model(client, triton):
    queue_transcript(triton)
    fields = {"language": "YUE", "prompt": "names", "temperature": "0.5", "vad_filter": "false"}
    response = post(client, **fields, response_format="verbose_json", timestamp_granularities__=["word", "segment"])
    options = orjson.loads(triton.requests[0]["inputs"]["options"])
    assert (options["language"], options["prompt"], options["temperature"]) == ("yue", "names", 0.5)
    assert (options["vad"], options["word_timestamps"]) == (False, True)
    body = response.get_json()
    assert (body["task"], body["language"], body["duration"]) == ("transcribe", "english", 7.25)
    assert [segment["text"] for segment in body["segments"]] == [" Hello there.", " Bye --> now."]
    assert body["words"] == [word | {"word": word["word"].strip()} for word in SEGMENTS[0]["words"]]
    assert not any(word["word"].startswith(" ") for word in body["words"])


@pytest.mark.parametrize(
    ("response_format", "content_type", "text"),
    [
        ("text", "text/plain", "Hello there. Bye --> now.\n"),
        ("srt", "text/plain", to_srt(SEGMENTS)),
        ("vtt", "text/vtt", to_vtt(SEGMENTS)),
    ],
)
def test_text_formats_have_their_content_type(client, triton, response_format, content_type, text):
    queue_transcript(triton)
    response = post(client, response_format=response_format)
    assert response.content_type == f"{content_type}; charset=utf-8"
    assert response.text == text


def test_srt_and_vtt_have_times_and_vtt_has_no_arrow_in_the_text():
    assert to_srt(SEGMENTS) == (
        "1\n00:00:00,000 --> 00:00:01,500\nHello there.\n\n2\n01:01:01,250 --> 01:01:02,000\nBye --> now.\n"
    )
    assert to_vtt(SEGMENTS) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello there.\n\n01:01:01.250 --> 01:01:02.000\nBye -> now.\n"
    )


def events(response):
    return [orjson.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: ")]


def test_stream_has_a_delta_per_segment_and_the_complete_text(client, triton):
    triton.queue_response(
        part(), TimeoutError(), part(SEGMENTS[0]), part(SEGMENTS[1]), part(language="en", duration=7.25)
    )
    response = post(client, stream="true")
    assert response.content_type.startswith("text/event-stream")
    first, second, done = events(response)
    assert first == {"type": "transcript.text.delta", "delta": "Hello there."}
    assert second["delta"] == " Bye --> now."
    assert done["type"] == "transcript.text.done"
    assert done["text"] == first["delta"] + second["delta"]
    assert done["usage"] == {"type": "duration", "seconds": 7}
    assert ": waiting" in response.text


def test_failure_in_mid_stream_is_an_event(client, triton):
    triton.queue_response(part(SEGMENTS[0]), EngineFailure("broken"))
    response = post(client, stream="true")
    assert response.status_code == 200
    assert events(response)[-1]["error"]["message"] == "broken"


def test_missing_last_response_is_an_error(client, triton):
    triton.queue_response(part(SEGMENTS[0]))
    assert post(client).status_code == 500
    triton.queue_response(part(SEGMENTS[0]))
    assert "error" in events(post(client, stream="true"))[-1]


def test_no_response_within_the_request_timeout_is_504(client, triton):
    triton.queue_response(TimeoutError())
    assert post(client).status_code == 504


def test_urlencoded_forms_are_rejected_without_being_parsed(client):
    started = time.monotonic()
    content_type = "application/x-www-form-urlencoded"
    response = client.post("/v1/audio/transcriptions", data=b"a&" * 4_000_000, content_type=content_type)
    assert response.get_json()["error"]["code"] == "missing_file"
    assert time.monotonic() - started < 1


def test_failure_before_the_first_segment_keeps_its_http_status(client, triton):
    call = triton.queue_response(InvalidRequest("not audio", param="file", code="invalid_audio"))
    response = post(client, stream="true")
    assert (response.status_code, response.get_json()["error"]["code"]) == (400, "invalid_audio")
    assert not call.cancelled  # the call has already failed


def test_translation_sends_the_task_translate(client, triton):
    queue_transcript(triton)
    body = post(client, "/v1/audio/translations", response_format="verbose_json").get_json()
    assert body["task"] == "translate"
    assert orjson.loads(triton.requests[0]["inputs"]["options"])["task"] == "translate"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"language": "xx"}, "language"),
        ({"temperature": "2"}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"response_format": "docx"}, "response_format"),
        ({"timestamp_granularities__": ["word"]}, "timestamp_granularities"),
        ({"timestamp_granularities__": ["letter"], "response_format": "verbose_json"}, "timestamp_granularities[0]"),
        ({"stream": "perhaps"}, "stream"),
        ({"stream": "true", "response_format": "srt"}, "response_format"),
        ({"model": "tiny-chat"}, "model"),
        ({"content": b""}, "file"),
        ({"prompt": "x" * 10_001}, "prompt"),
    ],
)
def test_error_for_invalid_input_names_the_field(client, triton, fields, param):
    response = post(client, **fields)
    assert (response.status_code, response.get_json()["error"]["param"]) == (400, param)
    assert not triton.requests


@pytest.mark.parametrize(
    "fields",
    [
        {"timestamp_granularities": "word"},
        {"timestamp_granularities": '["word", "segment"]'},
        {"timestamp_granularities[0]": "segment", "timestamp_granularities[1]": "word"},
        {"timestamp_granularities[]": ["segment", "word"]},
    ],
)
def test_timestamp_granularities_are_read_in_every_common_spelling(client, triton, fields):
    queue_transcript(triton)
    form = {"file": (io.BytesIO(b"RIFF"), "a.wav"), "response_format": "verbose_json"} | fields
    response = client.post("/v1/audio/transcriptions", data=form, content_type="multipart/form-data")
    assert response.status_code == 200
    assert orjson.loads(triton.requests[0]["inputs"]["options"])["word_timestamps"] is True


def test_unknown_language_error_lists_the_supported_languages(client):
    message = post(client, language="klingon").get_json()["error"]["message"]
    assert all(f" {code}" in message for code in LANGUAGES)
    assert len(LANGUAGES) == 100


@pytest.mark.parametrize("data", [{"file": "not a file"}, {"model": "whisper-1"}])
def test_missing_file_error_has_ahas_message(client, data):
    response = client.post("/audio/transcriptions", data=data, content_type="multipart/form-data")
    assert response.status_code == 400
    assert response.get_json()["error"] == {
        "message": "Audio file is required",
        "type": "invalid_request_error",
        "param": "file",
        "code": "missing_file",
    }


def test_json_body_is_rejected_as_missing_file(client):
    assert client.post("/v1/audio/transcriptions", json={"file": "x"}).get_json()["error"]["code"] == "missing_file"


def test_file_over_the_upload_limit_is_413(make_client, triton):
    client = make_client(max_upload_bytes=1000)
    assert post(client, content=b"x" * 1001).status_code == 413
    assert post(client, content=b"x" * 3_000_000).status_code == 413
    assert not triton.requests
    queue_transcript(triton)
    assert post(client, content=b"x" * 1000).status_code == 200


# The languages that AHA's documentation lists.
AHA = {
    "zh",
    "en",
    "yue",
    "ar",
    "de",
    "fr",
    "es",
    "pt",
    "id",
    "it",
    "ko",
    "ru",
    "th",
    "vi",
    "ja",
    "tr",
    "hi",
    "ms",
    "nl",
    "sv",
}
AHA |= {"da", "fi", "pl", "cs", "fil", "fa", "el", "ro", "hu", "mk"}


def sent_language(client, triton, language):
    queue_transcript(triton)
    assert post(client, language=language).status_code == 200
    return orjson.loads(triton.requests[-1]["inputs"]["options"])["language"]


def test_languages_are_accepted_by_code_and_by_name_in_any_case(client, triton):
    for code, name in LANGUAGES.items():
        for spelling in (code, code.upper(), name, name.title()):
            assert sent_language(client, triton, spelling) == code
    for code in AHA:
        assert sent_language(client, triton, code) == {"fil": "tl"}.get(code, code)


@pytest.mark.parametrize(
    ("spelling", "code"),
    [
        *(("en-US", "en"), ("zh-CN", "zh"), ("zh_Hant_TW", "zh"), ("pt-BR", "pt"), ("nb-NO", "no"), ("no", "no")),
        *(("he", "he"), ("iw", "he"), ("uk", "uk"), ("bg", "bg"), ("tl", "tl"), ("Mandarin", "zh"), ("auto", None)),
        *(("", None), ("zh-yue", "yue"), ("jv", "jw")),
    ],
)
def test_languages_are_accepted_in_other_spellings(client, triton, spelling, code):
    assert sent_language(client, triton, spelling) == code

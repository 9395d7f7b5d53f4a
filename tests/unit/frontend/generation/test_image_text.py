"""Images in a conversation are read by an OCR model, sent to a vision model, or rejected. Triton is a fake."""

import base64
from types import SimpleNamespace

import orjson
import pytest

from frontend.errors import InvalidRequest
from frontend.triton.client import ModelState
from tests.unit.conftest import chat, last

IMAGE = {"type": "image", "image_url": {"url": f"base64://{base64.b64encode(b'PNG').decode()}"}}
BOX = {"text": "Hi", "score": 0.9, "box": [[0, 0], [9, 0], [9, 5], [0, 5]]}


def queue_text(triton, *lines):
    parts = [{"text_output": line, "boxes": orjson.dumps([BOX]).decode()} for line in lines]
    return triton.queue_response(*parts, {"text_output": "", "boxes": "[]", "num_output_tokens": 5})


def ask(client, *parts, **more):
    content = [{"type": "text", "text": "提取所有文本"}, *parts]
    return client.post("/v1/chat/completions", json=chat(messages=[{"role": "user", "content": content}], **more))


def test_ocr_model_returns_the_text(client, triton):
    queue_text(triton, "One", "\nTwo")
    body = ask(client, IMAGE, model="tiny-ocr").get_json()
    message = body["choices"][0]["message"]
    assert (message["content"], body["usage"]["completion_tokens"]) == ("One\nTwo", 5)
    assert "boxes" not in message
    assert triton.requests[0]["inputs"] == {"image": b"PNG"}


def test_texts_of_several_images_are_separated_and_boxes_name_their_image(client, triton):
    queue_text(triton, "One")
    queue_text(triton)
    queue_text(triton, "Three")
    body = ask(client, IMAGE, IMAGE, IMAGE, model="tiny-ocr", metadata={"boxes": "true"}).get_json()
    message = body["choices"][0]["message"]
    assert message["content"] == "One\n\nThree"
    assert message["boxes"] == [{"image": 0} | BOX, {"image": 2} | BOX]
    assert body["usage"]["completion_tokens"] == 15


def test_stream_has_one_chunk_per_line_of_text(client, triton):
    queue_text(triton, "One", "\nTwo")
    response = ask(client, IMAGE, model="tiny-ocr", stream=True, metadata={"boxes": "true"})
    chunks = [orjson.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert [delta["content"] for delta in deltas if delta.get("content")] == ["One", "\nTwo"]
    assert [delta["boxes"] for delta in deltas if "boxes" in delta] == [[{"image": 0} | BOX]] * 2


def test_error_names_the_image(client, triton):
    queue_text(triton, "One")
    triton.queue_response(InvalidRequest("The file is not an image", param="image", code="invalid_image"))
    response = ask(client, IMAGE, IMAGE, model="tiny-ocr")
    assert response.status_code == 400
    assert response.get_json()["error"]["param"] == "messages[0].content[2].image_url.url"


def test_unknown_model_name_selects_the_ocr_model_only_if_allowed(make_client, triton):
    queue_text(triton, "One")
    assert ask(make_client(unknown_model="default"), IMAGE, model="deepseek-ai/DeepSeek-OCR").status_code == 200
    assert triton.requests[0]["model"] == "tiny-ocr"
    assert ask(make_client(), IMAGE, model="deepseek-ai/DeepSeek-OCR").status_code == 404


@pytest.mark.parametrize(("model", "param"), [("tiny-chat", "messages[0].content[1]"), ("tiny-speech", "model")])
def test_text_and_speech_models_reject_images(client, model, param):
    error = ask(client, IMAGE, model=model).get_json()["error"]
    assert error["param"] == param


def test_ocr_model_requires_an_image(client):
    error = ask(client, model="tiny-ocr").get_json()["error"]
    assert error["param"] == "model"


def test_more_than_sixteen_images_are_rejected(client):
    error = ask(client, *[IMAGE] * 17, model="tiny-ocr").get_json()["error"]
    assert error["param"] == "messages[0].content[17].image_url.url"


class TestVisionModels:
    @pytest.fixture(autouse=True)
    def vision_model(self, triton):
        triton.states.append(ModelState("zz-chat", "READY"))
        plain = triton.config

        def config(model):
            found = plain(model)
            if model == "zz-chat":
                found.parameters["capabilities"] = SimpleNamespace(string_value='["vision"]')
            return found

        triton.config = config

    def test_images_are_sent_in_order(self, client, triton):
        triton.queue_response(last("A cat."))
        other = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(b'2').decode()}"}}
        assert ask(client, IMAGE, other, model="zz-chat").get_json()["choices"][0]["message"]["content"] == "A cat."
        inputs = triton.requests[0]["inputs"]
        assert inputs["image"] == [b"PNG", b"2"]
        parts = [{"type": "text", "text": "提取所有文本"}, {"type": "image"}, {"type": "image"}]
        assert orjson.loads(inputs["messages"]) == [{"role": "user", "content": parts}]

    @pytest.mark.parametrize("name", ["gpt-4o", "zz-chat", "org/zz-chat"])
    def test_openai_name_selects_a_vision_model_only_for_images(self, client, triton, name):
        """If a request has images, gpt-4o selects the vision model, just as the vision model's own names do.

        If a request has only text, gpt-4o selects the first chat model.
        """
        triton.queue_response(last("A cat."))
        ask(client, IMAGE, model=name)
        assert triton.requests[0]["model"] == "zz-chat"
        triton.queue_response(last("Hello."))
        ask(client, model="gpt-4o")
        assert triton.requests[1]["model"] == "tiny-chat"

    def test_image_for_a_text_model_is_rejected_before_any_audio_is_transcribed(self, make_client, triton):
        client = make_client(transcribe_audio=True)
        audio = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
        assert ask(client, audio, IMAGE, model="tiny-chat").get_json()["error"]["param"] == "messages[0].content[2]"
        assert triton.requests == []

    def test_images_that_together_exceed_the_upload_limit_are_rejected_with_413(self, make_client, triton, tmp_path):
        (tmp_path / "x.png").write_bytes(bytes(600))
        client = make_client(max_upload_bytes=1000, allow_files=(tmp_path,))
        file = {"type": "image_url", "image_url": {"url": f"file://{tmp_path}/x.png"}}
        response = ask(client, file, file, model="zz-chat")
        assert (response.status_code, response.get_json()["error"]["param"][-24:]) == (413, "content[2].image_url.url")

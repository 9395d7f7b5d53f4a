"""Images in a conversation, over fake models: read by a model for text in images, or refused by name."""

import base64

import orjson
import pytest

from frontend.errors import InvalidRequest
from tests.unit.conftest import chat

IMAGE = {"type": "image", "image_url": {"url": f"base64://{base64.b64encode(b'PNG').decode()}"}}
BOX = {"text": "Hi", "score": 0.9, "box": [[0, 0], [9, 0], [9, 5], [0, 5]]}


def reads(triton, *lines):
    parts = [{"text_output": line, "boxes": orjson.dumps([BOX]).decode()} for line in lines]
    return triton.will_answer(*parts, {"text_output": "", "boxes": "[]", "num_output_tokens": 5})


def ask(client, *parts, **more):
    content = [{"type": "text", "text": "提取所有文本"}, *parts]
    return client.post("/v1/chat/completions", json=chat(messages=[{"role": "user", "content": content}], **more))


def test_a_model_that_reads_answers_the_text(client, triton):
    reads(triton, "One", "\nTwo")
    body = ask(client, IMAGE, model="tiny-ocr").get_json()
    message = body["choices"][0]["message"]
    assert (message["content"], body["usage"]["completion_tokens"]) == ("One\nTwo", 5)
    assert "boxes" not in message
    assert triton.requests[0]["inputs"] == {"image": b"PNG"}


def test_several_images_with_boxes(client, triton):
    reads(triton, "One")
    reads(triton)
    reads(triton, "Three")
    body = ask(client, IMAGE, IMAGE, IMAGE, model="tiny-ocr", metadata={"boxes": "true"}).get_json()
    message = body["choices"][0]["message"]
    assert message["content"] == "One\n\nThree"
    assert message["boxes"] == [{"image": 0} | BOX, {"image": 2} | BOX]
    assert body["usage"]["completion_tokens"] == 15


def test_a_stream_has_a_line_an_event(client, triton):
    reads(triton, "One", "\nTwo")
    response = ask(client, IMAGE, model="tiny-ocr", stream=True, metadata={"boxes": "true"})
    chunks = [orjson.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert [delta["content"] for delta in deltas if delta.get("content")] == ["One", "\nTwo"]
    assert [delta["boxes"] for delta in deltas if "boxes" in delta] == [[{"image": 0} | BOX]] * 2


def test_a_failure_names_the_image(client, triton):
    reads(triton, "One")
    triton.will_answer(InvalidRequest("The file is not an image", param="image", code="invalid_image"))
    response = ask(client, IMAGE, IMAGE, model="tiny-ocr")
    assert response.status_code == 400
    assert response.get_json()["error"]["param"] == "messages[0].content[2].image_url.url"


def test_a_name_nobody_knows_means_the_default_of_what_is_needed(make_client, triton):
    reads(triton, "One")
    assert ask(make_client(unknown_model="default"), IMAGE, model="deepseek-ai/DeepSeek-OCR").status_code == 200
    assert triton.requests[0]["model"] == "tiny-ocr"
    assert ask(make_client(), IMAGE, model="deepseek-ai/DeepSeek-OCR").status_code == 404


@pytest.mark.parametrize(("model", "param"), [("tiny-chat", "messages[0].content[1]"), ("tiny-speech", "model")])
def test_other_models_do_not_take_images(client, model, param):
    error = ask(client, IMAGE, model=model).get_json()["error"]
    assert error["param"] == param


def test_a_model_that_reads_needs_an_image(client):
    error = ask(client, model="tiny-ocr").get_json()["error"]
    assert error["param"] == "model"


def test_seventeen_images_are_too_many(client):
    error = ask(client, *[IMAGE] * 17, model="tiny-ocr").get_json()["error"]
    assert error["param"] == "messages[0].content[17].image_url.url"

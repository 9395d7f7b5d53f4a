"""Images and audio in chats with models that accept them."""

import base64
import json
from types import SimpleNamespace

import pytest

from frontend.triton.client import ModelState
from tests.unit.conftest import chat, last

IMAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(b'picture').decode()}"}}
AUDIO = {"type": "input_audio", "input_audio": {"data": base64.b64encode(b"sound").decode()}}


def ask(client, *parts):
    return client.post("/v1/chat/completions", json=chat(messages=[{"role": "user", "content": list(parts)}]))


def test_files_reach_a_model_that_accepts_them_in_order(client, triton, configure):
    configure(capabilities='["vision", "audio"]')
    triton.queue_response(last("Yes"))
    assert ask(client, AUDIO, {"type": "text", "text": "and"}, IMAGE).status_code == 200
    inputs = triton.requests[-1]["inputs"]
    parts = [{"type": "audio"}, {"type": "text", "text": "and"}, {"type": "image"}]
    assert json.loads(inputs["messages"])[0]["content"] == parts
    assert (inputs["image"], inputs["audio"]) == ([b"picture"], [b"sound"])


@pytest.mark.parametrize(
    ("capabilities", "part", "name"),
    [("[]", IMAGE, "images"), ('["vision"]', AUDIO, "audio"), ('["audio"]', IMAGE, "images")],
)
def test_files_that_the_model_does_not_accept_are_rejected(client, configure, capabilities, part, name):
    configure(capabilities=capabilities)
    error = ask(client, part).get_json()["error"]
    assert (error["code"], error["param"]) == ("unsupported_content", "messages[0].content[0]")
    assert name in error["message"]


def test_files_together_have_the_size_limit_of_one(make_client, configure):
    configure(capabilities='["audio"]')
    response = ask(make_client(max_upload_bytes=8), AUDIO, AUDIO)
    assert response.status_code == 413
    assert response.get_json()["error"]["param"] == "messages[0].content[1].input_audio.data"


def test_openai_name_selects_a_model_that_accepts_all_files(client, triton, monkeypatch):
    capabilities = {"tiny-chat": "[]", "eye-chat": '["vision"]', "omni-chat": '["vision", "audio"]'}
    triton.states += [ModelState(name, "READY") for name in ("eye-chat", "omni-chat")]
    config = triton.config

    def configured(model):
        found = config(model)
        found.parameters["capabilities"] = SimpleNamespace(string_value=capabilities.get(model, "[]"))
        return found

    monkeypatch.setattr(triton, "config", configured)
    for parts, model in (
        ([AUDIO], "omni-chat"),
        ([AUDIO, IMAGE], "omni-chat"),
        ([IMAGE], "eye-chat"),
    ):
        triton.queue_response(last("Yes"))
        body = chat(model="gpt-4o", messages=[{"role": "user", "content": parts}])
        assert client.post("/v1/chat/completions", json=body).status_code == 200
        assert triton.requests[-1]["model"] == model


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((IMAGE,), [{"type": "image"}, {"type": "text", "text": "OCR:"}]),
        ((IMAGE, {"type": "text", "text": " "}), [{"type": "image"}, {"type": "text", "text": " "}, {}]),
        ((IMAGE, {"type": "text", "text": "Read"}), [{"type": "image"}, {"type": "text", "text": "Read"}]),
    ],
)
def test_a_message_of_pictures_alone_gets_the_prompt_of_the_model(client, triton, configure, parts, expected):
    configure(capabilities='["vision"]', default_prompt="OCR:")
    triton.queue_response(last("Yes"))
    assert ask(client, *parts).status_code == 200
    content = json.loads(triton.requests[-1]["inputs"]["messages"])[0]["content"]
    assert content == [part or {"type": "text", "text": "OCR:"} for part in expected]


def test_a_model_is_found_by_its_other_ids_in_any_case(client, configure):
    configure(aliases='["ZhipuAI/GLM-OCR", "tiny-chat"]')
    for name in ("ZhipuAI/GLM-OCR", "zhipuai/glm-ocr"):
        assert client.get(f"/v1/models/{name}").get_json()["id"].startswith("org/tiny-")
    # Names and IDs come before the aliases of other models.
    assert client.get("/v1/models/tiny-chat").get_json()["id"] == "org/tiny-chat"
    assert client.get("/v1/models/zhipuai/other").status_code == 404

"""POST /images/remove_background with a fake Triton, with JSON bodies and with forms."""

import base64
import io

import orjson
import pytest

from frontend.errors import InvalidRequest, Overloaded

PHOTO = base64.b64encode(b"\x89PNGphoto").decode()
PART = {"type": "image", "image_url": {"url": f"base64://{PHOTO}"}}


def queue_results(triton, *images):
    return [triton.queue_response({"image_output": image}) for image in images]


def aha(client, *parts, path="/images/remove_background", **fields):
    return client.post(path, json={"messages": [{"role": "user", "content": list(parts)}]} | fields)


@pytest.mark.parametrize("path", ["/images/remove_background", "/v1/images/remove_background"])
def test_aha_request_returns_a_completion_with_the_image(client, triton, path):
    (call,) = queue_results(triton, b"cut")
    body = aha(client, PART, path=path, model="tiny-background_removal").get_json()
    assert body["object"] == "chat.completion"
    url = f"data:image/png;base64,{base64.b64encode(b'cut').decode()}"
    assert body["choices"][0]["message"]["content"] == [{"type": "image", "image_url": {"url": url}}]
    (request,) = triton.requests
    assert (request["model"], request["inputs"]["image"]) == ("tiny-background_removal", b"\x89PNGphoto")
    assert orjson.loads(request["inputs"]["options"]) == {"format": "png", "refine": False}
    assert not call.cancelled


def test_images_with_text_between_them_keep_their_order(client, triton):
    queue_results(triton, b"one", b"two")
    second = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PHOTO}"}}
    content = aha(client, PART, {"type": "text", "text": "and"}, second).get_json()["choices"][0]["message"]["content"]
    assert [base64.b64decode(part["image_url"]["url"].partition(",")[2]) for part in content] == [b"one", b"two"]


def test_output_format_and_refine_reach_the_model(client, triton):
    queue_results(triton, b"cut")
    body = aha(client, PART, output_format="webp", refine=True).get_json()
    assert "data:image/webp;" in body["choices"][0]["message"]["content"][0]["image_url"]["url"]
    assert orjson.loads(triton.requests[0]["inputs"]["options"]) == {"format": "webp", "refine": True}


def form(client, content=b"photo", **fields):
    data = fields | ({"image": (io.BytesIO(content), "a.jpg")} if content is not None else {})
    return client.post("/v1/images/remove_background", data=data, content_type="multipart/form-data")


def test_a_form_request_returns_the_file(client, triton):
    queue_results(triton, b"cut")
    response = form(client, output_format="webp", refine="true")
    assert (response.data, response.content_type) == (b"cut", "image/webp")
    assert triton.requests[0]["inputs"]["image"] == b"photo"


def test_error_names_the_field_of_the_invalid_image(client, triton):
    first = queue_results(triton, b"one")[0]
    triton.queue_response(InvalidRequest("no image", param="image", code="invalid_image"))
    error = aha(client, PART, PART).get_json()["error"]
    assert (error["param"], error["code"]) == ("messages[0].content[1].image_url.url", "invalid_image")
    assert not first.cancelled
    triton.queue_response(InvalidRequest("no image", param="image", code="invalid_image"))
    assert form(client).get_json()["error"]["param"] == "image"


def test_started_calls_are_cancelled_if_a_later_image_is_rejected(client, triton):
    first = triton.queue_response(TimeoutError(), {"image_output": b"one"})
    bad = {"type": "image", "image_url": {"url": "file:///etc/passwd"}}
    error = aha(client, PART, bad).get_json()["error"]
    assert (error["param"], error["code"]) == ("messages[0].content[1].image_url.url", "file_not_allowed")
    assert first.cancelled


@pytest.mark.parametrize(
    ("parts", "fields", "param"),
    [
        ([], {}, "messages[0].content"),
        ([{"type": "text", "text": "no image"}], {}, "messages"),
        ([{"type": "image"}], {}, "messages[0].content[0]"),
        ([PART] * 17, {}, "messages[0].content[16].image_url.url"),
        ([PART], {"output_format": "gif"}, "output_format"),
        ([PART], {"model": "tiny-chat"}, "model"),
    ],
)
def test_error_names_the_invalid_field(client, triton, parts, fields, param):
    response = aha(client, *parts, **fields)
    assert (response.status_code, response.get_json()["error"]["param"]) == (400, param)
    assert not triton.requests


@pytest.mark.parametrize(
    ("content", "fields", "code"),
    [(None, {}, "missing_file"), (b"", {}, "empty_file"), (b"x", {"output_format": "gif"}, "invalid_value")],
)
def test_invalid_forms_are_rejected(client, content, fields, code):
    response = form(client, content, **fields)
    assert (response.status_code, response.get_json()["error"]["code"]) == (400, code)


def test_overload_is_503(client, triton):
    triton.queue_response(Overloaded("full"))
    assert aha(client, PART).status_code == 503


def test_a_request_with_one_image_returns_the_picture_if_the_client_prefers_that(client, triton):
    queue_results(triton, b"cut")
    body = {"messages": [{"role": "user", "content": [PART]}]}
    response = client.post("/images/remove_background", json=body, headers={"Accept": "image/*"})
    assert (response.data, response.content_type) == (b"cut", "image/png")
    body["messages"][0]["content"] *= 2
    response = client.post("/images/remove_background", json=body, headers={"Accept": "image/*"})
    assert (response.status_code, response.get_json()["error"]["param"]) == (400, "messages")

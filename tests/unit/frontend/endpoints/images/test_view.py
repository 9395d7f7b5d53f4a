"""Image generations, edits and variations with a fake Triton, and the image store."""

import base64
import io
import os
import time

import orjson
import pytest

from frontend.errors import EngineFailure, InvalidRequest, PayloadTooLarge
from frontend.storage.images import ImageStore

PATHS = ("generations", "edits", "variations")


def image(content=b"PNG", index=0, **more):
    return {"image_output": content, "index": index} | more


def last(content=b"PNG", index=0, **more):
    return image(content, index, num_input_tokens=7, **more)


def generate(client, **fields):
    return client.post("/v1/images/generations", json={"prompt": "一只可爱的小猫在花园里玩耍"} | fields)


def upload(client, path, **fields):
    data = {name: (io.BytesIO(value), "x.png") if isinstance(value, bytes) else value for name, value in fields.items()}
    return client.post(f"/v1/images/{path}", data=data)


def options(triton):
    return orjson.loads(triton.requests[-1]["inputs"]["options"])


def test_generation_returns_a_url_that_serves_the_image(client, triton):
    triton.queue_response(last())
    response = generate(
        client,
        model="dall-e-3",
        n=1,
        size="1024x1024",
        quality="standard",
        response_format="url",
        style="vivid",
        user="user-123",
    )
    (item,) = response.get_json()["data"]
    assert item["revised_prompt"] is None
    served = client.get(item["url"].removeprefix("http://localhost"))
    assert (served.data, served.content_type) == (b"PNG", "image/png")
    assert triton.requests[0]["model"] == "tiny-image_generation"
    expected = {"width": 1024, "height": 1024, "n": 1, "quality": "standard", "style": "vivid", "format": "png"}
    assert options(triton).items() >= expected.items()


def test_several_images_are_returned_as_base64_in_order(client, triton):
    triton.queue_response(image(b"one"), image(b"two", 1), last(b"three", 2, revised_prompt="a cat"))
    body = generate(client, n=3, response_format="b64_json", size=None, seed=5).get_json()
    assert [base64.b64decode(item["b64_json"]) for item in body["data"]] == [b"one", b"two", b"three"]
    assert body["data"][2]["revised_prompt"] == "a cat"
    assert body["usage"]["input_tokens"] == 7
    assert options(triton)["seed"] == 5
    assert options(triton)["width"] is None


def test_stream_has_partial_images_and_completed_images(client, triton):
    triton.queue_response(image(b"blur", partial=0), last(b"sharp"))
    response = generate(client, stream=True, partial_images=1, size="64x64")
    events = [orjson.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: ")]
    assert [event["type"] for event in events] == ["image_generation.partial_image", "image_generation.completed"]
    assert [base64.b64decode(event["b64_json"]) for event in events] == [b"blur", b"sharp"]
    assert events[0]["partial_image_index"] == 0
    assert events[1]["usage"]["total_tokens"] == 7
    assert {"created_at", "size", "quality", "background", "output_format"} <= set(events[0])


def test_failure_during_a_stream_is_sent_as_an_event(client, triton):
    triton.queue_response(image(b"blur", partial=0), EngineFailure("gone"))
    response = generate(client, stream=True, partial_images=1)
    assert orjson.loads(response.text.splitlines()[-2][6:])["error"]["message"] == "gone"


@pytest.mark.parametrize("field", ["image", "image[]"])
def test_edit_sends_the_image_the_mask_and_the_prompt(client, triton, field):
    triton.queue_response(last())
    form = {field: b"image", "mask": b"mask", "prompt": "add a hat", "n": "1", "size": "512x512", "model": "dall-e-2"}
    body = upload(client, "edits", **form, response_format="b64_json").get_json()
    assert body["data"][0]["b64_json"]
    inputs = triton.requests[0]["inputs"]
    assert (inputs["prompt"], inputs["image"], inputs["mask"]) == ("add a hat", b"image", b"mask")
    assert options(triton)["width"] == 512


def test_variation_sends_the_image_without_a_mask(client, triton):
    triton.queue_response(last())
    assert upload(client, "variations", image=b"image", n="1").status_code == 200
    assert triton.requests[0]["inputs"].keys() == {"prompt", "image", "options"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 100),
        ("n", 0),
        ("n", "two"),
        ("size", "large"),
        ("size", "7x7x7"),
        ("size", "0x0"),
        ("size", "0x512"),
        ("num_inference_steps", 10**30),
        ("size", 512),
        ("quality", "best"),
        ("style", "grim"),
        ("response_format", "file"),
        ("output_format", "gif"),
        ("output_compression", 101),
        ("background", "transparent"),
        ("partial_images", 1),
        ("seed", -1),
        ("strength", 0),
        ("prompt", " "),
        ("prompt", 5),
        ("prompt", "x" * 32_001),
    ],
)
def test_error_names_the_invalid_field(client, field, value):
    response = generate(client, **{field: value})
    assert (response.status_code, response.get_json()["error"]["param"]) == (400, field)


def test_invalid_forms_are_rejected(client, triton):
    assert upload(client, "edits", image=b"i").get_json()["error"]["param"] == "prompt"
    assert upload(client, "edits", prompt="p").get_json()["error"]["code"] == "missing_file"
    assert upload(client, "edits", prompt="p", image=b"i", n="100").get_json()["error"]["param"] == "n"
    assert upload(client, "variations", image=b"").get_json()["error"]["code"] == "empty_file"
    for mask in ({"mask": "text"}, {"mask[]": b"m"}):
        assert upload(client, "edits", prompt="p", image=b"i", **mask).get_json()["error"]["param"] == "mask"
    steps = {"num_inference_steps": "1" + "0" * 30}
    assert (
        upload(client, "edits", prompt="p", image=b"i", **steps).get_json()["error"]["param"] == "num_inference_steps"
    )
    two = {"prompt": "p", "image[]": [(io.BytesIO(b"1"), "a"), (io.BytesIO(b"2"), "b")]}
    assert client.post("/v1/images/edits", data=two).get_json()["error"]["param"] == "image[]"
    assert triton.requests == []


def test_form_with_too_much_text_is_rejected_without_blaming_the_file(client, triton):
    error = upload(client, "edits", prompt="p" * 600_000, image=b"i").get_json()["error"]
    assert (error["code"], error["param"]) == ("payload_too_large", None)
    assert error["message"] == "The form has too many text fields, or its text fields are too large"
    assert triton.requests == []


def test_backend_error_is_passed_on(client, triton):
    triton.queue_response(InvalidRequest("not a multiple of 8", param="size"))
    response = generate(client, size="7x7")
    assert (response.status_code, response.get_json()["error"]["param"]) == (400, "size")


@pytest.mark.parametrize("name", ["x.png", "..%2fsecret.png", "tmpabcdefgh", "a" * 43 + ".exe", "b" * 43 + ".png"])
def test_request_for_a_file_that_is_not_a_stored_image_is_404(make_client, tmp_path, name):
    client, folder = make_client(), tmp_path / "run" / "10100" / "images"
    folder.mkdir(parents=True)
    (folder.parent / "secret.png").write_bytes(b"secret")
    for file in ("x.png", "tmpabcdefgh", "a" * 43 + ".exe", "c" * 43 + ".png"):
        (folder / file).write_bytes(b"not for you")
    (folder / ("b" * 43 + ".png")).symlink_to(folder.parent / "secret.png")
    assert client.get(f"/v1/images/files/{name}").status_code == 404
    assert client.get("/v1/images/files/" + "c" * 43 + ".png").data == b"not for you"


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("api.example.org", "http://api.example.org"),
        ("my_server:10100", "http://my_server:10100"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("a b", "http://192.0.2.1:10100"),
        ("x/../evil", "http://192.0.2.1:10100"),
    ],
)
def test_url_has_the_host_of_the_request_unless_the_host_is_invalid(make_client, triton, host, address):
    triton.queue_response(last())
    client = make_client(host="192.0.2.1")
    response = client.post("/v1/images/generations", json={"prompt": "x"}, headers={"Host": host})
    assert response.get_json()["data"][0]["url"].startswith(f"{address}/v1/images/files/")


def test_public_url_setting_overrides_the_host_of_the_request(make_client, triton):
    triton.queue_response(last())
    body = generate(make_client(public_url="https://ai.example.org/trident/")).get_json()
    assert body["data"][0]["url"].startswith("https://ai.example.org/trident/v1/images/files/")


def test_gpt_image_models_return_base64_unless_urls_are_requested(client, triton):
    triton.queue_response(last())
    assert "b64_json" in generate(client, model="gpt-image-1").get_json()["data"][0]
    triton.queue_response(last())
    assert "url" in generate(client, model="gpt-image-1", response_format="url").get_json()["data"][0]


def test_image_error_names_the_request_field(client, triton):
    triton.queue_response(InvalidRequest("damaged", param="image", code="invalid_image"))
    assert upload(client, "edits", prompt="p", **{"image[]": b"i"}).get_json()["error"]["param"] == "image[]"


class TestStore:
    def test_image_over_the_size_limit_is_rejected(self, tmp_path):
        store = ImageStore(tmp_path, 60, 10)
        kept = store.put(b"PNG", "png")
        with pytest.raises(PayloadTooLarge):
            store.put(bytes(11), "png")
        assert store.get(kept) == b"PNG"

    def test_image_expires(self, tmp_path):
        store = ImageStore(tmp_path, 60, 1000)
        name = store.put(b"PNG", "png")
        assert store.get(name) == b"PNG"
        os.utime(tmp_path / name, (1, 1))
        assert store.get(name) is None
        assert list(tmp_path.iterdir()) == []

    def test_oldest_images_are_evicted_first(self, tmp_path):
        store = ImageStore(tmp_path, 1000, 100)
        names = [store.put(bytes(40), "png") for _ in range(2)]
        os.utime(tmp_path / names[0], (time.time() - 100,) * 2)
        third = store.put(bytes(40), "webp")
        assert [store.get(name) is not None for name in (*names, third)] == [False, True, True]

    def test_storing_an_image_deletes_expired_images(self, tmp_path):
        store = ImageStore(tmp_path, 60, 1000)
        old = store.put(b"old", "png")
        os.utime(tmp_path / old, (1, 1))
        new = store.put(b"new", "png")
        assert [path.name for path in tmp_path.iterdir()] == [new]


PICTURE_HEADERS = [
    ("image/png", {}, "png"),
    ("image/*", {}, "png"),
    ("image/*", {"output_format": "webp"}, "webp"),
    ("image/webp, image/png;q=0.5", {}, "webp"),
    ("image/jpeg", {}, "jpeg"),
    ("application/json;q=0.5, image/jpeg", {"output_format": "jpeg"}, "jpeg"),
]


@pytest.mark.parametrize(("accept", "fields", "format"), PICTURE_HEADERS)
def test_the_response_is_the_picture_if_the_client_prefers_images(client, triton, accept, fields, format):
    triton.queue_response(last())
    body = {"prompt": "a cat"} | fields
    response = client.post("/v1/images/generations", json=body, headers={"Accept": accept})
    assert (response.data, response.content_type) == (b"PNG", f"image/{format}")
    assert (response.headers["Vary"], options(triton)["format"]) == ("Accept", format)


def test_a_client_that_accepts_json_as_well_gets_it_if_there_is_no_single_picture(client, triton):
    triton.queue_response(image(b"one"), last(b"two", 1))
    headers = {"Accept": "image/webp, */*;q=0.8"}
    body = client.post("/v1/images/generations", json={"prompt": "a cat", "n": 2}, headers=headers).get_json()
    assert len(body["data"]) == 2


@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/html,image/avif,*/*;q=0.8", "image/gif"])
def test_the_response_is_json_otherwise(client, triton, accept):
    triton.queue_response(last())
    response = client.post("/v1/images/generations", json={"prompt": "a cat"}, headers={"Accept": accept})
    assert response.is_json


@pytest.mark.parametrize(
    ("fields", "param"), [({"n": 2}, "n"), ({"stream": True}, "stream"), ({"output_format": "webp"}, "output_format")]
)
def test_a_request_that_cannot_have_a_picture_as_its_response_is_rejected(client, triton, fields, param):
    body = {"prompt": "a cat"} | fields
    response = client.post("/v1/images/generations", json=body, headers={"Accept": "image/png"})
    assert (response.status_code, response.get_json()["error"]["param"]) == (400, param)
    assert not triton.requests


def test_an_edit_returns_the_picture(client, triton):
    triton.queue_response(last())
    data = {"prompt": "a cat", "image": (io.BytesIO(b"PNG"), "x.png")}
    response = client.post("/v1/images/edits", data=data, headers={"Accept": "image/png"})
    assert (response.data, response.content_type) == (b"PNG", "image/png")

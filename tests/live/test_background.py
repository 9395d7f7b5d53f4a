"""Background removal with the real Triton and U²-Net: known shapes, requests from AHA clients, and invalid images.

docs/compatibility.md describes AHA.
"""

import base64
import io
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import requests
from PIL import Image

from tests.support.images import SCENES, composite, encode_image, load_photograph
from tests.support.live import shell, url


def remove_background(stack, content, path="/v1/images/remove_background", **fields):
    response = requests.post(url(stack, path), files={"image": content}, data=fields, timeout=60)
    assert response.status_code == 200, response.text
    return Image.open(io.BytesIO(response.content))


def agreement(mask, expected):
    """Return the intersection over union of two masks."""
    found, expected = np.asarray(mask) > 127, np.asarray(expected) > 127
    return (found & expected).sum() / (found | expected).sum()


@pytest.mark.parametrize("refine", ["false", "true"])
@pytest.mark.parametrize("scene", SCENES)
def test_object_with_a_known_shape_is_segmented(stack, scene, refine):
    image, mask = composite(scene)
    result = remove_background(stack, encode_image(image), refine=refine)
    assert (result.mode, result.size) == ("RGBA", image.size)
    assert agreement(result.getchannel("A"), mask) >= 0.9


def test_face_is_kept_and_top_left_corner_is_removed_in_a_portrait(stack):
    """The photograph shows an astronaut in front of a flag and a space shuttle."""
    alpha = np.asarray(remove_background(stack, encode_image(load_photograph("astronaut"))).getchannel("A"))
    assert alpha[60:160, 190:250].mean() > 230
    assert alpha[:60, :60].mean() < 25


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3), (1999, 1333)])
def test_result_has_the_size_of_the_image(stack, size):
    assert remove_background(stack, encode_image(load_photograph("astronaut").resize(size), "PNG")).size == size


def test_output_is_webp_if_requested_and_is_rotated_according_to_exif_data(stack):
    exif = Image.Exif()
    exif[0x0112] = 6
    result = remove_background(
        stack, encode_image(load_photograph("astronaut").crop((0, 0, 512, 300)), exif=exif), output_format="webp"
    )
    assert (result.format, result.mode, result.size) == ("WEBP", "RGBA", (300, 512))


def test_curl_example_for_aha_returns_an_image_with_an_alpha_channel(compatible_stack, tmp_path):
    (tmp_path / "photo.png").write_bytes(encode_image(load_photograph("astronaut"), "PNG"))
    body = (
        '{"model": "AI-ModelScope/RMBG-2.0", "messages": [{"role": "user", "content": '
        '[{"type": "image", "image_url": {"url": "base64://\'$(base64 -w 0 photo.png)\'"}}]}]}'
    )
    command = f"cd {tmp_path}; echo '{body}' > body.json; curl -s {url(compatible_stack, '/images/remove_background')}"
    output = shell(f"{command} -H 'Content-Type: application/json' -d @body.json")
    part = requests.models.complexjson.loads(output)["choices"][0]["message"]["content"][0]
    content = base64.b64decode(part["image_url"]["url"].removeprefix("data:image/png;base64,"))
    assert Image.open(io.BytesIO(content)).mode == "RGBA"


def test_several_images_are_returned_in_order(stack):
    small = [encode_image(load_photograph("astronaut").resize(size)) for size in ((64, 32), (32, 64), (100, 100))]
    addresses = [f"base64://{base64.b64encode(content).decode()}" for content in small]
    parts = [{"type": "image", "image_url": {"url": address}} for address in addresses]
    body = {"messages": [{"role": "user", "content": parts}]}
    output = requests.post(url(stack, "/v1/images/remove_background"), json=body, timeout=60).json()
    urls = [part["image_url"]["url"] for part in output["choices"][0]["message"]["content"]]
    images = [Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) for address in urls]
    assert [image.size for image in images] == [(64, 32), (32, 64), (100, 100)]


class TestBadImages:
    @pytest.mark.parametrize(
        "content",
        [
            b"just text",
            b"\x89PNG\r\n\x1a\n",
            encode_image(load_photograph("astronaut"))[:20_000],
            b"GIF89a" + b"\0" * 99,
        ],
    )
    def test_invalid_image_is_rejected(self, stack, content):
        response = requests.post(url(stack, "/v1/images/remove_background"), files={"image": content}, timeout=10)
        error = response.json()["error"]
        assert (response.status_code, error["param"], error["code"]) == (400, "image", "invalid_image")

    def test_decompression_bomb_is_rejected_within_three_seconds(self, stack):
        content = encode_image(Image.new("1", (40_000, 40_000)), "PNG")
        started = time.monotonic()
        response = requests.post(url(stack, "/v1/images/remove_background"), files={"image": content}, timeout=10)
        assert (response.status_code, response.json()["error"]["code"]) == (400, "too_large")
        assert time.monotonic() - started < 3

    def test_invalid_images_do_not_affect_other_requests(self, stack):
        good = encode_image(load_photograph("astronaut").resize((128, 128)))
        expected = remove_background(stack, good).tobytes()

        def ask(number):
            if number % 2:
                address = url(stack, "/v1/images/remove_background")
                return requests.post(address, files={"image": good[: 99 * number]}, timeout=60).status_code == 400
            return remove_background(stack, good).tobytes() == expected

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(ask, range(1, 31)))

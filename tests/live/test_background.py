"""Background removal through the real Triton and U²-Net: known shapes over photographs, AHA's calls, bad images."""

import base64
import io
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import requests
from PIL import Image

from tests.support.live import shell, url
from tests.support.pictures import SCENES, composite, encoded, photograph


def cut(stack, content, path="/v1/images/remove_background", **fields):
    response = requests.post(url(stack, path), files={"image": content}, data=fields, timeout=60)
    assert response.status_code == 200, response.text
    return Image.open(io.BytesIO(response.content))


def agreement(mask, wanted):
    """Intersection over union."""
    found, wanted = np.asarray(mask) > 127, np.asarray(wanted) > 127
    return (found & wanted).sum() / (found | wanted).sum()


@pytest.mark.parametrize("refine", ["false", "true"])
@pytest.mark.parametrize("scene", SCENES)
def test_a_clear_object_is_found(stack, scene, refine):
    picture, mask = composite(scene)
    result = cut(stack, encoded(picture), refine=refine)
    assert (result.mode, result.size) == ("RGBA", picture.size)
    assert agreement(result.getchannel("A"), mask) >= 0.9


def test_a_portrait(stack):
    """An astronaut before a flag and a shuttle: of her face nothing is missing, of the corners nothing is left."""
    alpha = np.asarray(cut(stack, encoded(photograph("astronaut"))).getchannel("A"))
    assert alpha[60:160, 190:250].mean() > 230
    assert alpha[:60, :60].mean() < 25


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3), (1999, 1333)])
def test_any_size(stack, size):
    assert cut(stack, encoded(photograph("astronaut").resize(size), "PNG")).size == size


def test_webp_and_a_rotated_photograph(stack):
    exif = Image.Exif()
    exif[0x0112] = 6
    result = cut(stack, encoded(photograph("astronaut").crop((0, 0, 512, 300)), exif=exif), output_format="webp")
    assert (result.format, result.mode, result.size) == ("WEBP", "RGBA", (300, 512))


def test_ahas_examples_through_curl(lenient, tmp_path):
    (tmp_path / "photo.png").write_bytes(encoded(photograph("astronaut"), "PNG"))
    body = (
        '{"model": "AI-ModelScope/RMBG-2.0", "messages": [{"role": "user", "content": '
        '[{"type": "image", "image_url": {"url": "base64://\'$(base64 -w 0 photo.png)\'"}}]}]}'
    )
    command = f"cd {tmp_path}; echo '{body}' > body.json; curl -s {url(lenient, '/images/remove_background')}"
    answer = shell(f"{command} -H 'Content-Type: application/json' -d @body.json")
    part = requests.models.complexjson.loads(answer)["choices"][0]["message"]["content"][0]
    content = base64.b64decode(part["image_url"]["url"].removeprefix("data:image/png;base64,"))
    assert Image.open(io.BytesIO(content)).mode == "RGBA"


def test_several_images_in_order(stack):
    small = [encoded(photograph("astronaut").resize(size)) for size in ((64, 32), (32, 64), (100, 100))]
    addresses = [f"base64://{base64.b64encode(content).decode()}" for content in small]
    parts = [{"type": "image", "image_url": {"url": address}} for address in addresses]
    body = {"messages": [{"role": "user", "content": parts}]}
    answer = requests.post(url(stack, "/v1/images/remove_background"), json=body, timeout=60).json()
    urls = [part["image_url"]["url"] for part in answer["choices"][0]["message"]["content"]]
    images = [Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) for address in urls]
    assert [image.size for image in images] == [(64, 32), (32, 64), (100, 100)]


class TestBadImages:
    @pytest.mark.parametrize(
        "content",
        [b"just text", b"\x89PNG\r\n\x1a\n", encoded(photograph("astronaut"))[:20_000], b"GIF89a" + b"\0" * 99],
    )
    def test_what_is_no_image(self, stack, content):
        response = requests.post(url(stack, "/v1/images/remove_background"), files={"image": content}, timeout=10)
        error = response.json()["error"]
        assert (response.status_code, error["param"], error["code"]) == (400, "image", "invalid_image")

    def test_a_bomb_is_refused_at_once(self, stack):
        content = encoded(Image.new("1", (40_000, 40_000)), "PNG")
        started = time.monotonic()
        response = requests.post(url(stack, "/v1/images/remove_background"), files={"image": content}, timeout=10)
        assert (response.status_code, response.json()["error"]["code"]) == (400, "too_large")
        assert time.monotonic() - started < 3

    def test_nobody_else_notices(self, stack):
        good = encoded(photograph("astronaut").resize((128, 128)))
        expected = cut(stack, good).tobytes()

        def ask(number):
            if number % 2:
                address = url(stack, "/v1/images/remove_background")
                return requests.post(address, files={"image": good[: 99 * number]}, timeout=60).status_code == 400
            return cut(stack, good).tobytes() == expected

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(ask, range(1, 31)))

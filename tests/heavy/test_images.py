"""Tests image generation by Stable Diffusion with random weights, through the real exporter and Triton.

"Router" in test names is JAiRouter, which docs/compatibility.md describes.
"""

import base64
import io
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openai
import pytest
import requests
from PIL import Image

from tests.support.images import encode_image, load_photograph
from tests.support.live import export_weights, run_in, url, wait_until
from tests.support.stack import running_stack

MODEL = "stable-diffusion-1.5"


@pytest.fixture(scope="module")
def diffusion_stack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("diffusion")
    run_in(".venv-openvino", "tiny_stable_diffusion", folder / "w")
    with running_stack([MODEL], "--model-repository", str(export_weights(MODEL, folder / "w"))) as settings:
        yield settings


@pytest.fixture(scope="module")
def client(diffusion_stack):
    return openai.OpenAI(base_url=url(diffusion_stack, "/v1"), api_key="unused", max_retries=0, timeout=120)


def generate(client, prompt="a red cat", seed=1, steps=4, **fields):
    fields = {"size": "64x64", "response_format": "b64_json", "model": "dall-e-3"} | fields
    extra = {"seed": seed, "num_inference_steps": steps} | fields.pop("extra", {})
    return client.images.generate(prompt=prompt, extra_body=extra, **fields)


def contents(response):
    return [base64.b64decode(item.b64_json) for item in response.data]


def opened(content):
    return Image.open(io.BytesIO(content))


def photo(*size):
    return load_photograph("astronaut").resize(size)


class TestGeneration:
    def test_router_example_returns_a_url(self, diffusion_stack):
        body = {"model": "dall-e-3", "prompt": "一只可爱的小猫在花园里玩耍", "n": 1, "quality": "standard"}
        body |= {"response_format": "url", "style": "vivid", "user": "user-123", "size": "128x128"}
        headers = {"Authorization": "Bearer your-api-key"}
        response = requests.post(
            url(diffusion_stack, "/v1/images/generations"), headers=headers, json=body, timeout=60
        ).json()
        (image,) = response["data"]
        assert abs(response["created"] - time.time()) < 60
        served = requests.get(image["url"], timeout=10)
        assert (served.headers["Content-Type"], opened(served.content).size) == ("image/png", (128, 128))

    def test_same_seed_yields_the_same_image(self, client):
        one, two, other = (contents(generate(client, seed=seed)) for seed in (5, 5, 6))
        assert one == two != other
        assert contents(generate(client, prompt="a blue house", seed=5)) != one

    def test_n_images_use_consecutive_seeds(self, client):
        three = contents(generate(client, n=3, seed=7))
        assert three == [contents(generate(client, seed=seed))[0] for seed in (7, 8, 9)]

    @pytest.mark.parametrize("size", ["64x128", "72x104", "384x256", "auto"])
    def test_image_has_the_requested_size_and_auto_is_accepted(self, client, size):
        (content,) = contents(generate(client, size=size, steps=2))
        assert size in ("auto", "{}x{}".format(*opened(content).size))

    @pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
    def test_image_has_the_requested_format(self, client, output_format):
        (content,) = contents(generate(client, output_format=output_format, output_compression=50))
        assert opened(content).format == output_format.upper()

    def test_quality_style_and_negative_prompt_change_the_image(self, client):
        plain = contents(generate(client, steps=None))
        for fields in ({"quality": "hd"}, {"style": "natural"}, {"extra": {"negative_prompt": "dog"}}):
            assert contents(generate(client, steps=None, **fields)) != plain, fields

    def test_stream_has_previews_and_ends_with_the_same_image_as_without_streaming(self, client):
        """At least one of the three requested previews must arrive."""
        fields = {"steps": 20, "size": "256x256"}
        *previews, image = generate(client, stream=True, partial_images=3, **fields)
        assert 1 <= len(previews) <= 3
        assert {event.type for event in previews} == {"image_generation.partial_image"}
        assert [event.partial_image_index for event in previews] == list(range(len(previews)))
        assert image.type == "image_generation.completed"
        images = [base64.b64decode(event.b64_json) for event in (*previews, image)]
        assert len(set(images)) == len(images)
        assert images[-1:] == contents(generate(client, **fields))
        assert image.usage.input_tokens > 3

    def test_truncated_prompt_is_returned_as_revised_prompt(self, client):
        prompt = "a red cat in the garden " * 30
        (item,) = generate(client, prompt=prompt).data
        assert prompt.startswith(item.revised_prompt)
        assert generate(client).data[0].revised_prompt is None

    @pytest.mark.parametrize(
        ("field", "value"), [("size", "7x7"), ("size", "9000x8"), ("size", "4096x4096"), ("n", 100)]
    )
    def test_invalid_field_is_named(self, client, field, value):
        with pytest.raises(openai.BadRequestError) as caught:
            generate(client, **{field: value})
        assert caught.value.param == field
        with pytest.raises(openai.BadRequestError, match="steps"):
            generate(client, steps=1000)

    def test_concurrent_requests_yield_the_same_images_as_single_requests(self, client):
        expected = {seed: contents(generate(client, seed=seed)) for seed in range(3)}
        with ThreadPoolExecutor(6) as pool:
            found = list(pool.map(lambda n: contents(generate(client, seed=n % 3)), range(12)))
        assert found == [expected[n % 3] for n in range(12)]

    def test_client_disconnect_stops_the_generation(self, diffusion_stack, client):
        """If the generation continued after the disconnect, it would take many times longer than the test allows."""
        body = {"prompt": "a red cat", "size": "512x512", "num_inference_steps": 100, "stream": True}
        body |= {"partial_images": 3}
        with requests.post(
            url(diffusion_stack, "/v1/images/generations"), json=body, stream=True, timeout=60
        ) as response:
            started = time.monotonic()
            wait_until(lambda: time.monotonic() - started > 3, 5, "some steps")
            assert response.status_code == 200
        generate(client)
        assert time.monotonic() - started < 20


class TestEdits:
    def edit(self, client, image, mask=None, seed=1, **fields):
        files = {"image": image} | ({"mask": mask} if mask else {})
        extra = {"seed": seed, "num_inference_steps": 4}
        fields = {"prompt": "a red cat", "response_format": "b64_json", "model": "dall-e-2"} | fields
        return client.images.edit(**files, extra_body=extra, **fields)

    @pytest.mark.parametrize("size", [(64, 64), (61, 67), (100, 30)])
    def test_image_changes_only_where_the_mask_is_transparent_or_white(self, client, size):
        image = photo(*size)
        mask = image.convert("RGBA")
        alpha = np.full((size[1], size[0]), 255, np.uint8)
        alpha[5:25, 10:40] = 0
        mask.putalpha(Image.fromarray(alpha))
        (content,) = contents(self.edit(client, encode_image(image, "PNG"), encode_image(mask, "PNG")))
        before, after = np.asarray(image), np.asarray(opened(content).convert("RGB"))
        assert (after[alpha == 255] == before[alpha == 255]).all()
        assert (after[alpha == 0] != before[alpha == 0]).any(-1).mean() > 0.9
        white = Image.fromarray(255 - alpha)
        assert contents(self.edit(client, encode_image(image, "PNG"), encode_image(white, "PNG"))) == [content]

    def test_edit_without_a_mask_has_the_requested_size_instead_of_the_size_of_the_input_image(self, client):
        image = photo(64, 64)
        (content,) = contents(self.edit(client, encode_image(image, "PNG"), size="128x64"))
        assert opened(content).size == (128, 64)

    def test_variations_differ_and_have_the_size_of_the_input_image(self, client):
        image = encode_image(photo(80, 64), "PNG")
        response = client.images.create_variation(
            image=image, n=2, response_format="b64_json", extra_body={"num_inference_steps": 4}
        )
        one, two = contents(response)
        assert one != two
        assert opened(one).size == (80, 64)

    def test_error_names_the_invalid_image_or_mask(self, client):
        image = encode_image(photo(64, 64), "PNG")
        bomb = encode_image(Image.new("1", (40_000, 40_000)), "PNG")
        for field, files in (
            ("mask", (image, encode_image(photo(64, 32), "PNG"))),
            ("mask", (image, b"text")),
            ("mask", (image, encode_image(Image.new("L", (64, 64)), "PNG"))),
            ("image", (b"text",)),
            ("image", (image[:300],)),
            ("image", (bomb,)),
        ):
            with pytest.raises(openai.BadRequestError) as caught:
                self.edit(client, *files)
            assert caught.value.param == field
        assert contents(self.edit(client, image))


def test_image_urls_differ_and_serve_no_other_file(diffusion_stack, client):
    first, second = (generate(client, response_format="url").data[0].url for _ in range(2))
    assert first != second
    for name in ("x.png", "../trident.pid", "..%2ftrident.pid"):
        assert requests.get(f"{first.rpartition('/')[0]}/{name}", timeout=10).status_code == 404
    wait_until(lambda: requests.get(first, timeout=10).ok, 1, "the image's URL")

"""Images made by Stable Diffusion with random weights, through the real exporter, Triton and OpenAI's client."""

import base64
import io
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openai
import pytest
import requests
from PIL import Image

from tests.support.live import export_own, run_in, url, wait_until
from tests.support.pictures import encoded, photograph
from tests.support.stack import running_stack

MODEL = "stable-diffusion-1.5"


@pytest.fixture(scope="module")
def artist(tmp_path_factory):
    folder = tmp_path_factory.mktemp("diffusion")
    run_in(".venv-openvino", "tiny_stable_diffusion", folder / "w")
    with running_stack([MODEL], "--model-repository", str(export_own(MODEL, folder / "w"))) as settings:
        yield settings


@pytest.fixture(scope="module")
def client(artist):
    return openai.OpenAI(base_url=url(artist, "/v1"), api_key="unused", max_retries=0, timeout=120)


def generate(client, prompt="a red cat", seed=1, steps=4, **fields):
    fields = {"size": "64x64", "response_format": "b64_json", "model": "dall-e-3"} | fields
    extra = {"seed": seed, "num_inference_steps": steps} | fields.pop("extra", {})
    return client.images.generate(prompt=prompt, extra_body=extra, **fields)


def contents(answer):
    return [base64.b64decode(item.b64_json) for item in answer.data]


def opened(content):
    return Image.open(io.BytesIO(content))


def picture(*size):
    return photograph("astronaut").resize(size)


class TestGeneration:
    def test_the_routers_example_answers_a_url(self, artist):
        body = {"model": "dall-e-3", "prompt": "一只可爱的小猫在花园里玩耍", "n": 1, "quality": "standard"}
        body |= {"response_format": "url", "style": "vivid", "user": "user-123", "size": "128x128"}
        headers = {"Authorization": "Bearer your-api-key"}
        answer = requests.post(url(artist, "/v1/images/generations"), headers=headers, json=body, timeout=60).json()
        (made,) = answer["data"]
        assert abs(answer["created"] - time.time()) < 60
        served = requests.get(made["url"], timeout=10)
        assert (served.headers["Content-Type"], opened(served.content).size) == ("image/png", (128, 128))

    def test_a_seed_makes_an_image_again(self, client):
        one, two, other = (contents(generate(client, seed=seed)) for seed in (5, 5, 6))
        assert one == two != other
        assert contents(generate(client, prompt="a blue house", seed=5)) != one

    def test_n_images_count_up_from_the_seed(self, client):
        three = contents(generate(client, n=3, seed=7))
        assert three == [contents(generate(client, seed=seed))[0] for seed in (7, 8, 9)]

    @pytest.mark.parametrize("size", ["64x128", "72x104", "384x256", "auto"])
    def test_sizes(self, client, size):
        (content,) = contents(generate(client, size=size, steps=2))
        assert size in ("auto", "{}x{}".format(*opened(content).size))

    @pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
    def test_formats(self, client, form):
        (content,) = contents(generate(client, output_format=form, output_compression=50))
        assert opened(content).format == form.upper()

    def test_quality_style_and_negative_prompt_count(self, client):
        plain = contents(generate(client, steps=None))
        for fields in ({"quality": "hd"}, {"style": "natural"}, {"extra": {"negative_prompt": "dog"}}):
            assert contents(generate(client, steps=None, **fields)) != plain, fields

    def test_a_stream_has_previews_and_ends_as_without_one(self, client):
        """There may be fewer than asked for, where steps are as quick as here."""
        asked = {"steps": 20, "size": "256x256"}
        *previews, made = generate(client, stream=True, partial_images=3, **asked)
        assert 1 <= len(previews) <= 3
        assert {event.type for event in previews} == {"image_generation.partial_image"}
        assert [event.partial_image_index for event in previews] == list(range(len(previews)))
        assert made.type == "image_generation.completed"
        images = [base64.b64decode(event.b64_json) for event in (*previews, made)]
        assert len(set(images)) == len(images)
        assert images[-1:] == contents(generate(client, **asked))
        assert made.usage.input_tokens > 3

    def test_what_a_long_prompt_was_cut_to_is_said(self, client):
        prompt = "a red cat in the garden " * 30
        (item,) = generate(client, prompt=prompt).data
        assert prompt.startswith(item.revised_prompt)
        assert generate(client).data[0].revised_prompt is None

    @pytest.mark.parametrize(
        ("field", "value"), [("size", "7x7"), ("size", "9000x8"), ("size", "4096x4096"), ("n", 100)]
    )
    def test_what_it_cannot_make_is_named(self, client, field, value):
        with pytest.raises(openai.BadRequestError) as failure:
            generate(client, **{field: value})
        assert failure.value.param == field
        with pytest.raises(openai.BadRequestError, match="steps"):
            generate(client, steps=1000)

    def test_many_at_once(self, client):
        expected = {seed: contents(generate(client, seed=seed)) for seed in range(3)}
        with ThreadPoolExecutor(6) as pool:
            found = list(pool.map(lambda n: contents(generate(client, seed=n % 3)), range(12)))
        assert found == [expected[n % 3] for n in range(12)]

    def test_whoever_leaves_stops_the_painting(self, artist, client):
        """One picture takes many times longer than this waits for."""
        body = {"prompt": "a red cat", "size": "512x512", "num_inference_steps": 100, "stream": True}
        body |= {"partial_images": 3}
        with requests.post(url(artist, "/v1/images/generations"), json=body, stream=True, timeout=60) as response:
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
    def test_what_is_not_masked_comes_back_as_it_was(self, client, size):
        image = picture(*size)
        mask = image.convert("RGBA")
        alpha = np.full((size[1], size[0]), 255, np.uint8)
        alpha[5:25, 10:40] = 0
        mask.putalpha(Image.fromarray(alpha))
        (content,) = contents(self.edit(client, encoded(image, "PNG"), encoded(mask, "PNG")))
        before, after = np.asarray(image), np.asarray(opened(content).convert("RGB"))
        assert (after[alpha == 255] == before[alpha == 255]).all()
        assert (after[alpha == 0] != before[alpha == 0]).any(-1).mean() > 0.9
        white = Image.fromarray(255 - alpha)
        assert contents(self.edit(client, encoded(image, "PNG"), encoded(white, "PNG"))) == [content]

    def test_without_a_mask_all_of_it_changes(self, client):
        image = picture(64, 64)
        (content,) = contents(self.edit(client, encoded(image, "PNG"), size="128x64"))
        assert opened(content).size == (128, 64)

    def test_variations(self, client):
        image = encoded(picture(80, 64), "PNG")
        answer = client.images.create_variation(
            image=image, n=2, response_format="b64_json", extra_body={"num_inference_steps": 4}
        )
        one, two = contents(answer)
        assert one != two
        assert opened(one).size == (80, 64)

    def test_bad_images_and_masks_are_named(self, client):
        image = encoded(picture(64, 64), "PNG")
        bomb = encoded(Image.new("1", (40_000, 40_000)), "PNG")
        for field, files in (
            ("mask", (image, encoded(picture(64, 32), "PNG"))),
            ("mask", (image, b"text")),
            ("mask", (image, encoded(Image.new("L", (64, 64)), "PNG"))),
            ("image", (b"text",)),
            ("image", (image[:300],)),
            ("image", (bomb,)),
        ):
            with pytest.raises(openai.BadRequestError) as failure:
                self.edit(client, *files)
            assert failure.value.param == field
        assert contents(self.edit(client, image))


def test_urls_are_not_to_be_guessed_and_nothing_else_is_served(artist, client):
    first, second = (generate(client, response_format="url").data[0].url for _ in range(2))
    assert first != second
    for name in ("x.png", "../trident.pid", "..%2ftrident.pid"):
        assert requests.get(f"{first.rpartition('/')[0]}/{name}", timeout=10).status_code == 404
    wait_until(lambda: requests.get(first, timeout=10).ok, 1, "the image's URL")

"""Tiny models of the other image generation architectures, exported and served: their images are those of diffusers."""

import base64
import io
import json

import numpy as np
import openvino
import openvino_genai
import pytest
import requests
from PIL import Image

from tests.support.live import export_weights, run_in, url
from tests.support.stack import running_stack

SEED, SIZE = 5, 64

# The catalog's name → the kind of the tiny model, and the steps and guidance scales of the images.
MODELS = {
    "flux.1-schnell": ("flux", [(4, 0.0)]),
    "lcm-dreamshaper-7": ("lcm", [(4, 8.0), (1, 8.0)]),
    "sd-turbo": ("sd-turbo", [(1, 0.0), (4, 5.0)]),
    "sdxl": ("sdxl", [(4, 7.0), (4, 1.0)]),
}
LONG = "a red cat in the garden " * 12  # more tokens than CLIP reads


@pytest.fixture(scope="module", params=MODELS)
def model(request, tmp_path_factory):
    """Serve one model; return its name, its published folder and the settings of the server."""
    name, folder = request.param, tmp_path_factory.mktemp(MODELS[request.param][0])
    run_in(".venv-openvino", "tiny_diffusion", MODELS[name][0], folder / "w")
    repository = export_weights(name, folder / "w")
    with running_stack([name], "--model-repository", str(repository)) as settings:
        yield name, folder / "w", settings


def generate(settings, prompt="a red cat", size=f"{SIZE}x{SIZE}", **fields):
    body = {"prompt": prompt, "size": size, "seed": SEED} | fields
    return requests.post(
        url(settings, "/v1/images/generations"), json=body, headers={"Accept": "image/png"}, timeout=120
    )


def pixels(response):
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "image/png"
    return np.asarray(Image.open(io.BytesIO(response.content)).convert("RGB"))


def draws(channels, steps):
    """Return what the engine's generator draws for an image."""
    generator = openvino_genai.CppStdGenerator(SEED)
    shape = openvino.Shape([1, channels, SIZE // 8, SIZE // 8])
    return {f"noise{index:02}": np.array(generator.randn_tensor(shape).data) for index in range(steps + 1)}


def psnr(one, other):
    return 10 * np.log10(255**2 / max(1e-9, np.mean((one.astype(float) - other) ** 2)))


def test_images_are_those_of_diffusers(model, tmp_path):
    name, folder, settings = model
    kind, variants = MODELS[name]
    cases = [
        {"prompt": prompt, "width": SIZE, "height": SIZE, "steps": steps, "guidance": guidance}
        for prompt in ("a red cat", LONG)
        for steps, guidance in variants
    ]
    channels = 16 if kind == "flux" else 4
    np.savez(tmp_path / "cases.npz", cases=json.dumps(cases), **draws(channels, 8))
    run_in(".venv-openvino", "diffusion_reference", folder, tmp_path / "cases.npz", tmp_path / "images.npz")
    expected = np.load(tmp_path / "images.npz")
    for index, case in enumerate(cases):
        response = generate(
            settings, case["prompt"], num_inference_steps=case["steps"], guidance_scale=case["guidance"]
        )
        # The networks have int8 weights.
        assert psnr(pixels(response), expected[f"image{index}"]) > 35, case


def test_a_size_below_the_minimum_is_rejected_and_spoils_no_later_image(model):
    _, _, settings = model
    before = pixels(generate(settings, num_inference_steps=2))
    for size in ("16x16", "32x64"):
        error = generate(settings, size=size).json()["error"]
        assert (error["param"], "at least 64 pixels" in error["message"]) == ("size", True)
    assert np.array_equal(pixels(generate(settings, num_inference_steps=2)), before)


def test_a_tiny_picture_can_be_edited(model):
    _, _, settings = model
    content = io.BytesIO()
    Image.new("RGB", (24, 16), "red").save(content, "PNG")
    response = requests.post(
        url(settings, "/v1/images/edits"),
        data={"prompt": "a blue cat", "seed": "1", "num_inference_steps": "2", "response_format": "b64_json"},
        files={"image": ("a.png", content.getvalue())},
        timeout=120,
    )
    assert response.status_code == 200, response.text
    image = Image.open(io.BytesIO(base64.b64decode(response.json()["data"][0]["b64_json"])))
    assert image.size == (24, 16)

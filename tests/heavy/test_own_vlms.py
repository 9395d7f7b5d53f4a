"""Tiny models that see, in the layouts of their publishers, converted to a GGUF file and a projector, and served.

With the same weights and picture, they compute what transformers computes.
"""

import base64
import io
import json

import numpy as np
import pytest
from openai import BadRequestError, OpenAI
from PIL import Image

from contract.paths import default_cache, latest_version
from export.llamacpp import fetch_libraries
from tests.support.gguf_files import gguf_file
from tests.support.live import MODEL, run_in, url
from tests.support.own_models import export_folder
from tests.support.stack import running_stack

# The catalog's name → the kind of the tiny model, and a size of pictures that its processor does not change.
MODELS = {
    "deepseek-ocr": ("deepseek_ocr", (400, 300)),
    "deepseek-ocr-2": ("deepseek_ocr2", (400, 300)),
    "glm-ocr": ("glm_ocr", (336, 224)),
    "hunyuanocr": ("hunyuan_vl", (320, 192)),
    "lfm2.5-vl-450m": ("lfm2_vl", (384, 256)),
    "paddleocr-vl-1.6": ("paddleocr_vl", (336, 224)),
    "qwen3-vl-2b": ("qwen3_vl", (320, 192)),
}
QUESTION = "Read the text."


def picture(size, seed=0):
    blocks = np.random.default_rng(seed).integers(0, 255, (size[1] // 8 + 1, size[0] // 8 + 1, 3), np.uint8)
    return Image.fromarray(np.kron(blocks, np.ones((8, 8, 1), np.uint8))[: size[1], : size[0]])


def part(image):
    content = io.BytesIO()
    image.save(content, "PNG")
    address = f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": address}}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer") / "smollm2"
    run_in(".venv-gguf", "hugging_face_folder", gguf_file(MODEL), folder)
    return folder


@pytest.fixture(scope="module")
def repository(tokenizer, tmp_path_factory):
    """Return a repository with all models in float16, exported with an empty cache."""
    folder = tmp_path_factory.mktemp("vlms")
    (folder / "cache").mkdir()
    (folder / "cache" / "llama.cpp").symlink_to(fetch_libraries(default_cache(), "cpu").parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIDENT_CACHE", str(folder / "cache"))
        for name, (kind, _) in MODELS.items():
            module = "tiny_deepseek_ocr" if kind.startswith("deepseek") else "tiny_vlm"
            run_in(".venv-gguf", module, tokenizer, folder / name, kind)
            flags = ("--weights", str(folder / name), "--precision", "f16", "--engine", "llamacpp")
            export_folder(name, folder / "repository", *flags)
    return folder / "repository"


@pytest.fixture(scope="module")
def client(repository):
    flags = ("--model-repository", str(repository), "--kv-cache-gb", "0.1")
    with running_stack(list(MODELS), *flags, engine="llamacpp") as settings:
        yield OpenAI(base_url=url(settings, "/v1"), api_key="unused", max_retries=0, timeout=120)


def ask(client, name, *parts, **fields):
    fields = {"temperature": 0, "max_tokens": 8} | fields
    return client.chat.completions.create(model=name, messages=[{"role": "user", "content": list(parts)}], **fields)


def equal_steps(found, expected):
    """Return how many of the first steps have the same log probabilities."""
    pairs = zip(found, expected, strict=True)
    return next((number for number, pair in enumerate(pairs) if not np.allclose(*pair, atol=0.15)), len(found))


def gap(step):
    """Return the difference between the log probabilities of the two best tokens."""
    return step[0] - step[1]


@pytest.mark.parametrize("name", MODELS)
def test_the_answer_is_that_of_transformers(repository, client, tmp_path, name):
    image = picture(MODELS[name][1])
    image.save(tmp_path / "picture.png")
    run_in(".venv-gguf", "vlm_reference", repository.parent / name, tmp_path / "picture.png", tmp_path / "out.json")
    expected = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    question = {"type": "text", "text": QUESTION}
    completion = ask(client, name, part(image), question, logprobs=True, top_logprobs=5)
    assert completion.usage.prompt_tokens == expected["prompt_tokens"]
    found = [[top.logprob for top in each.top_logprobs] for each in completion.choices[0].logprobs.content]
    assert len(found) >= 4
    steps = equal_steps(found[:4], expected["steps"][:4])
    # Where two tokens are nearly equally probable, either may be chosen, and the steps after it depend on that.
    assert steps == 4 or (steps and gap(expected["steps"][steps - 1]) < 0.3), (found[:4], expected["steps"][:4])
    if steps == 4:
        assert expected["text"].strip().startswith(completion.choices[0].message.content.strip()[:4])


@pytest.mark.parametrize("name", MODELS)
def test_the_answer_depends_on_the_picture(client, name):
    question = {"type": "text", "text": QUESTION}
    texts = [
        ask(client, name, part(picture(MODELS[name][1], seed)), question).choices[0].message.content for seed in (0, 5)
    ]
    assert texts[0] != texts[1]


def test_a_picture_alone_gets_the_prompt_of_the_catalog(client):
    image = part(picture(MODELS["glm-ocr"][1]))
    alone = ask(client, "ZhipuAI/GLM-OCR", image)
    asked = ask(client, "glm-ocr", image, {"type": "text", "text": "Text Recognition:"})
    assert alone.usage.prompt_tokens == asked.usage.prompt_tokens
    assert alone.choices[0].message.content == asked.choices[0].message.content


def test_a_picture_larger_than_the_limit_and_one_in_a_model_without_eyes_are_rejected(client):
    for size in ((20_000, 6_000), (9_000, 8)):
        with pytest.raises(BadRequestError) as caught:
            ask(client, "glm-ocr", part(Image.new("RGB", size)))
        assert caught.value.param == "messages[0].content[0].image_url.url"
    assert ask(client, "glm-ocr", part(picture((336, 224)))).usage.prompt_tokens > 96


def test_weights_without_a_projector_are_refused(repository, tmp_path):
    folder = tmp_path / "w"
    folder.mkdir()
    for path in (repository.parent / "glm-ocr").iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(repository.parent / "qwen3-vl-2b" / "model.safetensors")
    output = export_folder("glm-ocr", tmp_path / "repository", "--weights", str(folder), code=1)
    assert "ValueError: Can not map tensor 'model.layers.0.mlp.gate_proj.weight'" in output
    assert not (tmp_path / "repository" / "glm-ocr").exists()


def test_int8_weights_and_their_projector_stay_close_to_the_original(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("TRIDENT_CACHE", str(repository.parent / "cache"))  # which has no such conversion yet
    folder = repository.parent / "glm-ocr"
    output = export_folder(folder, tmp_path, "--engine", "llamacpp", "--force")
    assert "correlation 0.99" in output
    assert (latest_version(tmp_path / "glm-ocr-own") / "mmproj.gguf").exists()

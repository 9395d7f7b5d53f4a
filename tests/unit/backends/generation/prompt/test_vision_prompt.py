"""Images in chats: their sizes, token counts and tags. Clients cannot insert tags through text."""

import io
import json

import pytest
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from backends.common.errors import InvalidRequest
from backends.generation.prompt.chat_prompt import ChatPrompt, Files
from backends.generation.prompt.image_processor import QwenVLImageProcessor, load_image_processor
from backends.generation.prompt.vision_prompt import VisionPrompt

PARTS = """{% for message in messages %}<{{ message.role }}>{% for part in message.content %}
{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}{% endfor %}"""
TEXTS = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
WITHOUT_SYSTEM = (
    "{% for message in messages %}{% if message.role != 'system' %}{{ message.content }}{% endif %}{% endfor %}"
)
PREPROCESSOR = {"patch_size": 14, "merge_size": 2, "min_pixels": 4 * 28**2, "max_pixels": 100 * 28**2}
MAX_IMAGE_TOKENS = 64
IMAGE = {"type": "image"}


def text(value):
    return {"type": "text", "text": value}


def rgb_image(width=56, height=56, color="red", mode="RGB"):
    content = io.BytesIO()
    Image.new(mode, (width, height), color).save(content, "PNG")
    return content.getvalue()


@pytest.fixture
def folder(tmp_path):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<|vision_start|>", "<|vision_end|>", "<|image_pad|>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    ids = {f"{name}_token_id": 256 + i for i, name in enumerate(("vision_start", "vision_end", "image"))}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl"} | ids), encoding="utf-8")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR), encoding="utf-8")
    (tmp_path / "openvino_vision_embeddings_model.xml").touch()
    return tmp_path


def open_prompt(folder, template=PARTS, context=1000):
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return VisionPrompt(folder, context, load_image_processor(folder, MAX_IMAGE_TOKENS), 20_000)


@pytest.mark.parametrize(
    ("width", "height", "grid_size"),
    [
        (56, 56, (2, 2)),
        (1, 1, (2, 2)),
        (60, 90, (2, 3)),
        (4000, 3000, (9, 6)),
        (1, 5000, (1, 64)),
        (5000, 30, (64, 1)),
        (1, 60, (1, 16)),
    ],
)
def test_images_are_scaled_to_whole_grid_cells_within_the_limits(width, height, grid_size):
    assert QwenVLImageProcessor(PREPROCESSOR, 64).grid_size(width / 28, height / 28) == grid_size


@pytest.mark.parametrize("template", [PARTS, TEXTS])
def test_tags_replace_images(folder, template):
    messages = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": [text("a"), IMAGE, text("b"), IMAGE]},
        {"role": "user", "content": [IMAGE, text("c")]},
    ]
    prompt = open_prompt(folder, template).from_messages(
        messages, Files({"image": [rgb_image(), rgb_image(56, 84), rgb_image()]})
    )
    assert prompt.text == ("<system>be kind<user>a<ov_genai_image_0>b<ov_genai_image_1><user><ov_genai_image_2>c")
    assert [(p.width, p.height, p.tokens) for p in prompt.rgb_images] == [(56, 56, 4), (56, 84, 6), (56, 56, 4)]
    assert prompt.num_tokens == len("<system>be kind<user>ab<user>c") + 3 * 2 + 14
    assert prompt.remaining_context == 1000 - prompt.num_tokens


@pytest.mark.parametrize(
    "prompt_text", ["<ov_genai_image_0>", "<|image_pad|>", "<|vision_start|>", "<ov_genai_video_0>"]
)
def test_a_tag_in_the_clients_text_is_broken_up(folder, prompt_text):
    prompt = open_prompt(folder).from_messages(
        [{"role": "user", "content": [IMAGE, text(prompt_text)]}], Files({"image": [rgb_image()]})
    )
    assert prompt.text == f"<user><ov_genai_image_0>{prompt_text[0]} {prompt_text[1:]}"


def test_error_for_a_damaged_image_names_it_and_a_too_large_image_is_rejected(folder):
    messages = [{"role": "user", "content": [text("a"), IMAGE]}]
    with pytest.raises(InvalidRequest, match="damaged") as caught:
        open_prompt(folder).from_messages(messages, Files({"image": [b"no picture"]}))
    assert caught.value.param == "messages[0].content[1].image_url.url"
    with pytest.raises(InvalidRequest) as caught:
        open_prompt(folder).from_messages(messages, Files({"image": [rgb_image(200, 200)]}))
    assert caught.value.code == "too_large"


def test_the_images_of_a_request_share_one_pixel_limit(folder):
    with pytest.raises(InvalidRequest, match="pixels") as caught:
        open_prompt(folder).from_messages(
            [{"role": "user", "content": [IMAGE, IMAGE]}], Files({"image": [rgb_image(140, 100), rgb_image(140, 100)]})
        )
    assert caught.value.param == "messages[0].content[1].image_url.url"


def test_transparency_becomes_white(folder):
    (decoded,) = (
        open_prompt(folder)
        .from_messages([{"role": "user", "content": [IMAGE]}], Files({"image": [rgb_image(mode="RGBA", color=0)]}))
        .rgb_images
    )
    assert set(decoded.pixels) == {255}


def test_an_image_that_the_template_omits_is_rejected(folder):
    with pytest.raises(InvalidRequest, match="does not support a file here") as caught:
        open_prompt(folder, WITHOUT_SYSTEM).from_messages(
            [{"role": "system", "content": [IMAGE]}], Files({"image": [rgb_image()]})
        )
    assert caught.value.param == "messages[0].content[0].image_url.url"


def test_images_count_against_the_context(folder):
    with pytest.raises(InvalidRequest, match="resulted in 71 tokens") as caught:
        open_prompt(folder, context=71).from_messages(
            [{"role": "user", "content": [IMAGE, text("a" * 59)]}], Files({"image": [rgb_image()]})
        )
    assert caught.value.code == "context_length_exceeded"


def test_a_text_only_model_rejects_images(folder):
    (folder / "openvino_vision_embeddings_model.xml").unlink()
    (folder / "chat_template.jinja").write_text(TEXTS, encoding="utf-8")
    assert load_image_processor(folder, {}) is None
    with pytest.raises(InvalidRequest, match="does not accept images") as caught:
        ChatPrompt(folder, 1000).from_messages(
            [{"role": "user", "content": [text("a"), IMAGE]}], Files({"image": [rgb_image()]})
        )
    assert caught.value.param == "messages[0].content[1]"


def test_an_unsupported_model_type_is_rejected(folder):
    (folder / "config.json").write_text('{"model_type": "idefics3"}', encoding="utf-8")
    with pytest.raises(ValueError, match="idefics3"):
        load_image_processor(folder, MAX_IMAGE_TOKENS)


def test_tags_in_a_text_prompt_are_broken_up_and_token_ids_are_rejected(folder):
    prompt = open_prompt(folder).from_text("a<ov_genai_image_0>")
    assert (prompt.text, prompt.prompt_text, prompt.ids) == ("a< ov_genai_image_0>", "a<ov_genai_image_0>", b"")
    with pytest.raises(InvalidRequest, match="does not support token IDs") as caught:
        open_prompt(folder).from_token_ids([1])
    assert caught.value.param == "prompt"

"""Images and audio in chats on llama.cpp: where their tokens and embeddings stand in the prompt."""

import io
import wave
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as PillowImage
from tokenizers import Tokenizer, models, pre_tokenizers

from backends.common.errors import EngineFailure, InvalidRequest
from backends.common.llamacpp.media.encoder import Encoding
from backends.common.llamacpp.media.messages import Chunk, Image
from backends.generation.prompt.chat_prompt import Files
from backends.generation.prompt.media_prompt import MediaPrompt

TEMPLATE = (
    "{% for message in messages %}{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{{ part.text }}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}>{% endif %}"
)
IMAGE, AUDIO = {"type": "image"}, {"type": "audio"}
GRID = (np.array([[0, 0], [0, 0], [0, 1], [0, 0]], np.int32), np.array([[1, 1], [1, 1], [1, 1], [0, 0]], np.int32))


def text(value):
    return {"type": "text", "text": value}


def picture(width=4, height=3, color="red"):
    content = io.BytesIO()
    PillowImage.new("RGB", (width, height), color).save(content, "PNG")
    return content.getvalue()


def sound(seconds=0.01):
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(2 * int(16_000 * seconds)))
    return content.getvalue()


class Encoder:
    """Gives images a beginning, two embeddings with rows and columns, and an end; and audio three embeddings."""

    def __init__(self, accepts_images=True, sample_rate=16_000):
        self.ready = SimpleNamespace(accepts_images=accepts_images, sample_rate=sample_rate)
        self.seen, self.failure = [], None

    def encode(self, media, param):
        if self.failure:
            raise self.failure
        self.seen.append((media, param))
        if isinstance(media, Image):
            positions, steps = GRID
            chunks = [Chunk([200]), Chunk((), np.ones((2, 5), np.float32), positions, steps, 1), Chunk([201])]
        else:
            row = np.arange(3, dtype=np.int32)[np.newaxis]
            chunks = [Chunk((), np.zeros((3, 5), np.float32), row, np.ones_like(row), 3, is_causal=False)]
        return Encoding(repr(media).encode()[:40], chunks)


@pytest.fixture
def folder(tmp_path):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return tmp_path


@pytest.fixture
def encoder():
    return Encoder()


@pytest.fixture
def prompt(folder, encoder):
    return MediaPrompt(folder, 100, encoder, 50)


def ids_of(prompt):
    return np.frombuffer(prompt.ids, np.int64).tolist()


def user(*parts):
    return [{"role": "user", "content": list(parts)}]


def test_files_stand_between_the_texts_around_them(prompt):
    messages = user(text("ab"), IMAGE, text("cd"), AUDIO, IMAGE)
    found = prompt.from_messages(messages, Files({"image": [picture(), picture(color="blue")], "audio": [sound()]}))
    ids = ids_of(found)
    # "ab", the image's beginning, two embeddings, its end, "cd", three embeddings, the second image, and ">".
    assert [id if id >= 200 or id < 0 else 0 for id in ids[:3]] == [0, 0, 200]
    assert (ids[5], ids[11], ids[14]) == (201, 200, 201)
    assert [index for index, id in enumerate(ids) if id < 0] == [3, 4, 8, 9, 10, 12, 13]
    assert (found.num_tokens, found.remaining_context) == (16, 84)
    first, audio, second = found.embeddings
    assert [each.start for each in found.embeddings] == [3, 8, 12]
    # Both embeddings of an image have the same position in time, so that the text after it continues one later.
    assert first.positions.tolist() == [[3, 3], [3, 3], [3, 4], [0, 0]]
    assert (first.next_position, first.is_causal) == (4, True)
    assert audio.positions.tolist() == [[7, 8, 9]]
    assert (audio.next_position, audio.is_causal) == (10, False)
    assert second.positions[0].tolist() == [11, 11]


def test_equal_files_have_equal_tokens_and_others_have_others(prompt):
    def tokens(color):
        return [
            id for id in ids_of(prompt.from_messages(user(IMAGE), Files({"image": [picture(color=color)]}))) if id < 0
        ]

    assert tokens("red") == tokens("red") != tokens("blue")


def test_files_are_decoded_for_the_encoder(prompt, encoder):
    prompt.from_messages(user(IMAGE, AUDIO), Files({"image": [picture(2, 1, "lime")], "audio": [sound(0.5)]}))
    [(image, image_param), (audio, audio_param)] = encoder.seen
    assert (image.width, image.height, image.pixels) == (2, 1, b"\0\xff\0" * 2)
    assert len(audio.samples) == 4 * 8_000
    assert (image_param, audio_param) == ("messages[0].content[0].image_url.url", "messages[0].content[1]")


def test_a_conversation_without_files_is_text(prompt):
    found = prompt.from_messages(user(text("ab")))
    assert (len(ids_of(found)), found.embeddings) == (3, ())


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (b"no picture", "invalid_image", "damaged"),
        (picture(30, 20), "too_large", "exceeds the limit"),
        (picture(500, 1), "too_large", "exceeds the limit"),
    ],
)
def test_an_invalid_image_is_named(prompt, content, code, message):
    with pytest.raises(InvalidRequest, match=message) as caught:
        prompt.from_messages(user(text("a"), IMAGE), Files({"image": [content]}))
    assert (caught.value.param, caught.value.code) == ("messages[0].content[1].image_url.url", code)


def test_an_image_without_width_for_the_encoder_is_rejected(folder, encoder):
    with pytest.raises(InvalidRequest, match="too narrow"):
        MediaPrompt(folder, 100, encoder, 10_000).from_messages(user(IMAGE), Files({"image": [picture(500, 1)]}))


def test_the_images_of_a_request_share_one_pixel_limit(prompt):
    with pytest.raises(InvalidRequest, match="exceeds the limit") as caught:
        prompt.from_messages(user(IMAGE, IMAGE), Files({"image": [picture(6, 5), picture(7, 3)]}))
    assert caught.value.param == "messages[0].content[1].image_url.url"


def test_invalid_and_long_audio_is_named(prompt):
    for content, code in ((b"no sound", "invalid_audio"), (sound(601), "too_long")):
        with pytest.raises(InvalidRequest) as caught:
            prompt.from_messages(user(AUDIO), Files({"audio": [content]}))
        assert (caught.value.param, caught.value.code) == ("messages[0].content[0]", code)


@pytest.mark.parametrize(
    ("part", "files"), [(IMAGE, Files({"image": [picture()]})), (AUDIO, Files({"audio": [sound()]}))]
)
def test_a_file_that_the_projector_does_not_accept_is_rejected(folder, part, files):
    with pytest.raises(InvalidRequest, match="does not accept") as caught:
        MediaPrompt(folder, 100, Encoder(accepts_images=False, sample_rate=0), 50).from_messages(user(part), files)
    assert caught.value.code == "unsupported_content"


def test_files_count_against_the_context_before_further_ones_are_encoded(folder, encoder):
    with pytest.raises(InvalidRequest) as caught:
        MediaPrompt(folder, 20, encoder, 500).from_messages(user(IMAGE, text("a" * 19)), Files({"image": [picture()]}))
    assert (caught.value.code, encoder.seen) == ("context_length_exceeded", [])
    with pytest.raises(InvalidRequest) as caught:
        MediaPrompt(folder, 8, encoder, 500).from_messages(user(IMAGE, IMAGE, IMAGE), Files({"image": [picture()] * 3}))
    assert caught.value.code == "context_length_exceeded"
    assert len(encoder.seen) == 2


def test_a_template_that_ends_with_a_file_is_rejected(folder, encoder):
    (folder / "chat_template.jinja").write_text(TEMPLATE.replace(">{% endif", "{% endif"), encoding="utf-8")
    with pytest.raises(InvalidRequest, match="nothing after the last file"):
        MediaPrompt(folder, 100, encoder, 50).from_messages(user(IMAGE), Files({"image": [picture()]}))


@pytest.mark.parametrize("files", [{}, {"image": []}, {"image": [picture()] * 2}, {"audio": [sound()]}])
def test_the_number_of_files_must_match(prompt, files):
    with pytest.raises(ValueError, match="number of files"):
        prompt.from_messages(user(IMAGE), Files(files))


def test_a_failure_of_the_encoder_is_that_of_the_request(prompt, encoder):
    encoder.failure = EngineFailure("The model failed on the image")
    with pytest.raises(EngineFailure):
        prompt.from_messages(user(IMAGE), Files({"image": [picture()]}))


def test_files_of_a_cancelled_request_are_not_encoded(prompt, encoder):
    files = Files({"image": [picture()] * 3}, is_cancelled=lambda: len(encoder.seen) == 2)
    with pytest.raises(EngineFailure, match="cancelled"):
        prompt.from_messages(user(IMAGE, IMAGE, IMAGE), files)
    assert len(encoder.seen) == 2

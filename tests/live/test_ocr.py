"""OCR through the real Triton and PP-OCR: rendered and photographed pages, requests in AHA's format, invalid images.

AHA is another server for open models: see docs/compatibility.md.
"""

import base64

import pytest
import requests
from PIL import Image, ImageDraw, ImageFont

from tests.support.images import encode_image, load_photograph
from tests.support.live import url
from tests.support.pages import (
    CHINESE,
    ENGLISH,
    PHOTOGRAPHED,
    TABLE,
    character_errors,
    photographed_page,
    render_page,
    render_table,
    simulate_camera,
)

MODEL = "pp-ocrv6-small"
PAGES = {
    "photographed": (photographed_page, PHOTOGRAPHED),
    "English": (lambda: render_page(ENGLISH), "".join(ENGLISH)),
    "Chinese": (lambda: render_page(CHINESE), "".join(CHINESE)),
    "two columns": (lambda: render_page(ENGLISH, CHINESE), "".join(ENGLISH + CHINESE)),
    "English, tilted and dark": (lambda: simulate_camera(render_page(ENGLISH)), "".join(ENGLISH)),
    "Chinese, tilted and dark": (lambda: simulate_camera(render_page(CHINESE)), "".join(CHINESE)),
    "upside down": (lambda: render_page(ENGLISH).rotate(180), "".join(ENGLISH)),
    "on its side": (lambda: render_page(CHINESE).rotate(90, expand=True), "".join(CHINESE)),
    "skewed": (lambda: render_page(ENGLISH).rotate(7, expand=True, fillcolor="white"), "".join(ENGLISH)),
    "small": (lambda: render_page(CHINESE, size=16), "".join(CHINESE)),
}


def message(*images):
    addresses = [f"data:image/png;base64,{base64.b64encode(content).decode()}" for content in images]
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}} for url in addresses]}]


@pytest.mark.parametrize("name", PAGES)
def test_character_error_rate_is_at_most_3_percent(client, name):
    make, expected = PAGES[name]
    completion = client.chat.completions.create(model=MODEL, messages=message(encode_image(make(), "PNG")))
    assert character_errors(completion.choices[0].message.content, expected) <= 0.03
    assert completion.choices[0].finish_reason == "stop"


def line(text, size, color="black", background="white"):
    """Return a picture of one line of text, which is just large enough."""
    font = ImageFont.load_default(size)
    mode = "RGBA" if background == "transparent" else "RGB"
    size = round(font.getlength(text)) + 40, size + 34
    picture = Image.new(mode, size, (0, 0, 0, 0) if background == "transparent" else background)
    ImageDraw.Draw(picture).text((20, 18), text, fill=color, font=font)
    return picture


def recognized(client, picture):
    completion = client.chat.completions.create(model=MODEL, messages=message(encode_image(picture, "PNG")))
    return completion.choices[0].message.content


@pytest.mark.parametrize("size", [24, 32, 44])
def test_no_letter_of_a_single_line_is_read_twice(client, size):
    lines = ["Order number 55821", "Invoice total 1,284.50", "Flight LH 4711 to Oslo", "Serial 8709 2221 6898"]
    assert [recognized(client, line(text, size)) for text in lines] == lines


@pytest.mark.parametrize("color", ["white", (210, 210, 210), "black", (120, 0, 0)])
def test_text_on_a_transparent_background_is_read(client, color):
    assert recognized(client, line("Hello 42", 36, color, "transparent")) == "Hello 42"


def test_table_is_returned_as_markdown(client):
    completion = client.chat.completions.create(model=MODEL, messages=message(encode_image(render_table(), "PNG")))
    lines = completion.choices[0].message.content.splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert [tuple(row) for row in rows if row[0] != "---"] == list(TABLE)
    assert rows[1] == ["---"] * 4
    assert lines[0] == "The largest cities of four countries:"
    assert lines[-1] == "Counted in different years."


def test_each_stream_event_has_one_line_and_its_box(client):
    page = render_page(ENGLISH)
    stream = client.chat.completions.create(
        model=MODEL, messages=message(encode_image(page, "PNG")), stream=True, metadata={"boxes": "true"}
    )
    deltas = [chunk.choices[0].delta for chunk in stream if chunk.choices and chunk.choices[0].delta.content]
    assert len(deltas) == len(ENGLISH)
    for index, delta in enumerate(deltas):
        (box,) = delta.boxes
        assert box["text"] in delta.content
        assert box["score"] > 0.8
        (left, top), (right, bottom) = box["box"][0], box["box"][2]
        assert top < (index + 1) * 42 + 14 < bottom
        assert left < 60 < 300 < right <= page.width


def test_image_without_text_yields_no_text(client):
    completion = client.chat.completions.create(
        model=MODEL, messages=message(encode_image(load_photograph("brick"), "PNG"))
    )
    assert completion.choices[0].message.content == ""


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 500)])
def test_extreme_image_size_is_accepted(client, size):
    page = load_photograph("astronaut").resize(size)
    completion = client.chat.completions.create(model=MODEL, messages=message(encode_image(page, "PNG")))
    assert completion.choices[0].finish_reason == "stop"


def test_aha_request_returns_json_under_v1_and_a_stream_without_v1(compatible_stack, tmp_path):
    content = encode_image(render_page(CHINESE), "PNG")
    for model, path in (("deepseek-ai/DeepSeek-OCR", "/v1"), ("Qwen/Qwen3-VL-2B-Instruct", "")):
        image = {"type": "image", "image_url": {"url": f"base64://{base64.b64encode(content).decode()}"}}
        parts = [{"type": "text", "text": "提取所有文本"}, image]
        body = {"model": model, "messages": [{"role": "user", "content": parts}]}
        response = requests.post(url(compatible_stack, f"{path}/chat/completions"), json=body, timeout=60)
        response.encoding = "utf-8"
        assert CHINESE[0] in response.text
        assert response.headers["Content-Type"].startswith("application/json" if path else "text/event-stream")


class TestBadImages:
    @pytest.mark.parametrize("content", [b"just text", encode_image(load_photograph("astronaut"))[:20_000]])
    def test_error_names_the_invalid_image(self, stack, content):
        good = encode_image(render_page(ENGLISH[:1]), "PNG")
        body = {"model": MODEL, "messages": message(good, content)}
        response = requests.post(url(stack, "/v1/chat/completions"), json=body, timeout=20)
        error = response.json()["error"]
        assert (response.status_code, error["code"]) == (400, "invalid_image")
        assert error["param"] == "messages[0].content[1].image_url.url"

    def test_file_urls_and_private_addresses_are_rejected(self, stack):
        for address in ("file:///etc/passwd", "http://127.0.0.1:1/x.png", "http://169.254.169.254/latest"):
            parts = [{"type": "image_url", "image_url": {"url": address}}]
            body = {"model": MODEL, "messages": [{"role": "user", "content": parts}]}
            response = requests.post(url(stack, "/v1/chat/completions"), json=body, timeout=20)
            assert (response.status_code, response.json()["error"]["param"][-4:]) == (400, ".url")

    def test_text_model_rejects_an_image_and_names_the_part(self, stack):
        body = {"model": "smollm2-135m", "messages": message(encode_image(render_page(ENGLISH[:1]), "PNG"))}
        response = requests.post(url(stack, "/v1/chat/completions"), json=body, timeout=20)
        error = response.json()["error"]
        assert (response.status_code, error["param"]) == (400, "messages[0].content[0]")

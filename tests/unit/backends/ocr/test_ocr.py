"""OCR with a fake recognizer: pages of long images, upside-down pages, low scores, boxes, and tables in Markdown."""

import io

import numpy as np
import pytest
from PIL import Image

from backends.common.errors import InvalidRequest
from backends.ocr.layout import Line
from backends.ocr.page import lay_out, pages
from backends.ocr.read_text import _Writer, read_text
from backends.ocr.text_recognizer import DetectedText, Text
from contract.parameters import OCRParameters

LIMITS = OCRParameters(
    device="CPU",
    threads=0,
    parallel=1,
    batch_size=2,
    max_side=1400,
    min_score=0.5,
    max_pixels=10_000_000,
    queue_size=1,
)


class FakeRecognizer:
    """Finds a piece of text in each row of pixels that is not all white. The piece's text is its red value.

    If the first pixel has the blue value 9, the piece is upright; if the last pixel has it, the piece is upside down.
    """

    def __init__(self, scores=None):
        self.num_finds, self.reads, self._scores = 0, [], scores or {}

    def find(self, picture):
        self.num_finds += 1
        rows = np.flatnonzero((picture < 250).any(axis=(1, 2)))
        quads = [[[0, y], [picture.shape[1], y], [picture.shape[1], y + 1], [0, y + 1]] for y in rows]
        pieces = [picture[y : y + 1] for y in rows]
        return DetectedText(np.array(quads, np.float32).reshape(-1, 4, 2), pieces)

    def is_upside_down(self, pieces):
        return bool(pieces) and all(piece[0, -1, 0] == 9 for piece in pieces)

    def read(self, pieces):
        self.reads.append(len(pieces))
        texts = [str(int(piece[0, :, 2].max() if piece[0, 0, 0] != 9 else piece[0, 0, 2])) for piece in pieces]
        return [Text(text, self._scores.get(text, 1.0)) for text in texts]


def picture(*rows, size=(40, 30)):
    """Return a white image whose pixel rows 2, 6, 10… have the red values in `rows`."""
    pixels = np.full((size[1], size[0], 3), 255, np.uint8)
    for number, red in enumerate(rows):
        pixels[2 + 4 * number] = (red, 0, 0)
    return pixels


def encoded(pixels):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def read(recognizer, pixels):
    return [part for part in read_text(recognizer, encoded(pixels), LIMITS) if part]


def test_each_line_is_a_part_and_pieces_are_read_in_batches():
    recognizer = FakeRecognizer()
    parts = read(recognizer, picture(10, 20, 30))
    assert [part.text for part in parts] == ["10", "\n20", "\n30"]
    assert [count for count in recognizer.reads if count] == [2, 1]
    assert parts[1].boxes == [{"text": "20", "score": 1.0, "box": [[0, 6], [40, 6], [40, 7], [0, 7]]}]


def test_text_with_a_low_score_is_omitted():
    parts = read(FakeRecognizer({"20": 0.3}), picture(10, 20, 30))
    assert "".join(part.text for part in parts) == "10\n30"


def test_text_with_a_doubtful_score_is_also_read_upside_down():
    recognizer = FakeRecognizer({"20": 0.6})
    assert "".join(part.text for part in read(recognizer, picture(10, 20))) == "10\n20"
    assert recognizer.reads == [2, 1]


def test_an_upside_down_page_is_rotated_but_its_boxes_refer_to_the_original_image():
    pixels = picture(10, 20)
    pixels[2, 0] = (10, 0, 9)
    pixels[6, 0] = (20, 0, 9)
    recognizer = FakeRecognizer()
    parts = read(recognizer, np.ascontiguousarray(pixels[::-1, ::-1]))
    assert [part.text for part in parts] == ["10", "\n20"]
    assert recognizer.num_finds == 2
    assert parts[0].boxes[0]["box"] == [[40, 28], [0, 28], [0, 27], [40, 27]]


def test_an_image_without_text_has_no_parts():
    assert read(FakeRecognizer(), picture()) == []


def test_a_long_image_is_cut_where_it_is_empty():
    pixels = np.full((6000, 700, 3), 255, np.uint8)
    pixels[::4, :300] = 0
    pixels[1290:1330] = 255
    cut = list(pages(pixels, 1400))
    assert [begin for begin, _ in cut] == sorted({begin for begin, _ in cut})
    assert 1290 < cut[1][0] < 1330
    assert sum(len(page) for _, page in cut) == 6000
    assert all(len(page) <= 1400 for _, page in cut)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 5000), (5000, 1), (20000, 30), (65000, 1000), (900, 40000)])
def test_every_page_has_a_shape_that_the_networks_support(width, height):
    sheet = lay_out(Image.new("RGB", (width, height)), 2000)
    for _, page in pages(sheet.pixels, 2000):
        assert max(page.shape[:2]) <= 4 * min(page.shape[:2]) + 4
        assert page.size < 2000 * 2000 * 3


def test_transparent_pixels_are_treated_as_white():
    pixels = np.zeros((30, 40, 4), np.uint8)
    pixels[10] = (10, 0, 0, 255)
    assert [part.text for part in read(FakeRecognizer(), pixels)] == ["10"]


def test_an_image_with_too_many_pixels_is_rejected():
    with pytest.raises(InvalidRequest) as failure:
        list(read_text(FakeRecognizer(), encoded(np.zeros((3000, 4000, 3), np.uint8)), LIMITS))
    assert failure.value.code == "too_large"


def test_an_image_that_is_too_long_is_rejected():
    with pytest.raises(InvalidRequest, match="too tall"):
        list(read_text(FakeRecognizer(), encoded(np.zeros((200_000, 10, 3), np.uint8)), LIMITS))


def test_boxes_of_a_scaled_down_image_are_in_pixels_of_the_original_image():
    pixels = np.repeat(np.repeat(picture(10, 20), 80, axis=0), 80, axis=1)
    boxes = [box for part in read(FakeRecognizer(), pixels) for box in part.boxes]
    assert boxes[0]["box"][0][1] == pytest.approx(160, abs=10)
    assert max(x for box in boxes for x, _ in box["box"]) == 3200


def test_a_table_whose_first_row_cannot_be_read_still_has_a_header():
    writer, row = _Writer(), ((0,), (1,))
    texts = {0: Text("a", 1.0), 1: Text("b", 1.0)}
    assert writer.write(Line(((5,),)), {5: Text("above", 1.0)}) == "above"
    assert writer.write(Line(((7,), (8,)), table=True, first=True), texts) == ""
    assert writer.write(Line(row, table=True), texts) == "\n\n| a | b |\n| --- | --- |"
    assert writer.write(Line(row, table=True), texts) == "\n| a | b |"
    assert writer.write(Line(((0,),)), texts) == "\n\na"

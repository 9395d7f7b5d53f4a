"""Detects and recognizes text in images, with PP-OCR through RapidOCR."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rapidocr import RapidOCR
from rapidocr.main import RapidOCRError
from rapidocr.utils.process_img import get_rotate_crop_image, map_boxes_to_original

from backends.common.onnx_session import open_session
from backends.ocr.merging import merge_overlapping
from contract.parameters import OCRParameters

Pixels = NDArray[np.uint8]
"""An image, [height, width, 3], with channels in the order blue, green, red."""

Quads = NDArray[np.float32]
"""Quadrangles around text, [count, 4, 2]: x and y of the corners, clockwise from the top left of the text."""

# At most this many pieces of text are classified as upright or upside down: the widest ones, because they are
# classified most reliably.
_MAX_CLASSIFIED = 32

_HALF_TURN = "180"


class Text(NamedTuple):
    """The text recognized in a piece (see DetectedText), and its confidence score from 0 to 1."""

    text: str
    score: float


class DetectedText(NamedTuple):
    """The pieces of text found in an image: their positions, and their pixels, cropped and straightened.

    A piece is a region of text, usually a line or part of a line.
    """

    quads: Quads
    pieces: list[Pixels]


class TextRecognizer:
    """The PP-OCR networks. All methods may be called from any thread."""

    def __init__(self, folder: Path, parameters: OCRParameters):
        self._ocr = RapidOCR(
            params={
                "Global.log_level": "critical",
                "Global.max_side_len": parameters.max_side,
                "Rec.rec_batch_num": parameters.batch_size,
            }
        )
        for part, file in (("Det", "detection"), ("Cls", "orientation"), ("Rec", "recognition")):
            config = self._ocr.cfg[part]
            config._set_flag("allow_objects", True)
            config.session = open_session(folder / f"{file}.onnx", parameters.device, parameters.threads)

    def find(self, picture: Pixels) -> DetectedText:
        """Return the pieces of text in an image, in no particular order."""
        small, made = self._ocr.preprocess_img(picture)
        try:
            pieces, result = self._ocr.detect_and_crop(small, made)
        except RapidOCRError:  # RapidOCR found no text
            return DetectedText(np.empty((0, 4, 2), np.float32), [])
        height, width = picture.shape[:2]
        quads = map_boxes_to_original(result.boxes, made, height, width)
        merged = merge_overlapping(np.asarray(quads, np.float32))
        for quad, group in merged:
            if len(group) > 1:  # read the merged region instead of its parts
                inside = np.clip(quad, 0, (width, height)).astype(np.float32)
                pieces[group[0]] = get_rotate_crop_image(picture, inside)
        return DetectedText(np.array([quad for quad, _ in merged]), [pieces[group[0]] for _, group in merged])

    def is_upside_down(self, pieces: Sequence[Pixels]) -> bool:
        """Return whether most pieces look upside down, judged by the widest ones."""
        if not pieces:
            return False
        widest = sorted(pieces, key=lambda piece: piece.shape[1])[-_MAX_CLASSIFIED:]
        _, result = self._ocr.cls_and_rotate(widest)
        turned = [label for label, _ in result.cls_res if label == _HALF_TURN]
        return len(turned) * 2 > len(widest)

    def read(self, pieces: Sequence[Pixels]) -> list[Text]:
        """Return the text of each piece."""
        if not pieces:
            return []
        result: Any = self._ocr.recognize_txt(list(pieces))
        return [Text(text, float(score)) for text, score in zip(result.txts, result.scores, strict=True)]

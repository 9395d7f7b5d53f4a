"""Removes the background of one image, and keeps the image's size."""

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from backends.common.images.decoding import read_image
from backends.common.images.encoding import check_side, write_image
from backends.segmentation.network import Mask, Network
from contract.options import BackgroundRemovalOptions

# Parameters of the guided filter that refines the mask. The filter's radius is a fraction of the image's longer side.
# The regularization is the variance of brightness (on a scale from 0 to 1) above which the mask follows an edge.
_REACH = 1 / 160
_SMOOTHNESS = 1e-5

# Mask values within this distance of 0 or 1 are not refined.
_SURE = 0.02


def remove_background(
    network: Network, content: bytes, options: BackgroundRemovalOptions, max_pixels: int
) -> Iterator[bytes | None]:
    """Yield None after each step, and finally the encoded image. Raises InvalidRequest if the image is invalid."""
    picture = read_image(content, max_pixels)
    check_side(picture, options.format, "output_format")
    color = picture.convert("RGB")
    waiting = network.submit(color)
    try:
        yield None
        mask = waiting.result()
    finally:
        waiting.cancel()
    alpha = _fit(mask, color, options.refine)
    if picture.mode == "RGBA":  # transparent pixels stay transparent
        alpha = np.minimum(alpha, np.asarray(picture.getchannel("A")))
    color.putalpha(Image.fromarray(alpha, "L"))
    yield None
    yield write_image(color, options.format)


def _fit(mask: Mask, picture: Image.Image, refine: bool) -> NDArray[np.uint8]:
    """Return the mask at the image's size, with values from 0 to 255.

    With `refine`, the mask is aligned with the image's edges.
    """
    large: Any = cv2.resize(mask, picture.size, interpolation=cv2.INTER_CUBIC)
    if refine:
        large = _follow_edges(large, picture)
    fitted: NDArray[np.uint8] = (large.clip(0, 1) * 255 + 0.5).astype(np.uint8)
    return fitted


def _follow_edges(mask: Mask, picture: Image.Image) -> Mask:
    """Return the mask, aligned with the image's edges by a guided filter (He, Sun, Tang 2010).

    The filter's guide is the image's brightness.
    """
    guide = np.asarray(picture.convert("L"), np.float32) / 255
    width = 2 * max(int(max(picture.size) * _REACH), 1) + 1

    def mean(values: Mask) -> Mask:
        blurred: Any = cv2.blur(values, (width, width), borderType=cv2.BORDER_REFLECT)
        return np.asarray(blurred, np.float32)

    guide_mean, mask_mean = mean(guide), mean(mask)
    slope = (mean(guide * mask) - guide_mean * mask_mean) / (mean(guide * guide) - guide_mean**2 + _SMOOTHNESS)
    followed = mean(slope) * guide + mean(mask_mean - slope * guide_mean)
    refined: Mask = np.where((mask > _SURE) & (mask < 1 - _SURE), followed, mask)
    return refined

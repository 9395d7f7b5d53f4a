"""Provides photographs from scikit-image, and images of a shape in front of a photograph with the shape's mask."""

import io
import math
from pathlib import Path
from typing import Any

import skimage.data
from PIL import Image, ImageDraw, ImageFilter

SCENES = ("ball", "box", "star", "egg", "bottle")


def load_photograph(name: str) -> Image.Image:
    """Return a photograph from the scikit-image package, such as `astronaut`, `chelsea` (a cat) or `coffee`."""
    folder = Path(skimage.data.__file__).parent
    found = next(path for path in sorted(folder.glob(f"{name}.*")) if path.suffix in (".png", ".jpg"))
    return Image.open(found).convert("RGB")


def composite(scene: str) -> tuple[Image.Image, Image.Image]:
    """Return an image of a shape in front of a blurred photograph, and the mask of the shape."""
    size = (640, 480)
    image = load_photograph("brick").resize(size).filter(ImageFilter.GaussianBlur(3))
    mask = Image.new("L", (size[0] * 4, size[1] * 4))
    _draw(ImageDraw.Draw(mask), scene)
    mask = mask.resize(size, Image.Resampling.LANCZOS)
    image.paste(_surface(size, scene), mask=mask)
    return image, mask


def _draw(pen: ImageDraw.ImageDraw, scene: str) -> None:
    """Draw the shape of a scene in white on a mask of 2560 × 1920 pixels."""
    if scene == "ball":
        pen.ellipse((800, 480, 1760, 1440), fill=255)
    elif scene == "box":
        pen.rounded_rectangle((700, 560, 1900, 1400), 80, fill=255)
    elif scene == "egg":
        pen.ellipse((900, 300, 1660, 1600), fill=255)
    elif scene == "bottle":
        pen.rounded_rectangle((1020, 640, 1540, 1760), 120, fill=255)
        pen.rounded_rectangle((1160, 200, 1400, 800), 60, fill=255)
    else:
        angles = [math.pi * (index / 5 - 0.5) for index in range(10)]
        radii = [780 if index % 2 == 0 else 420 for index in range(10)]
        points = [(1280 + r * math.cos(a), 980 + r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]
        pen.polygon(points, fill=255)


def _surface(size: tuple[int, int], scene: str) -> Image.Image:
    """Return an image filled with the scene's color, darker toward the edges of the image."""
    colors = {"ball": "#d03020", "box": "#2050c0", "star": "#e0b020", "egg": "#e8e0d0", "bottle": "#107040"}
    light = (
        Image.radial_gradient("L")
        .resize((size[0] * 2, size[1] * 2))
        .crop((size[0] // 2, size[1] // 2, size[0] * 3 // 2, size[1] * 3 // 2))
    )
    dark = Image.new("RGB", size, "black")
    return Image.blend(
        Image.composite(dark, Image.new("RGB", size, colors[scene]), light), Image.new("RGB", size, colors[scene]), 0.5
    )


def encode_image(image: Image.Image, image_format: str = "JPEG", **options: Any) -> bytes:
    """Return the contents of an image file in this format."""
    content = io.BytesIO()
    image.save(content, image_format, **options)
    return content.getvalue()

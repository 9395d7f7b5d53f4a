"""Images of pages with known text. One page is a photograph, and the other pages are rendered."""

import unicodedata

import cv2
import numpy as np
import skimage.data
from jiwer import cer
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from export.catalog import Package
from tests.support.recordings import package_files

_FONTS = Package(
    name="mplfonts",
    version="0.0.11",
    sha256="b5e05ba7fd9a59cae48d1db41f657f50e6765e6f04b8d78504438b93a66b6e13",
    file="mplfonts/fonts/SimHei.ttf",
)

ENGLISH = (
    "A server for models of every kind",
    "Whoever runs open models on a machine of their own wants one address for all",
    "of them, and an answer within the first ten minutes. The price was $1,049.50 in",
    "March 2024, or 12% less than the year before; write to sales@example.org.",
    "Pictures are read line by line, from the top of the page down to its end.",
    "Nothing is kept, nothing is sent anywhere else, and nothing is made up.",
)
CHINESE = (
    "本地模型服务器使用说明",
    "用户可以在自己的电脑上运行开源模型,无需把任何数据发送到云端。",
    "首次启动时,程序会下载所需的文件,并显示当前进度和剩余时间。",
    "识别结果按照阅读顺序逐行返回,表格会转换成标记语言的格式。",
    "如果图片太大或者已经损坏,服务器会立即返回清楚的错误信息。",
    "价格:1280元;电话:010-62345678;版本号:3.10。",
)
TABLE = (
    ("City", "Country", "People", "Area"),
    ("Tokyo", "Japan", "14,094,034", "2,194"),
    ("Oslo", "Norway", "709,037", "454"),
    ("Lima", "Peru", "10,092,000", "2,672"),
    ("Nairobi", "Kenya", "4,397,073", "696"),
)
PHOTOGRAPHED = """Region-based segmentation
Let us first determine markers of the coins and the background. These markers are pixels that we can label
unambiguously as either object or background. Here, the markers are found at the two extreme parts of the
histogram of grey values:
>>> markers = np.zeros_like(coins)"""


def photographed_page() -> Image.Image:
    """Return scikit-image's photograph of a warped page, lit from one side, enlarged to three times its size."""
    page = Image.fromarray(skimage.data.page())
    return page.resize((page.width * 3, page.height * 3), Image.Resampling.LANCZOS)


def font(size: int) -> ImageFont.FreeTypeFont:
    """Return a font with Latin letters and Chinese characters, `size` pixels high."""
    return ImageFont.truetype(package_files(_FONTS) / "SimHei.ttf", size)


def render_page(*columns: tuple[str, ...], size: int = 28) -> Image.Image:
    """Return an image of a page with these columns side by side; each column is a tuple of lines."""
    letters = font(size)
    widths = [max(letters.getlength(line) for line in column) + 2 * size for column in columns]
    page = Image.new("RGB", (round(sum(widths)) + size, (max(map(len, columns)) + 2) * size * 3 // 2), "white")
    pen, left = ImageDraw.Draw(page), float(size)
    for column, width in zip(columns, widths, strict=True):
        for index, line in enumerate(column):
            pen.text((left, (index + 1) * size * 1.5), line, "black", letters)
        left += width
    return page


def render_table() -> Image.Image:
    """Return an image of a page with `TABLE` between two lines of text."""
    size, letters = 28, font(28)
    page = Image.new("RGB", (1000, 460), "white")
    pen = ImageDraw.Draw(page)
    pen.text((40, 30), "The largest cities of four countries:", "black", letters)
    for row_index, row in enumerate(TABLE):
        for column_index, cell in enumerate(row):
            pen.text((40 + 230 * column_index, 100 + row_index * size * 1.8), cell, "black", letters)
    pen.text((40, 400), "Counted in different years.", "black", letters)
    return page


def simulate_camera(page: Image.Image) -> Image.Image:
    """Return a page as a camera might capture it: tilted, lit from one side, blurred and noisy."""
    pixels = np.asarray(page.convert("RGB"))
    height, width = pixels.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    tilted = corners + np.array([[30, 40], [-10, 5], [-40, -20], [10, -5]], np.float32)
    transform = cv2.getPerspectiveTransform(corners, tilted)
    warped = cv2.warpPerspective(pixels, transform, (width, height), borderValue=(255, 255, 255)).astype(np.float32)
    light: NDArray[np.float32] = np.linspace(0.55, 1, width, dtype=np.float32)[None, :, None]
    noise = np.random.default_rng(0).normal(0, 8, warped.shape)
    return Image.fromarray(cv2.GaussianBlur(warped * light + noise, (3, 3), 0).clip(0, 255).astype(np.uint8))


def character_errors(said: str, wanted: str) -> float:
    """Return the character error rate of `said` against the true text, `wanted`. White space is ignored in both."""
    return float(cer(_plain(wanted), _plain(said)))


def _plain(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).split())

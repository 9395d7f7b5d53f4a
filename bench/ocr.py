"""Benchmark of OCR: Trident against RapidOCR in its own process.

Run it with `make bench BENCH=ocr`. Both read the same four PNG pages with the same networks; RapidOCR has its default
settings. In each round, the contenders run one after another. Each printed ratio is the median of the ratios of the
rounds.
"""

import argparse
import base64
import io
import statistics

import orjson
from PIL import Image

from bench.clients import Rate, run_clients
from bench.contest import Rival, Work, print_ratios, timed
from tests.support.pages import CHINESE, ENGLISH, photographed_page, render_page, render_table
from tests.support.stack import running_stack

MODEL = "pp-ocrv6-small"


def _rapidocr() -> Work:
    from rapidocr import RapidOCR

    engine = RapidOCR(params={"Global.log_level": "critical"})
    return timed(engine)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    pages = [
        _encode(page)
        for page in (photographed_page(), render_page(ENGLISH * 4), render_page(CHINESE * 4), render_table())
    ]
    bodies = [_request(page) for page in pages]
    speeds: dict[str, list[float]] = {"rapidocr": []}
    latencies: list[Rate] = []
    with running_stack([MODEL]) as stack, Rival(_rapidocr) as rival:
        for _ in range(rounds + 1):
            speeds["rapidocr"].append(len(pages) / rival.call(pages))
            for clients in (1, 4):
                rate = run_clients(stack.port, "/v1/chat/completions", bodies, clients)
                speeds.setdefault(f"stack, {clients} client{'s' * (clients > 1)}", []).append(rate.requests_per_second)
                latencies += [rate] if clients == 1 else []
    print_ratios(speeds, ["rapidocr"], "pages/s")
    print(f"p50 at 1 client: {statistics.median(rate.p50_ms for rate in latencies[1:]):.0f} ms")


def _encode(page: Image.Image) -> bytes:
    content = io.BytesIO()
    page.save(content, "PNG")
    return content.getvalue()


def _request(page: bytes) -> bytes:
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(page).decode()}"}}
    return orjson.dumps({"model": MODEL, "messages": [{"role": "user", "content": [image]}]})


if __name__ == "__main__":
    main()

"""Soak test that measures the growth of memory during background removal.

Run it with `python -m bench.soak_images`. It sends 1,000 images of random sizes from 4 clients, alternately as JPEG and
PNG. A tenth of the files are damaged, and must be rejected. It prints each process's memory after the first 200 images
and at the end.
"""

import argparse
import http.client
import io
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from bench.soak import memory_by_process, print_growth
from tests.support.images import load_photograph
from tests.support.stack import running_stack

_CLIENTS, _WARMUP = 4, 200
_PHOTOGRAPH = load_photograph("astronaut")


def _request(port: int, index: int) -> str:
    """Send one image, damaged if the index is a multiple of 10; return the outcome."""
    rng = random.Random(index)  # noqa: S311
    file = io.BytesIO()
    image = _PHOTOGRAPH.resize((rng.randint(16, 1600), rng.randint(16, 1600)))
    image.save(file, "JPEG" if index % 2 else "PNG", compress_level=1)
    damaged = index % 10 == 0
    sent = file.getvalue()[: len(file.getvalue()) // 2] if damaged else file.getvalue()
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    connection.request("POST", "/v1/images/remove_background", head + sent + b"\r\n--x--\r\n", headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    if response.status == (400 if damaged else 200):
        return "rejected" if damaged else "completed"
    return f"FAILED: {response.status} {content[:200]!r}"


def main() -> None:
    """Run the soak test."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000)
    total = parser.parse_args().requests
    with running_stack(["u2netp"]) as settings, ThreadPoolExecutor(_CLIENTS) as pool:
        outcomes = Counter(pool.map(lambda index: _request(settings.port, index), range(_WARMUP)))
        time.sleep(3)
        before = memory_by_process(settings)
        outcomes.update(pool.map(lambda index: _request(settings.port, index), range(_WARMUP, total)))
        time.sleep(3)
        print(f"{total} requests: {dict(outcomes)}")
        print_growth(before, memory_by_process(settings), _WARMUP, total)


if __name__ == "__main__":
    main()

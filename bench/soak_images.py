"""Memory under long use of background removal: `python -m bench.soak_images`.

Sends 1,000 pictures of random sizes from 4 clients, by turns as JPEG and PNG, a tenth of them damaged, and prints each
process's memory after the first 200 and at the end.
"""

import argparse
import http.client
import io
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from bench.soak import memory, print_growth
from tests.support.pictures import photograph
from tests.support.stack import running_stack

_CLIENTS, _WARM = 4, 200
_PHOTOGRAPH = photograph("astronaut")


def _request(port: int, number: int) -> str:
    """Send one picture; return what came of it."""
    dice = random.Random(number)  # noqa: S311
    content = io.BytesIO()
    picture = _PHOTOGRAPH.resize((dice.randint(16, 1600), dice.randint(16, 1600)))
    picture.save(content, "JPEG" if number % 2 else "PNG", compress_level=1)
    damaged = number % 10 == 0
    sent = content.getvalue()[: len(content.getvalue()) // 2] if damaged else content.getvalue()
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    connection.request("POST", "/v1/images/remove_background", head + sent + b"\r\n--x--\r\n", kind)
    response = connection.getresponse()
    answer = response.read()
    connection.close()
    if response.status == (400 if damaged else 200):
        return "refused" if damaged else "answered"
    return f"WRONG: {response.status} {answer[:200]!r}"


def main() -> None:
    """Run the soak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000)
    total = parser.parse_args().requests
    with running_stack(["u2netp"]) as settings, ThreadPoolExecutor(_CLIENTS) as pool:
        outcomes = Counter(pool.map(lambda number: _request(settings.port, number), range(_WARM)))
        time.sleep(3)
        before = memory(settings)
        outcomes.update(pool.map(lambda number: _request(settings.port, number), range(_WARM, total)))
        time.sleep(3)
        print(f"{total} requests: {dict(outcomes)}")
        print_growth(before, memory(settings), _WARM, total)


if __name__ == "__main__":
    main()

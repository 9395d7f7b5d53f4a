"""The network itself: an ONNX model on onnxruntime, from rows of tokens to rows of numbers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from backends.common.onnx_session import open_session
from backends.encoder.batches import plan
from backends.encoder.pooling import POOLINGS, Array, normalize
from backends.encoder.tokens import Tokens


class Network:
    """One model's session, and how its output becomes one row a text.

    A file score.npy beside the model, the difference of two words' output vectors, turns a hidden state into the
    difference of these words' logits: how a language model says yes or no.
    """

    def __init__(self, folder: Path, parameters: Mapping[str, str]):
        self._session = open_session(folder / "model.onnx", parameters["device"], int(parameters["threads"]))
        self._inputs = {tensor.name for tensor in self._session.get_inputs()}
        self._output = [self._session.get_outputs()[0].name]
        self._pool = POOLINGS[parameters["pooling"]]
        self._normalize = parameters["normalize"] == "true"
        self._budget = int(parameters["max_batch_tokens"])
        score = folder / "score.npy"
        self._score: Array | None = np.load(score) if score.exists() else None

    def run(self, rows: Sequence[Tokens]) -> Array:
        """Return [rows, width] in the order of `rows`."""
        lengths = [len(row.ids) for row in rows]
        result: Array | None = None
        for batch in plan(lengths, self._budget):
            pooled = self._run_batch([rows[i] for i in batch])
            if result is None:
                result = np.empty((len(rows), pooled.shape[1]), np.float32)
            result[batch] = pooled
        assert result is not None  # noqa: S101
        return normalize(result) if self._normalize else result

    def _run_batch(self, rows: Sequence[Tokens]) -> Array:
        lengths = np.array([len(row.ids) for row in rows])
        shape = (len(rows), int(lengths.max()))
        ids, types = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for number, row in enumerate(rows):
            ids[number, : lengths[number]] = row.ids
            types[number, : lengths[number]] = row.types
        places = np.arange(shape[1])
        feeds = {
            "input_ids": ids,
            "attention_mask": (places < lengths[:, None]).astype(np.int64),
            "token_type_ids": types,
            "position_ids": np.broadcast_to(places, shape).astype(np.int64),
        }
        (output,) = self._session.run(self._output, {name: feeds[name] for name in self._inputs})
        pooled = self._pool(output.astype(np.float32, copy=False), lengths)
        return pooled if self._score is None else pooled @ self._score[:, None]

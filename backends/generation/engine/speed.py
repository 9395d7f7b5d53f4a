"""Compares the speed of two engines of a chat model, without Triton, for `trident export --tune`.

`speed.py MODELS` takes a JSON list of pairs of a version folder and the parameters in its config.pbtxt. It prints, as
JSON, the tokens per second of each model, in the same order, at each number of streams in STREAMS. The engines take
turns, so that other work on the machine slows down both.
"""

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from statistics import median
from typing import Any

import numpy as np

from backends.common.child_process import ChildProcess, module_command
from backends.generation.engine.client import ENGINES
from backends.generation.engine.ipc import Failed, Generate
from contract.parameters import GenerationParameters, read_parameters

STREAMS = (1, 8)
_ROUNDS, _ANSWER, _PROMPT = 5, 48, 64


class _Model:
    """The engine process of a model."""

    def __init__(self, folder: str, texts: Mapping[str, str]):
        parameters = read_parameters(GenerationParameters, texts)
        command, environment = module_command(ENGINES[parameters.engine])
        self._process = ChildProcess([*command, folder, json.dumps(asdict(parameters))], environment)
        self._process.connection.recv()
        self._count = 0

    def tokens_per_second(self, streams: int) -> float:
        """Return the speed of so many greedy answers to random prompts at a time."""
        connection, random = self._process.connection, np.random.default_rng(self._count)
        parameters: dict[str, Any] = {"temperature": 0, "max_tokens": _ANSWER, "ignore_eos": True}
        started, unfinished = time.perf_counter(), set[int]()
        for _ in range(streams):
            self._count += 1
            prompt = random.integers(300, 2_000, _PROMPT).astype(np.int64).tobytes()
            connection.send(Generate(self._count, "tune", prompt, parameters, 2 * _ANSWER))
            unfinished.add(self._count)
        while unfinished:
            message = connection.recv()
            if isinstance(message, Failed):
                raise RuntimeError(message.message)
            unfinished -= {new.request_id for new in message.new_tokens if new.finish_reason}
        return streams * _ANSWER / (time.perf_counter() - started)

    def close(self) -> None:
        self._process.close()


def main() -> None:
    """Compare the models on the command line."""
    models = [_Model(folder, texts) for folder, texts in json.loads(sys.argv[1])]
    speeds: list[list[list[float]]] = [[[] for _ in STREAMS] for _ in models]
    for turn in range(_ROUNDS + 1):
        for index, streams in enumerate(STREAMS):
            for model, found in zip(models, speeds, strict=True):
                speed = model.tokens_per_second(streams)
                if turn:  # the first turn warms up
                    found[index].append(speed)
    for model in models:
        model.close()
    print(json.dumps([[median(each) for each in found] for found in speeds]))


if __name__ == "__main__":
    main()

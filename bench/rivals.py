"""What the chat benchmark compares Trident with, each in its own process: the engine without Trident, and llama.cpp."""

import itertools
import json
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.contest import Rival, Work
from contract.parameters import GenerationParameters, read_parameters
from contract.paths import latest_version
from tests.support.load import Load
from tests.support.stack import read_config


def bare_pipeline(model_folder: Path) -> Work:
    """Return a function that generates text with the engine that Trident uses, without the server.

    The function's input is (texts, max_tokens), and its result is a Load.
    """
    from backends.generation.engine.pipeline import load_pipeline, warm_up
    from backends.generation.prompt.chat_prompt import ChatPrompt

    texts = {key: value.string_value for key, value in read_config(model_folder).parameters.items()}
    parameters = read_parameters(GenerationParameters, texts)
    folder = latest_version(model_folder)
    end_tokens = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))["eos_token_id"]
    pipeline = load_pipeline(folder, parameters)
    warm_up(pipeline, end_tokens, has_vision=False, num_draft_tokens=0)
    prompt = ChatPrompt(folder, parameters.context_length)
    request_ids = itertools.count()

    def generate(request: tuple[list[str], int]) -> Load:
        return _generate(pipeline, prompt, end_tokens, *request, request_ids)

    return generate


def _generate(
    pipeline: Any, prompt: Any, end_tokens: list[int], texts: list[str], max_tokens: int, request_ids: Iterator[int]
) -> Load:
    import numpy as np
    import openvino

    from backends.generation.engine.pipeline import build_config

    config = build_config({"max_tokens": max_tokens, "temperature": 0, "ignore_eos": True}, max_tokens, end_tokens)
    started, tokens = time.perf_counter(), 0
    first: dict[int, float] = {}
    handles = []
    for text in texts:
        ids = np.array([prompt.encode([{"role": "user", "content": text}])], dtype=np.int64)
        handles.append(pipeline.add_request(next(request_ids), openvino.Tensor(ids), config))
    while pipeline.has_non_finished_requests():
        pipeline.step()
        for i, handle in enumerate(handles):
            while handle.can_read():
                tokens += sum(len(output.generated_ids) for output in handle.read().values())
                first.setdefault(i, time.perf_counter() - started)
    elapsed = time.perf_counter() - started
    return Load(tokens / elapsed, statistics.median(first.values()) * 1000, tokens)


@contextmanager
def llama_server(gguf: Path, parallel: int, port: int) -> Iterator[int]:
    """Run llama.cpp's HTTP server with `parallel` slots, and yield its port."""
    with Rival(_llama, gguf, parallel, port) as server:
        yield int(server.call())


def _llama(gguf: Path, parallel: int, port: int) -> Work:
    import xllamacpp

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the server logs every request
    params = xllamacpp.CommonParams()
    params.model.path = str(gguf)
    params.n_parallel, params.n_ctx = parallel, 512 * parallel
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
    params.hostnames, params.port = ["127.0.0.1"], port
    server = xllamacpp.Server(params)
    return lambda _: server.listening_address.rsplit(":", 1)[1]

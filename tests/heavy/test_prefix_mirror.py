"""The books of the prefix cache against the real OpenVINO engine, which computes one token per step here."""

import numpy as np
import openvino
import openvino_genai as genai
import pytest

from backends.generation.engine.prefix_mirror import PrefixMirror
from contract.paths import default_model_repository, latest_version
from tests.support.live import MODEL


def open_pipeline(num_blocks):
    folder = str(latest_version(default_model_repository() / MODEL))
    scheduler = genai.SchedulerConfig()
    scheduler.num_kv_blocks, scheduler.max_num_batched_tokens = num_blocks, 1
    scheduler.dynamic_split_fuse = scheduler.enable_prefix_caching = True
    properties = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f16", "ENABLE_CPU_PINNING": False}
    return genai.ContinuousBatchingPipeline(folder, genai.Tokenizer(folder), scheduler, "CPU", **properties)


class Requests:
    """Random requests, most of which begin like earlier ones."""

    def __init__(self, num_blocks, seed):
        self.pipeline, self.mirror = open_pipeline(num_blocks), PrefixMirror(num_blocks)
        self.random, self.history, self.count = np.random.default_rng(seed), [], 0

    def _tokens(self, count):
        return [int(token) for token in self.random.integers(1_000, 20_000, count)]

    def prompt(self):
        kind = self.random.random()
        if not self.history or kind > 0.75:
            return self._tokens(self.random.integers(5, 120))
        earlier = self.history[self.random.integers(len(self.history))]
        if kind < 0.2:
            return earlier[:140]
        return (earlier[: self.random.integers(1, len(earlier) + 1)] + self._tokens(self.random.integers(40)))[:140]

    def add(self, prompt, limit):
        self.count += 1
        config = genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = limit, True, False
        ids = np.array(prompt, np.int64)
        cached = self.mirror.start(self.count, ids)
        return self.count, cached, self.pipeline.add_request(self.count, openvino.Tensor(ids[None]), config)

    def step(self, request_id, handle):
        """Return the new tokens of a request after a step."""
        tokens = []
        while handle.can_read():
            for output in handle.read().values():
                tokens += output.generated_ids
                self.mirror.add_tokens(request_id, list(output.generated_ids))
        return tokens

    def end(self, request_id, tokens):
        self.mirror.end(request_id)
        self.history.append(tokens)


@pytest.mark.parametrize(("num_blocks", "seed", "least"), [(400, 1, 60), (24, 5, 30)])
def test_cached_tokens_are_those_that_are_not_computed(num_blocks, seed, least):
    requests, certain = Requests(num_blocks, seed), 0
    for _ in range(60):
        prompt, count = requests.prompt(), int(requests.random.integers(1, 5))
        is_cancelled = requests.random.random() < 0.3
        request_id, cached, handle = requests.add(prompt, 50 if is_cancelled else count)
        answer, steps, before_answer = [], 0, 0
        while requests.pipeline.has_non_finished_requests():
            requests.pipeline.step()
            steps += 1
            answer += requests.step(request_id, handle)
            before_answer = before_answer or (steps if answer else 0)
            if is_cancelled and len(answer) >= count:
                handle.cancel()
                is_cancelled = False
        requests.end(request_id, prompt + answer)
        if cached is not None:
            certain += 1
            assert cached == len(prompt) - before_answer
    assert certain >= least


def test_requests_that_run_together():
    requests, certain = Requests(400, 1), 0
    for _ in range(25):
        waiting = [requests.prompt() for _ in range(requests.random.integers(2, 7))]
        if requests.random.random() < 0.4:
            waiting[1] = list(waiting[0])
        arrivals = sorted(int(step) for step in requests.random.integers(0, 60, len(waiting)))
        running, steps, expected, is_certain = {}, 0, 0, True
        while waiting or running:
            while waiting and (arrivals[0] <= steps or not running):
                prompt, limit = waiting.pop(0), int(requests.random.integers(1, 6))
                arrivals.pop(0)
                request_id, cached, handle = requests.add(prompt, limit)
                is_certain &= cached is not None
                expected += len(prompt) - (cached or 0) + limit - 1
                running[request_id] = handle, prompt, [], limit
            requests.pipeline.step()
            steps += 1
            for request_id, (handle, prompt, answer, limit) in list(running.items()):
                answer += requests.step(request_id, handle)
                if len(answer) >= limit:
                    del running[request_id]
                    requests.end(request_id, prompt + answer)
        if is_certain:
            certain += 1
            assert expected == steps
    assert certain >= 10

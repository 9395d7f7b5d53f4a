"""Tests of the engine's loop, with a fake pipeline: admission of requests, compilation of grammars, cancellation."""

import contextlib
import threading
import time
from multiprocessing import Pipe
from types import SimpleNamespace

import openvino_genai as genai
import pytest

from backends.generation.engine.ipc import Cancel, Failed, Generate, StepResult
from backends.generation.engine.process import Engine

IDS = bytes(8)


class FakePipeline:
    """Generates one token per step for each request, and records the order in which requests were added."""

    def __init__(self):
        self.order, self.live, self.cancelled_in_prompt = [], {}, []
        self.prompt_steps = 0
        """How many steps a prompt takes before the first token."""

    def add_request(self, request_id, ids, config):
        self.order.append(request_id)
        handle = FakeHandle(config.max_new_tokens, lambda: self._end(request_id), self.prompt_steps)
        self.live[request_id] = handle
        return handle

    def _end(self, request_id):
        handle = self.live.pop(request_id, None)
        if handle and handle.prompt_steps:
            self.cancelled_in_prompt.append(request_id)

    def step(self):
        time.sleep(0.001)
        for handle in list(self.live.values()):
            handle.make()

    def has_non_finished_requests(self):
        return bool(self.live)

    def get_metrics(self):
        return SimpleNamespace(scheduled_requests=len(self.live), cache_usage=0.0)


class FakeHandle:
    def __init__(self, tokens, end, prompt_steps):
        self.remaining, self.end, self.outputs, self.prompt_steps = tokens, end, [], prompt_steps

    def make(self):
        if self.prompt_steps:
            self.prompt_steps -= 1
            return
        self.remaining -= 1
        reason = genai.GenerationFinishReason.LENGTH if self.remaining == 0 else genai.GenerationFinishReason.NONE
        self.outputs.append(SimpleNamespace(generated_ids=[5], generated_log_probs=[0.0], finish_reason=reason))
        if self.remaining == 0:
            self.end()

    def can_read(self):
        return bool(self.outputs)

    def read(self):
        return {0: self.outputs.pop(0)}

    def get_status(self):
        return genai.GenerationStatus.RUNNING

    def cancel(self):
        self.end()


class FakeCompiler:
    """Takes `seconds` to compile each grammar, and rejects the grammar `bad`."""

    def __init__(self, seconds):
        self.seconds, self.compiled = seconds, []

    def start(self, grammar, on_done):
        def run():
            time.sleep(self.seconds)
            self.compiled.append(grammar)
            with contextlib.suppress(OSError):  # the test may have ended
                on_done(grammar, "no grammar" if grammar == "bad" else None)

        threading.Thread(target=run).start()


class Driver:
    """Runs an engine in a thread, and sends it requests.

    `first` and `ended` map the ID of each request to the times of its first token and of its end.
    """

    def __init__(self, slots=8, seconds=0.02):
        self.pipeline, self.compiler = FakePipeline(), FakeCompiler(seconds)
        self.socket, engine_socket = Pipe()
        self.engine = Engine(self.pipeline, [0], engine_socket, self.compiler, slots, 0, 128)
        self.thread = threading.Thread(target=self._run)
        self.submitted, self.first, self.ended, self.failed = set(), {}, {}, {}

    def _run(self):
        with contextlib.suppress(EOFError, OSError):
            self.engine.run()

    def add(self, request_id, client="a", grammar=None, tokens=3, ids=IDS):
        self.submitted.add(request_id)
        parameters = {"max_tokens": tokens, "temperature": 0} | ({"grammar": grammar} if grammar else {})
        self.socket.send(Generate(request_id, client, ids, parameters, 100))

    def until(self, condition, seconds=10):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, (self.first, self.ended, self.failed)
            self.read()

    def read(self):
        if self.socket.poll(0.01):
            self._record(self.socket.recv())

    def _record(self, message):
        if isinstance(message, Failed):
            self.failed[message.request_id] = message
        elif isinstance(message, StepResult):
            for new in message.new_tokens:
                self.first.setdefault(new.request_id, time.monotonic())
                if new.finish_reason:
                    self.ended[new.request_id] = time.monotonic()


@pytest.fixture
def drive():
    drivers = []

    def start(**options):
        driver = Driver(**options)
        driver.thread.start()
        drivers.append(driver)
        return driver

    yield start
    for driver in drivers:
        driver.socket.close()
        driver.thread.join(5)
        assert not driver.thread.is_alive()


def test_all_requests_of_all_clients_finish(drive):
    driver = drive()
    for request_id in range(1, 101):
        driver.add(
            request_id, client="abc"[request_id % 3], grammar=f"g{request_id % 5}" if request_id % 4 == 0 else None
        )
    driver.until(lambda: len(driver.ended) == 100)


def test_requests_that_wait_for_grammars_do_not_delay_other_requests(drive):
    driver = drive(slots=4)
    for request_id in range(1, 31):
        driver.add(request_id, grammar=f"g{request_id}")
    driver.add(31)
    driver.until(lambda: 31 in driver.ended)
    assert len(driver.compiler.compiled) < 5


def test_clients_take_turns_at_compiling_grammars(drive):
    driver = drive()
    for request_id in range(1, 21):
        driver.add(request_id, client="a", grammar=f"g{request_id}")
    driver.add(21, client="b", grammar="of b")
    driver.until(lambda: 21 in driver.ended)
    assert len(driver.compiler.compiled) < 5


def test_requests_with_compiled_grammars_run_between_compilations(drive):
    driver = drive(seconds=0.1)
    for request_id in range(1, 11):
        driver.add(request_id, grammar=f"g{request_id}", tokens=1)
    driver.until(lambda: len(driver.ended) >= 3)
    assert len(driver.compiler.compiled) <= 5


def test_a_new_grammar_is_compiled_while_requests_with_a_known_grammar_keep_arriving(drive):
    driver = drive(slots=4)
    driver.add(1, grammar="known")
    driver.until(lambda: 1 in driver.ended)
    driver.add(2, client="b", grammar="new", tokens=1)
    request_id = 100
    deadline = time.monotonic() + 10
    while 2 not in driver.ended:
        assert time.monotonic() < deadline
        driver.add(request_id := request_id + 1, grammar="known", tokens=1)
        driver.until(lambda: request_id in driver.first or 2 in driver.ended)


def test_a_request_with_a_known_grammar_does_not_wait_for_a_new_grammar(drive):
    driver = drive(seconds=0.5)
    driver.add(1, grammar="known")
    driver.until(lambda: 1 in driver.ended)
    driver.add(2, grammar="known")
    driver.add(3, grammar="new")
    driver.until(lambda: 2 in driver.first)
    assert driver.compiler.compiled == ["known"]


def test_requests_with_grammars_finish_while_another_client_fills_the_slots(drive):
    """The other client's requests have no grammar. More of them are always unfinished than there are slots."""
    driver = drive(slots=4, seconds=0.1)
    plain = iter(range(1000, 100_000))

    def keep_busy():
        while sum(request_id >= 1000 for request_id in driver.submitted - driver.ended.keys()) < 12:
            driver.add(next(plain), client="b", tokens=20)

    for request_id in range(1, 9):
        driver.add(request_id, grammar=f"g{request_id}", tokens=1)
    deadline = time.monotonic() + 10
    while not {1, 2, 3, 4, 5, 6, 7, 8} <= driver.ended.keys():
        assert time.monotonic() < deadline, driver.ended
        keep_busy()
        driver.read()


def test_an_invalid_grammar_fails_only_its_own_request(drive):
    driver = drive()
    driver.add(1, grammar="bad")
    driver.add(2, grammar="good")
    driver.until(lambda: 1 in driver.failed and 2 in driver.ended)
    assert (driver.failed[1].is_client_error, driver.failed[1].message) == (True, "no grammar")


def test_a_cancelled_request_frees_its_slot_at_any_stage(drive):
    driver = drive(slots=2, seconds=0.05)
    for request_id in range(1, 21):
        driver.add(request_id, grammar=f"g{request_id}" if request_id % 2 else None, tokens=10_000)
    driver.until(lambda: driver.first)
    for request_id in range(1, 21):
        driver.socket.send(Cancel(request_id))
    driver.add(21)
    driver.add(22)
    driver.until(lambda: {21, 22} <= driver.ended.keys())
    assert not driver.pipeline.live


def test_a_prompt_is_computed_completely_even_if_its_request_is_cancelled(drive):
    driver = drive()
    driver.pipeline.prompt_steps = 50
    driver.add(1, tokens=1_000)
    driver.until(lambda: driver.pipeline.order == [1])
    driver.socket.send(Cancel(1))
    driver.add(2)
    driver.until(lambda: 2 in driver.ended)
    assert driver.pipeline.cancelled_in_prompt == []
    assert not driver.pipeline.live
    assert 1 not in driver.first


def test_prompts_wait_outside_of_the_pipeline_where_they_can_be_cancelled(drive):
    driver = drive()
    driver.pipeline.prompt_steps = 50
    for request_id in range(1, 7):
        driver.add(request_id, ids=bytes(8 * 200))
    driver.until(lambda: driver.pipeline.order == [1, 2])
    for request_id in (3, 4, 5):
        driver.socket.send(Cancel(request_id))
    driver.until(lambda: {1, 2, 6} <= driver.ended.keys())
    assert driver.pipeline.order == [1, 2, 6]

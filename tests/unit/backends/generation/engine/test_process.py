"""The engine's loop over a fake pipeline: who is taken in when, grammars in between, and nothing lost."""

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
    """Makes a token a step for each request it has; writes down the order in which it got them."""

    def __init__(self):
        self.order, self.live = [], {}

    def add_request(self, number, ids, config):
        self.order.append(number)
        handle = FakeHandle(config.max_new_tokens, lambda: self.live.pop(number, None))
        self.live[number] = handle
        return handle

    def step(self):
        time.sleep(0.001)
        for handle in list(self.live.values()):
            handle.make()

    def has_non_finished_requests(self):
        return bool(self.live)

    def get_metrics(self):
        return SimpleNamespace(scheduled_requests=len(self.live), cache_usage=0.0)


class FakeHandle:
    def __init__(self, tokens, end):
        self.left, self.end, self.made = tokens, end, []

    def make(self):
        self.left -= 1
        reason = genai.GenerationFinishReason.LENGTH if self.left == 0 else genai.GenerationFinishReason.NONE
        self.made.append(SimpleNamespace(generated_ids=[5], generated_log_probs=[0.0], finish_reason=reason))
        if self.left == 0:
            self.end()

    def can_read(self):
        return bool(self.made)

    def read(self):
        return {0: self.made.pop(0)}

    def get_status(self):
        return genai.GenerationStatus.RUNNING

    def cancel(self):
        self.end()


class FakeCompiler:
    """Takes its time for each grammar, one at a time; refuses those called bad."""

    def __init__(self, seconds):
        self.seconds, self.compiled = seconds, []

    def start(self, grammar, on_done):
        def run():
            time.sleep(self.seconds)
            self.compiled.append(grammar)
            with contextlib.suppress(OSError):  # the test may be over
                on_done(grammar, "no grammar" if grammar == "bad" else None)

        threading.Thread(target=run).start()


class Driver:
    """An engine that runs in a thread; `first` and `ended` are what it has told, with the time."""

    def __init__(self, slots=8, seconds=0.02):
        self.pipeline, self.compiler = FakePipeline(), FakeCompiler(seconds)
        self.socket, theirs = Pipe()
        self.engine = Engine(self.pipeline, [0], theirs, self.compiler, slots, 0)
        self.thread = threading.Thread(target=self._run)
        self.asked, self.first, self.ended, self.failed = set(), {}, {}, {}

    def _run(self):
        with contextlib.suppress(EOFError, OSError):
            self.engine.run()

    def add(self, number, client="a", grammar=None, tokens=3):
        self.asked.add(number)
        parameters = {"max_tokens": tokens, "temperature": 0} | ({"grammar": grammar} if grammar else {})
        self.socket.send(Generate(number, client, IDS, parameters, 100))

    def until(self, condition, seconds=10):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, (self.first, self.ended, self.failed)
            self.read()

    def read(self):
        if self.socket.poll(0.01):
            self._note(self.socket.recv())

    def _note(self, message):
        if isinstance(message, Failed):
            self.failed[message.number] = message
        elif isinstance(message, StepResult):
            for made in message.made:
                self.first.setdefault(made.number, time.monotonic())
                if made.finish_reason:
                    self.ended[made.number] = time.monotonic()


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


def test_all_are_answered_whoever_asks(drive):
    driver = drive()
    for number in range(1, 101):
        driver.add(number, client="abc"[number % 3], grammar=f"g{number % 5}" if number % 4 == 0 else None)
    driver.until(lambda: len(driver.ended) == 100)


def test_grammars_that_wait_hold_up_nobody_else(drive):
    driver = drive(slots=4)
    for number in range(1, 31):
        driver.add(number, grammar=f"g{number}")
    driver.add(31)
    driver.until(lambda: 31 in driver.ended)
    assert len(driver.compiler.compiled) < 5


def test_grammars_of_clients_take_turns(drive):
    driver = drive()
    for number in range(1, 21):
        driver.add(number, client="a", grammar=f"g{number}")
    driver.add(21, client="b", grammar="of b")
    driver.until(lambda: 21 in driver.ended)
    assert len(driver.compiler.compiled) < 5


def test_what_is_compiled_runs_before_the_next_is_compiled(drive):
    driver = drive(seconds=0.1)
    for number in range(1, 11):
        driver.add(number, grammar=f"g{number}", tokens=1)
    driver.until(lambda: len(driver.ended) >= 3)
    assert len(driver.compiler.compiled) <= 5


def test_new_grammars_are_compiled_among_many_that_are(drive):
    driver = drive(slots=4)
    driver.add(1, grammar="known")
    driver.until(lambda: 1 in driver.ended)
    driver.add(2, client="b", grammar="new", tokens=1)
    number = 100
    deadline = time.monotonic() + 10
    while 2 not in driver.ended:
        assert time.monotonic() < deadline
        driver.add(number := number + 1, grammar="known", tokens=1)
        driver.until(lambda: number in driver.first or 2 in driver.ended)


def test_a_known_grammar_does_not_wait_for_a_new_one(drive):
    driver = drive(seconds=0.5)
    driver.add(1, grammar="known")
    driver.until(lambda: 1 in driver.ended)
    driver.add(2, grammar="known")
    driver.add(3, grammar="new")
    driver.until(lambda: 2 in driver.first)
    assert driver.compiler.compiled == ["known"]


def test_compiled_grammars_have_their_share_of_the_places(drive):
    """Others ask for more than there are, without a grammar, all the time."""
    driver = drive(slots=4, seconds=0.1)
    plain = iter(range(1000, 100_000))

    def keep_busy():
        while sum(number >= 1000 for number in driver.asked - driver.ended.keys()) < 12:
            driver.add(next(plain), client="b", tokens=20)

    for number in range(1, 9):
        driver.add(number, grammar=f"g{number}", tokens=1)
    deadline = time.monotonic() + 10
    while not {1, 2, 3, 4, 5, 6, 7, 8} <= driver.ended.keys():
        assert time.monotonic() < deadline, driver.ended
        keep_busy()
        driver.read()


def test_a_grammar_that_is_none_fails_those_who_asked_for_it_alone(drive):
    driver = drive()
    driver.add(1, grammar="bad")
    driver.add(2, grammar="good")
    driver.until(lambda: 1 in driver.failed and 2 in driver.ended)
    assert (driver.failed[1].is_client_error, driver.failed[1].message) == (True, "no grammar")


def test_who_leaves_gives_back_the_place_wherever_it_was(drive):
    driver = drive(slots=2, seconds=0.05)
    for number in range(1, 21):
        driver.add(number, grammar=f"g{number}" if number % 2 else None, tokens=10_000)
    driver.until(lambda: driver.first)
    for number in range(1, 21):
        driver.socket.send(Cancel(number))
    driver.add(21)
    driver.add(22)
    driver.until(lambda: {21, 22} <= driver.ended.keys())
    assert not driver.pipeline.live

"""Fixtures: the real application, with a fake Triton that replays queued responses and records requests."""

from collections import deque
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from frontend import metrics
from frontend.app import create_app
from frontend.errors import APIError, DeadlineExceeded
from frontend.settings import Settings
from frontend.triton.client import ModelState


def delta(text: str) -> dict[str, Any]:
    return {"text_output": text}


def last(text: str = "", finish_reason: str = "stop", prompt: int = 7, completion: int = 3) -> dict[str, Any]:
    counts = {"num_input_tokens": prompt, "num_output_tokens": completion}
    return {"text_output": text, "finish_reason": finish_reason} | counts


class FakeCall:
    """A call. Its `next` returns `responses` in order, raises those of them that are exceptions, and then returns None.

    A TimeoutError may be among `responses` only where the tested code passes a timeout to `next`.
    """

    def __init__(self, responses: list[Any]):
        self._responses = deque(responses)
        self.cancelled = False

    def next(self, timeout: float | None = None) -> dict[str, Any] | None:
        response = self._responses.popleft() if self._responses else None
        if isinstance(response, Exception):
            assert not isinstance(response, TimeoutError) or timeout is not None
            raise response
        return response

    def cancel(self) -> None:
        self.cancelled = True

    def fail(self, error: APIError) -> None:
        self._responses = deque([error])


class FakeInference:
    """An inference whose `result` returns `response`, or raises it if it is an exception."""

    def __init__(self, response: Any):
        self._response = response
        self.cancelled = False

    def result(self) -> dict[str, Any]:
        if isinstance(self._response, Exception):
            raise self._response
        return self._response

    def cancel(self) -> None:
        self.cancelled = True


def encode(text: bytes) -> list[float]:
    """Return the fake embedding of a text: four numbers, three of which depend on the text."""
    return [1.0, len(text), sum(text) % 97, text[0] if text else 0]


class FakeTriton:
    """A Triton with one loaded model per task, and the model `off`, which is not loaded.

    `stream` returns the next call in `queued_calls`; `infer` computes embeddings and scores from the texts.
    """

    def __init__(self) -> None:
        names = ("tiny-chat", "tiny-embedding", "tiny-rerank", "tiny-transcription", "tiny-speech")
        names += ("tiny-background_removal", "tiny-image_generation", "tiny-ocr")
        self.states = [*(ModelState(name, "READY") for name in names), ModelState("off", "")]
        self.inferences: list[FakeInference] = []
        self.infer_failures: dict[int, APIError] = {}
        self.queued_calls: deque[FakeCall] = deque()
        self.requests: list[dict[str, Any]] = []
        self.index_reads = 0
        self.down: APIError | None = None
        self.dead: set[str] = set()
        self.busy: set[str] = set()

    def queue_response(self, *responses: Any) -> FakeCall:
        call = FakeCall(list(responses))
        self.queued_calls.append(call)
        return call

    def stream(self, model: str, inputs: dict[str, Any], **options: Any) -> FakeCall:
        self.requests.append({"model": model, "inputs": inputs} | options)
        return self.queued_calls.popleft()

    def infer(self, model: str, inputs: dict[str, Any], **options: Any) -> FakeInference:
        """Return an inference. Its result is `encode` of each text or, for rerank, each document's negated length.

        If `infer_failures` has an error at the index of this call, the result raises that error instead.
        """
        index = len(self.inferences)
        self.requests.append({"model": model, "inputs": inputs} | options)
        texts = next(reversed(inputs.values()))
        if model == "tiny-embedding":
            output = {"embedding": np.array([encode(text) for text in texts], np.float32)}
        else:
            output = {"score": np.array([[-len(text)] for text in texts], np.float32)}
        counts = {"num_input_tokens": np.full((len(texts), 1), 2, np.int32)}
        self.inferences.append(FakeInference(self.infer_failures.get(index, output | counts)))
        return self.inferences[-1]

    def index(self) -> list[ModelState]:
        self.index_reads += 1
        if self.down:
            raise self.down
        return self.states

    def config(self, model: str) -> Any:
        task = model.rpartition("-")[2]
        values = {"task": task, "id": f"org/{model}", "owned_by": "org", "created": "1700000000", "dimensions": "4"}
        values |= {"queue_size": "2", "context_length": "1000"}
        values |= {"voices": '[{"id": "ann", "language": "en-US"}]', "voice_aliases": '{"alloy": "ann", "x": "gone"}'}
        return SimpleNamespace(
            parameters={key: SimpleNamespace(string_value=value) for key, value in values.items()},
            max_batch_size=64 if task in ("embedding", "rerank") else 0,
            input=[SimpleNamespace(name="messages"), SimpleNamespace(name="sampling_parameters")],
            SerializeToString=lambda deterministic: model.encode(),
        )

    def load(self, model: str, timeout: float) -> None:
        self.states = [ModelState(each.name, "READY" if each.name == model else each.state) for each in self.states]

    def unload(self, model: str, timeout: float) -> None:
        self.states = [ModelState(each.name, "" if each.name == model else each.state) for each in self.states]

    def close(self) -> None:
        """Do nothing."""

    def probe(self, model: str, inputs: tuple[str, ...], *, batched: bool, timeout: float) -> None:
        if model in self.dead:
            raise APIError("dead")
        if model in self.busy:
            raise DeadlineExceeded("busy")


@pytest.fixture
def triton() -> FakeTriton:
    return FakeTriton()


@pytest.fixture
def shutdowns() -> list[str]:
    return []


@pytest.fixture
def make_client(triton: FakeTriton, shutdowns: list[str], tmp_path: Any) -> Callable[..., FlaskClient]:
    def make(**settings: Any) -> FlaskClient:
        app = create_app(
            Settings(
                cache=tmp_path,
                data=tmp_path / "data",
                model_repository=tmp_path / "model_repository",
                **{"recovery_seconds": 0} | settings,
            ),
            lambda _: triton,
            lambda: shutdowns.append("now"),
        )
        return app.test_client()

    return make


@pytest.fixture
def client(make_client: Callable[..., FlaskClient]) -> FlaskClient:
    return make_client()


@pytest.fixture
def empty_metrics() -> Iterator[None]:
    metrics.reset()
    yield
    metrics.reset()


def metric_value(name: str, **labels: str) -> float | None:
    """Return the value of a metric with exactly these labels."""
    return metrics.REGISTRY.get_sample_value(name, labels)


def chat(**fields: Any) -> dict[str, Any]:
    """Return a valid body of a chat completion request, updated with `fields`."""
    return {"model": "tiny-chat", "messages": [{"role": "user", "content": "Hi"}]} | fields


@pytest.fixture
def configure(triton, monkeypatch):
    """Return a function that sets parameters in the configuration of every model."""

    def set_parameters(**parameters):
        config = triton.config

        def configured(model):
            found = config(model)
            found.parameters |= {key: SimpleNamespace(string_value=value) for key, value in parameters.items()}
            return found

        monkeypatch.setattr(triton, "config", configured)

    return set_parameters

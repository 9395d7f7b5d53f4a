"""A Triton that replays queued responses and records calls, behind the real application."""

from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from flask.testing import FlaskClient

from frontend.app import create_app
from frontend.errors import APIError
from frontend.settings import Settings
from frontend.triton.client import ModelState


def delta(text: str) -> dict[str, Any]:
    return {"text_output": text}


def last(text: str = "", finish_reason: str = "stop", prompt: int = 7, completion: int = 3) -> dict[str, Any]:
    counts = {"num_input_tokens": prompt, "num_output_tokens": completion}
    return {"text_output": text, "finish_reason": finish_reason} | counts


class FakeCall:
    """Replays responses; an exception among them is raised, TimeoutError only where the caller set a timeout."""

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


class FakeTriton:
    """One chat model and one of another task; `answers` are the calls to come."""

    def __init__(self) -> None:
        self.states = [ModelState("tiny-chat", "READY"), ModelState("tiny-other", "READY"), ModelState("off", "")]
        self.answers: deque[FakeCall] = deque()
        self.requests: list[dict[str, Any]] = []
        self.index_reads = 0
        self.down: APIError | None = None
        self.dead: set[str] = set()

    def will_answer(self, *responses: Any) -> FakeCall:
        call = FakeCall(list(responses))
        self.answers.append(call)
        return call

    def stream(self, model: str, inputs: dict[str, Any], *, request_id: str, timeout: float) -> FakeCall:
        self.requests.append({"model": model, "inputs": inputs, "request_id": request_id, "timeout": timeout})
        return self.answers.popleft()

    def index(self) -> list[ModelState]:
        self.index_reads += 1
        if self.down:
            raise self.down
        return self.states

    def config(self, model: str) -> Any:
        task = "chat" if "chat" in model else "embedding"
        values = {"task": task, "id": f"org/{model}", "owned_by": "org", "created": "1700000000"}
        return SimpleNamespace(
            parameters={key: SimpleNamespace(string_value=value) for key, value in values.items()},
            input=[SimpleNamespace(name="messages"), SimpleNamespace(name="sampling_parameters")],
            SerializeToString=lambda deterministic: model.encode(),
        )

    def probe(self, model: str, inputs: dict[str, Any], *, timeout: float) -> None:
        if model in self.dead:
            raise APIError("dead")


@pytest.fixture
def triton() -> FakeTriton:
    return FakeTriton()


@pytest.fixture
def shutdowns() -> list[str]:
    return []


@pytest.fixture
def make_client(triton: FakeTriton, shutdowns: list[str], tmp_path: Any) -> Callable[..., FlaskClient]:
    def make(**settings: Any) -> FlaskClient:
        app = create_app(Settings(cache=tmp_path, **settings), triton, lambda: shutdowns.append("now"))
        return app.test_client()

    return make


@pytest.fixture
def client(make_client: Callable[..., FlaskClient]) -> FlaskClient:
    return make_client()


def chat(**fields: Any) -> dict[str, Any]:
    """A valid request, with `fields` over it."""
    return {"model": "tiny-chat", "messages": [{"role": "user", "content": "Hi"}]} | fields

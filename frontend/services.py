"""What every view works with, made once by the application factory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from flask import current_app

from frontend.settings import Settings
from frontend.storage.images import ImageStore
from frontend.storage.responses import ResponseStore
from frontend.triton.admission import Admission
from frontend.triton.client import Call
from frontend.triton.http_client import Inference
from frontend.triton.registry import Registry
from frontend.triton.tensors import Value


class Triton(Protocol):
    """What the views need of Triton's client."""

    def stream(
        self, model: str, inputs: Mapping[str, Value], *, request_id: str, timeout: float, client: str | None = None
    ) -> Call: ...
    def infer(
        self,
        model: str,
        inputs: Mapping[str, Sequence[bytes]],
        *,
        request_id: str,
        timeout: float,
        parameters: Mapping[str, bool | str],
    ) -> Inference: ...


@dataclass(frozen=True)
class Services:
    """The application's parts."""

    settings: Settings
    triton: Triton
    registry: Registry
    admission: Admission
    images: ImageStore
    responses: ResponseStore
    shut_down: Callable[[], None]
    """Begins the shutdown of the whole of Trident and returns at once."""


def services() -> Services:
    """Return the current application's services."""
    found: Services = current_app.extensions["trident"]
    return found

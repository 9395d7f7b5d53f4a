"""One call to a transcription model: the encoded file in, segments out."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import orjson

from frontend.access_log import log_fields, request_id
from frontend.inference.response_stream import LONGEST_SECONDS, ResponseStream
from frontend.services import services
from frontend.triton.client import Call
from frontend.triton.registry import Model


def send_audio(model: Model, read: Callable[[], bytes], options: Mapping[str, Any]) -> Call:
    """Send what `read` returns, an encoded file, to the model. It is not held in memory any longer than that takes."""
    log_fields()["model"] = model.id
    inputs = {"audio": read(), "options": orjson.dumps(options)}
    return services().triton.stream(model.name, inputs, request_id=request_id(), timeout=LONGEST_SECONDS)


class Transcription:
    """The segments of one file; `param` is the request's field that has it.

    Waits for the first segment. Raises APIError.
    """

    def __init__(self, call: Call, param: str = "file"):
        self._log_fields = log_fields()
        self._answer = ResponseStream(call, "duration", services().settings.request_timeout, {"file": param})
        self.language, self.duration = "", 0.0

    def segments(self, heartbeat: bool = False) -> Iterator[list[dict[str, Any]] | None]:
        """Yield the segments of each response, and then know language and duration; None for each second without one
        if asked."""
        for response in self._answer.responses(heartbeat):
            if response is None:
                yield None
                continue
            if "duration" in response:
                self.language, self.duration = response["language"], round(response["duration"], 3)
                self._log_fields["audio_seconds"] = self.duration
            yield orjson.loads(response["segments"])

    def text(self) -> str:
        """Return the text of all segments."""
        return join_text(segment for part in self.segments() if part for segment in part)

    def close(self) -> None:
        """Cancel the call, if it is still running."""
        self._answer.close()


def join_text(segments: Iterable[Mapping[str, Any]]) -> str:
    """Return the text of segments."""
    return "".join(segment["text"] for segment in segments).strip()

"""A call to a transcription model, which converts an encoded audio file to segments of text."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import orjson

from contract.options import TranscriptionOptions
from contract.tensors import TRANSCRIPTION
from frontend.access_log import log_fields
from frontend.inference.response_stream import ResponseStream, start_call
from frontend.services import services
from frontend.triton.model import Model


class Transcription:
    """The segments of one audio file. The constructor waits for the first response. Raises APIError.

    `read` returns the encoded file, which is held in memory until the model begins or, if `whole`, until it ends: then
    the HTTP response begins after the last segment, and the call is repeated if it is lost. Errors name the request
    field `param`, which contains the file.
    """

    def __init__(
        self,
        model: Model,
        read: Callable[[], bytes],
        options: TranscriptionOptions,
        whole: bool,
        param: str = "file",
    ):
        self._log_fields = log_fields()
        call = start_call(model, {"audio": read(), "options": options.to_json()}, whole=whole)
        response_timeout = services().settings.request_timeout
        self._responses = ResponseStream(call, TRANSCRIPTION.last_output, response_timeout, {"file": param}, whole)
        self.language, self.duration = "", 0.0
        """The language, and the duration in seconds. They are '' and 0 until the last response has been read."""

    def segments(self, heartbeat: bool = False) -> Iterator[list[dict[str, Any]] | None]:
        """Yield the segments of each response. With `heartbeat`, yield None for each second without a response."""
        for response in self._responses.responses(heartbeat):
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
        """Cancel the call if it is still running."""
        self._responses.close()


def join_text(segments: Iterable[Mapping[str, Any]]) -> str:
    """Return the joined text of segments, without leading and trailing white space."""
    return "".join(segment["text"] for segment in segments).strip()

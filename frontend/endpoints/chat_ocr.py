"""Images in a conversation with a model that reads text: AHA's OCR."""

from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from frontend.access_log import log_fields, request_id
from frontend.endpoints.answer import Answer
from frontend.endpoints.messages import Media, Message, find_media
from frontend.media import read_media
from frontend.services import services
from frontend.triton.registry import Model


class Read:
    """The text in all images of a conversation as the responses of a chat model, and as `boxes` where it stands.

    What else the messages say is not looked at: such a model takes no instructions. Raises APIError.
    """

    def __init__(self, model: Model, messages: Iterable[Message]):
        self._model = model
        first, *self._more = find_media(messages, "image")
        self._current = _read(model, first)

    def responses(self, heartbeat: bool = False) -> Iterator[dict[str, Any] | None]:
        """Yield the text as it is read; the last response has the number of its characters as tokens."""
        tokens, between, image = 0, "", 0
        try:
            while True:
                for response in self._current.responses(heartbeat):
                    if response is None:
                        yield None
                        continue
                    tokens += response.get("num_output_tokens", 0)
                    boxes = [{"image": image} | box for box in orjson.loads(response["boxes"])]
                    text = response["text_output"]
                    yield {"text_output": between + text if text else "", "boxes": boxes}
                    between = between if not text else ""
                if not self._more:
                    break
                self._current, between = _read(self._model, self._more.pop(0)), "\n\n"
                image += 1
            yield {"text_output": "", "finish_reason": "stop", "num_input_tokens": 0, "num_output_tokens": tokens}
        finally:
            self.close()

    def close(self) -> None:
        """Stop reading."""
        self._current.close()


def _read(model: Model, image: Media) -> Answer:
    log_fields()["model"] = model.id
    timeout = services().settings.request_timeout
    inputs = {"image": read_media(image.url, image.param, services().settings)}
    call = services().triton.stream(model.name, inputs, request_id=request_id(), timeout=timeout)
    return Answer(call, "num_output_tokens", names={"image": image.param})

"""Images in a conversation with a model that reads text: AHA's OCR."""

from collections.abc import Iterator

import orjson

from frontend.access_log import log_fields, request_id
from frontend.generation.messages import Media
from frontend.generation.sequential import MediaText, SequentialMedia
from frontend.inference.response_stream import ResponseStream
from frontend.media.sources import read_media
from frontend.services import services
from frontend.triton.client import Call
from frontend.triton.registry import Model


class ImageText(SequentialMedia[ResponseStream]):
    """The text in all images of a conversation, and as `boxes` where it stands. Its characters count as tokens."""

    kind, between = "image", "\n\n"

    def open(self, media: Media) -> ResponseStream:
        log_fields()["model"] = self._model.id
        return ResponseStream(_send(self._model, media), "num_output_tokens", names={"image": media.param})

    def texts(self, work: ResponseStream, number: int, heartbeat: bool) -> Iterator[MediaText | None]:
        for response in work.responses(heartbeat):
            if response is None:
                yield None
                continue
            boxes = [{"image": number} | box for box in orjson.loads(response["boxes"])]
            yield MediaText(response["text_output"], response.get("num_output_tokens", 0), {"boxes": boxes})


def _send(model: Model, image: Media) -> Call:
    """Send the file, which is not held in memory any longer than that takes."""
    settings = services().settings
    inputs = {"image": read_media(image.url, image.param, settings)}
    return services().triton.stream(model.name, inputs, request_id=request_id(), timeout=settings.request_timeout)

"""OpenAI's `response` object and the events of its stream."""

from collections.abc import Mapping
from typing import Any

from frontend.formats import sse

_MESSAGE = {"output_index": 0, "content_index": 0}


def output_text(text: str) -> dict[str, Any]:
    """Return the part of a message that has its text."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def output_message(identifier: str, status: str, *parts: dict[str, Any]) -> dict[str, Any]:
    """Return the assistant's message as an item of the output; `status` is in_progress, completed or incomplete."""
    return {"id": identifier, "type": "message", "status": status, "role": "assistant", "content": list(parts)}


def usage(last: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was used, from the model's last response."""
    tokens_in, tokens_out = last["num_input_tokens"], last["num_output_tokens"]
    return {
        "input_tokens": tokens_in,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": tokens_out,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": tokens_in + tokens_out,
    }


class ResponseEvents:
    """The events of one response, numbered in the order in which they are made."""

    def __init__(self, message_id: str):
        self._message_id = message_id
        self._number = 0

    def state(self, kind: str, response: Mapping[str, Any]) -> bytes:
        """Return an event with the whole response in it: created, in_progress, completed, incomplete or failed."""
        return self._event(f"response.{kind}", {"response": response})

    def message_begins(self) -> bytes:
        """Return the events before the first text."""
        item = output_message(self._message_id, "in_progress")
        added = self._event("response.output_item.added", {"output_index": 0, "item": item})
        return added + self._part("response.content_part.added", {"part": output_text("")})

    def delta(self, text: str) -> bytes:
        """Return an event with new text."""
        return self._part("response.output_text.delta", {"delta": text, "logprobs": []})

    def message_ends(self, item: Mapping[str, Any]) -> bytes:
        """Return the events after the last text; `item` is the whole message."""
        (part,) = item["content"]
        return b"".join(
            [
                self._part("response.output_text.done", {"text": part["text"], "logprobs": []}),
                self._part("response.content_part.done", {"part": part}),
                self._event("response.output_item.done", {"output_index": 0, "item": item}),
            ]
        )

    def _part(self, kind: str, fields: Mapping[str, Any]) -> bytes:
        return self._event(kind, {"item_id": self._message_id, **_MESSAGE, **fields})

    def _event(self, kind: str, fields: Mapping[str, Any]) -> bytes:
        event = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return sse.encode_event(event, kind)

"""The output of a response: reasoning, messages and function calls as items, and the events that stream them."""

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from frontend.endpoints.responses.events import ResponseEvents
from frontend.parsing.events import Event, ReasoningDelta, TextDelta, ToolCallAborted, ToolCallArguments, ToolCallStart

Item = dict[str, Any]

# _PARTS maps each type of content part to the part's fields in addition to `type` and `text`. _DELTAS maps
# each type to the fields, in addition to the text, of the delta and done events that stream the part's text.
_PARTS: dict[str, dict[str, Any]] = {"output_text": {"annotations": [], "logprobs": []}, "reasoning_text": {}}
_DELTAS: dict[str, dict[str, Any]] = {"output_text": {"logprobs": []}, "reasoning_text": {}}


class ResponseOutput:
    """The output `items`, built from parser events.

    The last item grows until the next item starts or the output ends.
    """

    def __init__(self, events: ResponseEvents):
        self.items: list[Item] = []
        self._events = events
        self._index = -1
        self._text: list[str] = []
        self._open: Item | None = None
        self._calls: dict[int, Item] = {}

    def push(self, parsed: Iterable[Event]) -> bytes:
        """Add parser events to the output, and return the stream events for them."""
        return b"".join(self._fold(event) for event in parsed)

    def end(self, status: str) -> bytes:
        """End the output, and return the stream events. The last item gets `status`, which is completed or incomplete.

        If the last item is a tool call, its status is always completed. An empty message is added to an output without
        items, and to the output of a completed response that contains only reasoning.
        """
        events = b""
        if all(item["type"] == "reasoning" for item in self.items) and (status == "completed" or not self.items):
            events = self._add_text("message", "")
        is_call = self._open is not None and self._open["type"] == "function_call"
        # The parser has aborted truncated calls, so an open call is complete.
        return events + self._close("completed" if is_call else status)

    def _fold(self, event: Event) -> bytes:
        match event:
            case TextDelta(text):
                return self._add_text("message", text)
            case ReasoningDelta(text):
                return self._add_text("reasoning", text)
            case ToolCallStart(call_index, id, name):
                item = {"id": _id("fc"), "type": "function_call", "call_id": id, "name": name}
                events = self._begin(item | {"arguments": "", "status": "in_progress"})
                self._calls[call_index] = self.items[-1]
                return events
            case ToolCallArguments(call_index, text):
                self._text.append(text)
                return self._about_open("function_call_arguments.delta", {"delta": text})
            case ToolCallAborted(call_index, text):
                # Sent events cannot be withdrawn, but the final output omits the call, so clients do not run it.
                events = self._close("incomplete")
                self.items.remove(self._calls.pop(call_index))
                return events + self._add_text("message", text)

    def _add_text(self, kind: str, text: str) -> bytes:
        events = b""
        if self._open is None or self._open["type"] != kind:
            events = self._begin(_message() if kind == "message" else _reasoning())
            events += self._about_part("content_part.added", {"part": _part(self.items[-1], "")})
        self._text.append(text)
        kind = _part_type(self.items[-1])
        return events + (self._about_part(f"{kind}.delta", {"delta": text} | _DELTAS[kind]) if text else b"")

    def _begin(self, item: Item) -> bytes:
        events = self._close("completed")
        self.items.append(item)
        self._open, self._text = item, []
        self._index += 1
        return events + self._events.item("added", self._index, item)

    def _close(self, status: str) -> bytes:
        if self._open is None:
            return b""
        item, text = self._open, "".join(self._text)
        item["status"] = status
        if item["type"] == "function_call":
            item["arguments"] = text
            events = self._about_open("function_call_arguments.done", {"arguments": text, "name": item["name"]})
        else:
            part, kind = _part(item, text), _part_type(item)
            item["content"] = [part]
            events = self._about_part(f"{kind}.done", {"text": text} | _DELTAS[kind])
            events += self._about_part("content_part.done", {"part": part})
        self._open = None
        return events + self._events.item("done", self._index, item)

    def _about_part(self, kind: str, fields: Mapping[str, Any]) -> bytes:
        return self._about_open(kind, {"content_index": 0, **fields})

    def _about_open(self, kind: str, fields: Mapping[str, Any]) -> bytes:
        assert self._open is not None  # noqa: S101
        return self._events.item_event(kind, self._index, self._open, fields)


def _message() -> Item:
    return {"id": _id("msg"), "type": "message", "status": "in_progress", "role": "assistant", "content": []}


def _reasoning() -> Item:
    return {"id": _id("rs"), "type": "reasoning", "status": "in_progress", "summary": [], "content": []}


def _part_type(item: Item) -> str:
    return "output_text" if item["type"] == "message" else "reasoning_text"


def _part(item: Item, text: str) -> dict[str, Any]:
    kind = _part_type(item)
    return {"type": kind, "text": text} | _PARTS[kind]


def _id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"

"""The output of a response: reasoning, messages and function calls as items, and the events that stream them."""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from frontend.endpoints.responses.events import ResponseEvents
from frontend.parsing.events import Event, ReasoningDelta, TextDelta, ToolCallAborted, ToolCallArguments, ToolCallStart
from frontend.storage.responses import item_id

Item = dict[str, Any]

# _PARTS maps each type of content part to the part's fields in addition to `type` and `text`. _DELTAS maps
# each type to the fields, in addition to the text, of the delta and done events that stream the part's text.
_PARTS: dict[str, dict[str, Any]] = {"output_text": {"annotations": [], "logprobs": []}, "reasoning_text": {}}
_DELTAS: dict[str, dict[str, Any]] = {"output_text": {"logprobs": []}, "reasoning_text": {}}


class ResponseOutput:
    """The output `items`, built from parser events.

    The last item grows until the next item starts or the output ends. The ID of an item consists of its type, the ID of
    its response, and its index: see `ResponseStore.item_reader`.
    """

    def __init__(self, response_id: str, events: ResponseEvents):
        self._response_id = response_id
        self.items: list[Item] = []
        self._events = events
        self._index = -1
        self._text: list[str] = []
        self._open: Item | None = None

    def push(self, parsed: Iterable[Event]) -> bytes:
        """Add parser events to the output, and return the stream events for them."""
        return b"".join(self._fold(event) for event in parsed)

    def end(self, status: str) -> bytes:
        """End the output, and return the stream events. The last item gets `status`, which is completed or incomplete.

        If the last item is a tool call whose arguments are complete, its status is completed. An empty message is added
        to an output without items, and to the output of a completed response that contains only reasoning.
        """
        events = b""
        if all(item["type"] == "reasoning" for item in self.items) and (status == "completed" or not self.items):
            events = self._add_text("message", "")
        is_call = self._open is not None and self._open["type"] == "function_call"
        return events + self._close("completed" if is_call and _is_json("".join(self._text)) else status)

    def _fold(self, event: Event) -> bytes:
        match event:
            case TextDelta(text):
                return self._add_text("message", text)
            case ReasoningDelta(text):
                return self._add_text("reasoning", text)
            case ToolCallStart(_, id, name):
                item = {"id": self._id("fc"), "type": "function_call", "call_id": id, "name": name}
                return self._begin(item | {"arguments": "", "status": "in_progress"})
            case ToolCallArguments(_, text):
                self._text.append(text)
                return self._about_open("function_call_arguments.delta", {"delta": text})
            case ToolCallAborted(_, text):
                # Sent events cannot be withdrawn, so the output keeps the call, but not as a completed one.
                return self._close("incomplete") + self._add_text("message", text)

    def _add_text(self, kind: str, text: str) -> bytes:
        events = b""
        if self._open is None or self._open["type"] != kind:
            events = self._begin(self._message() if kind == "message" else self._reasoning())
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

    def _message(self) -> Item:
        return {"id": self._id("msg"), "type": "message", "status": "in_progress", "role": "assistant", "content": []}

    def _reasoning(self) -> Item:
        return {"id": self._id("rs"), "type": "reasoning", "status": "in_progress", "summary": [], "content": []}

    def _id(self, prefix: str) -> str:
        return item_id(prefix, self._response_id, len(self.items))

    def _about_part(self, kind: str, fields: Mapping[str, Any]) -> bytes:
        return self._about_open(kind, {"content_index": 0, **fields})

    def _about_open(self, kind: str, fields: Mapping[str, Any]) -> bytes:
        assert self._open is not None  # noqa: S101
        return self._events.item_event(kind, self._index, self._open, fields)


def _part_type(item: Item) -> str:
    return "output_text" if item["type"] == "message" else "reasoning_text"


def _part(item: Item, text: str) -> dict[str, Any]:
    kind = _part_type(item)
    return {"type": kind, "text": text} | _PARTS[kind]


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True

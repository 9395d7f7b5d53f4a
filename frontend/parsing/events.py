"""The events that a model's text is parsed into, each emitted as soon as it is certain."""

from typing import NamedTuple


class TextDelta(NamedTuple):
    """Response text."""

    text: str


class ReasoningDelta(NamedTuple):
    """Reasoning text."""

    text: str


class ToolCallStart(NamedTuple):
    """The model calls a tool; the arguments follow. `call_index` is its position among the response's calls."""

    call_index: int
    id: str
    name: str


class ToolCallArguments(NamedTuple):
    """The next part of a call's arguments, which are JSON."""

    call_index: int
    text: str


class ToolCallAborted(NamedTuple):
    """A started call turned out not to be one; `text` is everything that the model wrote for it."""

    call_index: int
    text: str


Event = TextDelta | ReasoningDelta | ToolCallStart | ToolCallArguments | ToolCallAborted

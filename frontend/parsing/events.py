"""The events that a model's text is parsed into, in the order in which they become known."""

from typing import NamedTuple


class TextDelta(NamedTuple):
    """Text for the reader."""

    text: str


class ReasoningDelta(NamedTuple):
    """Text of the model to itself."""

    text: str


class ToolCallStart(NamedTuple):
    """The model calls a tool; its arguments follow. `call` is the number of the call in the answer."""

    call: int
    id: str
    name: str


class ToolCallArguments(NamedTuple):
    """More of a call's arguments, which are JSON."""

    call: int
    text: str


class ToolCallAborted(NamedTuple):
    """A call that was started turned out to be none; `text` is all that the model wrote of it."""

    call: int
    text: str


Event = TextDelta | ReasoningDelta | ToolCallStart | ToolCallArguments | ToolCallAborted

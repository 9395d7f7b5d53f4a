"""The events that a model's output is parsed into while it is still arriving."""

from typing import NamedTuple


class TextDelta(NamedTuple):
    """The next part of the response text."""

    text: str


class ReasoningDelta(NamedTuple):
    """The next part of the reasoning text."""

    text: str


class ToolCallStart(NamedTuple):
    """The start of a tool call; its arguments follow.

    `call_index` counts the calls started in this response, from 0. Aborted calls count too.
    """

    call_index: int
    id: str
    name: str


class ToolCallArguments(NamedTuple):
    """The next part of a call's arguments, as JSON text."""

    call_index: int
    text: str


class ToolCallAborted(NamedTuple):
    """The end of a malformed call. `text` is everything that the model wrote for the call, up to the error."""

    call_index: int
    text: str


Event = TextDelta | ReasoningDelta | ToolCallStart | ToolCallArguments | ToolCallAborted

"""Finds tool calls in a model's streamed text. Each tool format defines a grammar; the classes here run it.

A grammar is a generator that yields wherever it needs more text. It is therefore written as if the whole text were
available, and its result does not depend on how the stream is split into chunks.
"""

import json
import re
import secrets
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from contract.constraints import ToolCallsConstraint
from contract.model_text import suffix_overlap
from frontend.parsing.events import Event, TextDelta, ToolCallAborted, ToolCallArguments, ToolCallStart

T = TypeVar("T")
Steps = Generator[None, None, T]

# At the end of an output that is cut off, fewer characters than these are more likely text than the beginning of a tag.
_LIKELY_TAG = 5

_NAME = re.compile(r"[A-Za-z0-9_-]*")
_CLOSERS = {"{": "}", "[": "]"}
_PLAIN = re.compile(r'[^"\\\x00-\x1f]+')
_BETWEEN = re.compile(r"[ \t\n\r,:0-9+\-.eEtrufalsn]+")
_SCALAR = re.compile(r"[0-9a-zA-Z+\-.]+")


class MalformedCall(Exception):
    """The text that a grammar reads as a tool call is not a valid tool call."""


class Scanner:
    """A streamed text and the events found in it.

    `names` are the names of the tools that the model may call. After `max_calls` calls, further calls are dropped; None
    means no limit. With `forced`, all of the text belongs to calls.
    """

    def __init__(self, tool_format: "ToolFormat", names: Collection[str], max_calls: int | None, forced: bool):
        self._names, self._max_calls, self._new_id = names, max_calls, tool_format.new_id
        self._tags, self._forced, self._in_call = tool_format.tags, forced, False
        self._text, self._position, self._mark = "", 0, 0
        self._raw: list[str] = []  # the text after the mark (see `mark`) that is no longer in _text
        self._space = ""  # white space at the end of the text so far: emitted before more text, dropped before a call
        self._events: list[Event] = []
        self._started = self._calls = 0  # numbers of started and of completed calls, not counting dropped calls
        self._open_call: int | None = None
        self._suppressed = False
        self.at_start = True
        """Whether the text so far has no calls, and no other text except white space."""
        self.ended = False
        """Whether the output has ended, so that no more text arrives."""
        self.cut_off = False
        """Whether the output has ended at the token limit."""

    # ToolParser, which runs the grammar, uses the following methods.

    def add(self, text: str) -> None:
        """Append newly received text."""
        self._raw.append(self._text[self._mark : self._position])
        self._text, self._position, self._mark = self._text[self._position :] + text, 0, 0

    def drain(self) -> list[Event]:
        """Return the events found since the last call of this method."""
        events, self._events = self._events, []
        return events

    def fail_call(self) -> None:
        """Emit the text since the mark, because this text is not a valid call.

        The event is ToolCallAborted if ToolCallStart has been emitted for the call, otherwise TextDelta. If the output
        is cut off, nothing is emitted: a started call stays incomplete, and the beginning of a call is not content.
        """
        if self.cut_off and (self._open_call is not None or self._in_call or self._forced):
            self.mark()
            return
        raw = "".join(self._raw) + self._text[self._mark : self._position]
        if self._open_call is None or self._suppressed:
            self._emit_text(raw)
        else:
            self._events.append(ToolCallAborted(self._open_call, raw))
        self._open_call, self._suppressed, self.at_start = None, False, False
        self.mark()

    def finish(self) -> None:
        """Emit the white space at the end of the output, unless the output has calls."""
        if self._space and not self._calls:
            self._events.append(TextDelta(self._space))

    # Grammars use the following methods.

    def mark(self) -> None:
        """Mark the current position. If the text after the mark is not a valid call, `fail_call` emits this text."""
        self._raw.clear()
        self._mark = self._position

    def text_until(self, *tags: str) -> Steps[str]:
        """Emit the text before the first occurrence of one of the tags, then skip and return this tag.

        If the output ends without a tag, emit the rest of the text and return an empty string.
        """
        self._in_call = False
        while True:
            rest = self._text[self._position :]
            matches = [(rest.index(tag), tag) for tag in tags if tag in rest]
            end = min(matches)[0] if matches else len(rest) - self._held_back(rest, tags)
            self._emit_text(rest[:end])
            self._position += end
            self.mark()
            if matches:
                tag = min(matches)[1]
                self._position += len(tag)
                self._in_call = tag in self._tags
                return tag
            if self.ended:
                return ""
            yield

    def _held_back(self, text: str, tags: Collection[str]) -> int:
        """Return how many characters at the end of a text are not emitted, because they may begin a tag."""
        if self.ended and not self.cut_off:
            return 0
        if not self.ended:
            return max(suffix_overlap(text, tag) for tag in tags)
        overlap = max((suffix_overlap(text, tag) for tag in tags if self._forced or tag in self._tags), default=0)
        return overlap if self._forced or overlap >= _LIKELY_TAG else 0

    def peek(self) -> Steps[str]:
        """Return the next character that is not white space, or '' if the output has ended. Consumes no text."""
        while not (rest := self._text[self._position :].lstrip()) and not self.ended:
            yield
        return rest[:1]

    def skip_space(self) -> Steps[None]:
        """Skip white space."""
        yield from self.peek()
        self._position = len(self._text) - len(self._text[self._position :].lstrip())

    def accept(self, literal: str) -> Steps[bool]:
        """Return whether the next text is `literal`, and skip this text if it is, or if it is cut off."""
        while True:
            rest = self._text[self._position : self._position + len(literal)]
            if rest == literal:
                self._position += len(literal)
                return True
            if not literal.startswith(rest):
                return False
            if self.ended:
                self._position += len(rest) if self.cut_off else 0
                return False
            yield

    def expect(self, literal: str) -> Steps[None]:
        """Skip `literal`. Raises MalformedCall if the next text is not `literal`."""
        if not (yield from self.accept(literal)):
            raise MalformedCall

    def name(self) -> Steps[str]:
        """Consume a name, which may be empty, and return it."""
        name = ""
        while True:
            match = _NAME.match(self._text, self._position)
            assert match is not None  # noqa: S101
            name, self._position = name + match[0], match.end()
            if self._position < len(self._text) or self.ended:
                return name
            yield

    def value(self, pass_on: Callable[[str], None]) -> Steps[None]:
        """Consume a JSON value, and call `pass_on` with each part of the value as the part arrives.

        Raises MalformedCall if JsonValue finds an invalid character, or if the output ends before the value does.
        """
        value = JsonValue()
        while True:
            piece, self._position = value.read(self._text, self._position)
            if piece:
                pass_on(piece)
            if value.complete:
                return
            if value.invalid or self.ended:
                raise MalformedCall
            yield

    def check(self, name: Any) -> None:
        """Raise MalformedCall if no tool has this name."""
        if not isinstance(name, str) or name not in self._names:
            raise MalformedCall

    def start(self, name: Any) -> None:
        """Start a call, or drop it if `max_calls` calls are complete. Raises MalformedCall if no tool has this name."""
        self.check(name)
        self._suppressed = self._max_calls is not None and self._calls >= self._max_calls
        self._open_call = self._started
        if not self._suppressed:
            self._started += 1
            # If the call turns out to be malformed, `fail_call` must also emit the white space before the call.
            self._raw.insert(0, self._space)
            self._space = ""
            self._events.append(ToolCallStart(self._open_call, self._new_id(), name))

    def emit_arguments(self, text: str) -> None:
        """Emit the next part of the current call's arguments, unless the call is dropped."""
        if self._open_call is not None and not self._suppressed:
            self._events.append(ToolCallArguments(self._open_call, text))

    def end_call(self) -> None:
        """Complete the current call. The text after the call can no longer abort it."""
        self._calls += not self._suppressed
        self._open_call, self._suppressed, self.at_start = None, False, False
        self._space = ""
        self.mark()

    def _emit_text(self, text: str) -> None:
        stripped = (self._space + text).rstrip()
        self._space = (self._space + text)[len(stripped) :]
        if stripped:
            self.at_start = False
            self._events.append(TextDelta(stripped))


class JsonValue:
    """Scans one JSON value to its end.

    This class does not fully validate the value: it stops only at some invalid characters. JSON forbids line breaks and
    other control characters in strings, but models often write them. Therefore, `read` escapes control characters.
    """

    def __init__(self) -> None:
        self.complete = self.invalid = False
        self._closers: list[str] = []
        self._in_string = self._in_scalar = self._escaped = False

    def read(self, text: str, position: int) -> tuple[str, int]:
        """Return the part of `text` from `position` on that belongs to the value, and the index after that part."""
        pieces: list[str] = []
        while position < len(text) and not (self.complete or self.invalid):
            step = self._string if self._in_string else self._scalar if self._in_scalar else self._structure
            piece, position = step(text, position)
            pieces.append(piece)
        return "".join(pieces), position

    def _string(self, text: str, position: int) -> tuple[str, int]:
        if not self._escaped and (plain := _PLAIN.match(text, position)):
            return plain[0], plain.end()
        character = text[position]
        if self._escaped:
            self._escaped = False
        elif character == "\\":
            self._escaped = True
        elif character == '"':
            self._in_string, self.complete = False, not self._closers
        else:
            character = json.dumps(character)[1:-1]
        return character, position + 1

    def _scalar(self, text: str, position: int) -> tuple[str, int]:
        more = _SCALAR.match(text, position)
        if more:
            return more[0], more.end()
        self.complete = True
        return "", position

    def _structure(self, text: str, position: int) -> tuple[str, int]:
        character = text[position]
        if character in _CLOSERS:
            self._closers.append(_CLOSERS[character])
        elif character == '"':
            self._in_string = True
        elif self._closers and character == self._closers[-1]:
            self._closers.pop()
            self.complete = not self._closers
        elif self._closers and (between := _BETWEEN.match(text, position)):
            return between[0], between.end()
        elif not self._closers and _SCALAR.match(character):
            self._in_scalar = True
            return "", position
        else:
            self.invalid = True
            return "", position
        return character, position + 1


def _new_id() -> str:
    return f"call_{secrets.token_hex(12)}"


@dataclass(frozen=True)
class ToolFormat:
    """A model family's format of tool calls. `tags` is the format's entry in TOOL_TAGS in contract/model_text.py."""

    grammar: Callable[[Scanner], Steps[None]]
    constrain: Callable[[Sequence[Mapping[str, Any]], int | None], ToolCallsConstraint]
    """Returns the constraint on the output. Its arguments are the functions that the model may call and the maximum
    number of calls (None: no limit). Each function has `name`, `parameters`, and `param`, the path of its `parameters`
    in the request. Some formats always limit the output to one call.
    """
    tags: tuple[str, ...]
    new_id: Callable[[], str] = _new_id


class ToolParser:
    """Finds the tool calls in streamed text, however the text is split into chunks.

    The text of a malformed call is emitted in a TextDelta event or, after a ToolCallStart event for the call, in a
    ToolCallAborted event. If the output is cut off within a call, the call stays incomplete, and its markup is dropped.
    With `forced`, the model can only make calls.
    """

    def __init__(
        self, tool_format: ToolFormat, names: Collection[str], max_calls: int | None = None, forced: bool = False
    ):
        self._tool_format = tool_format
        self._scanner = Scanner(tool_format, names, max_calls, forced)
        self._steps = self._parse()

    def push(self, text: str) -> list[Event]:
        """Parse the next chunk of text and return the new events."""
        self._scanner.add(text)
        next(self._steps, None)
        return self._scanner.drain()

    def end(self, cut_off: bool = False) -> list[Event]:
        """Parse the text that is still buffered at the end of the output and return its events."""
        self._scanner.ended, self._scanner.cut_off = True, cut_off
        next(self._steps, None)
        self._scanner.finish()
        return self._scanner.drain()

    def _parse(self) -> Steps[None]:
        while True:
            try:
                yield from self._tool_format.grammar(self._scanner)
            except MalformedCall:
                self._scanner.fail_call()
            else:
                return

"""Tool calls in a model's text: a scanner for the grammar of a tool format, which reads it as if it were all there.

A grammar is a generator: it yields wherever it needs more text than has come yet. So it is written down as the format
is, and any split of the text gives the same.
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

_NAME = re.compile(r"[A-Za-z0-9_-]*")
_CLOSERS = {"{": "}", "[": "]"}
_PLAIN = re.compile(r'[^"\\\x00-\x1f]+')
_BETWEEN = re.compile(r"[ \t\n\r,:0-9+\-.eEtrufalsn]+")
_SCALAR = re.compile(r"[0-9a-zA-Z+\-.]+")


class Malformed(Exception):
    """What looked like a call is none."""


class Scanner:
    """The text, and what has been found in it.

    `names` are the tools that may be called, `max_calls` how many calls are passed on, `new_id` makes the id of a call.
    """

    def __init__(self, names: Collection[str], max_calls: int | None, new_id: Callable[[], str]):
        self._names, self._max_calls, self._new_id = names, max_calls, new_id
        self._text, self._place, self._mark = "", 0, 0
        self._raw: list[str] = []  # what was read since the mark and is no longer in the text
        self._space = ""  # between what was said and what comes: it is left out before and after calls
        self._found: list[Event] = []
        self._started = self._calls = 0  # those begun, and those that turned out whole
        self._open: int | None = None
        self._muted = False
        self.untouched = True
        """Nothing was said or called yet."""
        self.over = False
        """No more text will come."""

    # For the parser that drives the grammar.

    def add(self, text: str) -> None:
        """Add text that has come."""
        self._raw.append(self._text[self._mark : self._place])
        self._text, self._place, self._mark = self._text[self._place :] + text, 0, 0

    def drain(self) -> list[Event]:
        """Return what was found since the last time."""
        found, self._found = self._found, []
        return found

    def fail_call(self) -> None:
        """Pass on what was read since the mark as it was written: it is no call."""
        raw = "".join(self._raw) + self._text[self._mark : self._place]
        if self._open is None or self._muted:
            self._say(raw)
        else:
            self._found.append(ToolCallAborted(self._open, raw))
        self._open, self._muted, self.untouched = None, False, False
        self.mark()

    def finish(self) -> None:
        """Pass on the white space at the end of an answer that called nothing."""
        if self._space and not self._calls:
            self._found.append(TextDelta(self._space))

    # For grammars.

    def mark(self) -> None:
        """Take note of where something begins that may turn out to be no call."""
        self._raw.clear()
        self._mark = self._place

    def text_until(self, *tags: str) -> Steps[str]:
        """Pass text on up to the first of the tags, and that over; return it, or nothing at the end."""
        while True:
            rest = self._text[self._place :]
            places = [(rest.index(tag), tag) for tag in tags if tag in rest]
            kept = 0 if places or self.over else max(suffix_overlap(rest, tag) for tag in tags)
            end = min(places)[0] if places else len(rest) - kept
            self._say(rest[:end])
            self._place += end
            self.mark()
            if places:
                self._place += len(min(places)[1])
                return min(places)[1]
            if self.over:
                return ""
            yield

    def peek(self) -> Steps[str]:
        """Return the next character that is not white space, without passing anything; nothing at the end."""
        while not (rest := self._text[self._place :].lstrip()) and not self.over:
            yield
        return rest[:1]

    def skip_space(self) -> Steps[None]:
        """Pass over white space."""
        yield from self.peek()
        self._place = len(self._text) - len(self._text[self._place :].lstrip())

    def accept(self, literal: str) -> Steps[bool]:
        """Tell whether `literal` comes next, and pass over it."""
        while True:
            rest = self._text[self._place : self._place + len(literal)]
            if rest == literal:
                self._place += len(literal)
                return True
            if self.over or not literal.startswith(rest):
                return False
            yield

    def expect(self, literal: str) -> Steps[None]:
        """Pass over `literal`. Raises Malformed if something else comes."""
        if not (yield from self.accept(literal)):
            raise Malformed

    def name(self) -> Steps[str]:
        """Return a name, which may be empty, and pass over it."""
        name = ""
        while True:
            found = _NAME.match(self._text, self._place)
            assert found is not None  # noqa: S101
            name, self._place = name + found[0], found.end()
            if self._place < len(self._text) or self.over:
                return name
            yield

    def value(self, pass_on: Callable[[str], None]) -> Steps[None]:
        """Pass a JSON value on as it comes. Raises Malformed where it cannot be one."""
        value = JsonValue()
        while True:
            piece, self._place = value.read(self._text, self._place)
            if piece:
                pass_on(piece)
            if value.over:
                return
            if value.broken or self.over:
                raise Malformed
            yield

    def check(self, name: Any) -> None:
        """Raise Malformed if there is no tool of this name."""
        if not isinstance(name, str) or name not in self._names:
            raise Malformed

    def start(self, name: Any) -> None:
        """Begin a call. Raises Malformed if there is no such tool."""
        self.check(name)
        self._muted = self._max_calls is not None and self._calls >= self._max_calls
        self._open = self._started
        if not self._muted:
            self._started += 1
            # Should the call turn out to be none, the space before it is a part of what was written.
            self._raw.insert(0, self._space)
            self._space = ""
            self._found.append(ToolCallStart(self._open, self._new_id(), name))

    def emit_arguments(self, text: str) -> None:
        """Pass on some of the call's arguments."""
        if self._open is not None and not self._muted:
            self._found.append(ToolCallArguments(self._open, text))

    def end_call(self) -> None:
        """Note that the call is whole; what follows is only its closing."""
        self._calls += not self._muted
        self._open, self._muted, self.untouched = None, False, False
        self._space = ""
        self.mark()

    def _say(self, text: str) -> None:
        bare = (self._space + text).rstrip()
        self._space = (self._space + text)[len(bare) :]
        if bare:
            self.untouched = False
            self._found.append(TextDelta(bare))


class JsonValue:
    """Follows one value to its end. It does not prove it valid, but stops where it cannot be.

    A line break, or another control character, in a string is forbidden in JSON and common in what models write: it
    comes out escaped.
    """

    def __init__(self) -> None:
        self.over = self.broken = False
        self._closers: list[str] = []
        self._in_string = self._in_scalar = self._escaped = False

    def read(self, text: str, place: int) -> tuple[str, int]:
        """Return what of the text from `place` on belongs to the value, and the place after it."""
        pieces: list[str] = []
        while place < len(text) and not (self.over or self.broken):
            step = self._string if self._in_string else self._scalar if self._in_scalar else self._structure
            piece, place = step(text, place)
            pieces.append(piece)
        return "".join(pieces), place

    def _string(self, text: str, place: int) -> tuple[str, int]:
        if not self._escaped and (plain := _PLAIN.match(text, place)):
            return plain[0], plain.end()
        character = text[place]
        if self._escaped:
            self._escaped = False
        elif character == "\\":
            self._escaped = True
        elif character == '"':
            self._in_string, self.over = False, not self._closers
        else:
            character = json.dumps(character)[1:-1]
        return character, place + 1

    def _scalar(self, text: str, place: int) -> tuple[str, int]:
        more = _SCALAR.match(text, place)
        if more:
            return more[0], more.end()
        self.over = True
        return "", place

    def _structure(self, text: str, place: int) -> tuple[str, int]:
        character = text[place]
        if character in _CLOSERS:
            self._closers.append(_CLOSERS[character])
        elif character == '"':
            self._in_string = True
        elif self._closers and character == self._closers[-1]:
            self._closers.pop()
            self.over = not self._closers
        elif self._closers and (between := _BETWEEN.match(text, place)):
            return between[0], between.end()
        elif not self._closers and _SCALAR.match(character):
            self._in_scalar = True
            return "", place
        else:
            self.broken = True
            return "", place
        return character, place + 1


def _new_id() -> str:
    return f"call_{secrets.token_hex(12)}"


@dataclass(frozen=True)
class ToolFormat:
    """How one family of models writes calls; `tags` are those of contract/model_text.py."""

    grammar: Callable[[Scanner], Steps[None]]
    constrain: Callable[[Sequence[Mapping[str, Any]], int | None], ToolCallsConstraint]
    """From functions (name, parameters) and the maximum number of calls to what an output that calls them matches."""
    tags: tuple[str, ...]
    new_id: Callable[[], str] = _new_id


class ToolParser:
    """Finds the calls in an answer that comes in pieces of any size. What is malformed is passed on as text."""

    def __init__(self, tool_format: ToolFormat, names: Collection[str], max_calls: int | None = None):
        self._tool_format = tool_format
        self._scanner = Scanner(names, max_calls, tool_format.new_id)
        self._steps = self._parse()

    def push(self, text: str) -> list[Event]:
        """Return what is sure now."""
        self._scanner.add(text)
        next(self._steps, None)
        return self._scanner.drain()

    def end(self) -> list[Event]:
        """Return what was kept back, when no more text will come."""
        self._scanner.over = True
        next(self._steps, None)
        self._scanner.finish()
        return self._scanner.drain()

    def _parse(self) -> Steps[None]:
        while True:
            try:
                yield from self._tool_format.grammar(self._scanner)
            except Malformed:
                self._scanner.fail_call()
            else:
                return

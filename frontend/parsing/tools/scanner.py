"""A model's text on its way to the grammar of a family of models, which reads it as if it were all there.

A grammar is a generator: it yields wherever it needs more text than has come yet. So it is written down as the format
is, and any split of the text gives the same.
"""

import re
from collections.abc import Callable, Collection, Generator
from typing import Any, TypeVar

from frontend.parsing.events import Event, TextDelta, ToolCallAborted, ToolCallArguments, ToolCallStart
from frontend.parsing.reasoning import overlap
from frontend.parsing.tools.json_value import JsonValue

T = TypeVar("T")
Steps = Generator[None, None, T]

_NAME = re.compile(r"[A-Za-z0-9_-]*")


class Malformed(Exception):
    """What looked like a call is none."""


class Scanner:
    """The text, and what has been found in it.

    `names` are the tools that may be called, `most` how many calls are passed on, `new_id` makes the id of a call.
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
            kept = 0 if places or self.over else max(overlap(rest, tag) for tag in tags)
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

"""From a model's text, as it comes, to the pieces that it consists of."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from frontend.parsing.events import Event, TextDelta


class Parser(Protocol):
    """Finds something in a text that comes in pieces."""

    def push(self, text: str) -> list[Event]: ...
    def end(self) -> list[Event]: ...


class ParserPipeline:
    """Has `parsers` look at a text one after the other: what one calls said is the next one's text."""

    def __init__(self, parsers: Sequence[Parser] = ()):
        self._parsers = parsers

    def push(self, text: str) -> list[Event]:
        """Return the pieces of more text."""
        return _through(self._parsers, text)

    def end(self) -> list[Event]:
        """Return the pieces of what was kept back, when no more text will come."""
        pieces: list[Event] = []
        for place, parser in enumerate(self._parsers):
            pieces += _further(self._parsers[place + 1 :], parser.end())
        return pieces


def _through(parsers: Sequence[Parser], text: str) -> list[Event]:
    if not parsers:
        return [TextDelta(text)] if text else []
    return _further(parsers[1:], parsers[0].push(text))


def _further(parsers: Sequence[Parser], pieces: Iterable[Event]) -> list[Event]:
    """Return the pieces, with what is said looked at by the other parsers."""
    found: list[Event] = []
    for piece in pieces:
        found += _through(parsers, piece.text) if isinstance(piece, TextDelta) else [piece]
    return found

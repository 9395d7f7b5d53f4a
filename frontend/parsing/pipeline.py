"""Runs a model's streamed text through a chain of parsers."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from frontend.parsing.events import Event, TextDelta


class Parser(Protocol):
    """Turns streamed text into events."""

    def push(self, text: str) -> list[Event]: ...
    def end(self, cut_off: bool = False) -> list[Event]: ...


class ParserPipeline:
    """Chains `parsers`: each parser parses the text deltas that the previous parser emits."""

    def __init__(self, parsers: Sequence[Parser] = ()):
        self._parsers = parsers

    def push(self, text: str) -> list[Event]:
        """Parse the next text and return the new events."""
        return _parse_text(self._parsers, text)

    def end(self, cut_off: bool = False) -> list[Event]:
        """Parse the text that is still buffered at the end of the output and return its events.

        `cut_off` is whether the output has ended at the token limit.
        """
        events: list[Event] = []
        for index, parser in enumerate(self._parsers):
            events += _parse_events(self._parsers[index + 1 :], parser.end(cut_off))
        return events


def _parse_text(parsers: Sequence[Parser], text: str) -> list[Event]:
    if not parsers:
        return [TextDelta(text)] if text else []
    return _parse_events(parsers[1:], parsers[0].push(text))


def _parse_events(parsers: Sequence[Parser], events: Iterable[Event]) -> list[Event]:
    """Return the events, with each text delta replaced by the events that `parsers` find in it."""
    results: list[Event] = []
    for event in events:
        results += _parse_text(parsers, event.text) if isinstance(event, TextDelta) else [event]
    return results

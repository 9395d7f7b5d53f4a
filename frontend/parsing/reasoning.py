"""Separates the reasoning between `<think>` and `</think>` from the response that follows it."""

from contract.model_text import REASONING_CLOSE, REASONING_OPEN, suffix_overlap
from frontend.parsing.events import Event, ReasoningDelta, TextDelta


class ReasoningParser:
    """Separates reasoning from the response in streamed text. The result does not depend on how the text is split.

    Only a `<think>` at the beginning of the output opens reasoning, and the first `</think>` after it closes the
    reasoning. All other tags are ordinary text. If the chat template already ends the prompt with `<think>`, Trident's
    chat backend begins the output with `<think>`. White space around the two tags is dropped. Unclosed reasoning
    extends to the end of the output.
    """

    def __init__(self) -> None:
        self._buffer = ""
        self._state = self._before_reasoning

    def push(self, text: str) -> list[Event]:
        """Parse the next text and return the new events. Text that may be part of a tag stays buffered."""
        self._buffer += text
        return self._state()

    def end(self, cut_off: bool = False) -> list[Event]:
        """Return the events for the text that is still buffered at the end of the output."""
        rest, self._buffer = self._buffer, ""
        if self._state == self._in_reasoning:
            return [ReasoningDelta(rest.rstrip())] if rest.strip() else []
        return [TextDelta(rest)] if rest and self._state != self._after_closing_tag else []

    def _before_reasoning(self) -> list[Event]:
        text = self._buffer.lstrip()
        if text.startswith(REASONING_OPEN):
            self._buffer, self._state = text[len(REASONING_OPEN) :].lstrip(), self._after_opening_tag
            return self._after_opening_tag()
        if REASONING_OPEN.startswith(text):
            return []
        self._state = self._in_response
        return self._in_response()

    def _after_opening_tag(self) -> list[Event]:
        self._buffer = self._buffer.lstrip()
        if not self._buffer:
            return []
        self._state = self._in_reasoning
        return self._in_reasoning()

    def _in_reasoning(self) -> list[Event]:
        reasoning, closed, rest = self._buffer.partition(REASONING_CLOSE)
        if closed:
            self._buffer, self._state = rest, self._after_closing_tag
            return [*_reasoning_delta(reasoning.rstrip()), *self._after_closing_tag()]
        certain = self._buffer[: len(self._buffer) - suffix_overlap(self._buffer, REASONING_CLOSE)].rstrip()
        self._buffer = self._buffer[len(certain) :]
        return _reasoning_delta(certain)

    def _after_closing_tag(self) -> list[Event]:
        self._buffer = self._buffer.lstrip()
        if not self._buffer:
            return []
        self._state = self._in_response
        return self._in_response()

    def _in_response(self) -> list[Event]:
        text, self._buffer = self._buffer, ""
        return [TextDelta(text)] if text else []


def _reasoning_delta(text: str) -> list[Event]:
    return [ReasoningDelta(text)] if text else []

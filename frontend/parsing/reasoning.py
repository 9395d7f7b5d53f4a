"""The thoughts that a model writes between `<think>` and `</think>` before it answers."""

from contract.model_text import REASONING_CLOSE, REASONING_OPEN, suffix_overlap
from frontend.parsing.events import Event, ReasoningDelta, TextDelta


class ReasoningParser:
    """Tells the thought from the answer after it, in text that comes in pieces of any size.

    Only an answer that begins with the tag has one: further on it is something the model writes about. A template that
    opens the thought in the prompt leaves that to the backend, which puts the tag back. White space around a thought is
    left out. One that is not closed goes on to the end.
    """

    def __init__(self) -> None:
        self._kept = ""
        self._step = self._before

    def push(self, text: str) -> list[Event]:
        """Return what is sure now."""
        self._kept += text
        return self._step()

    def end(self) -> list[Event]:
        """Return what was kept back, when no more text will come."""
        kept, self._kept = self._kept, ""
        if self._step == self._inside:
            return [ReasoningDelta(kept.rstrip())] if kept.strip() else []
        return [TextDelta(kept)] if kept and self._step != self._after else []

    def _before(self) -> list[Event]:
        begun = self._kept.lstrip()
        if begun.startswith(REASONING_OPEN):
            self._kept, self._step = begun[len(REASONING_OPEN) :].lstrip(), self._open
            return self._open()
        if REASONING_OPEN.startswith(begun):
            return []
        self._step = self._said
        return self._said()

    def _open(self) -> list[Event]:
        self._kept = self._kept.lstrip()
        if not self._kept:
            return []
        self._step = self._inside
        return self._inside()

    def _inside(self) -> list[Event]:
        thought, closed, rest = self._kept.partition(REASONING_CLOSE)
        if closed:
            self._kept, self._step = rest, self._after
            return [*_thought(thought.rstrip()), *self._after()]
        sure = self._kept[: len(self._kept) - suffix_overlap(self._kept, REASONING_CLOSE)].rstrip()
        self._kept = self._kept[len(sure) :]
        return _thought(sure)

    def _after(self) -> list[Event]:
        self._kept = self._kept.lstrip()
        if not self._kept:
            return []
        self._step = self._said
        return self._said()

    def _said(self) -> list[Event]:
        text, self._kept = self._kept, ""
        return [TextDelta(text)] if text else []


def _thought(text: str) -> list[Event]:
    return [ReasoningDelta(text)] if text else []

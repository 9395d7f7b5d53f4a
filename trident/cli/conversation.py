"""A conversation with a chat model, whose responses are printed as they arrive."""

import sys
import time
from dataclasses import dataclass, field
from typing import Any

import click

from trident.cli import requests
from trident.cli.client import ServerError
from trident.cli.session import Session


@dataclass
class Conversation:
    """The messages so far, and how to go on.

    `fields` are further fields of the requests. An interrupted response is kept as far as it arrived, and a request
    that failed is not kept.
    """

    session: Session
    system: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    verbose: bool = False
    hides_reasoning: bool = False
    keeps_history: bool = True
    messages: list[dict[str, Any]] = field(default_factory=list)

    def ask(self, content: Any) -> None:
        """Send the user's next message, and print the response. Raises ServerError."""
        question = {"role": "user", "content": content}
        answer = _Answer(self.hides_reasoning)
        started = time.monotonic()
        try:
            for chunk in requests.stream_chat(self.session, self._sent(question), **self.fields):
                answer.add(chunk)
        except KeyboardInterrupt:
            answer.end()
            self._keep(question, answer.text)
            raise
        except ServerError:
            answer.end()
            raise
        answer.end()
        self._keep(question, answer.text)
        if self.verbose:
            click.echo(answer.timings(started, self.session.load_seconds), err=True)

    def ask_whole(self, content: Any) -> dict[str, Any]:
        """Send the user's next message, and return the whole response. Raises ServerError."""
        question = {"role": "user", "content": content}
        response = requests.chat(self.session, self._sent(question), **self.fields)
        self._keep(question, requests.answer_text(response))
        return response

    def _sent(self, question: dict[str, Any]) -> list[dict[str, Any]]:
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, *self.messages, question]

    def _keep(self, question: dict[str, Any], answer: str) -> None:
        if self.keeps_history:
            self.messages += [question, {"role": "assistant", "content": answer}]


class _Answer:
    """The printed response. Its reasoning is dimmed on a terminal."""

    def __init__(self, hides_reasoning: bool):
        self.text = ""
        self._hides_reasoning, self._is_reasoning, self._is_open = hides_reasoning, False, False
        self._first: float | None = None
        self._usage: dict[str, Any] = {}

    def add(self, chunk: dict[str, Any]) -> None:
        """Print what a chunk adds."""
        self._usage = chunk.get("usage") or self._usage
        for choice in chunk.get("choices", ()):
            delta = choice.get("delta") or {}
            if reasoning := delta.get("reasoning_content"):
                self._first = self._first or time.monotonic()
                self._show_reasoning(reasoning)
            if text := delta.get("content"):
                self._first = self._first or time.monotonic()
                self._end_reasoning()
                self.text += text
                self._write(text)

    def end(self) -> None:
        """End the line of the response."""
        self._end_reasoning()
        if self._is_open:
            self._write("\n")

    def timings(self, started: float, load_seconds: float) -> str:
        """Return the times and the numbers of tokens."""
        ended = time.monotonic()
        first = self._first or ended
        prompt, completion = self._usage.get("prompt_tokens", 0), self._usage.get("completion_tokens", 0)
        lines = {
            "total duration": f"{ended - started + load_seconds:.2f} s",
            "load duration": f"{load_seconds:.2f} s",
            "time to first token": f"{first - started:.3f} s",
            "prompt tokens": f"{prompt}",
            "response tokens": f"{completion}",
        }
        if completion > 1 and ended > first:
            lines["response rate"] = f"{(completion - 1) / (ended - first):.1f} tokens/s"
        return "\n" + "\n".join(f"{name + ':':21} {value}" for name, value in lines.items())

    def _show_reasoning(self, text: str) -> None:
        if self._hides_reasoning:
            return
        if not self._is_reasoning:
            self._is_reasoning = True
            self._write(click.style("Thinking …\n", dim=True, reset=False), is_reasoning=True)
        self._write(text, is_reasoning=True)

    def _end_reasoning(self) -> None:
        if self._is_reasoning:
            self._is_reasoning = False
            self._write("\n" + click.style("", reset=True) + "… done thinking.\n\n", is_reasoning=True)

    def _write(self, text: str, *, is_reasoning: bool = False) -> None:
        """Print a text at once. In a pipe, the reasoning goes to standard error."""
        self._is_open = not is_reasoning and not text.endswith("\n")
        click.echo(text, nl=False, err=is_reasoning and not sys.stdout.isatty())

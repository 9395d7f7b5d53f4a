"""One answer of a model as OpenAI's message, whole and in deltas: what is said, thought and called."""

from typing import Any

from frontend.parsing.events import Event, ReasoningDelta, TextDelta, ToolCallAborted, ToolCallArguments, ToolCallStart
from frontend.parsing.pipeline import ParserPipeline

Delta = dict[str, Any]


class MessageBuilder:
    """Folds what `reader` finds in a model's text."""

    def __init__(self, pipeline: ParserPipeline):
        self._pipeline = pipeline
        self._content: list[str] = []
        self._thoughts: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}

    def push(self, text: str) -> list[Delta]:
        """Return the deltas of more text."""
        return [self._fold(piece) for piece in self._pipeline.push(text)]

    def end(self) -> list[Delta]:
        """Return the deltas of what was kept back, when no more text will come."""
        return [self._fold(piece) for piece in self._pipeline.end()]

    def finish_reason(self, of_the_model: str) -> str:
        """Return OpenAI's finish_reason: a model that called has not just stopped."""
        return "tool_calls" if self._calls and of_the_model == "stop" else of_the_model

    def message(self) -> dict[str, Any]:
        """Return the whole as a message."""
        content = "".join(self._content)
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if self._thoughts:
            message["reasoning_content"] = "".join(self._thoughts)
        if self._calls:
            message["content"] = content or None
            message["tool_calls"] = list(self._calls.values())
        return message

    def _fold(self, piece: Event) -> Delta:
        match piece:
            case TextDelta(text):
                self._content.append(text)
                return {"content": text}
            case ReasoningDelta(text):
                self._thoughts.append(text)
                return {"reasoning_content": text}
            case ToolCallStart(call, id, name):
                self._calls[call] = {"id": id, "type": "function", "function": {"name": name, "arguments": ""}}
                started = {"id": id, "type": "function", "function": {"name": name, "arguments": ""}}
                return {"tool_calls": [{"index": call} | started]}
            case ToolCallArguments(call, text):
                self._calls[call]["function"]["arguments"] += text
                return {"tool_calls": [{"index": call, "function": {"arguments": text}}]}
            case ToolCallAborted(call, text):
                # What a stream has sent it cannot take back; but it says what was written, and does not end in a call.
                del self._calls[call]
                self._content.append(text)
                return {"content": text}

"""Tools in prompts: what a chat template makes of them, and what is done where it makes nothing of them.

A template that knows of no tools leaves them out silently, or breaks at a message without text. So each is tried once
with a conversation in which a secret stands wherever it must come out again.
"""

import json
import secrets
from collections.abc import Callable
from typing import Any

from contract.model_text import TOOL_TAGS

Messages = list[dict[str, Any]]
Tools = list[dict[str, Any]]
Render = Callable[[Messages, Tools | None], str]

_OPEN, _CLOSE = TOOL_TAGS["hermes"]

# As Qwen 2.5 was trained to read it, and many others that came after Hermes.
_INSTRUCTIONS = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within {open}{close} XML tags:
{open}
{{"name": <function-name>, "arguments": <args-json-object>}}
{close}"""


class ToolPrompt:
    """How one template is told of tools, of calls and of their answers."""

    def __init__(self, render: Render):
        self._shows_tools = _comes_out(render, *_tools_probe())
        # Phi's looks for them in the system message.
        self._wants_system = not self._shows_tools and _comes_out(render, *_system_probe())
        self._shows_calls = _comes_out(render, *_calls_probe())
        # Some paste the arguments of a call into the prompt, and so want them as text.
        self._wants_text = not self._shows_calls and _comes_out(render, *_calls_probe(as_text=True))

    def prepare(self, messages: Messages, tools: Tools) -> tuple[Messages, Tools | None]:
        """Return the messages, and the tools or nothing, so that the template writes all of it."""
        if self._wants_text:
            messages = [_with_text_arguments(message) for message in messages]
        elif not self._shows_calls:
            messages = _without_calls(messages)
        if not tools or self._shows_tools:
            return messages, tools or None
        return (_with_system_tools if self._wants_system else _with_instructions)(messages, tools), None


def _comes_out(render: Render, marks: list[str], messages: Messages, tools: Tools | None) -> bool:
    try:
        text = render(messages, tools)
    except Exception:  # a template is a program, and this one was not written for what it is given
        return False
    # An object that is written as Python would, or as a string in a string, is not what the model knows.
    return all(mark in text for mark in marks) and f"'{marks[0]}'" not in text and f'\\"{marks[0]}' not in text


def _tools_probe() -> tuple[list[str], Messages, Tools]:
    name = f"f{secrets.token_hex(4)}"
    parameters = {"type": "object", "properties": {}, "required": []}
    function = {"name": name, "description": "Nothing", "parameters": parameters}
    return [name], [{"role": "user", "content": "Hi"}], [{"type": "function", "function": function}]


def _system_probe() -> tuple[list[str], Messages, None]:
    marks, messages, tools = _tools_probe()
    return marks, _with_system_tools(messages, tools), None


def _calls_probe(as_text: bool = False) -> tuple[list[str], Messages, None]:
    key, name, answer = (f"f{secrets.token_hex(4)}" for _ in range(3))
    call = {"name": name, "arguments": json.dumps({key: 1}) if as_text else {key: 1}}
    messages: Messages
    id = "call12345"  # Mistral's templates take none of another length
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": id, "type": "function", "function": call}]},
        {"role": "tool", "content": answer, "tool_call_id": id, "name": name},
    ]
    return [key, name, answer], messages, None


def _with_text_arguments(message: dict[str, Any]) -> dict[str, Any]:
    if "tool_calls" not in message:
        return message
    calls = [
        call | {"function": call["function"] | {"arguments": _json(call["function"]["arguments"])}}
        for call in message["tool_calls"]
    ]
    return message | {"tool_calls": calls}


def _without_calls(messages: Messages) -> Messages:
    """Return the messages with calls as text, and their answers as the user's: what Hermes' templates write."""
    written: Messages = []
    answers = False
    for message in messages:
        if message["role"] != "tool":
            written.append(_with_written_calls(message))
        elif answers:
            written[-1] = {"role": "user", "content": f"{written[-1]['content']}\n{_answer(message)}"}
        else:
            written.append({"role": "user", "content": _answer(message)})
        answers = message["role"] == "tool"
    return written


def _with_written_calls(message: dict[str, Any]) -> dict[str, Any]:
    if "tool_calls" not in message:
        return message
    calls = [
        f'{_OPEN}\n{{"name": {_json(call["function"]["name"])}, "arguments": '
        f"{_json(call['function']['arguments'])}}}\n{_CLOSE}"
        for call in message["tool_calls"]
    ]
    return {"role": "assistant", "content": "\n".join(filter(None, [_text(message), *calls]))}


def _with_system_tools(messages: Messages, tools: Tools) -> Messages:
    functions = _json([tool["function"] for tool in tools])
    system, others = _split_system(messages)
    return [{"role": "system", "content": system, "tools": functions}, *others]


def _with_instructions(messages: Messages, tools: Tools) -> Messages:
    """Return the messages with the tools in the system message."""
    instructions = _INSTRUCTIONS.format(tools="\n".join(map(_json, tools)), open=_OPEN, close=_CLOSE)
    system, others = _split_system(messages)
    return [{"role": "system", "content": "\n\n".join(filter(None, [system, instructions]))}, *others]


def _split_system(messages: Messages) -> tuple[str, Messages]:
    if messages and messages[0]["role"] == "system":
        return _text(messages[0]), messages[1:]
    return "", messages


def _answer(message: dict[str, Any]) -> str:
    return f"<tool_response>\n{_text(message)}\n</tool_response>"


def _text(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "\n".join(part.get("text", "") for part in content)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)

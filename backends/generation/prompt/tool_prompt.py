"""Puts tools, tool calls and tool results into prompts, as text if the chat template does not support them.

A template without tool support silently omits tools, or fails at a message without text. So when a template is loaded,
it is tested with conversations that contain random strings, which must all appear in the rendered prompt.
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

# The wording that Qwen 2.5 and many other models with Hermes' tool format were trained on.
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
    """The way in which tools, tool calls and tool results are passed to one chat template."""

    def __init__(self, render: Render):
        self._renders_tools = _renders_all(render, *_tools_probe())
        # Phi's template reads tools from the system message.
        self._reads_system_tools = not self._renders_tools and _renders_all(render, *_system_probe())
        self._renders_calls = _renders_all(render, *_calls_probe())
        # Some templates insert a call's arguments into the prompt unchanged, so they must be JSON text, not an object.
        self._needs_text_arguments = not self._renders_calls and _renders_all(render, *_calls_probe(as_text=True))

    def prepare(self, messages: Messages, tools: Tools) -> tuple[Messages, Tools | None]:
        """Return messages and tools for the template, rewritten so that the template renders them completely.

        The returned tools are None if `tools` is empty or if the returned messages contain the tools.
        """
        if self._needs_text_arguments:
            messages = [_with_text_arguments(message) for message in messages]
        elif not self._renders_calls:
            messages = _without_calls(messages)
        if not tools or self._renders_tools:
            return messages, tools or None
        return (_with_system_tools if self._reads_system_tools else _with_instructions)(messages, tools), None


def _renders_all(render: Render, marks: list[str], messages: Messages, tools: Tools | None) -> bool:
    try:
        text = render(messages, tools)
    except Exception:  # a template can fail in any way on input that it was not written for
        return False
    # Reject prompts with objects in Python syntax or with JSON inside a JSON string: models are not trained on these.
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
    key, name, result = (f"f{secrets.token_hex(4)}" for _ in range(3))
    call = {"name": name, "arguments": json.dumps({key: 1}) if as_text else {key: 1}}
    messages: Messages
    id = "call12345"  # Mistral's templates accept only IDs of this length
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": id, "type": "function", "function": call}]},
        {"role": "tool", "content": result, "tool_call_id": id, "name": name},
    ]
    return [key, name, result], messages, None


def _with_text_arguments(message: dict[str, Any]) -> dict[str, Any]:
    if "tool_calls" not in message:
        return message
    calls = [
        call | {"function": call["function"] | {"arguments": _json(call["function"]["arguments"])}}
        for call in message["tool_calls"]
    ]
    return message | {"tool_calls": calls}


def _without_calls(messages: Messages) -> Messages:
    """Return the messages with calls as text and results as user messages, as Hermes' chat templates write them."""
    written: Messages = []
    after_result = False
    for message in messages:
        if message["role"] != "tool":
            written.append(_with_text_calls(message))
        elif after_result:
            written[-1] = {"role": "user", "content": f"{written[-1]['content']}\n{_result_text(message)}"}
        else:
            written.append({"role": "user", "content": _result_text(message)})
        after_result = message["role"] == "tool"
    return written


def _with_text_calls(message: dict[str, Any]) -> dict[str, Any]:
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
    """Return the messages with the tools described in the system message."""
    instructions = _INSTRUCTIONS.format(tools="\n".join(map(_json, tools)), open=_OPEN, close=_CLOSE)
    system, others = _split_system(messages)
    return [{"role": "system", "content": "\n\n".join(filter(None, [system, instructions]))}, *others]


def _split_system(messages: Messages) -> tuple[str, Messages]:
    if messages and messages[0]["role"] == "system":
        return _text(messages[0]), messages[1:]
    return "", messages


def _result_text(message: dict[str, Any]) -> str:
    return f"<tool_response>\n{_text(message)}\n</tool_response>"


def _text(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "\n".join(part.get("text", "") for part in content)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)

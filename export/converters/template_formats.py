"""Infers a model's tool format and reasoning from its chat template."""

from collections.abc import Mapping
from typing import Any

# Tool format → texts that a template with this format contains. The first match counts, so more specific formats come
# first.
_TOOL_FORMATS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("deepseek", ("<｜tool▁calls▁begin｜>", "```json")),
    ("deepseek-v3.1", ("<｜tool▁calls▁begin｜>",)),
    ("mistral-v11", ("[TOOL_CALLS]", "[ARGS]")),
    ("mistral", ("[TOOL_CALLS]",)),
    ("llama3", ("<|python_tag|>",)),
    ("llama3", ("<|start_header_id|>", '"parameters"')),
    ("phi", ("<|tool_call|>",)),
    ("phi", ("<|tool|>", "<|/tool|>")),
)

# The model families whose tool format is not supported → texts of their templates.
_UNSUPPORTED: dict[str, tuple[str, ...]] = {
    "GLM 4.5": ("<arg_key>",),
    "GLM 4": ("<|observation|>",),
    "Qwen3-Coder": ("<function=",),
    "Command R7B": ("<|START_ACTION|>",),
    "Command R": ("<|START_OF_TURN_TOKEN|>", "Action:"),
    "GPT-OSS": ("<|channel|>",),
    "LFM2 and MiniCPM3": ("<|tool_call_start|>",),
    "Kimi K2": ("<|tool_calls_section_begin|>",),
    "Llama 4": ("<|header_start|>",),
}


PLAIN_TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant:"
"""The chat template of a model without one, so that it can be used in chats too."""


def template_of(metadata: Mapping[str, Any]) -> str:
    """Return the chat template in the metadata of a GGUF file, or a plain one if it has none."""
    return str(metadata.get("tokenizer.chat_template") or PLAIN_TEMPLATE)


def infer_formats(template: str) -> dict[str, str]:
    """Return the parameters `tool_format` and `reasoning` of a model with this chat template.

    A parameter that has its default value is omitted. The default tool format is that of Hermes, which many families
    share. A model whose template has no tools is prompted to use it.
    """
    found = {}
    for name, marks in _TOOL_FORMATS:
        if all(mark in template for mark in marks):
            found["tool_format"] = name
            break
    if "<think>" in template or "</think>" in template:
        found["reasoning"] = "think"
    return found


def unsupported_format(template: str) -> str | None:
    """Return the family of the template's own tool format if it is not supported, otherwise None."""
    return next((name for name, marks in _UNSUPPORTED.items() if all(mark in template for mark in marks)), None)

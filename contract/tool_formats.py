"""How families of models write tool calls: the names of the formats, which are values of the parameter `tool_format`.

The grammar of each is in frontend/parsing/tools/, in a file of its name.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ToolFormat:
    """What is fixed about one format."""

    tags: tuple[str, ...] = ()
    """To be written out, although some tokenizers count them as special tokens."""
    id_length: int | None = None
    """The length of call ids, where the family's chat templates accept only one."""


_DEEPSEEK_TAGS = (
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁sep｜>",
)
_MISTRAL = ToolFormat(("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"), id_length=9)

TOOL_FORMATS = {
    "hermes": ToolFormat(("<tool_call>", "</tool_call>")),
    "llama3": ToolFormat(("<|python_tag|>",)),
    "mistral": _MISTRAL,
    "mistral-v11": _MISTRAL,
    "phi": ToolFormat(("<|tool_call|>", "<|/tool_call|>")),
    "deepseek": ToolFormat(_DEEPSEEK_TAGS),
    "deepseek-v3.1": ToolFormat(_DEEPSEEK_TAGS),
    "generic": ToolFormat(),
}

DEFAULT = "hermes"
"""What a model is told to write if its chat template does not support tools."""

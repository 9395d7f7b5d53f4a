"""How families of models write tool calls: the formats by name, which is a value of the parameter `tool_format`.

The grammar of each is in frontend/parsing/tools/, in a file of its name.
"""

DEFAULT = "hermes"
"""What a model is told to write if its chat template does not support tools."""

_DEEPSEEK = (
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁sep｜>",
)
_MISTRAL = ("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]")

TAGS: dict[str, tuple[str, ...]] = {
    "hermes": ("<tool_call>", "</tool_call>"),
    "llama3": ("<|python_tag|>",),
    "mistral": _MISTRAL,
    "mistral-v11": _MISTRAL,
    "phi": ("<|tool_call|>", "<|/tool_call|>"),
    "deepseek": _DEEPSEEK,
    "deepseek-v3.1": _DEEPSEEK,
    "generic": (),
}
"""To be written out, although some tokenizers count them as special tokens."""

CALL_ID_LENGTH = {"mistral": 9, "mistral-v11": 9}
"""The length of call ids, where the family's chat templates accept only one."""

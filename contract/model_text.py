"""How models write: the tags of reasoning, the formats of tool calls, and what both sides of Triton know of text.

The grammar of each format of tool calls is in frontend/parsing/tools/, in a file of its name, which is a value of the
parameter `tool_format`.
"""

REASONING_OPEN, REASONING_CLOSE = "<think>", "</think>"
"""Around what a model writes before its answer, where its parameter `reasoning` is `think`."""

REASONING_TAGS = (REASONING_OPEN, REASONING_CLOSE)
"""To be written out, although some tokenizers count them as special tokens."""

DEFAULT_TOOL_FORMAT = "hermes"
"""What a model is told to write if its chat template does not support tools."""

_DEEPSEEK = (
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁sep｜>",
)
_MISTRAL = ("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]")

TOOL_TAGS: dict[str, tuple[str, ...]] = {
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


def suffix_overlap(text: str, tag: str) -> int:
    """Return the length of the longest proper prefix of `tag` that `text` ends with."""
    longest = min(len(text), len(tag) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(tag[:n])), 0)

"""The tags of reasoning and tool calls in models' text, and text helpers that the frontend and the backends share.

Each tool format is a value of a model's `tool_format` parameter; its grammar is in frontend/parsing/tools/.
"""

REASONING_OPEN, REASONING_CLOSE = "<think>", "</think>"
"""The tags around the reasoning of models whose `reasoning` parameter is `think`."""

REASONING_TAGS = (REASONING_OPEN, REASONING_CLOSE)
"""Kept in the output text, although some tokenizers treat them as special tokens."""

DEFAULT_TOOL_FORMAT = "hermes"
"""The format that a model is prompted to use if its chat template does not support tools."""

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
"""Kept in the output text, although some tokenizers treat them as special tokens."""

CALL_ID_LENGTH = {"mistral": 9, "mistral-v11": 9}
"""The length of tool call IDs, for formats whose chat templates accept only one length."""


def suffix_overlap(text: str, tag: str) -> int:
    """Return the length of the longest proper prefix of `tag` that `text` ends with."""
    longest = min(len(text), len(tag) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(tag[:n])), 0)

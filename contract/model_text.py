"""The tags that mark reasoning and tool calls in a model's output, and a helper to find tags in streamed text.

The frontend and the backends share this module. The keys of TOOL_TAGS are the tool formats: the possible values of a
model's `tool_format` parameter. The parsers and the constraints of the formats are in frontend/parsing/tools/.
"""

REASONING_OPEN, REASONING_CLOSE = "<think>", "</think>"
"""The tags around the reasoning of models whose `reasoning` parameter is `think`."""

REASONING_TAGS = (REASONING_OPEN, REASONING_CLOSE)
"""The reasoning tags. They stay in the output text, although some tokenizers treat them as special tokens."""

DEFAULT_TOOL_FORMAT = "hermes"
"""The tool format of a model without a `tool_format` parameter.

A model whose chat template does not support tools is prompted to use this format.
"""

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
"""The tags of each tool format.

If a request has tools, the tags of the model's format stay in the output text, although some tokenizers treat them as
special tokens.
"""

CALL_ID_LENGTH = {"mistral": 9, "mistral-v11": 9}
"""The length of tool call IDs in characters, for formats whose chat templates accept only one length."""


def suffix_overlap(text: str, tag: str) -> int:
    """Return the length of the longest proper prefix of `tag` that `text` ends with."""
    longest = min(len(text), len(tag) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(tag[:n])), 0)

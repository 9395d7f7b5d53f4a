"""Infers a model's tool format and reasoning from its chat template."""

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

# Texts of templates whose tool format is not supported → the model families that use it.
_UNSUPPORTED = {
    "<arg_key>": "GLM 4.5",
    "<function=": "Qwen3-Coder",
    "<|START_ACTION|>": "Command R7B",
    "<|channel|>": "GPT-OSS",
    "Action: ```json": "Command R",
}


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
    return next((family for mark, family in _UNSUPPORTED.items() if mark in template), None)

"""Describes the JSON schema of the output in the prompt.

A grammar only excludes tokens. A model that does not know the schema often writes text that fits it badly.
"""

import json
from collections.abc import Mapping
from typing import Any

Messages = list[dict[str, Any]]

INSTRUCTIONS = "Answer with JSON that matches this JSON schema:\n"


def schema_of(constraint: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the JSON schema of a constraint in its JSON form, or of the first alternative that has one; else None."""
    constraint = constraint or {}
    if constraint.get("kind") == "any_of":
        return next(filter(None, map(schema_of, constraint["constraints"])), None)
    return (constraint.get("schema") or None) if constraint.get("kind") == "json_schema" else None


def with_schema(messages: Messages, schema: Mapping[str, Any], role: str = "system") -> Messages:
    """Return the messages with the schema at the end of the system message, or of the last message with this role.

    If there is no such message, a system message is added at the beginning.
    """
    text = INSTRUCTIONS + json.dumps(schema, ensure_ascii=False)
    found = [index for index, message in enumerate(messages) if message["role"] == role]
    if not found or (role == "system" and found[0] > 0):
        as_parts = any(isinstance(message.get("content"), list) for message in messages)
        return [{"role": "system", "content": [{"type": "text", "text": text}] if as_parts else text}, *messages]
    index = 0 if role == "system" else found[-1]
    content = messages[index].get("content") or ""
    changed = (
        [*content, {"type": "text", "text": text}] if isinstance(content, list) else f"{content}\n\n{text}".lstrip()
    )
    return [*messages[:index], messages[index] | {"content": changed}, *messages[index + 1 :]]

"""Builds the constraints that make an output consist of tool calls, for engines that support structured output."""

from collections.abc import Mapping, Sequence
from typing import Any

from contract.constraints import ToolCallsConstraint, ToolCallTag

Function = Mapping[str, Any]

# Keywords of a schema that do not describe any property.
_NO_ARGUMENTS = frozenset(("type", "title", "description", "$schema", "$id", "$comment"))


def tagged(
    begin: str,
    schema: dict[str, Any],
    end: str,
    functions: Sequence[Function],
    separator: str = "",
    max_calls: int | None = None,
) -> ToolCallsConstraint:
    """Return the constraint for calls that all start with `begin` and end with `end`.

    `schema` is the result of `call_schema` or `calls_schema` for the functions.
    """
    path, calls = ("schema.items", schema["items"]) if "items" in schema else ("schema", schema)
    sources = {
        f"{path}.anyOf[{index}].properties.{call['required'][1]}": (function["name"], function["param"])
        for index, (function, call) in enumerate(zip(functions, calls["anyOf"], strict=True))
    }
    return ToolCallsConstraint([ToolCallTag(begin, schema, end, sources)], separator, max_calls=max_calls)


def tagged_any(choices: Sequence[tuple[str, Function, str]]) -> ToolCallsConstraint:
    """Return the constraint for exactly one call; each choice (begin, function, end) is the form of one tool's calls.

    Between `begin` and `end` are the arguments.
    """
    tags = [
        ToolCallTag(begin, parameters_of(function), end, {"schema": (function["name"], function["param"])})
        for begin, function, end in choices
    ]
    return ToolCallsConstraint(tags, max_calls=1)


def call_schema(functions: Sequence[Function], arguments: str = "arguments", at: str = "#") -> dict[str, Any]:
    """Return the schema of a call to any one of the functions.

    `arguments` is the key of the call's arguments. `at` is the JSON pointer to the place of the returned schema in the
    final schema.
    """
    return {
        "anyOf": [
            {
                "type": "object",
                "properties": {
                    "name": {"const": function["name"]},
                    arguments: _relocate(parameters_of(function), f"{at}/anyOf/{index}/properties/{arguments}"),
                },
                "required": ["name", arguments],
                "additionalProperties": False,
            }
            for index, function in enumerate(functions)
        ]
    }


def calls_schema(functions: Sequence[Function], max_calls: int | None, arguments: str = "arguments") -> dict[str, Any]:
    """Return the schema of a list of one to `max_calls` calls (None: no limit)."""
    schema = {"type": "array", "items": call_schema(functions, arguments, "#/items"), "minItems": 1}
    return schema if max_calls is None else schema | {"maxItems": max_calls}


def parameters_of(function: Function) -> dict[str, Any]:
    """Return the schema of a function's arguments.

    A function without `parameters`, or with an object schema that has no keyword for properties, accepts no arguments.
    That is the usual way to write it, although such a schema allows any object.
    """
    parameters: dict[str, Any] = function.get("parameters") or {}
    if any(parameters[key] for key in parameters.keys() - _NO_ARGUMENTS):
        return parameters
    return {"type": "object", "properties": {}, "additionalProperties": False}


def _relocate(schema: Any, to: str) -> Any:
    """Return a copy of a schema that will be moved to the JSON pointer `to`.

    In the copy, references to other parts of the schema (`#/$defs/…`) are rewritten for the new location.
    """
    if isinstance(schema, list):
        return [_relocate(item, to) for item in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {key: _relocate(value, to) for key, value in schema.items()}
    reference = schema.get("$ref")
    if isinstance(reference, str) and (reference == "#" or reference.startswith("#/")):
        moved["$ref"] = to + reference[1:]
    return moved

"""The shapes of calls, for an engine that can be made to keep to one.

`tagged`: begin, one JSON value of the schema, end, for one of the tags; `min` to `max` times (None: any number),
with the separator between.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Function = Mapping[str, Any]


def tagged(
    begin: str, schema: dict[str, Any], end: str, separator: str = "", max_calls: int | None = None
) -> dict[str, Any]:
    """Return the shape of calls that are each in tags."""
    return _tagged([(begin, schema, end)], separator, max_calls)


def tagged_any(choices: Sequence[tuple[str, dict[str, Any], str]]) -> dict[str, Any]:
    """Return the shape of one call, where each of the choices (begin, schema, end) is one tool."""
    return _tagged(choices, "", 1)


def _tagged(tags: Sequence[tuple[str, dict[str, Any], str]], separator: str, max_calls: int | None) -> dict[str, Any]:
    described = [{"begin": begin, "schema": schema, "end": end} for begin, schema, end in tags]
    # What a grammar cannot say of a tool's parameters is left to whoever made the tool.
    shape = {"kind": "tagged", "tags": described, "separator": separator, "min": 1, "max": max_calls}
    return shape | {"strict": False, "param": "tools"}


def call_schema(functions: Sequence[Function], arguments: str = "arguments", accept: str = "#") -> dict[str, Any]:
    """Return the schema of one call of any of the functions; `at` is where it will stand in a larger one."""
    return {
        "anyOf": [
            {
                "type": "object",
                "properties": {
                    "name": {"const": function["name"]},
                    arguments: _moved(parameters_of(function), f"{accept}/anyOf/{number}/properties/{arguments}"),
                },
                "required": ["name", arguments],
                "additionalProperties": False,
            }
            for number, function in enumerate(functions)
        ]
    }


def calls_schema(functions: Sequence[Function], max_calls: int | None, arguments: str = "arguments") -> dict[str, Any]:
    """Return the schema of a list of calls."""
    schema = {"type": "array", "items": call_schema(functions, arguments, "#/items"), "minItems": 1}
    return schema if max_calls is None else schema | {"maxItems": max_calls}


def parameters_of(function: Function) -> dict[str, Any]:
    """Return the schema of a function's arguments; without one it takes none."""
    parameters: dict[str, Any] | None = function.get("parameters")
    return parameters or {"type": "object", "properties": {}, "additionalProperties": False}


def _moved(schema: Any, to: str) -> Any:
    """Return a schema with its references to itself (`#/$defs/…`) as they are inside of another."""
    if isinstance(schema, list):
        return [_moved(item, to) for item in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {key: _moved(value, to) for key, value in schema.items()}
    reference = schema.get("$ref")
    if isinstance(reference, str) and (reference == "#" or reference.startswith("#/")):
        moved["$ref"] = to + reference[1:]
    return moved

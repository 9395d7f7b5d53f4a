"""What is known about JSON schemas without writing a grammar: types, constants, anchors, and combined keywords."""

from collections.abc import Callable, Mapping
from typing import Any

from backends.generation.grammar import json_numbers

_MAX_LEVELS = 32

SCALAR_KEYWORDS = frozenset(
    ("minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
)
"""The keywords that `matches_keywords` checks, besides `type`. A client's `pattern` could take forever on a string."""


def find_anchors(schema: Any) -> dict[str, Any]:
    """Return the subschemas with `$anchor` or `$id`, by the reference that names them."""
    anchors: dict[str, Any] = {}
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if isinstance(part.get("$anchor"), str):
                anchors[f"#{part['$anchor']}"] = part
            if isinstance(part.get("$id"), str):
                anchors[part["$id"]] = part
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
    return anchors


def merged_keyword(key: str, one: Any, other: Any) -> Any:
    """Return the value of a keyword that demands what both values demand. Raises ValueError if that is not possible."""
    if one == other:
        return one
    if key == "properties" and isinstance(one, dict) and isinstance(other, dict):
        both = {name: {"allOf": [one[name], other[name]]} for name in one.keys() & other.keys()}
        return one | other | both
    if key == "required" and isinstance(one, list) and isinstance(other, list):
        return [*one, *other]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (one, other))
    if numbers and key in ("minimum", "exclusiveMinimum", "minLength", "minItems"):
        return max(one, other)
    if numbers and key in ("maximum", "exclusiveMaximum", "maxLength", "maxItems"):
        return min(one, other)
    if key == "type":
        common = [kind for kind in _with_integers(one) if kind in _with_integers(other)]
        if common:
            return [kind for kind in common if kind != "integer" or "number" not in common]
    if key == "enum" and isinstance(one, list) and isinstance(other, list):
        return [value for value in one if any(are_equal(value, each) for each in other)]
    raise ValueError(key)


def _with_integers(kinds: Any) -> list[Any]:
    """Return types as a list, in which `number` is followed by `integer`."""
    return [each for kind in _as_list(kinds) for each in (["number", "integer"] if kind == "number" else [kind])]


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def constants_of(schema: Mapping[str, Any]) -> list[Any] | None:
    """Return the values that `const` or `enum` allows; None if the schema has neither."""
    return [schema["const"]] if "const" in schema else schema.get("enum")


def types_of(schema: Mapping[str, Any]) -> set[str]:
    """Return the types that a schema allows, with integers as numbers; an empty set if it is not certain."""
    constants = constants_of(schema)
    if constants is not None:
        return {_type_of(value) for value in constants}
    return {"number" if kind == "integer" else str(kind) for kind in _as_list(schema.get("type") or [])}


def exclude_each_other(one: Any, other: Any, resolve: Callable[[Any], Any], level: int = 0) -> bool:
    """Return whether it is certain, by types, constants or a required property, that no value matches both schemas.

    `resolve` returns the schema that a schema with `$ref` refers to, and other schemas unchanged.
    """
    one, other = resolve(one), resolve(other)
    if not (isinstance(one, dict) and isinstance(other, dict)) or level > _MAX_LEVELS:
        return False
    constants = constants_of(one), constants_of(other)
    if constants[0] is not None and constants[1] is not None:
        return not any(are_equal(a, b) for a in constants[0] for b in constants[1])
    kinds = types_of(one), types_of(other)
    if kinds[0] and kinds[1] and not kinds[0] & kinds[1]:
        return True
    if kinds != ({"object"}, {"object"}):
        return False
    properties = one.get("properties") or {}, other.get("properties") or {}
    required = set(one.get("required") or ()) & set(other.get("required") or ())
    return any(
        exclude_each_other(properties[0].get(name), properties[1].get(name), resolve, level + 1) for name in required
    )


def _type_of(value: Any) -> str:
    names = {bool: "boolean", int: "number", float: "number", str: "string", type(None): "null", list: "array"}
    return names.get(type(value), "object")


def are_equal(one: Any, other: Any) -> bool:
    """Return whether two JSON values are equal; in Python, True equals 1."""
    return _type_of(one) == _type_of(other) and bool(one == other)


def matches_keywords(value: Any, schema: Mapping[str, Any]) -> bool:
    """Return whether a constant matches the keywords for its type that are in SCALAR_KEYWORDS, and `type`."""
    if "type" in schema and not _has_type(value, schema["type"]):
        return False
    if isinstance(value, str):
        minimum, maximum = schema.get("minLength"), schema.get("maxLength")
        return (minimum is None or len(value) >= minimum) and (maximum is None or len(value) <= maximum)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return json_numbers.is_within(value, schema)
    return True


def _has_type(value: Any, kinds: Any) -> bool:
    allowed = _as_list(kinds)
    return _type_of(value) in allowed or (type(value) is int and "integer" in allowed)

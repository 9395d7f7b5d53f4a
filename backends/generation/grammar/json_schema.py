"""Converts JSON schemas to grammars.

The engine has its own converter. The grammars of that converter allow arbitrary white space, and a small model may
generate nothing but white space until it reaches the token limit. The grammars of this module allow white space only
where `json.dumps` writes it. With `strict`, keywords that a grammar cannot express are rejected; without `strict`, they
are ignored. `oneOf` is treated as `anyOf`; with `strict`, its options must exclude each other. Unknown values of
`format` are ignored.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from backends.generation.grammar import json_numbers
from backends.generation.grammar.deterministic import intersection
from backends.generation.grammar.ebnf import EMPTY, Rules, UnsupportedConstraint, any_of, literal, repeat
from backends.generation.grammar.formats import FORMATS
from backends.generation.grammar.regex import any_length, json_characters, json_pattern
from backends.generation.grammar.schema_analysis import (
    SCALAR_KEYWORDS,
    exclude_each_other,
    find_anchors,
    matches_keywords,
    merged_keyword,
)

Schema = dict[str, Any] | bool

_MAX_LEVELS = 32
_MAX_ITEMS = 1_000
_MAX_OPTIONAL = 128

# Keywords that do not restrict the valid values.
_ANNOTATIONS = frozenset(
    [
        "title",
        "description",
        "default",
        "examples",
        "deprecated",
        "readOnly",
        "writeOnly",
        "$schema",
        "$id",
        "$comment",
        "$anchor",
        "$defs",
        "definitions",
        "contentMediaType",
        "contentEncoding",
        "discriminator",
        "example",
        "nullable",
        "xml",
        "externalDocs",
    ]
)
_COMBINED = ("$ref", "enum", "const", "anyOf", "oneOf", "allOf")
_KEYWORDS: dict[str, frozenset[str]] = {
    "string": frozenset(("minLength", "maxLength", "pattern", "format")),
    "integer": frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")),
    "number": frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")),
    "object": frozenset(("properties", "required", "additionalProperties")),
    "array": frozenset(("items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems")),
    "boolean": frozenset(),
    "null": frozenset(),
}
# The engine would be ten times slower if the grammar had a separate rule for a character, or if strings could contain
# \u escapes. Therefore the characters are inlined, and strings cannot contain \u escapes. Only lone surrogates and most
# control characters need such an escape, and these characters are hardly ever useful.
_TEXT = r'''"\"" ([^"\\\u0000-\u001f] | "\\" ["\\/bfnrt])* "\""'''


_MAX_VISITS = 5_000


class JSONGrammar:
    """Writes expressions for the JSON values that a schema allows. Several instances can add to the same `rules`.

    With `strict`, keywords that a grammar cannot express raise UnsupportedConstraint; without it, they are ignored.
    """

    def __init__(self, rules: Rules, strict: bool = True):
        self._rules, self._strict, self._visits = rules, strict, 0
        self.is_exact = True
        """Whether all values match the schema by the letter. `additionalProperties` of a part that is merged with other
        parts does not exclude the properties of those, although by the letter it does.
        """

    def value(self, schema: Schema) -> str:
        """Return the expression for a JSON value that the schema allows.

        Raises UnsupportedConstraint if the schema is invalid or not supported.
        """
        self._whole, self._references = schema, dict[str, str]()
        self._anchors = find_anchors(schema)
        return self._value(schema, "schema", 0)

    def anything(self, kinds: tuple[str, ...] = ("object", "array", "string", "number", "boolean", "null")) -> str:
        """Return the expression for any JSON value of these types."""
        return any_of(self._of_type(kind, {}, "schema", 0) for kind in kinds)

    def _value(self, schema: Any, path: str, level: int) -> str:
        self._visits += 1  # `allOf` can resolve a reference to the same subschema many times
        if self._visits > _MAX_VISITS:
            raise UnsupportedConstraint(f"the schema is too large (limit {_MAX_VISITS} subschemas)")
        if schema is True or schema == {}:
            return self._any_value()
        if not isinstance(schema, dict):
            raise UnsupportedConstraint(
                f"{path}: the schema 'false' allows no value" if schema is False else f"{path}: must be an object"
            )
        if level > _MAX_LEVELS:
            raise UnsupportedConstraint(f"{path}: nested deeper than {_MAX_LEVELS} levels")
        for key in _COMBINED:
            if key in schema:
                return self._combined(key, schema, path, level)
        types = schema.get("type") or _implied(schema)
        types = types if isinstance(types, list) else [types]
        for kind in types:
            if not isinstance(kind, str) or kind not in _KEYWORDS:
                if not self._strict:
                    return self._any_value()
                raise UnsupportedConstraint(f"{path}.type: {json.dumps(kind)[:40]} is not a JSON type")
        self._check(schema, frozenset[str]().union(*(_KEYWORDS[kind] for kind in types)), path)
        return any_of(self._of_type(kind, schema, path, level) for kind in types)

    def _check(self, schema: Mapping[str, Any], known: frozenset[str], path: str) -> None:
        """If `strict`, raise UnsupportedConstraint for a keyword that the grammar would not enforce.

        Annotations, `x-` extensions and keywords of other types are accepted, because they do not restrict the value.
        """
        of_other_types = frozenset[str]().union(*_KEYWORDS.values()) - known
        for key in schema.keys() - known - of_other_types - _ANNOTATIONS - {"type"}:
            if self._strict and not key.startswith("x-"):
                raise UnsupportedConstraint(f"{path}: '{key}' is not supported here")

    def _combined(self, key: str, schema: dict[str, Any], path: str, level: int) -> str:
        value, where = schema[key], f"{path}.{key}"
        siblings = {name: other for name, other in schema.items() if name != key and name not in _ANNOTATIONS}
        if key == "allOf":
            return self._value(self._all_of(value, siblings, where), path, level + 1)
        if key in ("enum", "const"):
            return self._constants([value] if key == "const" else value, siblings, where)
        if key == "$ref":
            if siblings:
                return self._value(self._all_of([schema], {}, where), path, level + 1)
            return self._reference(value, where, level)
        if not isinstance(value, list) or not value:
            raise UnsupportedConstraint(f"{where}: must be a list of schemas")
        if key == "oneOf" and self._strict:
            self._check_one_of(value, where)
        options = [self._all_of([siblings, option], {}, where) for option in value] if siblings else value
        return any_of(f"({self._value(option, f'{where}[{i}]', level + 1)})" for i, option in enumerate(options))

    def _check_one_of(self, options: list[Any], path: str) -> None:
        """Raise UnsupportedConstraint unless it is certain that no value matches two of the options."""
        for i, option in enumerate(options):
            if not all(exclude_each_other(option, other, self._without_reference) for other in options[:i]):
                raise UnsupportedConstraint(f"{path}[{i}]: may match the same values as another option")

    def _without_reference(self, schema: Any) -> Any:
        for _ in range(_MAX_LEVELS):
            if not (isinstance(schema, dict) and "$ref" in schema):
                break
            schema = self._resolve(schema["$ref"], "$ref")
        return schema

    def _all_of(self, parts: Any, siblings: dict[str, Any], path: str) -> dict[str, Any]:
        """Merge `parts`, which are schemas, and `siblings`, the keywords beside them, into one schema.

        If a keyword has different values that cannot be merged, raises UnsupportedConstraint with `strict`; otherwise
        the first value is used.
        """
        if not isinstance(parts, list) or not parts:
            raise UnsupportedConstraint(f"{path}: must be a list of schemas")
        whole: dict[str, Any] = {}
        flat = list(self._flattened([*parts, siblings], path))
        names = {name for part in flat if isinstance(part.get("properties"), dict) for name in part["properties"]}
        for part in flat:
            if part.get("additionalProperties", True) is not True and names - set(part.get("properties") or ()):
                self.is_exact = False
            for key, value in part.items():
                if key in _ANNOTATIONS or key not in whole:
                    whole[key] = value
                    continue
                try:
                    whole[key] = merged_keyword(key, whole[key], value)
                except ValueError:
                    if self._strict:
                        raise UnsupportedConstraint(f"{path}: different values of '{key}' are not supported") from None
        return whole

    def _flattened(self, parts: list[Any], path: str) -> Iterator[dict[str, Any]]:
        """Yield the parts; a part with `$ref` or `allOf` follows the schemas that these name or contain."""
        waiting, visits = list(parts), 0
        while waiting:
            part = waiting.pop(0)
            visits += 1
            if visits > _MAX_ITEMS:
                raise UnsupportedConstraint(f"{path}: too many schemas to combine (limit {_MAX_ITEMS})")
            if part is True:
                continue
            if not isinstance(part, dict):
                raise UnsupportedConstraint(f"{path}: must be a list of objects")
            rest = {key: value for key, value in part.items() if key not in ("$ref", "allOf")}
            nested = [self._resolve(part["$ref"], path)] if "$ref" in part else []
            nested += part["allOf"] if isinstance(part.get("allOf"), list) else []
            if nested:
                waiting = [*nested, rest, *waiting]
            else:
                yield rest

    def _constants(self, values: Any, siblings: dict[str, Any], path: str) -> str:
        if not isinstance(values, list) or not values:
            raise UnsupportedConstraint(f"{path}: must be a list of values")
        self._check(siblings, frozenset().union(*_KEYWORDS.values()), path)
        if self._strict and (unsupported := siblings.keys() - {"type"} - SCALAR_KEYWORDS):
            raise UnsupportedConstraint(
                f"{path}: '{min(unsupported)}' is not supported together with 'enum' or 'const'"
            )
        matching = [value for value in values if matches_keywords(value, siblings)]
        if not matching:
            raise UnsupportedConstraint(f"{path}: no value matches the other keywords")
        return any_of(literal(json.dumps(value, ensure_ascii=False, allow_nan=False)) for value in matching)

    def _reference(self, target: Any, path: str, level: int) -> str:
        schema = self._resolve(target, path)
        if target not in self._references:
            self._references[target] = name = self._rules.reserve("ref")
            body = self._value(schema, str(target), level + 1)
            if body == name:
                raise UnsupportedConstraint(f"{path}: refers only to itself")
            self._rules.fill(name, body)
        return self._references[target]

    def _resolve(self, target: Any, path: str) -> Any:
        if isinstance(target, str) and target in self._anchors:
            return self._anchors[target]
        if not isinstance(target, str) or not (target == "#" or target.startswith("#/")):
            raise UnsupportedConstraint(
                f"{path}: only references within the schema are supported, such as '#/$defs/name'"
            )
        found: Any = self._whole
        for part in target.split("/")[1:]:
            key = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and key.isdecimal() and int(key) < len(found):
                found = found[int(key)]
            elif isinstance(found, dict) and key in found:
                found = found[key]
            else:
                raise UnsupportedConstraint(f"{path}: {target[:100]!r} does not exist")
        return found

    def _of_type(self, kind: str, schema: Mapping[str, Any], path: str, level: int) -> str:
        write: dict[str, Callable[[], str]] = {
            "object": lambda: self._object(schema, path, level),
            "array": lambda: self._array(schema, path, level),
            "string": lambda: self._string(schema),
            "integer": lambda: self._integer(schema),
            "number": lambda: self._number(schema),
            "boolean": lambda: '("true" | "false")',
            "null": lambda: '"null"',
        }
        try:
            return write[kind]()
        except UnsupportedConstraint as error:
            raise (
                error if str(error).startswith(("schema", "#")) else UnsupportedConstraint(f"{path}: {error}")
            ) from error

    def _number(self, schema: Mapping[str, Any]) -> str:
        return self._rules.name(self._bounded(json_numbers.number, schema), "number")

    def _integer(self, schema: Mapping[str, Any]) -> str:
        return self._rules.name(self._bounded(json_numbers.integer, schema), "integer")

    def _bounded(self, write: Callable[[Mapping[str, Any]], str], schema: Mapping[str, Any]) -> str:
        """Return the expression for a number. Without `strict`, keywords that are not supported are ignored."""
        try:
            return write(schema)
        except UnsupportedConstraint:
            if self._strict:
                raise
        with contextlib.suppress(UnsupportedConstraint):
            return write({key: value for key, value in schema.items() if key != "multipleOf"})
        return write({})

    def _string(self, schema: Mapping[str, Any]) -> str:
        counted = "minLength" in schema or "maxLength" in schema
        pattern = schema.get("pattern", FORMATS.get(schema.get("format", "")))
        if pattern is not None and not isinstance(pattern, str):
            raise UnsupportedConstraint("'pattern' must be a string")
        if "pattern" not in schema and pattern is not None:
            pattern = f"^({pattern})$"
        try:
            if pattern is not None and counted:
                inside = self._counted_pattern(pattern, schema)
            elif pattern is not None:
                inside = json_pattern(pattern)
            elif counted:
                minimum = _count(schema, "minLength") or 0
                inside = json_characters(minimum, _checked_maximum(minimum, _count(schema, "maxLength")))
            else:
                return self._text()
        except UnsupportedConstraint:
            if self._strict:
                raise
            return self._text()
        return self._rules.name(f'"\\"" {inside} "\\""', "string")

    def _counted_pattern(self, pattern: str, schema: Mapping[str, Any]) -> str:
        """Return the expression for the inside of a string with a pattern and a length."""
        minimum = _count(schema, "minLength") or 0
        maximum = _checked_maximum(minimum, _count(schema, "maxLength"))
        inside = json_pattern(pattern)
        try:
            return intersection(self._rules, inside, any_length(minimum, maximum))
        except UnsupportedConstraint:
            if self._strict:
                raise
            return inside

    def _text(self) -> str:
        return self._rules.name(_TEXT, "string")

    def _any_value(self) -> str:
        if "*" not in self._references:
            self._references["*"] = name = self._rules.reserve("any")
            self._rules.fill(name, self.anything())
        return self._references["*"]

    def _object(self, schema: Mapping[str, Any], path: str, level: int) -> str:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if not self._strict:
            properties, required = properties or {}, required or []
        if not isinstance(properties, dict):
            raise UnsupportedConstraint("'properties' must be an object")
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            raise UnsupportedConstraint("'required' must be a list of names")
        others = schema.get("additionalProperties", True)
        known = properties | {name: others for name in required if name not in properties}
        if not known:
            return self._dictionary(others, path, level)
        if len(known.keys() - set(required)) > _MAX_OPTIONAL:
            raise UnsupportedConstraint(f"more than {_MAX_OPTIONAL} optional properties are not supported")
        members = []
        for name, value in known.items():
            key = literal(json.dumps(name, ensure_ascii=False) + ": ")
            expression = self._value(value, f"{path}.properties.{name}", level + 1)
            members.append((f"{key} ({expression})", name in required))
        return self._rules.name(f'"{{" {self._members(members)} "}}"', "object")

    def _members(self, members: list[tuple[str, bool]]) -> str:
        """Return the expression for an object's members in this order; optional members may be missing."""
        # The loop goes from the last member to the first. `after` is the expression for what may follow the current
        # member. `starts` has one expression for each member that may come first; each also covers what may follow.
        after, starts = "", ['""']
        for member, is_required in reversed(members):
            start = self._rules.name(f"{member} {after}".strip(), "member")
            starts = [start] if is_required else [start, *starts]
            follows = f'", " {start}'
            after = follows if is_required else self._rules.name(f"({follows}) | {after or EMPTY}", "rest")
        return any_of(starts)

    def _dictionary(self, others: Any, path: str, level: int) -> str:
        if others is False:
            return '"{}"'
        value = self._value(others, f"{path}.additionalProperties", level + 1)
        member = self._rules.name(f'{self._text()} ": " {value}', "entry")
        return self._rules.name(f'"{{" ({member} (", " {member})*)? "}}"', "object")

    def _array(self, schema: Mapping[str, Any], path: str, level: int) -> str:
        if self._strict and schema.get("uniqueItems"):
            raise UnsupportedConstraint("'uniqueItems' is not supported")
        minimum = _count(schema, "minItems") or 0
        maximum = _checked_maximum(minimum, _count(schema, "maxItems"))
        if max(minimum, maximum or 0) > _MAX_ITEMS:
            raise UnsupportedConstraint(f"'minItems' and 'maxItems' above {_MAX_ITEMS} are not supported")
        first, others = schema.get("prefixItems", []), schema.get("items", True)
        if isinstance(others, list):  # a tuple as drafts before 2020-12 write it
            first, others = others, schema.get("additionalItems", True)
        if not isinstance(first, list):
            raise UnsupportedConstraint("'prefixItems' must be a list")
        items = [self._value(item, f"{path}.prefixItems[{i}]", level + 1) for i, item in enumerate(first)]
        if maximum == 0:
            return '"[]"'
        if items:
            return self._tuple(items, others, minimum, maximum, path, level)
        item = self._value(others, f"{path}.items", level + 1)
        item = self._rules.name(item, "item")
        more = repeat(f'(", " {item})', max(0, minimum - 1), None if maximum is None else maximum - 1)
        inside = f"{item} {more}"
        optional = f"({inside})?"
        return self._rules.name(f'"[" {inside if minimum else optional} "]"', "array")

    def _tuple(self, items: list[str], others: Any, minimum: int, maximum: int | None, path: str, level: int) -> str:
        """Return the expression for an array of exactly these items, which are expressions themselves.

        Items beyond `maximum` are dropped. If there are fewer than `minimum`, values of the schema `others` follow.
        """
        if maximum is not None and maximum < len(items):
            items = items[:maximum]
        missing = max(0, minimum - len(items))
        if missing:
            item = self._rules.name(self._value(others, f"{path}.items", level + 1), "item")
            items = [*items, *[item] * missing]
        return self._rules.name('"[" ' + ' ", " '.join(f"({item})" for item in items) + ' "]"', "array")


def _implied(schema: Mapping[str, Any]) -> list[str]:
    """Return the types that the keywords of a schema without `type` imply, or all types if its keywords imply none."""
    implied = [kind for kind, keywords in _KEYWORDS.items() if keywords & schema.keys()]
    return [kind for kind in implied if kind != "integer" or "number" not in implied] or list(_KEYWORDS)


def _count(schema: Mapping[str, Any], key: str) -> int | None:
    value = schema.get(key)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise UnsupportedConstraint(f"'{key}' must be a non-negative integer")
    return value


def _checked_maximum(minimum: int, maximum: int | None) -> int | None:
    if maximum is not None and maximum < minimum:
        raise UnsupportedConstraint("the minimum size or length exceeds the maximum")
    return maximum

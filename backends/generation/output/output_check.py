"""Checks complete outputs against their constraints, in case the engine's grammar accepts more than it should.

A check is independent of the engine: JSON schemas are checked by jsonschema, regular expressions by RE2, whose time is
linear in the length of the text.
"""

import functools
import itertools
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

import re2
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend
from referencing import Registry

from backends.generation.grammar.ebnf import Rules, UnsupportedConstraint
from backends.generation.grammar.json_schema import JSONGrammar
from backends.generation.grammar.nodes import CharacterClass, Choice, Literal, Node, Repeat, parse
from backends.generation.grammar.regex import regex_grammar, text_pattern
from contract.constraints import (
    AnyOfConstraint,
    ChoiceConstraint,
    Constraint,
    JSONObjectConstraint,
    JSONSchemaConstraint,
    RegexConstraint,
    ToolCallsConstraint,
    ToolCallTag,
)

log = logging.getLogger(__name__)

Check = Callable[[str], bool]
"""Returns whether a complete output satisfies the constraint."""
_ValueCheck = Callable[[Any], bool]

# The keywords that can make validation exponential in the size of the output, and how many of them are followed.
_BRANCHING = ("$ref", "anyOf", "oneOf", "allOf")
_MAX_BRANCHES = 5_000

# Keywords whose values are schemas by name, and keywords that do not matter for the check.
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_VALUES = ("default", "examples", "example")

# Numbers beyond 10 to this power, or its inverse, are not checked for `multipleOf`: as fractions, they would be huge.
_MAX_EXPONENT = 400


def _number(text: str) -> Decimal | float:
    try:
        return Decimal(text)
    except InvalidOperation:  # the exponent is too large
        return float(text)


_DECODER = json.JSONDecoder(
    parse_float=_number, parse_int=lambda text: int(text) if len(text) < 4_000 else _number(text)
)


class _TooExpensive(Exception):
    """A validation exceeds its limit."""


def output_check(constraint: Constraint) -> Check | None:
    """Return the check for a constraint for which there is a grammar; None if its outputs cannot be checked.

    An output that cannot be checked with reasonable effort passes. If the constraint is not strict and a grammar cannot
    express all of its schema, only the JSON syntax is checked.
    """
    match constraint:
        case JSONObjectConstraint():
            return lambda text: isinstance(_decode(text), dict)
        case JSONSchemaConstraint(schema=schema, strict=strict):
            return _on_json(_value_check(schema, strict))
        case RegexConstraint(pattern=pattern):
            return _regex_check(regex_grammar(pattern))
        case ChoiceConstraint(choices=choices):
            return lambda text: text in choices
        case ToolCallsConstraint():
            return _calls_check(constraint)
        case AnyOfConstraint(constraints=constraints):
            checks = [output_check(one) for one in constraints]
            return None if None in checks else lambda text: any(check(text) for check in checks if check)
    return None


def _on_json(check: _ValueCheck) -> Check:
    def checked(text: str) -> bool:
        value = _decode(text)
        return value is not _NOT_JSON and check(value)

    return checked


_NOT_JSON = object()


def _decode(text: str) -> Any:
    try:
        value, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return _NOT_JSON
    return value if end == len(text) else _NOT_JSON


def _calls_check(calls: ToolCallsConstraint) -> Check:
    checks = [(tag, _value_check(tag.schema, calls.strict)) for tag in calls.tags]

    def checked(text: str) -> bool:
        position = 0
        for count in itertools.count(1):
            ends = filter(None, (_end_of_call(text, position, tag, check) for tag, check in checks))
            end = next(ends, None)
            if end is None or (calls.max_calls is not None and count > calls.max_calls):
                return False
            if end == len(text):
                return count >= calls.min_calls
            if not text.startswith(calls.separator, end):
                return False
            position = end + len(calls.separator)
        return False

    return checked


def _end_of_call(text: str, start: int, tag: ToolCallTag, check: _ValueCheck) -> int | None:
    """Return where a call of this form that begins at `start` ends, or None if there is no such call."""
    if not text.startswith(tag.begin, start):
        return None
    try:
        value, end = _DECODER.raw_decode(text, start + len(tag.begin))
    except (ValueError, RecursionError):
        return None
    return end + len(tag.end) if text.startswith(tag.end, end) and check(value) else None


def _value_check(schema: dict[str, Any], strict: bool) -> _ValueCheck:
    """Return the check for the JSON values of a schema."""
    if not _is_exact(schema, strict):
        return lambda value: True
    try:
        validator, count = _validator(_normalized(json.loads(json.dumps(schema), parse_float=_number)))
    except Exception as error:  # a client's schema can be malformed in any way
        log.debug("outputs cannot be checked: %r", error)
        return lambda value: True

    def checked(value: Any) -> bool:
        count[0] = 0
        try:
            return bool(validator.is_valid(value))
        except Exception as error:
            log.debug("an output could not be checked: %r", error)
            return True

    return checked


def _is_exact(schema: dict[str, Any], strict: bool) -> bool:
    """Return whether all outputs of the grammar match the schema by the letter."""
    grammar = JSONGrammar(Rules(), strict=True)
    try:
        grammar.value(schema)
    except UnsupportedConstraint:
        return strict  # the grammar has been written before, so another limit was exceeded
    return grammar.is_exact


def _validator(schema: dict[str, Any]) -> tuple[Any, list[int]]:
    """Return jsonschema's validator, which reads nothing from the network, and its counter of followed branches."""
    count = [0]

    def counted(keyword: Callable[..., Any]) -> Callable[..., Any]:
        def follow(*arguments: Any) -> Any:
            count[0] += 1
            if count[0] > _MAX_BRANCHES:
                raise _TooExpensive
            return keyword(*arguments)

        return follow

    keywords = {name: counted(Draft202012Validator.VALIDATORS[name]) for name in _BRANCHING}
    keywords |= {"pattern": _check_pattern, "multipleOf": _check_multiple}
    return extend(Draft202012Validator, keywords)(schema, registry=Registry()), count  # type: ignore[no-untyped-call]


def _normalized(schema: Any) -> Any:
    """Return a schema in the notation of draft 2020-12, as the grammar reads it.

    `$schema` is removed, because jsonschema would check a subschema that has it with another, slower validator.
    """
    if not isinstance(schema, dict):
        return schema
    result: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _NAMED and isinstance(value, dict):
            result[key] = {name: _normalized(part) for name, part in value.items()}
        elif key in _VALUES or key == "$schema":
            continue
        elif isinstance(value, list) and key not in ("enum", "required", "type"):
            result[key] = [_normalized(part) for part in value]
        else:
            result[key] = value if key in ("enum", "const") else _normalized(value)
    if isinstance(result.get("items"), list):
        result["prefixItems"] = result.pop("items")
        if "additionalItems" in result:
            result["items"] = result.pop("additionalItems")
    for exclusive, inclusive in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(result.get(exclusive), bool) and result.pop(exclusive) and inclusive in result:
            result[exclusive] = result.pop(inclusive)
    return result


def _check_pattern(_: Any, pattern: str, value: Any, schema: Mapping[str, Any]) -> Iterator[ValidationError]:
    if isinstance(value, str) and not _pattern_check(pattern)(value):
        yield ValidationError("does not match the pattern")


def _check_multiple(_: Any, divisor: Any, value: Any, schema: Mapping[str, Any]) -> Iterator[ValidationError]:
    """Check `multipleOf` exactly; jsonschema divides floating-point numbers."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return
    if abs(Decimal(value).adjusted()) < _MAX_EXPONENT and Fraction(value) % Fraction(divisor):
        yield ValidationError("is not a multiple")


@functools.lru_cache(maxsize=256)
def _pattern_check(pattern: str) -> Check:
    return _full_match(text_pattern(pattern))


def _regex_check(expression: str) -> Check | None:
    try:
        return _full_match(expression)
    except Exception as error:  # RE2 limits counts and memory more than the grammar does
        log.debug("outputs cannot be checked: %r", error)
        return None


def _full_match(expression: str) -> Check:
    options = re2.Options()
    options.log_errors = False
    compiled = re2.compile(_as_re2(parse(expression)), options)
    return lambda text: compiled.fullmatch(text) is not None


def _as_re2(node: Node) -> str:
    """Return the expression of a grammar as a regular expression of RE2."""
    match node:
        case Literal(text):
            return "".join(f"\\x{{{ord(character):x}}}" for character in text)
        case CharacterClass(ranges):
            return "[" + "".join(f"\\x{{{first:x}}}-\\x{{{last:x}}}" for first, last in ranges) + "]"
        case Repeat(part, minimum, maximum):
            return f"(?:{_as_re2(part)}){{{minimum},{'' if maximum is None else maximum}}}"
        case Choice(options):
            return "(?:" + "|".join("".join(map(_as_re2, option)) for option in options) + ")"
    raise ValueError(f"not a regular expression: {node}")

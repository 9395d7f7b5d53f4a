"""Converts constraints (contract/constraints.py) to grammars for the engine."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from backends.common.errors import InvalidRequest
from backends.generation.grammar.deterministic import deterministic
from backends.generation.grammar.ebnf import MAX_CHARACTERS, Rules, UnsupportedConstraint, any_of, literal, repeat
from backends.generation.grammar.json_schema import JSONGrammar
from backends.generation.grammar.regex import regex_grammar
from contract.constraints import (
    AnyOfConstraint,
    ChoiceConstraint,
    Constraint,
    GrammarConstraint,
    JSONObjectConstraint,
    JSONSchemaConstraint,
    RegexConstraint,
    ToolCallsConstraint,
    ToolCallTag,
    constraint_from_json,
)

_MAX_CHOICES = 1_000
_MAX_TAGS = 128
_POINTER = re.compile(r"^#[^:.\[]*")


class _UnsupportedTool(UnsupportedConstraint):
    """The schema of a tool is not supported. `param` is its path in the request."""

    def __init__(self, message: str, param: str):
        super().__init__(message)
        self.param = param


def grammar_from(content: Mapping[str, Any], translate: Callable[[str], str] | None = None) -> str:
    """Return the grammar for a constraint, which is given in its JSON form.

    `translate` converts the grammar to the notation of the model's engine.

    Raises InvalidRequest, naming the request field that set the constraint, if the constraint is invalid or not
    supported.
    """
    try:
        constraint = constraint_from_json(content)
        if isinstance(constraint, GrammarConstraint):
            grammar = _deterministic_if_possible(_checked(constraint.grammar))
        else:
            rules = Rules()
            grammar = deterministic(rules.text(_expression(rules, constraint)))
        return _checked(translate(grammar) if translate else grammar)
    except _UnsupportedTool as error:
        raise InvalidRequest(f"Invalid value for '{error.param}': {error}", error.param) from error
    except UnsupportedConstraint as error:
        raise _invalid(content, str(error)) from error
    except RecursionError as error:
        raise _invalid(content, "nested too deeply") from error
    except (TypeError, AttributeError, ValueError, KeyError) as error:
        raise _invalid(content, "not a valid schema or grammar") from error


def _invalid(content: Mapping[str, Any], reason: str) -> InvalidRequest:
    param = content.get("param")
    return InvalidRequest(f"Invalid value for '{param}': {reason}", param)


def _expression(rules: Rules, constraint: Constraint) -> str:
    match constraint:
        case JSONObjectConstraint():
            return JSONGrammar(rules).value({"type": "object"})
        case JSONSchemaConstraint(schema=schema, strict=strict):
            return JSONGrammar(rules, strict).value(schema)
        case RegexConstraint(pattern=pattern):
            return regex_grammar(pattern)
        case ChoiceConstraint(choices=choices):
            if len(choices) > _MAX_CHOICES:
                raise UnsupportedConstraint(f"at most {_MAX_CHOICES} choices are supported")
            return any_of(map(literal, choices))
        case AnyOfConstraint(constraints=constraints):
            return any_of(f"({_expression(rules, one)})" for one in constraints)
        case ToolCallsConstraint():
            return _tool_calls(rules, constraint)
        case GrammarConstraint():
            raise UnsupportedConstraint("a grammar cannot be combined with another constraint")


def _deterministic_if_possible(grammar: str) -> str:
    try:
        return deterministic(grammar)
    except ValueError:  # the client's grammar uses more of the engine's syntax
        return grammar


def _checked(grammar: str) -> str:
    if len(grammar) > MAX_CHARACTERS:
        raise UnsupportedConstraint(f"the grammar exceeds the limit of {MAX_CHARACTERS} characters")
    grammar.encode()  # raises ValueError for a lone surrogate
    return grammar


def _tool_calls(rules: Rules, calls: ToolCallsConstraint) -> str:
    if len(calls.tags) > _MAX_TAGS:
        raise UnsupportedConstraint(f"at most {_MAX_TAGS} tool call tags are supported")
    # A `$ref` refers to a part of its own schema, so each schema has its own JSONGrammar; all share `rules`.
    values = [_tool_call(rules, tag, calls.strict) for tag in calls.tags]
    parts = [f"{literal(tag.begin)} ({v}) {literal(tag.end)}" for tag, v in zip(calls.tags, values, strict=True)]
    one = rules.name(any_of(f"({part})" for part in parts), "tag")
    further = None if calls.max_calls is None else calls.max_calls - 1
    more = repeat(f"({literal(calls.separator)} {one})", max(0, calls.min_calls - 1), further)
    return f"{one} {more}" if calls.min_calls else f"({one} {more})?"


def _tool_call(rules: Rules, tag: ToolCallTag, strict: bool) -> str:
    """Return the expression for the JSON of a call. Raises UnsupportedConstraint."""
    try:
        return JSONGrammar(rules, strict).value(tag.schema)
    except UnsupportedConstraint as error:
        message = _POINTER.sub(_dotted, str(error))
        for path, (name, param) in tag.sources.items():
            if message.startswith(path):
                rest = message.removeprefix(path).removeprefix(".").removeprefix(": ")
                raise _UnsupportedTool(f"tool '{name}': {rest}", param) from error
        raise


def _dotted(pointer: re.Match[str]) -> str:
    """Return a JSON pointer (`#/anyOf/0`) in the notation of other error messages (`schema.anyOf[0]`)."""
    parts = pointer[0].split("/")[1:]
    return "schema" + "".join(f"[{part}]" if part.isdecimal() else f".{part}" for part in parts)

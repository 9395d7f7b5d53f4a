"""Constraints on a chat model's output, and their JSON form.

Each constraint's `param` is the request field that sets the constraint; error responses name this field.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class JSONObjectConstraint:
    """Any JSON object."""

    param: str


@dataclass(frozen=True)
class JSONSchemaConstraint:
    """JSON that conforms to `schema`.

    If `strict`, schema keywords that a grammar cannot express are rejected; otherwise they are ignored.
    """

    schema: dict[str, Any]
    param: str
    strict: bool = True


@dataclass(frozen=True)
class RegexConstraint:
    """Text that fully matches the regular expression `pattern`."""

    pattern: str
    param: str


@dataclass(frozen=True)
class ChoiceConstraint:
    """One of `choices`."""

    choices: Sequence[str]
    param: str


@dataclass(frozen=True)
class GrammarConstraint:
    """Text that matches `grammar`, which is written in the engine's EBNF notation."""

    grammar: str
    param: str


@dataclass(frozen=True)
class ToolCallTag:
    """One form of a tool call: `begin`, then a JSON value that conforms to `schema`, then `end`.

    `sources` tells which parts of `schema` come from which tools, for error messages. It maps the path of such a part
    (`schema.anyOf[0].properties.arguments`) to the tool's name and to the path of its schema in the request.
    """

    begin: str
    schema: dict[str, Any]
    end: str
    sources: Mapping[str, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class ToolCallsConstraint:
    """From `min_calls` to `max_calls` tool calls (None: no limit), with `separator` between them.

    Each call has one of the forms in `tags`. If `strict`, schema keywords that a grammar cannot express are rejected;
    otherwise they are ignored.
    """

    tags: Sequence[ToolCallTag]
    separator: str = ""
    min_calls: int = 1
    max_calls: int | None = None
    strict: bool = False
    param: str = "tools"


@dataclass(frozen=True)
class AnyOfConstraint:
    """Text that satisfies at least one of `constraints`."""

    constraints: "Sequence[Constraint]"
    param: str


Constraint = (
    JSONObjectConstraint
    | JSONSchemaConstraint
    | RegexConstraint
    | ChoiceConstraint
    | GrammarConstraint
    | ToolCallsConstraint
    | AnyOfConstraint
)

_KINDS: dict[str, type[Constraint]] = {
    "json_object": JSONObjectConstraint,
    "json_schema": JSONSchemaConstraint,
    "regex": RegexConstraint,
    "choice": ChoiceConstraint,
    "grammar": GrammarConstraint,
    "tool_calls": ToolCallsConstraint,
    "any_of": AnyOfConstraint,
}


def constraint_to_json(constraint: Constraint) -> dict[str, Any]:
    """Return a constraint as a JSON object with its fields and its `kind`."""
    kind = next(name for name, cls in _KINDS.items() if type(constraint) is cls)
    values = {one.name: getattr(constraint, one.name) for one in fields(constraint)}
    if isinstance(constraint, AnyOfConstraint):
        values["constraints"] = [constraint_to_json(one) for one in constraint.constraints]
    if isinstance(constraint, ToolCallsConstraint):
        values["tags"] = [vars(tag) for tag in constraint.tags]
    return {"kind": kind, **values}


def constraint_from_json(content: Mapping[str, Any]) -> Constraint:
    """Return the constraint that a JSON object describes.

    Raises KeyError or TypeError if `kind` is missing or unknown, a field without a default is missing, or a field is
    unknown. The values are not checked.
    """
    values = {name: value for name, value in content.items() if name != "kind"}
    if content["kind"] == "any_of":
        values["constraints"] = [constraint_from_json(one) for one in content["constraints"]]
    if content["kind"] == "tool_calls":
        values["tags"] = [ToolCallTag(**tag) for tag in content["tags"]]
    return _KINDS[content["kind"]](**values)

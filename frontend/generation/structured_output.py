"""Converts the structured output fields, OpenAI's response_format and vLLM's guided_ fields, to one constraint.

This module checks only the size and the nesting of a schema. The backend checks the rest when it compiles the schema.
"""

from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import Discriminator, Field, Tag

from contract.constraints import (
    ChoiceConstraint,
    Constraint,
    GrammarConstraint,
    JSONObjectConstraint,
    JSONSchemaConstraint,
    RegexConstraint,
)
from contract.options import SamplingParameters
from frontend.errors import InvalidRequest
from frontend.http.body import MAX_LEVELS, RequestBody, levels_beyond, tag_of

# Limits the time that the backend needs to compile a schema.
_MAX_SCHEMA_BYTES = 64_000


class JSONSchemaFormat(RequestBody):
    """OpenAI's `response_format.json_schema`."""

    name: str = Field(
        min_length=1,
        max_length=64,
        pattern=r"^[a-zA-Z0-9_-]+$",
        description="Name of the schema: letters, digits, `_` and `-`.",
    )
    description: str | None = Field(None, description="Purpose of the schema. The model does not see it.")
    schema_: dict[str, Any] | None = Field(
        None,
        alias="schema",
        description="JSON schema of the output, at most 64 KB and 32 nested levels. If omitted, any JSON is valid.",
    )
    strict: bool | None = Field(
        None,
        description="If true, a schema with unsupported keywords is rejected; otherwise such keywords are ignored.",
    )

    def constraint(self, param: str) -> Constraint:
        """Return the constraint on the output; `param` is the path of this field. Raises InvalidRequest."""
        return _schema(self.schema_ or {}, f"{param}.schema", bool(self.strict))


class TextFormat(RequestBody):
    """`{"type": "text"}`, which does not constrain the output."""

    type: Literal["text"] = Field(description="Always `text`.")

    def constraint(self, _: str) -> None:
        """Return None: the output is not constrained."""


class ObjectFormat(RequestBody):
    """`{"type": "json_object"}`, which constrains the output to a JSON object."""

    type: Literal["json_object"] = Field(description="Always `json_object`.")

    def constraint(self, param: str) -> Constraint:
        """Return the constraint on the output; `param` is the path of this field."""
        return JSONObjectConstraint(param)


class SchemaFormat(RequestBody):
    """`{"type": "json_schema", "json_schema": …}`, which constrains the output to JSON that matches a schema."""

    type: Literal["json_schema"] = Field(description="Always `json_schema`.")
    json_schema: JSONSchemaFormat = Field(description="The schema and its name.")

    def constraint(self, param: str) -> Constraint:
        """Return the constraint on the output; `param` is the path of this field. Raises InvalidRequest."""
        return self.json_schema.constraint(f"{param}.json_schema")


Schema = TypeVar("Schema")
ResponseFormat = Annotated[
    Annotated[TextFormat, Tag("<text>")]
    | Annotated[ObjectFormat, Tag("<json_object>")]
    | Annotated[Schema, Tag("<json_schema>")],
    Discriminator(
        tag_of, custom_error_type="kind", custom_error_message="'type' must be 'text', 'json_object' or 'json_schema'"
    ),
]
"""A response format. `Schema` is the class of the format `json_schema`, whose fields differ in chat and responses."""


SchemaOrText = Annotated[
    Annotated[dict[str, Any], Tag("<object>")] | Annotated[str, Tag("<text>")],
    Discriminator(lambda value: "<text>" if isinstance(value, str) else "<object>"),
]
"""A JSON schema, as an object or as JSON text."""


class StructuredOutputFields(RequestBody):
    """The structured output fields of a request. At most one of these fields may constrain the output."""

    response_format: ResponseFormat[SchemaFormat] | None = Field(
        None, description="Constrain the output to any JSON object, or to JSON that matches a schema."
    )
    guided_json: SchemaOrText | None = Field(
        None, description="JSON schema of the output, as an object or as JSON text. Unsupported keywords are rejected."
    )
    guided_regex: str | None = Field(
        None, min_length=1, description="Regular expression that the whole output matches."
    )
    guided_choice: list[str] | None = Field(None, min_length=1, description="The output is one of these strings.")
    guided_grammar: str | None = Field(None, min_length=1, description="Grammar of the output, in XGrammar's EBNF.")

    def constraint(self) -> Constraint | None:
        """Return the constraint on the output, if any. Raises InvalidRequest."""
        asked: list[Constraint | None] = [self._by_format(), self._by_json(), *self._by_text()]
        found = [constraint for constraint in asked if constraint]
        if len(found) > 1:
            first, second = (constraint.param.partition(".")[0] for constraint in found[:2])
            raise InvalidRequest(f"'{first}' and '{second}' are mutually exclusive", param=second)
        return found[0] if found else None

    def _by_format(self) -> Constraint | None:
        return self.response_format.constraint("response_format") if self.response_format else None

    def _by_json(self) -> Constraint | None:
        schema = self.guided_json
        if isinstance(schema, str):
            try:
                schema = orjson.loads(schema)
            except orjson.JSONDecodeError as error:
                raise InvalidRequest(f"'guided_json' is not valid JSON: {error}", param="guided_json") from error
            if not isinstance(schema, dict):
                raise InvalidRequest("'guided_json' must be a JSON object", param="guided_json")
        return None if schema is None else _schema(schema, "guided_json", strict=True)

    def _by_text(self) -> list[Constraint]:
        found: list[Constraint] = []
        if self.guided_regex is not None:
            found.append(RegexConstraint(self.guided_regex, "guided_regex"))
        if self.guided_choice is not None:
            found.append(ChoiceConstraint(self.guided_choice, "guided_choice"))
        if self.guided_grammar is not None:
            found.append(GrammarConstraint(self.guided_grammar, "guided_grammar"))
        return found


def reject_structured_output(sampling: SamplingParameters) -> None:
    """Raise InvalidRequest if the request uses structured output, forced tool calls or log probabilities.

    Only Trident's generation backend supports these features. Call this function for models of other backends.
    """
    constraint = sampling.get("constraint")
    param = constraint["param"] if constraint else "logprobs" if sampling.get("logprobs") else None
    if param:
        field = "tool_choice" if param == "tools" else param
        raise InvalidRequest(f"This model does not support '{field}'", param=field, code="unsupported_parameter")


def _schema(schema: dict[str, Any], param: str, strict: bool) -> Constraint:
    if levels_beyond(schema, MAX_LEVELS):
        raise InvalidRequest(f"'{param}' is nested deeper than {MAX_LEVELS} levels", param=param)
    if len(orjson.dumps(schema)) > _MAX_SCHEMA_BYTES:
        raise InvalidRequest(f"'{param}' exceeds the limit of {_MAX_SCHEMA_BYTES} bytes", param=param)
    return JSONSchemaConstraint(schema, param, strict)

"""Structured output: OpenAI's response_format and vLLM's guided_ fields, which become one constraint.

Only the backend knows whether a schema compiles; this module checks its structure.
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

# A schema takes time in proportion.
_MAX_SCHEMA_BYTES = 64_000


class JSONSchemaFormat(RequestBody):
    """OpenAI's `response_format.json_schema`."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_-]+$")
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None

    def constraint(self, param: str) -> Constraint:
        """Return what the answer is to be kept to; `param` is where the format stands. Raises InvalidRequest."""
        return _schema(self.schema_ or {}, f"{param}.schema", bool(self.strict))


class TextFormat(RequestBody):
    """Any text."""

    type: Literal["text"]

    def constraint(self, _: str) -> None:
        """Return what the answer is to be kept to: nothing."""


class ObjectFormat(RequestBody):
    """Any JSON object."""

    type: Literal["json_object"]

    def constraint(self, param: str) -> Constraint:
        """Return what the answer is to be kept to; `param` is where the format stands."""
        return JSONObjectConstraint(param)


class SchemaFormat(RequestBody):
    """JSON by a schema."""

    type: Literal["json_schema"]
    json_schema: JSONSchemaFormat

    def constraint(self, param: str) -> Constraint:
        """Return what the answer is to be kept to; `param` is where the format stands. Raises InvalidRequest."""
        return self.json_schema.constraint(f"{param}.json_schema")


Schema = TypeVar("Schema")
ResponseFormat = Annotated[
    Annotated[TextFormat, Tag("<text>")]
    | Annotated[ObjectFormat, Tag("<json_object>")]
    | Annotated[Schema, Tag("<json_schema>")],
    Discriminator(tag_of, custom_error_type="kind", custom_error_message="must be text, json_object or json_schema"),
]
"""Any of the formats, with an API's own way to write the schema."""


class StructuredOutputFields(RequestBody):
    """The fields that say what the answer must look like; a request has one of them at most."""

    response_format: ResponseFormat[SchemaFormat] | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_regex: str | None = Field(None, min_length=1)
    guided_choice: list[str] | None = Field(None, min_length=1)
    guided_grammar: str | None = Field(None, min_length=1)

    def constraint(self) -> Constraint | None:
        """Return what the output must match. Raises InvalidRequest."""
        asked: list[Constraint | None] = [self._by_format(), self._by_json(), *self._by_text()]
        found = [constraint for constraint in asked if constraint]
        if len(found) > 1:
            first, second = (constraint.param.partition(".")[0] for constraint in found[:2])
            raise InvalidRequest(f"'{first}' and '{second}' exclude each other", param=second)
        return found[0] if found else None

    def _by_format(self) -> Constraint | None:
        return self.response_format.constraint("response_format") if self.response_format else None

    def _by_json(self) -> Constraint | None:
        schema = self.guided_json
        if isinstance(schema, str):
            try:
                schema = orjson.loads(schema)
            except orjson.JSONDecodeError as error:
                raise InvalidRequest(f"'guided_json' is not JSON: {error}", param="guided_json") from error
            if not isinstance(schema, dict):
                raise InvalidRequest("'guided_json' must be a JSON schema", param="guided_json")
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
    """Raise InvalidRequest for constraints and log probabilities, which only our own chat backend has."""
    constraint = sampling.get("constraint")
    param = constraint["param"] if constraint else "logprobs" if sampling.get("logprobs") else None
    if param:
        field = "tool_choice" if param == "tools" else param
        raise InvalidRequest(f"This model does not take '{field}'", param=field, code="unsupported_parameter")


def _schema(schema: dict[str, Any], param: str, strict: bool) -> Constraint:
    if levels_beyond(schema, MAX_LEVELS):
        raise InvalidRequest(f"'{param}' is nested deeper than {MAX_LEVELS} levels", param=param)
    if len(orjson.dumps(schema)) > _MAX_SCHEMA_BYTES:
        raise InvalidRequest(f"'{param}' is larger than {_MAX_SCHEMA_BYTES} bytes", param=param)
    return JSONSchemaConstraint(schema, param, strict)

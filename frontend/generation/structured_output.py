"""Converts the structured output fields of OpenAI, vLLM, llama.cpp and SGLang to one constraint on the output.

This module checks only the size and the nesting of a schema. The backend checks the rest when it compiles the schema.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import Discriminator, Field, Tag, model_validator

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
from frontend.http.body import MAX_LEVELS, RequestBody, levels_beyond, reject_unsupported, tag_of

# Limits the time that the backend needs to compile a schema.
_MAX_SCHEMA_BYTES = 64_000

GUARANTEES: Mapping[str, tuple[Any, ...]] = {
    "response_format": ({"type": "text"},),
    "structured_outputs": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_whitespace_pattern": (),
    "json_schema": (),
    "grammar": ("",),
    "regex": ("",),
    "ebnf": ("",),
    "structural_tag": (),
    "bad_words": ([],),
    "allowed_token_ids": ([],),
    "stop_token_ids": ([],),
    "include_stop_str_in_output": (False,),
    "skip_special_tokens": (True,),
    "logits_processors": ([],),
    "use_beam_search": (False,),
}
"""The fields of OpenAI, vLLM, llama.cpp and SGLang that ask for a guarantee about the output.

Each field has the values with which it asks for nothing. A request is rejected if it has such a field and its endpoint
does not support the field, because a guarantee must never be dropped silently.
"""


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
    """`{"type": "json_object"}`, which constrains the output to a JSON object, or to JSON that matches a schema."""

    type: Literal["json_object"] = Field(description="Always `json_object`.")
    schema_: dict[str, Any] | None = Field(
        None,
        alias="schema",
        description="JSON schema of the output, as in llama.cpp. Unsupported keywords are rejected.",
    )

    def constraint(self, param: str) -> Constraint:
        """Return the constraint on the output; `param` is the path of this field. Raises InvalidRequest."""
        return _schema(self.schema_, f"{param}.schema", strict=True) if self.schema_ else JSONObjectConstraint(param)


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


_REGEX: Any = Field(None, min_length=1, description="Regular expression that the whole output matches.")
_CHOICES: Any = Field(None, min_length=1, description="The output is one of these strings.")
_GRAMMAR: Any = Field(None, min_length=1, description="Grammar of the output, in XGrammar's EBNF.")


class StructuredOutputs(RequestBody):
    """vLLM's `structured_outputs`. Exactly one of `json`, `regex`, `choice`, `grammar` and `json_object` is given."""

    json_: SchemaOrText | None = Field(
        None,
        alias="json",
        description="JSON schema of the output, as an object or as JSON text. Unsupported keywords are rejected.",
    )
    regex: str | None = _REGEX
    choice: list[str] | None = _CHOICES
    grammar: str | None = _GRAMMAR
    json_object: bool | None = Field(None, description="If true, the output is a JSON object.")

    @model_validator(mode="before")
    @classmethod
    def _reject_unsupported(cls, fields: Any) -> Any:
        if isinstance(fields, dict):
            unsupported = {
                "structural_tag": (),
                "whitespace_pattern": (),
                "disable_any_whitespace": (True, False),  # the output never has any white space to choose
                "disable_additional_properties": (False,),
            }
            for name, values in unsupported.items():
                reject_unsupported(
                    {f"structured_outputs.{name}": fields.get(name)}, {f"structured_outputs.{name}": values}
                )
        return fields

    def constraints(self, param: str) -> list[Constraint]:
        """Return the constraints on the output; `param` is the path of this field. Raises InvalidRequest."""
        found: list[Constraint] = [JSONObjectConstraint(f"{param}.json_object")] if self.json_object else []
        if self.json_ is not None:
            found.append(_schema_or_text(self.json_, f"{param}.json"))
        if self.regex is not None:
            found.append(RegexConstraint(self.regex, f"{param}.regex"))
        if self.choice is not None:
            found.append(ChoiceConstraint(self.choice, f"{param}.choice"))
        if self.grammar is not None:
            found.append(GrammarConstraint(self.grammar, f"{param}.grammar"))
        if not found:
            raise InvalidRequest(
                f"'{param}' requires one of 'json', 'regex', 'choice', 'grammar' and 'json_object'", param=param
            )
        return found


class StructuredOutputFields(RequestBody):
    """The structured output fields of a request. At most one of these fields may constrain the output."""

    response_format: ResponseFormat[SchemaFormat] | None = Field(
        None, description="Constrain the output to any JSON object, or to JSON that matches a schema."
    )
    structured_outputs: StructuredOutputs | None = Field(
        None, description="vLLM's object for the constraint on the output."
    )
    guided_json: SchemaOrText | None = Field(
        None, description="JSON schema of the output, as an object or as JSON text. Unsupported keywords are rejected."
    )
    guided_regex: str | None = _REGEX
    guided_choice: list[str] | None = _CHOICES
    guided_grammar: str | None = _GRAMMAR
    json_schema: SchemaOrText | None = Field(
        None, description="The same as `guided_json`; the field's name in llama.cpp and SGLang."
    )
    grammar: str | None = Field(None, description="The same as `guided_grammar`; the field's name in llama.cpp.")
    regex: str | None = Field(None, description="The same as `guided_regex`; the field's name in SGLang.")
    ebnf: str | None = Field(None, description="The same as `guided_grammar`; the field's name in SGLang.")

    def constraint(self) -> Constraint | None:
        """Return the constraint on the output, if any. Raises InvalidRequest."""
        found = [*self._by_object(), *self._by_schema(), *self._by_text()]
        if len(found) > 1:
            first, second = (constraint.param for constraint in found[:2])
            if first.partition(".")[0] != second.partition(".")[0]:
                first, second = first.partition(".")[0], second.partition(".")[0]
            raise InvalidRequest(f"'{first}' and '{second}' are mutually exclusive", param=second)
        return found[0] if found else None

    def _by_object(self) -> list[Constraint]:
        by_format = self.response_format.constraint("response_format") if self.response_format else None
        found: list[Constraint] = [by_format] if by_format else []
        return [*found, *(self.structured_outputs.constraints("structured_outputs") if self.structured_outputs else ())]

    def _by_schema(self) -> list[Constraint]:
        given = {"guided_json": self.guided_json, "json_schema": self.json_schema}
        return [_schema_or_text(schema, name) for name, schema in given.items() if schema is not None]

    def _by_text(self) -> list[Constraint]:
        found: list[Constraint] = []
        for name, pattern in {"guided_regex": self.guided_regex, "regex": self.regex}.items():
            found += [RegexConstraint(pattern, name)] if pattern else []
        if self.guided_choice is not None:
            found.append(ChoiceConstraint(self.guided_choice, "guided_choice"))
        grammars = {"guided_grammar": self.guided_grammar, "grammar": self.grammar, "ebnf": self.ebnf}
        return found + [GrammarConstraint(grammar, name) for name, grammar in grammars.items() if grammar]


def reject_structured_output(sampling: SamplingParameters) -> None:
    """Raise InvalidRequest if the request uses structured output, forced tool calls or log probabilities.

    Only Trident's generation backend supports these features. Call this function for models of other backends.
    """
    constraint = sampling.get("constraint")
    param = constraint["param"] if constraint else "logprobs" if sampling.get("logprobs") else None
    if param:
        field = "tool_choice" if param == "tools" else param
        raise InvalidRequest(f"This model does not support '{field}'", param=field, code="unsupported_parameter")


def _schema_or_text(schema: dict[str, Any] | str, param: str) -> Constraint:
    if isinstance(schema, str):
        try:
            schema = orjson.loads(schema)
        except orjson.JSONDecodeError as error:
            raise InvalidRequest(f"'{param}' is not valid JSON: {error}", param=param) from error
        if not isinstance(schema, dict):
            raise InvalidRequest(f"'{param}' must be a JSON object", param=param)
    return _schema(schema, param, strict=True)


def _schema(schema: dict[str, Any], param: str, strict: bool) -> Constraint:
    if levels_beyond(schema, MAX_LEVELS):
        raise InvalidRequest(f"'{param}' is nested deeper than {MAX_LEVELS} levels", param=param)
    if len(orjson.dumps(schema)) > _MAX_SCHEMA_BYTES:
        raise InvalidRequest(f"'{param}' exceeds the limit of {_MAX_SCHEMA_BYTES} bytes", param=param)
    return JSONSchemaConstraint(schema, param, strict)

"""What a chat request says about the form of the answer: OpenAI's response_format and vLLM's guided_ fields.

They become one `constraint` among the sampling parameters, as the backend's `constraints.py` describes it. What can be
compiled only the backend knows; here is looked at the shape.
"""

from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import Discriminator, Field, Tag

from frontend.errors import InvalidRequest
from frontend.http.body import MAX_LEVELS, RequestBody, levels_beyond

# A schema takes time in proportion.
_MAX_SCHEMA_BYTES = 64_000


class JSONSchemaFormat(RequestBody):
    """OpenAI's `response_format.json_schema`."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_-]+$")
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None

    def constraint(self, param: str) -> dict[str, Any]:
        """Return what the answer is to be kept to; `param` is where the format stands. Raises InvalidRequest."""
        return _schema(self.schema_ or {}, f"{param}.schema") | {"strict": bool(self.strict)}


class TextFormat(RequestBody):
    """Any text."""

    type: Literal["text"]

    def constraint(self, _: str) -> None:
        """Return what the answer is to be kept to: nothing."""


class ObjectFormat(RequestBody):
    """Any JSON object."""

    type: Literal["json_object"]

    def constraint(self, param: str) -> dict[str, Any]:
        """Return what the answer is to be kept to; `param` is where the format stands."""
        return {"kind": "json_object", "param": param}


class SchemaFormat(RequestBody):
    """JSON by a schema."""

    type: Literal["json_schema"]
    json_schema: JSONSchemaFormat

    def constraint(self, param: str) -> dict[str, Any]:
        """Return what the answer is to be kept to; `param` is where the format stands. Raises InvalidRequest."""
        return self.json_schema.constraint(f"{param}.json_schema")


def _kind(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else None
    return f"<{kind}>" if isinstance(kind, str) else "<>"


Schema = TypeVar("Schema")
ResponseFormat = Annotated[
    Annotated[TextFormat, Tag("<text>")]
    | Annotated[ObjectFormat, Tag("<json_object>")]
    | Annotated[Schema, Tag("<json_schema>")],
    Discriminator(_kind, custom_error_type="kind", custom_error_message="must be text, json_object or json_schema"),
]
"""Any of the formats, with an API's own way to write the schema."""


class StructuredOutputFields(RequestBody):
    """The fields that say what the answer must look like; a request has one of them at most."""

    response_format: ResponseFormat[SchemaFormat] | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_regex: str | None = Field(None, min_length=1)
    guided_choice: list[str] | None = Field(None, min_length=1)
    guided_grammar: str | None = Field(None, min_length=1)

    def constraint(self) -> dict[str, Any] | None:
        """Return what the backend is to keep the answer to. Raises InvalidRequest."""
        found = [*filter(None, (self._by_format(), self._by_json(), *self._by_text()))]
        if len(found) > 1:
            first, second = (str(constraint["param"]).partition(".")[0] for constraint in found[:2])
            raise InvalidRequest(f"'{first}' and '{second}' exclude each other", param=second)
        return found[0] if found else None

    def _by_format(self) -> dict[str, Any] | None:
        return self.response_format.constraint("response_format") if self.response_format else None

    def _by_json(self) -> dict[str, Any] | None:
        schema = self.guided_json
        if isinstance(schema, str):
            try:
                schema = orjson.loads(schema)
            except orjson.JSONDecodeError as error:
                raise InvalidRequest(f"'guided_json' is not JSON: {error}", param="guided_json") from error
            if not isinstance(schema, dict):
                raise InvalidRequest("'guided_json' must be a JSON schema", param="guided_json")
        return None if schema is None else _schema(schema, "guided_json")

    def _by_text(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        if self.guided_regex is not None:
            found.append({"kind": "regex", "pattern": self.guided_regex, "param": "guided_regex"})
        if self.guided_choice is not None:
            found.append({"kind": "choice", "choices": self.guided_choice, "param": "guided_choice"})
        if self.guided_grammar is not None:
            found.append({"kind": "grammar", "grammar": self.guided_grammar, "param": "guided_grammar"})
        return found


def _schema(schema: dict[str, Any], param: str) -> dict[str, Any]:
    if levels_beyond(schema, MAX_LEVELS):
        raise InvalidRequest(f"'{param}' is nested deeper than {MAX_LEVELS} levels", param=param)
    if len(orjson.dumps(schema)) > _MAX_SCHEMA_BYTES:
        raise InvalidRequest(f"'{param}' is larger than {_MAX_SCHEMA_BYTES} bytes", param=param)
    return {"kind": "json_schema", "schema": schema, "param": param}

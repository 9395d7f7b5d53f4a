"""Constraints are converted to grammars, or rejected quickly with a reason."""

import json
import time

import pytest

from backends.common.errors import InvalidRequest
from backends.generation.grammar.constraints import grammar_from


def grammar_from_schema(schema, **more):
    return grammar_from({"kind": "json_schema", "schema": schema, "param": "guided_json", **more})


def test_json_allows_no_arbitrary_white_space():
    grammar = grammar_from_schema({"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]})
    assert grammar.startswith("root ::= ")
    assert r'"\"a\": "' in grammar


def test_references_may_be_recursive():
    schema = {"$ref": "#/$defs/n", "$defs": {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}}}}
    assert "ref0 ::= " in grammar_from_schema(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://example.com/schema"},
        {"$ref": "#/nowhere"},
        {"$ref": "#"},
        {"type": "strange"},
        {"type": "string", "maxLength": 100_000},
        {"type": "string", "pattern": "(?=a)b"},
        {"type": "string", "pattern": "["},
        {"type": "array", "minItems": 1_000_000},
        {"type": "array", "minItems": 3, "maxItems": 2},
        {"type": "integer", "minimum": 3, "maximum": 2},
        {"type": "integer", "multipleOf": 3},
        {"type": "object", "patternProperties": {"a": {}}},
        {"not": {}},
        {"enum": []},
        {"enum": [f"value number {i}" for i in range(10_000)]},
        {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(5_000)}},
    ],
    ids=lambda schema: json.dumps(schema)[:50],
)
def test_invalid_and_unsupported_schemas_are_rejected_quickly(schema):
    started = time.process_time()
    with pytest.raises(InvalidRequest) as rejection:
        grammar_from_schema(schema)
    assert rejection.value.param == "guided_json"
    assert str(rejection.value)
    assert time.process_time() - started < 2


def test_deep_nesting_is_rejected():
    schema: dict = {"type": "null"}
    for _ in range(200):
        schema = {"type": "array", "items": schema}
    with pytest.raises(InvalidRequest, match="levels"):
        grammar_from_schema(schema)


def test_unsupported_keywords_are_ignored_without_strict():
    assert grammar_from_schema({"type": "string", "maxLength": 100_000}, strict=False)
    assert grammar_from_schema({"type": "integer", "multipleOf": 3}, strict=False)


@pytest.mark.parametrize("pattern", ["[a-z", "a{1,100000}", "(a{100}){100}", "(?<=a)b", r"(a)\1", "(" * 3000])
def test_invalid_and_unsupported_regular_expressions_are_rejected(pattern):
    with pytest.raises(InvalidRequest):
        grammar_from({"kind": "regex", "pattern": pattern, "param": "guided_regex"})


def test_choices_are_alternatives_and_limited_in_number():
    assert (
        grammar_from({"kind": "choice", "choices": ['say "yes"', "no"], "param": "guided_choice"})
        == 'root ::= "no" | "say \\"yes\\""\n'
    )
    with pytest.raises(InvalidRequest, match="choices"):
        grammar_from({"kind": "choice", "choices": [str(i) for i in range(10_000)], "param": "guided_choice"})


def test_tool_calls_can_be_repeated():
    tag = {"begin": "<tool_call>", "schema": {"type": "object"}, "end": "</tool_call>"}
    grammar = grammar_from({"kind": "tool_calls", "tags": [tag], "max_calls": None, "separator": "\n"})
    assert "*" in grammar.splitlines()[0]


def test_any_of_allows_either_constraint():
    tag = {"begin": "<a>", "schema": {"type": "integer"}, "end": "</a>"}
    calls = {"kind": "tool_calls", "tags": [tag], "max_calls": 1}
    choice = {"kind": "choice", "choices": ["yes"], "param": "guided_choice"}
    grammar = grammar_from({"kind": "any_of", "constraints": [calls, choice], "param": "tools"})
    assert '"<a>"' in grammar
    assert '"yes"' in grammar

"""Tests of the check of complete outputs: what passes, what does not, and that no schema or output can stall it."""

import json
import random
import time

import pytest

from backends.generation.output.output_check import output_check
from contract.constraints import constraint_from_json


def check(kind, **fields):
    return output_check(constraint_from_json({"kind": kind, "param": "test", **fields}))


def schema_check(schema, strict=True):
    return check("json_schema", schema=schema, strict=strict)


@pytest.mark.parametrize(
    ("schema", "valid", "invalid"),
    [
        ({"enum": ["red-small", "blue-small"]}, ['"red-small"'], ['"green-small"', "red-small", '"red-small" ', ""]),
        ({"type": "integer", "minimum": -9999, "maximum": 9999}, ["-9999", "0"], ["123456789", "1.5", '"1"']),
        ({"type": "number", "multipleOf": 0.1}, ["0.3", "-7", "1e2", "1e999999999"], ["0.35", "0.30000000000000004"]),
        ({"type": "integer", "multipleOf": 7}, ["0", "-14", "700000000000000000007"], ["100", "700000000000000000008"]),
        ({"type": "string", "pattern": r"^\d{3}-[a-z]+$"}, ['"123-ab"'], ['"123-"', '"x123-ab"', '"١٢٣-ab"']),
        ({"type": "string", "pattern": "b"}, ['"abc"', '"b"'], ['"ac"']),
        ({"type": "string", "pattern": "(?<x>é|\\u4e2d){1,2}$"}, ['"aé"', '"中"'], ['"a"']),
        ({"type": "string", "minLength": 2, "maxLength": 2}, ['"中文"', '"🦊a"'], ['"a"', '"abc"']),
        ({"$ref": "#/$defs/My%20Type", "$defs": {"My Type": {"const": 7}}}, ["7"], ["8"]),
        ({"type": "object", "properties": {"a": {}}, "required": ["a"]}, ['{"a": 1}'], ["{}", "[]", '{"a": 1']),
        ({"items": [{"type": "integer"}, {"type": "string"}]}, ['[1, "a"]', "[]"], ['["a", 1]']),
        ({"enum": [1, True, None, 1.5]}, ["1", "true", "null", "1.5"], ["false", "0", '"1"', "2"]),
    ],
)
def test_only_outputs_that_match_the_schema_pass(schema, valid, invalid):
    checked = schema_check(schema)
    assert [text for text in valid if not checked(text)] == []
    assert [text for text in invalid if checked(text)] == []


@pytest.mark.parametrize(
    ("schema", "valid", "invalid"),
    [
        ({"type": "integer", "minimum": 0, "maximum": 100, "exclusiveMaximum": True}, ["50", "0"], ["100", "-1"]),
        ({"type": "integer", "minimum": -10, "exclusiveMinimum": False}, ["-3", "-10"], ["-11"]),
        (
            {"$schema": "http://json-schema.org/draft-07/schema#", "prefixItems": [{"const": 1}], "items": False},
            ["[1]"],
            ["[2]", "[1, 1]"],
        ),
        ({"properties": {"$schema": {"const": 1}, "default": {"const": 2}}}, ['{"$schema": 1}'], ['{"default": 1}']),
        ({"enum": [{"$schema": "x", "default": 1}]}, ['{"$schema": "x", "default": 1}'], ["{}"]),
        (
            {
                "type": "object",
                "properties": {"a": {"type": "integer"}},
                "required": ["a"],
                "additionalProperties": False,
                "anyOf": [{"properties": {"b": {"type": "integer"}}, "required": ["b"]}],
            },
            ['{"a": 5, "b": 6}'],
            [],
        ),
    ],
)
@pytest.mark.parametrize("strict", [False, True])
def test_schemas_are_read_as_the_grammar_reads_them(schema, valid, invalid, strict):
    checked = schema_check(schema, strict)
    assert [text for text in valid if not checked(text)] == []
    assert [text for text in invalid if checked(text)] == []


@pytest.mark.parametrize("pattern", [r"(\d{4} ){300,}", "(a{600}){2,}"])
def test_regular_expression_that_re2_does_not_support_is_not_checked(pattern):
    assert check("regex", pattern=pattern) is None


def test_keywords_that_are_ignored_without_strict_are_not_checked():
    schema = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}, "required": ["a"]}
    assert schema_check(schema, strict=False)('{"a": [1, 1]}')
    assert not schema_check(schema, strict=False)('{"a": [1, 1]')
    exact = {"type": "object", "properties": {"a": {"enum": ["x"]}}, "required": ["a"]}
    assert not schema_check(exact, strict=False)('{"a": "y"}')


def test_texts_choices_and_objects_are_checked():
    assert check("regex", pattern="(a|ab)(c|bcd)")("abcd")
    assert not check("regex", pattern="(a|ab)(c|bcd)")("abcdx")
    assert check("choice", choices=["yes", "no"])("no")
    assert not check("choice", choices=["yes", "no"])("No")
    assert check("json_object")("{}")
    assert not check("json_object")("[]")
    assert check("grammar", grammar='root ::= "a"') is None


SCHEMA = {
    "anyOf": [
        {
            "type": "object",
            "properties": {
                "name": {"const": "f"},
                "arguments": {"type": "object", "properties": {"x": {"enum": [1, 2]}}},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
    ]
}
CALLS = {"tags": [{"begin": "<c>\n", "schema": SCHEMA, "end": "\n</c>"}], "separator": "\n", "max_calls": 2}
GOOD = '<c>\n{"name": "f", "arguments": {"x": 1}}\n</c>'


@pytest.mark.parametrize("text", [GOOD, f"{GOOD}\n{GOOD}", GOOD.replace('"x": 1', "")])
def test_tool_calls_that_match_their_schemas_pass(text):
    assert check("tool_calls", **CALLS)(text)


@pytest.mark.parametrize(
    "text",
    ["", "Hello", GOOD + GOOD, GOOD + "\n", f"{GOOD}\n{GOOD}\n{GOOD}", GOOD.replace("1", "3"), GOOD[:-1], "x" + GOOD],
)
def test_other_tool_calls_do_not_pass(text):
    assert not check("tool_calls", **CALLS)(text)


def test_alternatives_pass_if_one_of_them_does():
    options = [{"kind": "tool_calls", "param": "tools", **CALLS}, {"kind": "choice", "choices": ["a"], "param": "x"}]
    assert all(map(check("any_of", constraints=options), [GOOD, "a"]))
    assert not check("any_of", constraints=options)("b")


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "string", "pattern": "^(a+)+b$"}, json.dumps("a" * 5_000)),
        (
            {"$defs": {"t": {"anyOf": [{"items": {"$ref": "#/$defs/t"}, "type": "array"}] * 3}}, "$ref": "#/$defs/t"},
            "[" * 300 + "1" + "]" * 300,
        ),
        ({"$ref": "https://example.com/schema"}, "1"),
        (
            {"$schema": "http://json-schema.org/draft-07/schema#", "type": "string", "pattern": "^((a+)+b|a+)$"},
            json.dumps("a" * 60),
        ),
        (
            {"items": {"pattern": "^(" + "|".join(f"w{i}" for i in range(600)) + ")$"}},
            json.dumps(["w5"] * 2_000),
        ),
        ({"$ref": "#"}, "1"),
        ({"type": "number", "multipleOf": 3}, "1e" + "9" * 30),
        ({"type": "array"}, "[" * 100_000),
    ],
)
def test_no_output_or_schema_stalls_the_check(schema, text):
    started = time.process_time()
    schema_check(schema)(text)
    schema_check(schema, strict=False)(text)
    assert time.process_time() - started < 3


def test_outputs_of_random_lengths_agree_with_python_about_regular_expressions():
    import re

    rng = random.Random(1)
    for pattern in (r"[a-z]*[a-z][0-9][0-9]", r"(红|绿|红绿)[大小]{0,2}", r"[^a]{1,3}b?", r"\s\S\w\W?"):
        checked = check("regex", pattern=pattern)
        for _ in range(500):
            text = "".join(rng.choices("ab019红绿大小 \v\n_", k=rng.randint(0, 5)))
            assert checked(text) == bool(re.fullmatch(pattern, text, re.ASCII)), (pattern, text)

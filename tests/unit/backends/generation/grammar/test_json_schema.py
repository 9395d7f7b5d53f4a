"""Grammars of JSON schemas accept exactly the values that the schema allows, or a subset that json.dumps can write."""

import json

import pytest

from backends.common.errors import InvalidRequest
from backends.generation.grammar.constraints import grammar_from
from tests.unit.backends.generation.grammar.matcher import Matcher


def accepted(schema, values, strict=True):
    """Return which of the values the schema's grammar accepts."""
    constraint = {"kind": "json_schema", "schema": schema, "strict": strict, "param": "guided_json"}
    matcher = Matcher(grammar_from(constraint))
    return [value for value in values if matcher.accepts(json.dumps(value, ensure_ascii=False))]


def rejection(schema, strict=True):
    with pytest.raises(InvalidRequest) as caught:
        accepted(schema, [], strict)
    return str(caught.value)


SAFE = 9007199254740991


@pytest.mark.parametrize(
    "bounds",
    [
        {"minimum": -SAFE, "maximum": SAFE},
        {"minimum": 0, "maximum": SAFE},
        {"exclusiveMinimum": 0, "maximum": SAFE},
        {"maximum": 10**16},
        {"minimum": -(2**63), "maximum": 2**63 - 1},
    ],
)
def test_bounds_beyond_the_supported_size_restrict_nothing(bounds):
    """zod writes the bounds of safe integers for every integer."""
    values = [-123456789, -1, 0, 1, 999999999999999]
    low = bounds.get("minimum", bounds.get("exclusiveMinimum", -(10**20)))
    expected = [value for value in values if value >= low and not (value == low and "exclusiveMinimum" in bounds)]
    assert accepted({"type": "integer"} | bounds, values) == expected


def test_lower_bound_beyond_the_supported_size_is_rejected():
    assert "at most 15 digits" in rejection({"type": "integer", "minimum": 10**16})


@pytest.mark.parametrize(
    ("schema", "values", "expected"),
    [
        ({"type": "integer", "multipleOf": 7, "minimum": -20, "maximum": 100}, range(-30, 110), range(-14, 99, 7)),
        ({"type": "integer", "multipleOf": 1}, [-3, 0, 12], [-3, 0, 12]),
        ({"type": "number", "multipleOf": 0.25, "minimum": 0, "maximum": 1}, [0, 0.25, 0.3, 1], [0, 0.25, 1]),
        ({"type": "number", "multipleOf": 0.01}, [0.05, 1.23], [0.05, 1.23]),
        ({"type": "number", "multipleOf": 1, "minimum": 3}, [2, 3, 4.5, 40], [3, 40]),
    ],
)
def test_multiple_of_is_enforced(schema, values, expected):
    assert accepted(schema, values) == list(expected)


def test_multiples_that_cannot_be_listed_are_rejected_or_ignored():
    schema = {"type": "number", "multipleOf": 7}
    assert "'multipleOf' 7 needs 'minimum' and 'maximum'" in rejection(schema)
    assert accepted(schema, [7, 8], strict=False) == [7, 8]


def test_both_bounds_of_one_side_are_combined():
    schema = {"type": "integer", "minimum": 3, "exclusiveMinimum": 3, "maximum": 9, "exclusiveMaximum": 20}
    assert accepted(schema, range(12)) == list(range(4, 10))
    assert accepted({"type": "integer", "minimum": 3, "exclusiveMinimum": True, "maximum": 5}, range(7)) == [4, 5]


def test_narrow_exclusive_bounds_have_numbers_between_them():
    assert accepted({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.01}, [0, 0.005, 0.01]) == [0.005]


def test_enum_is_filtered_by_the_keywords_beside_it():
    assert accepted({"enum": [1, 50, "a"], "minimum": 10}, [1, 50, "a"]) == [50, "a"]
    assert accepted({"enum": ["a", "bbb"], "minLength": 2}, ["a", "bbb"]) == ["bbb"]
    assert "no value matches" in rejection({"enum": [1, 2], "type": "integer", "minimum": 10})


OBJECT = {
    "type": "object",
    "properties": {"action": {"enum": ["go", "look"]}, "steps": {"type": "integer"}},
    "required": ["action"],
    "anyOf": [
        {"required": ["steps"]},
        {"properties": {"target": {"enum": ["door"]}}, "required": ["target"]},
    ],
}


@pytest.mark.parametrize("strict", [True, False])
def test_keywords_beside_any_of_apply_to_every_option(strict):
    values = [
        {"action": "go", "steps": 3},
        {"action": "go", "target": "door"},
        {"steps": 3},
        {"target": "door"},
        {"action": "run", "steps": 3},
        {"action": "go"},
    ]
    assert accepted(OBJECT, values, strict) == values[:2]


@pytest.mark.parametrize("strict", [True, False])
def test_keywords_beside_a_reference_apply(strict):
    schema = {
        "$ref": "#/$defs/base",
        "properties": {"b": {"type": "boolean"}},
        "required": ["b"],
        "$defs": {"base": {"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"]}},
    }
    values = [{"a": None, "b": True}, {"a": None}, {"b": True}]
    assert accepted(schema, values, strict) == values[:1]


def test_bounds_of_all_of_are_combined():
    schema = {"allOf": [{"type": "integer", "minimum": 3}, {"minimum": 5, "maximum": 20}, {"maximum": 8}]}
    assert accepted(schema, range(25)) == [5, 6, 7, 8]


def test_types_of_all_of_are_intersected():
    assert accepted({"allOf": [{"type": "number"}, {"type": ["integer", "null"]}]}, [1, 1.5, None]) == [1]
    assert "different values of 'type'" in rejection({"allOf": [{"type": "string"}, {"type": "null"}]})


def test_properties_in_several_parts_of_all_of_are_combined():
    part = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 2}}, "required": ["a"]}
    schema = {"allOf": [part, {"properties": {"a": {"maximum": 4}}}]}
    assert accepted(schema, [{"a": n} for n in range(7)]) == [{"a": 2}, {"a": 3}, {"a": 4}]


@pytest.mark.parametrize(
    "options",
    [
        [{"type": "integer"}, {"type": "string"}],
        [{"const": "a"}, {"const": "b"}, {"enum": ["c", 1]}],
        [{"const": True}, {"const": 1}],
        [
            {"type": "object", "properties": {"kind": {"const": kind}}, "required": ["kind"]}
            for kind in ("circle", "square")
        ],
    ],
)
def test_one_of_with_exclusive_options_is_supported(options):
    accepted({"oneOf": options}, [])


@pytest.mark.parametrize(
    "options",
    [
        [{"type": "integer"}, {"type": "number"}],
        [{"const": "a"}, {"enum": ["a", "b"]}],
        [{"type": "object", "properties": {"a": {}}}, {"type": "object", "properties": {"b": {}}}],
        [{"type": "string"}, {}],
    ],
)
def test_one_of_with_overlapping_options_is_rejected_only_if_strict(options):
    assert "may match the same values" in rejection({"oneOf": options})
    accepted({"oneOf": options}, [], strict=False)


@pytest.mark.parametrize("items", ["items", "prefixItems"])
def test_tuples_of_every_draft_are_supported(items):
    schema = {"type": "array", items: [{"type": "integer"}, {"type": "string"}], "minItems": 2, "maxItems": 2}
    values = [[1, "a"], ["a", 1], [1], [1, "a", 2]]
    assert accepted(schema, values) == values[:1]


@pytest.mark.parametrize(
    ("target", "definitions"),
    [
        ("#/$defs/My%20Type", {"$defs": {"My Type": {"const": 7}}}),
        ("#/definitions/Map%3Cstring%3E", {"definitions": {"Map<string>": {"const": 7}}}),
        ("#/$defs/A~1B", {"$defs": {"A/B": {"const": 7}}}),
        ("#seven", {"$defs": {"x": {"$anchor": "seven", "const": 7}}}),
        ("https://example.org/seven", {"$defs": {"x": {"$id": "https://example.org/seven", "const": 7}}}),
    ],
)
def test_reference_is_resolved(target, definitions):
    schema = {"type": "object", "properties": {"v": {"$ref": target}}, "required": ["v"]} | definitions
    assert accepted(schema, [{"v": 7}, {"v": 8}]) == [{"v": 7}]


def test_invalid_schemas_are_tolerated_unless_strict():
    assert accepted({"type": "any"}, [1, "a"], strict=False) == [1, "a"]
    schema = {"type": "object", "properties": {"a": {"const": 1}}, "required": None}
    assert accepted(schema, [{"a": 1}, {}], strict=False) == [{"a": 1}, {}]
    assert "is not a JSON type" in rejection({"type": "any"})
    assert "'required'" in rejection(schema)

"""The fields that constrain the output: which constraint reaches the model, and which fields are rejected."""

import orjson
import pytest

from frontend.generation.structured_output import GUARANTEES
from tests.unit.conftest import chat, last

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
STRICT = {"kind": "json_schema", "schema": SCHEMA, "strict": True}


def post(client, **fields):
    return client.post("/v1/chat/completions", json=chat(**fields))


@pytest.mark.parametrize(
    ("fields", "constraint"),
    [
        ({"structured_outputs": {"choice": ["yes", "no"]}}, {"kind": "choice", "choices": ["yes", "no"]}),
        ({"structured_outputs": {"json": SCHEMA}}, STRICT),
        ({"structured_outputs": {"json": orjson.dumps(SCHEMA).decode(), "disable_any_whitespace": True}}, STRICT),
        ({"structured_outputs": {"regex": "a+"}}, {"kind": "regex", "pattern": "a+"}),
        ({"structured_outputs": {"grammar": 'root ::= "a"'}}, {"kind": "grammar", "grammar": 'root ::= "a"'}),
        ({"structured_outputs": {"json_object": True}}, {"kind": "json_object"}),
        ({"response_format": {"type": "json_object", "schema": SCHEMA}}, STRICT),
        ({"response_format": {"type": "json_object"}}, {"kind": "json_object"}),
        ({"json_schema": SCHEMA}, STRICT),
        ({"json_schema": orjson.dumps(SCHEMA).decode()}, STRICT),
        ({"grammar": 'root ::= "a"'}, {"kind": "grammar", "grammar": 'root ::= "a"'}),
        ({"ebnf": 'root ::= "a"'}, {"kind": "grammar", "grammar": 'root ::= "a"'}),
        ({"regex": "a+"}, {"kind": "regex", "pattern": "a+"}),
        ({"grammar": "", "regex": ""}, None),
    ],
)
def test_field_constrains_the_output(client, triton, fields, constraint):
    triton.queue_response(last("x"))
    assert post(client, **fields).status_code == 200
    sent = orjson.loads(triton.requests[0]["inputs"]["sampling_parameters"]).get("constraint")
    assert (sent and {name: value for name, value in sent.items() if name != "param"}) == constraint


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"choice": ["a"], "regex": "a"}}, "structured_outputs.choice"),
        ({"structured_outputs": {"choice": ["a"]}, "guided_regex": "a"}, "guided_regex"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs.json"),
        ({"structured_outputs": {"structural_tag": "{}"}}, "structured_outputs.structural_tag"),
        ({"structured_outputs": {"choice": ["a"], "whitespace_pattern": " "}}, "structured_outputs.whitespace_pattern"),
        ({"json_schema": SCHEMA, "grammar": "root ::= x"}, "grammar"),
        ({"grammar": {"type": "json"}}, "grammar"),
        ({"bad_words": ["x"]}, "bad_words"),
        ({"stop_token_ids": [2]}, "stop_token_ids"),
        ({"structural_tag": {"type": "x"}}, "structural_tag"),
    ],
)
def test_field_that_cannot_be_honored_is_rejected(client, fields, param):
    response = post(client, **fields)
    assert (response.status_code, response.get_json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize("path", ["chat/completions", "completions", "responses"])
@pytest.mark.parametrize("field", GUARANTEES)
def test_no_field_that_asks_for_a_guarantee_is_dropped(client, triton, path, field):
    triton.queue_response(last("x"))
    body = {"model": "tiny-chat", "messages": chat()["messages"], "prompt": "a", "input": "a", field: {"x": []}}
    response = client.post(f"/v1/{path}", json=body)
    assert response.status_code == 400 or "constraint" in triton.requests[0]["inputs"]["sampling_parameters"].decode()

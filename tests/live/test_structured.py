"""Tests structured output through the complete Trident stack, with the `openai` client."""

import time
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from tests.support.live import MODEL, user
from tests.support.structured import check_schemas


def ask(client, text, **options):
    options = {"temperature": 1, "max_tokens": 800} | options
    return client.chat.completions.create(model=MODEL, messages=user(text), **options).choices[0]


def by_schema(schema):
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def test_outputs_match_their_schemas(client):
    check_schemas(client, 16)


def test_guided_choice_and_guided_regex_constrain_the_text(client):
    assert ask(client, "Is it?", extra_body={"guided_choice": ["yes", "no"]}).message.content in ("yes", "no")
    text = ask(client, "A code", extra_body={"guided_regex": r"[A-Z]{3}-\d{4}"}).message.content
    assert len(text) == 8
    assert text[3] == "-"


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"response_format": by_schema({"$ref": "http://example.com/s"})}, "response_format.json_schema.schema"),
        ({"extra_body": {"guided_regex": "[a-z"}}, "guided_regex"),
        ({"extra_body": {"guided_grammar": "root ::= nothing"}}, "guided_grammar"),
        ({"extra_body": {"guided_choice": [str(i) for i in range(10_000)]}}, "guided_choice"),
    ],
)
def test_invalid_constraint_is_rejected_within_two_seconds(client, options, param):
    started = time.monotonic()
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, "Hello", **options)
    assert caught.value.param == param
    assert time.monotonic() - started < 2
    assert ask(client, "Hello", max_tokens=5).message.content


ATTACKS = {
    "a deep grammar": {"guided_grammar": "root ::= " + "(" * 25_000 + '"a"' + ")" * 25_000},
    "an exponential grammar": {"guided_grammar": "root ::= (([a-z]{1000}){1000}){1000}"},
    "an ambiguous expression": {"guided_regex": ".*" * 300},
    "long strings": {
        "guided_json": {
            "type": "object",
            "properties": {f"p{i}": {"type": "string", "minLength": 900 + i} for i in range(30)},
            "required": [f"p{i}" for i in range(30)],
        }
    },
    "exponential references": {
        "guided_json": {
            "$ref": "#/$defs/d0",
            "$defs": {
                f"d{i}": {
                    "type": "object",
                    "properties": {
                        f"p{k}": {"allOf": [{"$ref": f"#/$defs/d{min(i + 1, 12)}"}, {"description": "x"}]}
                        for k in range(3)
                    },
                }
                for i in range(13)
            },
        }
    },
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_constraint_that_cannot_be_compiled_is_rejected_without_affecting_other_requests(client, attack):
    """While the request with the constraint is rejected, another response continues to its maximum length."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(ask, client, "Tell me a long story.", max_tokens=300, extra_body={"ignore_eos": True})
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, "Hello", extra_body=ATTACKS[attack], timeout=90)
        assert caught.value.param in ATTACKS[attack]
        assert running.result().finish_reason == "length"
    text = ask(client, "Is it?", extra_body={"guided_choice": ["yes", "no"]}).message.content
    assert text in ("yes", "no")

"""Tests of the description of a JSON schema in the prompt, for templates with and without a system message."""

import json

import pytest

from backends.generation.prompt.chat_prompt import TemplateInputs
from backends.generation.prompt.schema_prompt import INSTRUCTIONS, schema_of, with_schema
from tests.unit.backends.generation.prompt.test_tool_prompt import PLAIN, TOOL, USER, open_prompt  # noqa: F401

SCHEMA = {"type": "object", "properties": {"café": {"type": "string"}}}
TEXT = INSTRUCTIONS + json.dumps(SCHEMA, ensure_ascii=False)
REJECTION = "%}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}<"
NO_SYSTEM = PLAIN.replace("%}<", REJECTION, 1)
IGNORED_SYSTEM = PLAIN.replace("%}<", "%}{% if m['role'] != 'system' %}<", 1)
IGNORED_SYSTEM = IGNORED_SYSTEM.replace("{% endfor", "{% endif %}{% endfor")
SILENT = "<assistant>"


def render(prompt, messages, **inputs):
    return prompt._render(messages, TemplateInputs(schema=SCHEMA, **inputs))


def test_schema_is_part_of_the_system_message(open_prompt):  # noqa: F811
    prompt = open_prompt(PLAIN)
    assert render(prompt, [USER]) == f"<system>{TEXT}<user>Hi<assistant>"
    system = {"role": "system", "content": "Be brief."}
    assert render(prompt, [system, USER]) == f"<system>Be brief.\n\n{TEXT}<user>Hi<assistant>"
    with_tool = render(prompt, [USER], tools=[TOOL])
    assert TEXT in with_tool
    assert '"name": "weather"' in with_tool


@pytest.mark.parametrize("template", [NO_SYSTEM, IGNORED_SYSTEM])
def test_schema_is_part_of_the_user_message_if_the_template_has_no_system_message(open_prompt, template):  # noqa: F811
    assert render(open_prompt(template), [USER]) == f"<user>Hi\n\n{TEXT}<assistant>"


def test_schema_is_omitted_if_the_template_renders_no_content(open_prompt):  # noqa: F811
    assert render(open_prompt(SILENT), [USER]) == "<assistant>"


def test_large_schema_is_omitted(open_prompt):  # noqa: F811
    prompt = open_prompt(PLAIN)
    large = TemplateInputs(schema={"enum": ["x" * 20_000]})
    assert prompt._render([USER], large) == "<user>Hi<assistant>"


def test_content_parts_get_another_part():
    parts = {"role": "system", "content": [{"type": "text", "text": "a"}]}
    assert with_schema([parts, USER], SCHEMA)[0]["content"][1] == {"type": "text", "text": TEXT}
    user = {"role": "user", "content": [{"type": "text", "text": "a"}]}
    assert with_schema([user], SCHEMA)[0] == {"role": "system", "content": [{"type": "text", "text": TEXT}]}
    assert with_schema([user], SCHEMA, "user")[0]["content"][1]["text"] == TEXT


def test_schema_of_a_constraint():
    by_schema = {"kind": "json_schema", "schema": SCHEMA, "param": "x", "strict": True}
    assert schema_of(by_schema) == SCHEMA
    assert schema_of({"kind": "any_of", "constraints": [{"kind": "choice", "choices": ["a"]}, by_schema]}) == SCHEMA
    assert schema_of({"kind": "json_schema", "schema": {}}) is None
    assert schema_of({"kind": "json_object"}) is None
    assert schema_of(None) is None

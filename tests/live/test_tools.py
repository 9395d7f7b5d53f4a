"""Tool calls through the complete Trident stack, with the `openai` client."""

import json

from tests.support.live import MODEL, user
from tests.support.structured import check_forced_calls

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
HISTORY = [
    *user("What is the weather in Paris?"),
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "rain, 7 degrees"},
]


def ask(client, messages, **options):
    options = {"temperature": 0, "max_tokens": 60} | options
    return client.chat.completions.create(model=MODEL, messages=messages, **options)


def test_tools_are_in_the_prompt_even_if_the_template_does_not_support_tools(client):
    without = ask(client, user("Hi"), max_tokens=1).usage.prompt_tokens
    assert ask(client, user("Hi"), max_tokens=1, tools=[WEATHER]).usage.prompt_tokens > without + 100
    assert ask(client, user("Hi"), max_tokens=1, tools=[WEATHER], tool_choice="none").usage.prompt_tokens == without


def test_tool_calls_and_results_are_in_the_prompt(client):
    question = ask(client, HISTORY[:1], max_tokens=1).usage.prompt_tokens
    assert ask(client, HISTORY, max_tokens=1).usage.prompt_tokens > question + 30


def test_tool_call_is_parsed_with_and_without_streaming(client):
    call = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
    messages = user(f"Repeat exactly, and nothing else:\n{call}")
    message = ask(client, messages, tools=[WEATHER]).choices[0].message
    assert message.content is None
    assert [call.function.name for call in message.tool_calls] == ["get_weather"]
    assert json.loads(message.tool_calls[0].function.arguments) == {"city": "Rome"}
    with client.chat.completions.stream(
        model=MODEL, messages=messages, temperature=0, max_tokens=60, tools=[WEATHER]
    ) as stream:
        streamed = stream.get_final_completion().choices[0].message
    assert [call.function.arguments for call in streamed.tool_calls] == ['{"city": "Rome"}']


def test_forced_calls_match_their_parameter_schemas(client):
    check_forced_calls(client, 8)


def test_model_makes_at_most_eight_required_tool_calls(client):
    options = {"tools": [WEATHER], "tool_choice": "required", "max_tokens": 600}
    choice = ask(client, user("How is the weather in Oslo?"), **options).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert 1 <= len(choice.message.tool_calls) <= 8

"""Tools through the whole stack with OpenAI's own client."""

import json
from concurrent.futures import ThreadPoolExecutor

import jsonschema

from tests.support.live import MODEL, user
from tests.support.schemas import random_schema

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


def test_tools_are_in_the_prompt_of_a_template_that_knows_none(client):
    without = ask(client, user("Hi"), max_tokens=1).usage.prompt_tokens
    assert ask(client, user("Hi"), max_tokens=1, tools=[WEATHER]).usage.prompt_tokens > without + 100
    assert ask(client, user("Hi"), max_tokens=1, tools=[WEATHER], tool_choice="none").usage.prompt_tokens == without


def test_calls_and_their_answers_are_in_the_prompt(client):
    asked = ask(client, HISTORY[:1], max_tokens=1).usage.prompt_tokens
    assert ask(client, HISTORY, max_tokens=1).usage.prompt_tokens > asked + 30


def test_a_call_that_the_model_was_shown_how_to_make(client):
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


def test_a_hundred_forced_calls_match_their_parameters(client):
    """One tool of three, by name or any: streamed and not, in parallel or one alone."""

    def call(seed):
        schemas = {f"tool_{number}": random_schema(3 * seed + number) for number in range(3)}
        tools = [{"type": "function", "function": {"name": name, "parameters": s}} for name, s in schemas.items()]
        named = {"type": "function", "function": {"name": "tool_1"}}
        fields = {"tools": tools, "tool_choice": named if seed % 2 else "required", "seed": seed, "temperature": 1}
        fields |= {"parallel_tool_calls": False, "max_tokens": 1000}
        messages = user(f"Please do number {seed}.")
        if seed % 3:
            choice = ask(client, messages, **fields).choices[0]
        else:
            with client.chat.completions.stream(model=MODEL, messages=messages, **fields) as stream:
                choice = stream.get_final_completion().choices[0]
        (made,) = choice.message.tool_calls
        assert made.function.name == "tool_1" or not seed % 2
        jsonschema.validate(json.loads(made.function.arguments), schemas[made.function.name])
        return choice.finish_reason

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(call, range(100))) == ["tool_calls"] * 100


def test_a_small_model_that_must_call_comes_to_an_end(client):
    options = {"tools": [WEATHER], "tool_choice": "required", "max_tokens": 600}
    choice = ask(client, user("How is the weather in Oslo?"), **options).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert 1 <= len(choice.message.tool_calls) <= 8

"""Checks that outputs and tool calls match random schemas, shared by the live tests and the heavy suites."""

import json
from concurrent.futures import ThreadPoolExecutor

import jsonschema
from openai import OpenAI

from tests.support.live import MODEL, user
from tests.support.schemas import random_schema


def check_schemas(client: OpenAI, count: int) -> None:
    """Request outputs for `count` random schemas, eight at a time; check that each output matches its schema."""

    def finish_reason(seed: int) -> str:
        schema = random_schema(seed)
        by_schema = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
        options = {"temperature": 1, "max_tokens": 800, "seed": seed, "response_format": by_schema, "timeout": 300}
        messages = user(f"An example for {json.dumps(schema)}")
        choice = client.chat.completions.create(model=MODEL, messages=messages, **options).choices[0]
        jsonschema.validate(json.loads(choice.message.content), schema)
        return str(choice.finish_reason)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(finish_reason, range(count))) == {"stop"}


def check_forced_calls(client: OpenAI, count: int) -> None:
    """Force `count` tool calls, eight at a time; check that the arguments match the tool's random schema.

    Every second request forces one named tool; the remaining requests force any one of three tools. Every third request
    is streamed.
    """

    def call(seed: int) -> str:
        schemas = {f"tool_{number}": random_schema(3 * seed + number) for number in range(3)}
        tools = [{"type": "function", "function": {"name": name, "parameters": s}} for name, s in schemas.items()]
        named = {"type": "function", "function": {"name": "tool_1"}}
        fields = {"tools": tools, "tool_choice": named if seed % 2 else "required", "seed": seed, "temperature": 1}
        fields |= {"parallel_tool_calls": False, "max_tokens": 1000, "model": MODEL, "timeout": 300}
        fields |= {"messages": user(f"Please do number {seed}.")}
        if seed % 3:
            choice = client.chat.completions.create(**fields).choices[0]
        else:
            with client.chat.completions.stream(**fields) as stream:
                choice = stream.get_final_completion().choices[0]
        (tool_call,) = choice.message.tool_calls
        assert tool_call.function.name == "tool_1" or not seed % 2
        jsonschema.validate(json.loads(tool_call.function.arguments), schemas[tool_call.function.name])
        return str(choice.finish_reason)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(call, range(count))) == ["tool_calls"] * count

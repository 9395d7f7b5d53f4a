"""Tests of the parsers of tool calls and reasoning.

They cover every tool format, any split of the streamed text, malformed calls, and the constraints for forced calls.
"""

import json
import random

import orjson
import pytest

from frontend.endpoints.chat.protocol import MessageBuilder
from frontend.parsing.pipeline import ParserPipeline
from frontend.parsing.reasoning import ReasoningParser
from frontend.parsing.tools import TOOL_FORMATS, ToolParser
from frontend.parsing.tools.tool_constraints import parameters_of

NAMES = {"weather", "f", "get-time_2"}


def fold(tool_format, pieces, max_calls=None, finish="stop", parse_reasoning=False, forced=False):
    """Parse the pieces of a model's output, and return the message's content, calls, reasoning and finish_reason.

    Asserts that the streamed deltas add up to the same content and, unless a call was aborted, to the same calls.
    """
    parsers = [ReasoningParser()] if parse_reasoning else []
    builder = MessageBuilder(
        ParserPipeline(
            [*parsers, ToolParser(TOOL_FORMATS[tool_format], NAMES, max_calls, forced)] if tool_format else parsers
        )
    )
    deltas = [delta for piece in pieces for delta in builder.push(piece)] + builder.end(finish)
    message = builder.message()
    calls = [(c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls", [])]
    for _, arguments in calls if finish == "stop" else ():
        assert isinstance(orjson.loads(arguments), dict)
    if builder.finish_reason("stop") == "tool_calls":
        assert streamed_calls(deltas)[-len(calls) :] == calls or len(calls) < len(streamed_calls(deltas))
    assert "".join(delta.get("content", "") for delta in deltas) == (message["content"] or "")
    return message["content"], calls, message.get("reasoning_content"), builder.finish_reason(finish)


def streamed_calls(deltas):
    calls = {}
    for delta in deltas:
        for call in delta.get("tool_calls", ()):
            if "id" in call:
                assert call["index"] == len(calls)
                assert (call["type"], call["function"]["arguments"]) == ("function", "")
                calls[call["index"]] = [call["function"]["name"], ""]
            else:
                assert set(call) == {"index", "function"}
                calls[call["index"]][1] += call["function"]["arguments"]
    return [tuple(call) for call in calls.values()]


def fold_splits(tool_format, text, **options):
    """Return the result of `fold` for the whole text, after checking that no split of the text changes the result.

    The text is split in two at every index, into single characters, and at random indexes.
    """
    whole = fold(tool_format, [text], **options)
    for index in range(len(text) + 1):
        assert fold(tool_format, [text[:index], text[index:]], **options) == whole, index
    assert fold(tool_format, list(text), **options) == whole
    rng = random.Random(7)
    for _ in range(40):
        cuts = sorted(rng.choices(range(len(text) + 1), k=rng.randrange(1, 12)))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert fold(tool_format, pieces, **options) == whole
    return whole


TRICKY = (
    '{"city": "Zürich 🦊 \\"q\\" \\\\", "s": "</tool_call> }{][ ; [TOOL_CALLS]", "n": [1, {"x": null}], "e": -1.5e3}'
)


def format_call(tool_format, name, arguments):
    """Return a tool call in the syntax of `tool_format`."""
    return {
        "hermes": f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>',
        "llama3": f'<|python_tag|>{{"name": "{name}", "parameters": {arguments}}}',
        "mistral": f'[TOOL_CALLS] [{{"name": "{name}", "arguments": {arguments}, "id": "abcdefghi"}}]',
        "mistral-v11": f"[TOOL_CALLS]{name}[ARGS]{arguments}",
        "phi": f'<|tool_call|>[{{"name": "{name}", "arguments": {arguments}}}]<|/tool_call|>',
        "deepseek": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>"
        f"{name}\n```json\n{arguments}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "deepseek-v3.1": f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{arguments}"
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "generic": f'```json\n{{"name": "{name}", "arguments": {arguments}}}\n```',
    }[tool_format]


@pytest.fixture(params=TOOL_FORMATS)
def tool_format(request):
    return request.param


def test_single_call_is_parsed(tool_format):
    assert fold_splits(tool_format, format_call(tool_format, "weather", TRICKY)) == (
        None,
        [("weather", TRICKY)],
        None,
        "tool_calls",
    )


def test_call_with_empty_arguments_is_parsed(tool_format):
    assert fold_splits(tool_format, format_call(tool_format, "f", "{}")) == (None, [("f", "{}")], None, "tool_calls")


def test_two_calls_are_parsed(tool_format):
    text = format_call(tool_format, "f", '{"a": 1}') + "\n" + format_call(tool_format, "get-time_2", '{"b": "2"}')
    assert fold_splits(tool_format, text) == (
        None,
        [("f", '{"a": 1}'), ("get-time_2", '{"b": "2"}')],
        None,
        "tool_calls",
    )


def test_calls_beyond_max_calls_are_dropped(tool_format):
    text = format_call(tool_format, "f", '{"a": 1}') + "\n" + format_call(tool_format, "f", '{"b": "2"}')
    assert fold_splits(tool_format, text, max_calls=1) == (None, [("f", '{"a": 1}')], None, "tool_calls")


def test_text_around_a_call_is_content(tool_format):
    content, calls, _, finish = fold_splits(tool_format, f" I look.\n\n{format_call(tool_format, 'f', '{}')}\n Done \n")
    assert (calls, finish) == ([("f", "{}")], "tool_calls")
    assert content.startswith(" I look.")
    assert content.endswith("Done")
    assert "f" not in content


@pytest.mark.parametrize("text", ["", "  \n", "Hello\n\n", " <tool", "[TOOL_", "<|", "`", " a < b [c] {d} "])
def test_text_without_calls_is_unchanged(tool_format, text):
    assert fold_splits(tool_format, text) == (text, [], None, "stop")


@pytest.mark.parametrize("arguments", ["{oops}", '{"a": 1]', '{"a": tru}', "[1]", "7", '"x"', "{'a': 1}", '{"a" 1}'])
def test_malformed_call_is_emitted_as_text(tool_format, arguments):
    content, calls, _, finish = fold_splits(tool_format, "Look: " + format_call(tool_format, "f", arguments))
    assert (calls, finish) == ([], "stop")
    assert content == "Look: " + format_call(tool_format, "f", arguments)


def test_call_to_unknown_tool_is_emitted_as_text(tool_format):
    text = format_call(tool_format, "rm", '{"a": 1}')
    assert fold_splits(tool_format, text) == (text, [], None, "stop")


@pytest.mark.parametrize("forced", [False, True])
def test_cut_off_call_is_incomplete_and_its_markup_is_not_content(tool_format, forced):
    text, arguments = format_call(tool_format, "weather", '{"city": "Zürich"}'), '{"city": "Zürich"}'
    tagged = forced or tool_format != "generic"
    for length in range(2, len(text)):
        content, calls, _, finish = fold(tool_format, list(text[:length]), finish="length", forced=forced)
        assert finish == "length"
        assert len(calls) <= 1
        if calls:
            assert calls[0][0] == "weather"
            assert arguments.startswith(calls[0][1])
        likely_text = not forced and length < 5
        assert not content or likely_text or not (calls or tagged), text[:length]
    assert fold(tool_format, [text[: text.index("Zü")]], finish="length", forced=forced)[1] == [
        ("weather", '{"city": "')
    ]


@pytest.mark.parametrize(
    "text", ["", "a <", "<td><t", "a [", "a [T", "```", "```json\n{", "func", '{"name": "Jo', "Hello\n"]
)
def test_cut_off_text_is_unchanged(tool_format, text):
    assert fold(tool_format, list(text), finish="length")[0] == text


def test_calls_around_a_malformed_call_are_parsed(tool_format):
    good, bad = format_call(tool_format, "f", '{"a": 1}'), format_call(tool_format, "f", "{oops}")
    content, calls, _, _ = fold_splits(tool_format, f"{good}\n{bad}\n{good}")
    assert calls == [("f", '{"a": 1}')] * 2
    assert "oops" in content


def test_control_characters_in_strings_are_escaped(tool_format):
    text = format_call(tool_format, "f", '{"code": "a\n\tb"}')
    assert fold_splits(tool_format, text)[1] == [("f", '{"code": "a\\n\\tb"}')]


@pytest.mark.parametrize(
    ("tool_format", "text", "calls"),
    [
        ("hermes", '<tool_call>{"arguments": {"a": 1}, "name": "f"}</tool_call>', [("f", '{"a":1}')]),
        ("hermes", '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', [("f", '{"a": 1}')]),
        ("hermes", '<tool_call>{"name": "f"}</tool_call>', [("f", "{}")]),
        ("hermes", '<tool_call>{"name": "f", "arguments": null}</tool_call>', [("f", "{}")]),
        ("hermes", '<tool_call>{"name": "f", "arguments": {}\n</tool_call>', [("f", "{}")]),
        ("hermes", '<tool_call>{"name": "f", "arguments": {}}}\n</tool_call>', [("f", "{}")]),
        ("hermes", '<tool_call>{"name": "f", "arguments": {}}', [("f", "{}")]),
        ("hermes", '<tool_call>[{"name": "f"}, {"name": "weather"}]</tool_call>', [("f", "{}"), ("weather", "{}")]),
        (
            "llama3",
            '\n{"name": "f", "parameters": {"a": 1}}; {"name": "f", "parameters": {}}',
            [("f", '{"a": 1}'), ("f", "{}")],
        ),
        ("llama3", '{"type": "function", "name": "f", "parameters": {"a": 1}}', [("f", '{"a": 1}')]),
        (
            "mistral",
            '[TOOL_CALLS][{"name": "f", "arguments": {}}, {"name": "weather", "arguments": {}}]',
            [("f", "{}"), ("weather", "{}")],
        ),
        ("mistral", "[TOOL_CALLS]f[CALL_ID]abc123def[ARGS]{}", [("f", "{}")]),
        ("mistral", "[TOOL_CALLS]f{}", [("f", "{}")]),
        ("phi", 'functools[{"name": "f", "arguments": {}}]', [("f", "{}")]),
        (
            "deepseek",
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{}\n```<｜tool▁call▁end｜>\n"
            "<｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            [("f", "{}"), ("weather", "{}")],
        ),
        ("generic", '{"name": "f", "arguments": {}}\n{"name": "weather"}', [("f", "{}"), ("weather", "{}")]),
        ("hermes", '```json\n{\n  "name": "f",\n  "arguments": {}\n}\n```', [("f", "{}")]),
        (
            "hermes",
            '{"name": "f", "arguments": {}}\n{"name": "weather", "arguments": {}}',
            [("f", "{}"), ("weather", "{}")],
        ),
        ("generic", ' [{"name": "f", "arguments": {}}, {"name": "weather"}]', [("f", "{}"), ("weather", "{}")]),
    ],
)
def test_variants_of_a_format_are_parsed(tool_format, text, calls):
    assert fold_splits(tool_format, text) == (None, calls, None, "tool_calls")


def test_other_json_after_a_call_is_content():
    text = '[{"name": "f", "arguments": {}}]\n{"temperature": 7}'
    assert fold_splits("hermes", text) == ('\n{"temperature": 7}', [("f", "{}")], None, "tool_calls")


@pytest.mark.parametrize("tool_format", ["llama3", "generic", "hermes"])
@pytest.mark.parametrize("text", ['{"answer": 42}', '{"name": "Ann", "age": 3} ', "{", "[1, 2]", '{"name": 5}'])
def test_json_that_is_not_a_call_is_content(tool_format, text):
    assert fold_splits(tool_format, text) == (text, [], None, "stop")


def test_json_output_is_streamed_without_waiting_for_its_end():
    builder = MessageBuilder(ParserPipeline([ToolParser(TOOL_FORMATS["generic"], NAMES)]))
    assert builder.push('{"answer": "4') == [{"content": '{"answer":'}, {"content": ' "4'}]
    assert builder.push("2") == [{"content": "2"}]


def test_arguments_are_streamed_as_they_arrive():
    builder = MessageBuilder(ParserPipeline([ToolParser(TOOL_FORMATS["hermes"], NAMES)]))
    deltas = [
        builder.push(piece)
        for piece in ('<tool_call>{"name": "f", "arg', 'uments": {"a', '": "b', '"}}</tool', "_call>")
    ]
    assert deltas[0] == []
    (started,), argued = deltas[1][0]["tool_calls"], [d[-1]["tool_calls"][0] for d in deltas[1:4]]
    assert started.pop("id").startswith("call_")
    assert started == {"index": 0, "type": "function", "function": {"name": "f", "arguments": ""}}
    assert [call["function"]["arguments"] for call in argued] == ['{"a', '": "b', '"}']
    assert deltas[4] == []


def test_aborted_call_becomes_content_and_its_index_is_not_reused():
    builder = MessageBuilder(ParserPipeline([ToolParser(TOOL_FORMATS["hermes"], NAMES)]))
    text = '<tool_call>{"name": "f", "arguments": {"a": oops}}</tool_call>'
    deltas = [delta for character in text for delta in builder.push(character)] + builder.end("stop")
    assert "".join(delta.get("content", "") for delta in deltas) == text
    assert builder.finish_reason("stop") == "stop"
    good = MessageBuilder(ParserPipeline([ToolParser(TOOL_FORMATS["hermes"], NAMES)]))
    after = good.push(text + '<tool_call>{"name": "f"}</tool_call>')
    assert [d["tool_calls"][0]["index"] for d in after if "tool_calls" in d and "id" in d["tool_calls"][0]] == [0, 1]


def test_mistral_call_ids_are_nine_letters_or_digits():
    builder = MessageBuilder(ParserPipeline([ToolParser(TOOL_FORMATS["mistral"], NAMES)]))
    builder.push("[TOOL_CALLS]f[ARGS]{}")
    (call,) = builder.message()["tool_calls"]
    assert len(call["id"]) == 9
    assert call["id"].isalnum()


def test_long_call_in_small_pieces_is_parsed():
    # The text has 80,000 pieces. A parser that rescanned the whole text for each piece would be very slow.
    text = format_call("hermes", "f", '{"code": "' + "x = 1;\\n" * 40_000 + '"}')
    assert fold("hermes", [text[i : i + 4] for i in range(0, len(text), 4)])[1][0][0] == "f"


REASONING_CASES = [
    ("<think>\nHm.\n\nSo.\n</think>\n\nHello", "Hello", "Hm.\n\nSo."),
    ("\n<think>Hm</think>Hello <think>", "Hello <think>", "Hm"),
    ("<think>\n\n</think>\n\nHello", "Hello", None),
    ("<think>Hm </thin", "", "Hm </thin"),
    ("<think>", "", None),
    ("<thin", "<thin", None),
    ("Hello <think>x</think>", "Hello <think>x</think>", None),
    (" Hello", " Hello", None),
    ("", "", None),
    ("<think>a</think>b</think>", "b</think>", "a"),
]


@pytest.mark.parametrize(("text", "content", "reasoning"), REASONING_CASES)
def test_reasoning_is_separated_from_content(text, content, reasoning):
    assert fold_splits(None, text, parse_reasoning=True) == (content, [], reasoning, "stop")


def test_call_in_reasoning_is_not_parsed_but_call_after_reasoning_is(tool_format):
    text = (
        f"<think>\nI call {format_call(tool_format, 'f', '{}')}?\n</think>\n\n{format_call(tool_format, 'f', TRICKY)}"
    )
    content, calls, reasoning, finish = fold_splits(tool_format, text, parse_reasoning=True)
    assert (content, calls, finish) == (None, [("f", TRICKY)], "tool_calls")
    assert reasoning == f"I call {format_call(tool_format, 'f', '{}')}?"


FUNCTIONS = [
    {
        "name": "f",
        "param": "tools[0].function.parameters",
        "parameters": {
            "type": "object",
            "properties": {"x": {"$ref": "#/$defs/X"}},
            "$defs": {"X": {"type": "integer"}},
        },
    },
    {"name": "weather", "param": "tools[1].function.parameters", "parameters": None},
]


def resolve(schema, reference):
    for step in reference.removeprefix("#/").split("/"):
        schema = schema[int(step) if isinstance(schema, list) else step]
    return schema


@pytest.mark.parametrize("max_calls", [None, 1])
def test_output_that_matches_the_constraint_is_parsed_as_a_call(tool_format, max_calls):
    constraint = TOOL_FORMATS[tool_format].constrain(FUNCTIONS, max_calls)
    assert constraint.min_calls == 1
    one = constraint.tags[0]
    calls = '{"name": "f", "arguments": {"x": 1}}'
    if "name" not in json.dumps(one.schema):
        calls = '{"x": 1}'
    elif one.schema.get("type") == "array":
        calls = f"[{calls}]"
    calls = calls.replace("arguments", "parameters") if tool_format == "llama3" else calls
    assert fold(tool_format, [one.begin + calls + one.end])[1] == [("f", '{"x": 1}')]


def test_references_in_parameters_still_resolve_inside_the_call_schema():
    for tool_format, schema_of in (("hermes", lambda s: s), ("mistral", lambda s: s["items"])):
        schema = TOOL_FORMATS[tool_format].constrain(FUNCTIONS, None).tags[0].schema
        arguments = schema_of(schema)["anyOf"][0]["properties"]["arguments"]
        assert resolve(schema, arguments["properties"]["x"]["$ref"]) == {"type": "integer"}
    assert FUNCTIONS[0]["parameters"]["properties"]["x"]["$ref"] == "#/$defs/X"


@pytest.mark.parametrize(
    "parameters",
    [
        None,
        {},
        {"type": "object"},
        {"type": "object", "properties": {}},
        {"type": "object", "properties": {}, "required": []},
        {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "description": "nothing"},
    ],
)
def test_tool_without_parameters_accepts_no_arguments(parameters):
    schema = parameters_of({"name": "get_time", "parameters": parameters})
    assert schema == {"type": "object", "properties": {}, "additionalProperties": False}


@pytest.mark.parametrize(
    "parameters",
    [
        {"type": "object", "additionalProperties": True},
        {"type": "object", "properties": {"filter": {"type": "object"}}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}},
    ],
)
def test_other_parameters_are_unchanged(parameters):
    assert parameters_of({"name": "search", "parameters": parameters}) == parameters

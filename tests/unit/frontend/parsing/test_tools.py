"""Calls of tools in what models write: each family's, in any pieces, and what only looks like one."""

import json
import random

import orjson
import pytest

from frontend.endpoints.chat.protocol import MessageBuilder
from frontend.parsing.pipeline import ParserPipeline
from frontend.parsing.reasoning import ReasoningParser
from frontend.parsing.tools import TOOL_FORMATS, ToolParser

NAMES = {"weather", "f", "get-time_2"}


def fold(tool_format, pieces, max_calls=None, finish="stop", reasons=False):
    """Content, calls, thoughts and finish_reason of an answer, whole; the stream is checked to tell the same."""
    parsers = [ReasoningParser()] if reasons else []
    builder = MessageBuilder(
        ParserPipeline([*parsers, ToolParser(TOOL_FORMATS[tool_format], NAMES, max_calls)] if tool_format else parsers)
    )
    deltas = [delta for piece in pieces for delta in builder.push(piece)] + builder.end()
    message = builder.message()
    calls = [(c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls", [])]
    for _, arguments in calls:
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


def in_every_way(tool_format, text, **options):
    """The fold of the text, which is the same whole, in two pieces cut anywhere, in characters, and at random."""
    whole = fold(tool_format, [text], **options)
    for place in range(len(text) + 1):
        assert fold(tool_format, [text[:place], text[place:]], **options) == whole, place
    assert fold(tool_format, list(text), **options) == whole
    chance = random.Random(7)  # noqa: S311
    for _ in range(40):
        cuts = sorted(chance.choices(range(len(text) + 1), k=chance.randrange(1, 12)))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert fold(tool_format, pieces, **options) == whole
    return whole


TRICKY = (
    '{"city": "Zürich 🦊 \\"q\\" \\\\", "s": "</tool_call> }{][ ; [TOOL_CALLS]", "n": [1, {"x": null}], "e": -1.5e3}'
)


def written(tool_format, name, arguments):
    """A call as the family writes it."""
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


def test_one_call(tool_format):
    assert in_every_way(tool_format, written(tool_format, "weather", TRICKY)) == (
        None,
        [("weather", TRICKY)],
        None,
        "tool_calls",
    )


def test_without_arguments(tool_format):
    assert in_every_way(tool_format, written(tool_format, "f", "{}")) == (None, [("f", "{}")], None, "tool_calls")


def test_two_calls(tool_format):
    text = written(tool_format, "f", '{"a": 1}') + "\n" + written(tool_format, "get-time_2", '{"b": "2"}')
    assert in_every_way(tool_format, text) == (
        None,
        [("f", '{"a": 1}'), ("get-time_2", '{"b": "2"}')],
        None,
        "tool_calls",
    )


def test_a_second_call_is_left_out_if_only_one_is_wanted(tool_format):
    text = written(tool_format, "f", '{"a": 1}') + "\n" + written(tool_format, "f", '{"b": "2"}')
    assert in_every_way(tool_format, text, max_calls=1) == (None, [("f", '{"a": 1}')], None, "tool_calls")


def test_text_around_is_content(tool_format):
    content, calls, _, finish = in_every_way(tool_format, f" I look.\n\n{written(tool_format, 'f', '{}')}\n Done \n")
    assert (calls, finish) == ([("f", "{}")], "tool_calls")
    assert content.startswith(" I look.")
    assert content.endswith("Done")
    assert "f" not in content


@pytest.mark.parametrize("text", ["", "  \n", "Hello\n\n", " <tool", "[TOOL_", "<|", "`", " a < b [c] {d} "])
def test_text_alone_is_left_as_it_is(tool_format, text):
    assert in_every_way(tool_format, text) == (text, [], None, "stop")


@pytest.mark.parametrize("arguments", ["{oops}", '{"a": 1]', '{"a": tru}', "[1]", "7", '"x"', "{'a': 1}", '{"a" 1}'])
def test_what_is_malformed_comes_out_as_text(tool_format, arguments):
    content, calls, _, finish = in_every_way(tool_format, "Look: " + written(tool_format, "f", arguments))
    assert (calls, finish) == ([], "stop")
    assert content == "Look: " + written(tool_format, "f", arguments)


def test_a_tool_that_there_is_not_comes_out_as_text(tool_format):
    text = written(tool_format, "rm", '{"a": 1}')
    assert in_every_way(tool_format, text) == (text, [], None, "stop")


def test_an_answer_cut_off_anywhere_is_not_lost(tool_format):
    text = written(tool_format, "weather", '{"city": "Zürich"}')
    for length in range(len(text)):
        content, calls, _, _ = fold(tool_format, [text[:length]], finish="length")
        assert calls == [("weather", '{"city": "Zürich"}')] or content == text[:length]


def test_calls_around_a_malformed_one_are_calls(tool_format):
    good, bad = written(tool_format, "f", '{"a": 1}'), written(tool_format, "f", "{oops}")
    content, calls, _, _ = in_every_way(tool_format, f"{good}\n{bad}\n{good}")
    assert calls == [("f", '{"a": 1}')] * 2
    assert "oops" in content


def test_line_breaks_in_strings_are_escaped(tool_format):
    text = written(tool_format, "f", '{"code": "a\n\tb"}')
    assert in_every_way(tool_format, text)[1] == [("f", '{"code": "a\\n\\tb"}')]


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
def test_ways_to_write_it(tool_format, text, calls):
    assert in_every_way(tool_format, text) == (None, calls, None, "tool_calls")


def test_what_follows_a_call_and_is_none_is_all_that_is_left():
    text = '[{"name": "f", "arguments": {}}]\n{"temperature": 7}'
    assert in_every_way("hermes", text) == ('\n{"temperature": 7}', [("f", "{}")], None, "tool_calls")


@pytest.mark.parametrize("tool_format", ["llama3", "generic", "hermes"])
@pytest.mark.parametrize("text", ['{"answer": 42}', '{"name": "Ann", "age": 3} ', "{", "[1, 2]", '{"name": 5}'])
def test_an_answer_in_json_is_no_call(tool_format, text):
    assert in_every_way(tool_format, text) == (text, [], None, "stop")


def test_nobody_waits_for_the_end_of_an_answer_in_json():
    builder = MessageBuilder(ParserPipeline([ToolParser(TOOL_FORMATS["generic"], NAMES)]))
    assert builder.push('{"answer": "4') == [{"content": '{"answer":'}, {"content": ' "4'}]
    assert builder.push("2") == [{"content": "2"}]


def test_arguments_are_streamed_as_they_come():
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


def test_a_stream_that_began_a_call_which_is_none_says_what_was_written_and_does_not_end_in_a_call():
    builder = MessageBuilder(ParserPipeline([ToolParser(TOOL_FORMATS["hermes"], NAMES)]))
    text = '<tool_call>{"name": "f", "arguments": {"a": oops}}</tool_call>'
    deltas = [delta for character in text for delta in builder.push(character)] + builder.end()
    assert "".join(delta.get("content", "") for delta in deltas) == text
    assert builder.finish_reason("stop") == "stop"
    good = MessageBuilder(ParserPipeline([ToolParser(TOOL_FORMATS["hermes"], NAMES)]))
    after = good.push(text + '<tool_call>{"name": "f"}</tool_call>')
    assert [d["tool_calls"][0]["index"] for d in after if "tool_calls" in d and "id" in d["tool_calls"][0]] == [0, 1]


def test_ids_of_mistral_have_nine_characters():
    builder = MessageBuilder(ParserPipeline([ToolParser(TOOL_FORMATS["mistral"], NAMES)]))
    builder.push("[TOOL_CALLS]f[ARGS]{}")
    (call,) = builder.message()["tool_calls"]
    assert len(call["id"]) == 9
    assert call["id"].isalnum()


def test_a_long_call_in_small_pieces_takes_no_long():
    text = written("hermes", "f", '{"code": "' + "x = 1;\\n" * 40_000 + '"}')
    assert fold("hermes", [text[i : i + 4] for i in range(0, len(text), 4)])[1][0][0] == "f"


THOUGHTS = [
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


@pytest.mark.parametrize(("text", "content", "thought"), THOUGHTS)
def test_thoughts(text, content, thought):
    assert in_every_way(None, text, reasons=True) == (content, [], thought, "stop")


def test_a_thought_before_a_call(tool_format):
    text = f"<think>\nI call {written(tool_format, 'f', '{}')}?\n</think>\n\n{written(tool_format, 'f', TRICKY)}"
    content, calls, thought, finish = in_every_way(tool_format, text, reasons=True)
    assert (content, calls, finish) == (None, [("f", TRICKY)], "tool_calls")
    assert thought == f"I call {written(tool_format, 'f', '{}')}?"


FUNCTIONS = [
    {
        "name": "f",
        "parameters": {
            "type": "object",
            "properties": {"x": {"$ref": "#/$defs/X"}},
            "$defs": {"X": {"type": "integer"}},
        },
    },
    {"name": "weather", "parameters": None},
]


def resolve(schema, reference):
    for step in reference.removeprefix("#/").split("/"):
        schema = schema[int(step) if isinstance(schema, list) else step]
    return schema


@pytest.mark.parametrize("max_calls", [None, 1])
def test_shapes_of_calls_are_read_as_calls(tool_format, max_calls):
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


def test_references_in_schemas_still_lead_where_they_led():
    for tool_format, schema_of in (("hermes", lambda s: s), ("mistral", lambda s: s["items"])):
        schema = TOOL_FORMATS[tool_format].constrain(FUNCTIONS, None).tags[0].schema
        arguments = schema_of(schema)["anyOf"][0]["properties"]["arguments"]
        assert resolve(schema, arguments["properties"]["x"]["$ref"]) == {"type": "integer"}
    assert FUNCTIONS[0]["parameters"]["properties"]["x"]["$ref"] == "#/$defs/X"

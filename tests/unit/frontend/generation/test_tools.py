"""Tools and reasoning in POST /chat/completions with a fake Triton: requests, tensors and responses."""

import orjson
import pytest

from tests.unit.conftest import chat, delta, last
from tests.unit.frontend.endpoints.chat.test_view import USER, events

TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "Of a city", "parameters": {"type": "object"}},
}
OTHER = {"type": "function", "function": {"name": "time"}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Köln"}'}}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "rain"}
WRITTEN = '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call>'


def post(client, **fields):
    return client.post("/v1/chat/completions", json=chat(**fields))


def inputs(triton):
    return {name: orjson.loads(value) for name, value in triton.requests[-1]["inputs"].items()}


def test_tools_reach_the_model_in_the_format_of_chat_templates(client, triton):
    triton.queue_response(last("Hi"))
    assert post(client, tools=[TOOL, OTHER], tool_choice="auto").status_code == 200
    empty = {"name": "time", "parameters": {"type": "object", "properties": {}}}
    assert inputs(triton)["tools"] == [TOOL, {"type": "function", "function": empty}]
    assert inputs(triton)["sampling_parameters"]["visible_tokens"] == ["<tool_call>", "</tool_call>"]
    assert "constraint" not in inputs(triton)["sampling_parameters"]


@pytest.mark.parametrize("fields", [{}, {"tools": []}, {"tools": [TOOL], "tool_choice": "none"}])
def test_without_callable_tools_no_text_is_parsed_as_a_call(client, triton, fields):
    triton.queue_response(last(WRITTEN))
    message = post(client, **fields).get_json()["choices"][0]["message"]
    assert message == {"role": "assistant", "content": WRITTEN, "refusal": None, "annotations": []}
    assert set(inputs(triton)) == {"messages", "sampling_parameters"}


def test_call_in_the_text_becomes_a_tool_call(client, triton):
    triton.queue_response(delta(WRITTEN[:20]), delta(WRITTEN[20:]), last())
    choice = post(client, tools=[TOOL]).get_json()["choices"][0]
    (call,) = choice["message"].pop("tool_calls")
    assert choice["message"] == {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    assert choice["finish_reason"] == "tool_calls"
    assert call.pop("id").startswith("call_")
    assert call == {"type": "function", "function": CALL["function"]}


def test_calls_in_streamed_text_become_tool_call_deltas(client, triton):
    triton.queue_response(delta("I look.\n" + WRITTEN[:50]), delta(WRITTEN[50:] + "\n"), last(WRITTEN))
    role, *chunks, done = events(post(client, tools=[TOOL], stream=True))
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"content": "I look."}
    calls = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    assert [call["index"] for call in calls if "id" in call] == [0, 1]
    for index in (0, 1):
        pieces = [call["function"]["arguments"] for call in calls if call["index"] == index]
        assert "".join(pieces) == '{"city": "Köln"}'
    assert chunks[-1]["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "tool_calls"}
    assert done == "data: [DONE]"


def test_truncated_response_keeps_its_finish_reason(client, triton):
    triton.queue_response(last(WRITTEN + WRITTEN[:56], "length"))
    choice = post(client, tools=[TOOL]).get_json()["choices"][0]
    assert choice["finish_reason"] == "length"
    arguments = [call["function"]["arguments"] for call in choice["message"]["tool_calls"]]
    assert (choice["message"]["content"], arguments) == (None, ['{"city": "Köln"}', '{"city": "K'])


def test_only_one_call_is_returned_if_parallel_tool_calls_is_false(client, triton):
    triton.queue_response(last(f"{WRITTEN}\n{WRITTEN}"))
    message = post(client, tools=[TOOL], parallel_tool_calls=False).get_json()["choices"][0]["message"]
    assert len(message["tool_calls"]) == 1


@pytest.mark.parametrize(
    ("choice", "names", "maximum"),
    [("required", ["weather", "time"], 8), ({"type": "function", "function": {"name": "time"}}, ["time"], 1)],
)
def test_required_or_named_tool_choice_constrains_the_output(client, triton, choice, names, maximum):
    triton.queue_response(last(WRITTEN))
    post(client, tools=[TOOL, OTHER], tool_choice=choice)
    constraint = inputs(triton)["sampling_parameters"]["constraint"]
    (tag,) = constraint["tags"]
    assert [s["properties"]["name"]["const"] for s in tag["schema"]["anyOf"]] == names
    assert (tag["begin"], tag["end"], constraint["separator"]) == ("<tool_call>\n", "\n</tool_call>", "\n")
    assert (constraint["kind"], constraint["min_calls"], constraint["max_calls"]) == ("tool_calls", 1, maximum)
    assert [tool["function"]["name"] for tool in inputs(triton)["tools"]] == ["weather", "time"]


def test_history_reaches_the_model_with_arguments_as_objects(client, triton):
    triton.queue_response(last())
    messages = [USER, CALLED, RESULT | {"content": [{"type": "text", "text": "rain"}]}]
    assert post(client, messages=messages).status_code == 200
    function = {"name": "weather", "arguments": {"city": "Köln"}}
    expected = CALLED | {"tool_calls": [CALL | {"function": function}]}
    assert inputs(triton)["messages"] == [USER, expected, RESULT]


@pytest.mark.parametrize("content", [{}, {"content": None}, {"content": ""}])
def test_assistant_message_with_calls_needs_no_content(client, triton, content):
    triton.queue_response(last())
    message = {"role": "assistant", "tool_calls": [CALL | {"function": {"name": "x", "arguments": ""}}]} | content
    assert post(client, messages=[USER, message, RESULT]).status_code == 200
    assert inputs(triton)["messages"][1]["content"] is None
    assert inputs(triton)["messages"][1]["tool_calls"][0]["function"]["arguments"] == {}


def test_call_ids_have_the_length_that_the_template_requires(client, triton, configure):
    configure(tool_format="mistral")
    triton.queue_response(last("[TOOL_CALLS]weather[ARGS]{}"))
    body = post(client, messages=[USER, CALLED, RESULT], tools=[TOOL]).get_json()
    call, result = inputs(triton)["messages"][1:]
    assert call["tool_calls"][0]["id"] == result["tool_call_id"]
    assert len(result["tool_call_id"]) == 9
    assert len(body["choices"][0]["message"]["tool_calls"][0]["id"]) == 9


def deep(levels):
    return {"a": deep(levels - 1)} if levels else {}


def tool(**function):
    return {"type": "function", "function": {"name": "f"} | function}


def with_call(**fields):
    return [USER, {"role": "assistant", "content": None, "tool_calls": [CALL | fields]}]


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"tools": "weather"}, "tools", "invalid_type"),
        ({"tools": [tool(name=f"f{i}") for i in range(129)]}, "tools", "invalid_value"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "missing_parameter"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type", "invalid_value"),
        ({"tools": [tool(name="two words")]}, "tools[0].function.name", "invalid_value"),
        ({"tools": [tool(name="f" * 65)]}, "tools[0].function.name", "invalid_value"),
        ({"tools": [tool(name="f\n")]}, "tools[0].function.name", "invalid_value"),
        ({"tools": [tool(parameters=[])]}, "tools[0].function.parameters", "invalid_type"),
        ({"tools": [tool(parameters={"type": "string"})]}, "tools[0].function.parameters", "invalid_value"),
        ({"tools": [tool(parameters=deep(200))]}, "tools[0].function.parameters", "invalid_value"),
        ({"tools": [tool(strict="yes")]}, "tools[0].function.strict", "invalid_type"),
        ({"tools": [TOOL, TOOL]}, "tools[1].function.name", "invalid_value"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"tools": [TOOL], "tool_choice": "any"}, "tool_choice", "invalid_value"),
        ({"tools": [TOOL], "tool_choice": 5}, "tool_choice", "invalid_value"),
        ({"tools": [TOOL], "tool_choice": {"type": "function"}}, "tool_choice.function", "missing_parameter"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "tool_choice.function.name",
            "invalid_value",
        ),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls", "invalid_type"),
        ({"messages": [USER, RESULT]}, "messages[1].tool_call_id", "invalid_value"),
        ({"messages": [USER, CALLED, USER, RESULT]}, "messages[3].tool_call_id", "invalid_value"),
        ({"messages": [USER, CALLED, RESULT | {"tool_call_id": "x"}]}, "messages[2].tool_call_id", "invalid_value"),
        (
            {"messages": [USER, CALLED, {"role": "tool", "content": ""}]},
            "messages[2].tool_call_id",
            "missing_parameter",
        ),
        (
            {"messages": with_call(function={"name": "f", "arguments": {}})},
            "messages[1].tool_calls[0].function.arguments",
            "invalid_type",
        ),
        (
            {"messages": with_call(function={"name": "f"})},
            "messages[1].tool_calls[0].function.arguments",
            "missing_parameter",
        ),
        ({"messages": [USER, CALLED | {"tool_calls": [CALL, CALL]}]}, "messages[1].tool_calls[1].id", "invalid_value"),
        ({"messages": [USER | {"tool_calls": [CALL]}]}, "messages[0].tool_calls", "invalid_value"),
        ({"messages": [USER, {"role": "function", "name": "f", "content": "x"}]}, "messages[1].role", "invalid_value"),
        ({"reasoning_effort": "huge"}, "reasoning_effort", "invalid_value"),
        ({"enable_thinking": "no"}, "enable_thinking", "invalid_type"),
        ({"chat_template_kwargs": []}, "chat_template_kwargs", "invalid_type"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs", "invalid_value"),
        ({"chat_template_kwargs": {"a b": 1}}, "chat_template_kwargs", "invalid_value"),
        ({"chat_template_kwargs": {"a": "x" * 20_000}}, "chat_template_kwargs", "invalid_value"),
        ({"chat_template_kwargs": {"a": deep(200)}}, "chat_template_kwargs", "invalid_value"),
        ({"chat_template_kwargs": {f"a{i}": 1 for i in range(33)}}, "chat_template_kwargs", "invalid_value"),
    ],
)
def test_error_for_invalid_input_names_the_field(client, triton, fields, param, code):
    response = post(client, **fields)
    error = response.get_json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, param, code)
    assert not triton.requests


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True, "functions": [], "function_call": "auto"},
        {"tools": None, "tool_choice": None, "parallel_tool_calls": None, "chat_template_kwargs": {}},
        {"tools": [TOOL | {"function": TOOL["function"] | {"strict": True}}], "parallel_tool_calls": True},
        {"messages": [USER, {"role": "assistant", "content": "Hi", "tool_calls": []}, USER]},
        {
            "messages": [
                USER,
                CALLED | {"tool_calls": [CALL, CALL | {"id": "b"}]},
                RESULT | {"tool_call_id": "b"},
                RESULT,
            ]
        },
    ],
)
def test_values_without_effect_and_valid_histories_are_accepted(client, triton, fields):
    triton.queue_response(last("Hi"))
    assert post(client, **fields).status_code == 200


def test_template_variables_reach_the_model(client, triton):
    triton.queue_response(last(), last())
    kwargs = {"chat_template_kwargs": {"enable_thinking": True, "documents": [{"a": None}]}}
    post(client, reasoning_effort="none", **kwargs)
    expected = {"reasoning_effort": "none", "enable_thinking": True, "documents": [{"a": None}]}
    assert inputs(triton)["sampling_parameters"]["chat_template_kwargs"] == expected


def test_reasoning_is_separated_for_models_that_reason(client, triton, configure):
    configure(reasoning="think")
    triton.queue_response(last("<think>\nHm.\n</think>\n\nHello") | {"num_reasoning_tokens": 4})
    body = post(client).get_json()
    message = body["choices"][0]["message"]
    assert body["usage"]["completion_tokens_details"] == {"reasoning_tokens": 4}
    assert message == {
        "role": "assistant",
        "content": "Hello",
        "refusal": None,
        "annotations": [],
        "reasoning_content": "Hm.",
    }
    triton.queue_response(delta("<thi"), delta("nk>Hm. "), delta("So.</thi"), delta("nk>\n\nHel"), last("lo"))
    deltas = [chunk["choices"][0]["delta"] for chunk in events(post(client, stream=True))[1:-1]]
    reasoning = [{"reasoning_content": "Hm."}, {"reasoning_content": " So."}]
    assert deltas == [*reasoning, {"content": "Hel"}, {"content": "lo"}, {}]
    assert inputs(triton)["sampling_parameters"]["visible_tokens"] == ["<think>", "</think>"]


def test_reasoning_tags_are_text_for_models_that_do_not_reason(client, triton):
    triton.queue_response(last("<think>Hm.</think>Hello"))
    assert post(client).get_json()["choices"][0]["message"]["content"] == "<think>Hm.</think>Hello"


def test_reasoning_of_earlier_turns_reaches_the_template(client, triton):
    triton.queue_response(last())
    message = {"role": "assistant", "content": "Hello", "reasoning_content": "Hm."}
    post(client, messages=[USER, message, USER])
    assert inputs(triton)["messages"][1] == message


def test_unknown_tool_format_in_the_configuration_is_a_server_error(client, configure):
    configure(tool_format="smoke signals")
    response = post(client, tools=[TOOL])
    assert response.status_code == 500
    assert "tool_format" in response.get_json()["error"]["message"]


def test_ocr_model_rejects_tools(client):
    content = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
    response = post(client, model="tiny-ocr", messages=[{"role": "user", "content": content}], tools=[TOOL])
    assert (response.status_code, response.get_json()["error"]["param"]) == (400, "tools")


@pytest.mark.parametrize("stream", [False, True])
def test_each_choice_is_parsed_separately(client, triton, stream):
    triton.queue_response(delta(WRITTEN[:30]), delta(WRITTEN[30:]), last())
    triton.queue_response(delta("<tool"), last(" of mine"))
    response = post(client, tools=[TOOL], n=2, stream=stream)
    if not stream:
        first, second = response.get_json()["choices"]
        assert (first["finish_reason"], second["finish_reason"]) == ("tool_calls", "stop")
        assert (len(first["message"]["tool_calls"]), second["message"]["content"]) == (1, "<tool of mine")
        return
    choices = [chunk["choices"][0] for chunk in events(response)[:-1]]
    text = "".join(c["delta"].get("content", "") for c in choices if c["index"] == 1)
    reasons = {c["index"]: c["finish_reason"] for c in choices if c["finish_reason"]}
    assert (text, reasons) == ("<tool of mine", {0: "tool_calls", 1: "stop"})
    assert any("tool_calls" in c["delta"] for c in choices if c["index"] == 0)


@pytest.mark.parametrize(
    ("message", "sent"),
    [
        ({"role": "assistant", "content": None}, {"content": ""}),
        ({"role": "assistant", "tool_calls": []}, {"content": ""}),
        ({"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}, {"content": "No."}),
        (CALLED | {"content": None}, {"content": None}),
    ],
)
def test_assistant_messages_may_lack_content_or_contain_a_refusal(client, triton, message, sent):
    triton.queue_response(last())
    assert post(client, messages=[USER, message, USER]).status_code == 200
    assert inputs(triton)["messages"][1].items() >= sent.items()


def test_call_with_truncated_arguments_is_accepted_in_the_history(client, triton):
    triton.queue_response(last())
    assert post(client, messages=with_call(function={"name": "f", "arguments": '{"a": '})).status_code == 200
    (call,) = inputs(triton)["messages"][1]["tool_calls"]
    assert call["function"]["arguments"] == {"arguments": '{"a": '}


def test_optional_calls_and_response_format_become_alternatives_in_the_constraint(client, triton):
    triton.queue_response(last("{}"))
    post(client, tools=[TOOL], response_format={"type": "json_object"})
    constraint = inputs(triton)["sampling_parameters"]["constraint"]
    assert [one["kind"] for one in constraint["constraints"]] == ["tool_calls", "json_object"]

"""POST /responses with a fake Triton: response fields, events, stored responses, errors, and the requests to Triton."""

import functools
import os

import orjson
import pytest
from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types import responses as openai_types
from pydantic import TypeAdapter

from frontend.errors import EngineFailure, InvalidRequest
from frontend.storage.expiring_files import ExpiringFiles
from frontend.storage.responses import ResponseStore, StoredResponse
from tests.unit.conftest import delta, last

IMAGE = "data:image/png;base64,iVBORw0KGgo="


def ask(client, given="Hi", **fields):
    return client.post("/v1/responses", json={"model": "tiny-chat", "input": given} | fields)


def sent_messages(triton, number=-1):
    return orjson.loads(triton.requests[number]["inputs"]["messages"])


def events(response):
    """Return the decoded events of a stream, without its comments. Asserts that event names and numbers are correct."""
    found = []
    for block in response.get_data().decode().split("\n\n"):
        if block.startswith("event: "):
            name, data = block.split("\n")
            event = orjson.loads(data.removeprefix("data: "))
            assert name == f"event: {event['type']}"
            found.append(event)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


def test_non_streaming_response_has_openais_format(client, triton):
    triton.queue_response(delta("Hel"), last("lo", "stop", prompt=11, completion=4))
    body = ask(client, temperature=0.5, metadata={"a": "b"}, instructions="Be brief.").get_json()
    parsed = openai_types.Response.model_validate(body)
    assert (parsed.object, parsed.status, parsed.model, parsed.output_text) == (
        "response",
        "completed",
        "org/tiny-chat",
        "Hello",
    )
    assert body["output"][0] | {"id": ""} == {
        "id": "",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}],
    }
    assert (parsed.usage.input_tokens, parsed.usage.output_tokens, parsed.usage.total_tokens) == (11, 4, 15)
    assert (parsed.usage.input_tokens_details.cached_tokens, parsed.usage.output_tokens_details.reasoning_tokens) == (
        0,
        0,
    )
    assert (parsed.temperature, parsed.top_p, parsed.metadata, parsed.instructions) == (
        0.5,
        1.0,
        {"a": "b"},
        "Be brief.",
    )
    assert (parsed.tools, parsed.tool_choice, parsed.parallel_tool_calls, parsed.truncation) == (
        [],
        "auto",
        True,
        "disabled",
    )
    assert body["store"] is True


def test_truncated_response_has_the_status_incomplete(client, triton):
    triton.queue_response(last("Hel", "length"))
    body = ask(client, max_output_tokens=3).get_json()
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert (body["output"][0]["status"], body["max_output_tokens"]) == ("incomplete", 3)
    assert orjson.loads(triton.requests[0]["inputs"]["sampling_parameters"]) == {"max_tokens": 3, "stream": False}


def test_stream_has_all_events_in_order(client, triton):
    triton.queue_response(delta("Hel"), TimeoutError(), last("lo", prompt=5, completion=2))
    created, progress, item, part, first, second, text, part_done, item_done, completed = events(
        ask(client, stream=True)
    )
    assert [e["type"].removeprefix("response.") for e in (created, progress, item, part)] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
    ]
    assert (created["response"]["status"], created["response"]["output"]) == ("in_progress", [])
    assert item["item"] | {"id": ""} == {
        "id": "",
        "type": "message",
        "status": "in_progress",
        "role": "assistant",
        "content": [],
    }
    assert part["part"]["text"] == ""
    assert [(e["type"], e["delta"]) for e in (first, second)] == [
        ("response.output_text.delta", t) for t in ("Hel", "lo")
    ]
    assert (text["type"], text["text"]) == ("response.output_text.done", "Hello")
    assert (part_done["type"], part_done["part"]["text"]) == ("response.content_part.done", "Hello")
    assert (item_done["type"], item_done["item"]) == ("response.output_item.done", completed["response"]["output"][0])
    assert completed["type"] == "response.completed"
    assert completed["response"]["usage"]["total_tokens"] == 7
    assert {e["item_id"] for e in (part, first, second, text, part_done)} == {item["item"]["id"]}
    assert created["response"]["id"] == completed["response"]["id"]
    assert client.get(f"/v1/responses/{created['response']['id']}").get_json() == completed["response"]


def test_truncated_stream_ends_with_the_event_response_incomplete(client, triton):
    triton.queue_response(last("Hel", "length"))
    assert events(ask(client, stream=True))[-1]["type"] == "response.incomplete"


def test_failure_during_a_stream_ends_it_with_the_event_response_failed(client, triton):
    call = triton.queue_response(delta("a"), EngineFailure("broken"))
    *_, failed = events(ask(client, stream=True))
    assert (failed["type"], failed["response"]["status"]) == ("response.failed", "failed")
    assert failed["response"]["error"] == {"code": "server_error", "message": "broken"}
    assert not call.cancelled  # a call that has failed needs no cancellation
    assert client.get(f"/v1/responses/{failed['response']['id']}").status_code == 404


def test_closing_the_stream_cancels_the_call_to_triton_and_stores_nothing(client, triton):
    call = triton.queue_response(delta("a"), delta("b"), last())
    response = client.post("/v1/responses", json={"model": "tiny-chat", "input": "x", "stream": True}, buffered=False)
    first = next(response.response)
    response.close()
    assert call.cancelled
    identifier = orjson.loads(first.split(b"data: ")[1].split(b"\n")[0])["response"]["id"]
    assert client.get(f"/v1/responses/{identifier}").status_code == 404


def test_input_items_become_messages(client, triton):
    triton.queue_response(last())
    text = {"type": "output_text", "text": "Four", "annotations": []}
    items = [
        {"role": "developer", "content": "Count."},
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "2"}, {"type": "input_text", "text": "+2"}],
        },
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [text]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No"}]},
        {"role": "user", "content": "And?"},
    ]
    ask(client, items, instructions="Be brief.")
    assert sent_messages(triton) == [
        {"role": "system", "content": "Be brief."},
        {"role": "system", "content": "Count."},
        {"role": "user", "content": "2\n+2"},
        {"role": "assistant", "content": "Four"},
        {"role": "assistant", "content": "No"},
        {"role": "user", "content": "And?"},
    ]


def test_image_is_sent_to_the_ocr_model(client, triton):
    triton.queue_response({"text_output": "A sign", "boxes": "[]", "num_output_tokens": 6})
    parts = [{"type": "input_text", "text": "Read"}, {"type": "input_image", "image_url": IMAGE, "detail": "auto"}]
    body = ask(client, [{"role": "user", "content": parts}], model="tiny-ocr").get_json()
    assert body["output"][0]["content"][0]["text"] == "A sign"


def test_continued_conversation_omits_the_instructions_of_earlier_requests(client, triton):
    for text in ("Four", "Eight", "Sixteen"):
        triton.queue_response(last(text))
    first = ask(client, "2+2?", instructions="Be brief.").get_json()
    second = ask(client, "Twice?", instructions="Be kind.", previous_response_id=first["id"]).get_json()
    client.delete(f"/v1/responses/{first['id']}")
    third = ask(client, "Again?", previous_response_id=second["id"]).get_json()
    assert sent_messages(triton, 1)[0] == {"role": "system", "content": "Be kind."}
    assert [message["content"] for message in sent_messages(triton, 1)[1:]] == ["2+2?", "Four", "Twice?"]
    assert [message["content"] for message in sent_messages(triton)] == ["2+2?", "Four", "Twice?", "Eight", "Again?"]
    assert third["previous_response_id"] == second["id"]


def test_all_workers_share_stored_responses(make_client, triton):
    one, other = make_client(), make_client()
    triton.queue_response(last("Four"))
    first = ask(one, "2+2?").get_json()
    triton.queue_response(last())
    ask(other, "Twice?", previous_response_id=first["id"])
    assert [message["content"] for message in sent_messages(triton)] == ["2+2?", "Four", "Twice?"]


def test_images_are_stored_with_the_conversation(client, triton):
    triton.queue_response({"text_output": "A sign", "boxes": "[]", "num_output_tokens": 6})
    part = {"type": "input_image", "image_url": IMAGE}
    first = ask(client, [{"role": "user", "content": [part]}], model="tiny-ocr").get_json()
    # This request goes to tiny-chat, which does not accept the stored image.
    response = ask(client, "And?", previous_response_id=first["id"])
    assert (response.status_code, response.get_json()["error"]["param"]) == (400, "previous_response_id")


def test_store_false_stores_nothing(client, triton):
    triton.queue_response(last())
    body = ask(client, store=False).get_json()
    assert body["store"] is False
    assert client.get(f"/v1/responses/{body['id']}").status_code == 404


def test_stored_response_can_be_retrieved_and_deleted(client, triton):
    triton.queue_response(last("Hi"))
    body = ask(client).get_json()
    path = f"/v1/responses/{body['id']}"
    assert client.get(path).get_json() == body
    assert client.delete(path).get_json() == {"id": body["id"], "object": "response", "deleted": True}
    for response in (client.get(path), client.delete(path), client.get("/v1/responses/..%2Ftrident.pid")):
        assert response.status_code == 404
    error = ask(client, previous_response_id=body["id"]).get_json()["error"]
    assert (error["param"], error["code"]) == ("previous_response_id", "previous_response_not_found")


@pytest.mark.parametrize("param", ["messages", "messages[2]", "messages[1].content[0].image_url.url"])
def test_error_names_the_field_by_its_path_in_the_request(client, triton, param):
    triton.queue_response(InvalidRequest("no", param=param))
    parts = [{"type": "input_text", "text": "x"}]
    items = [{"role": "user", "content": parts}, {"type": "reasoning"}, {"role": "user", "content": "y"}]
    response = ask(client, items, instructions="Be brief.")
    expected = {"messages": "input", "messages[2]": "input[2]"}.get(param, "input[0].content[0].image_url")
    assert (response.status_code, response.get_json()["error"]["param"]) == (400, expected)


USER = {"role": "user", "content": "Hi"}
TOOL = {"type": "function", "name": "f", "parameters": {}}
SEARCH = {"type": "web_search"}
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c", "output": "3"}
IMAGE_PART = {"type": "input_image", "image_url": IMAGE}
TEXT = {"type": "input_text", "text": "x"}
REPLY = {"role": "assistant", "content": "I asked."}
REASONING = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm. "}]}
IMAGE_MESSAGE = {"role": "user", "content": [IMAGE_PART]}
NESTED = functools.reduce(lambda inner, _: [inner], range(500), [])
DEEP = '{"a":' * 70 + "1" + "}" * 70


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"input": None}, "input", "missing_parameter"),
        ({"input": 3}, "input", "invalid_type"),
        ({"input": []}, "input", "invalid_value"),
        ({"input": ["Hi"]}, "input[0]", "invalid_type"),
        ({"input": [USER, {"role": "tool", "content": "x"}]}, "input[1].role", "invalid_value"),
        ({"input": [USER, {"role": "user"}]}, "input[1].content", "missing_parameter"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0]", "invalid_value"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file"}]}]},
            "input[0].content[0].type",
            "invalid_value",
        ),
        ({"input": [{"type": "item_reference"}]}, "input[0].id", "missing_parameter"),
        ({"input": [{"type": 3}]}, "input[0]", "invalid_value"),
        ({"input": [{"type": NESTED}]}, "input[0]", "invalid_value"),
        ({"text": {"format": {"type": NESTED}}}, "text.format", "invalid_value"),
        ({"input": [USER, *({**CALL, "call_id": str(n)} for n in range(129))]}, "input[129]", "invalid_value"),
        ({"input": [USER, CALL | {"name": "no such name"}]}, "input[1].name", "invalid_value"),
        ({"input": [USER, CALL | {"arguments": DEEP}, OUTPUT]}, "input[1].arguments", "invalid_value"),
        ({"input": [USER, CALL, CALL, OUTPUT]}, "input[2].call_id", "invalid_value"),
        ({"input": [USER, CALL, OUTPUT | {"call_id": "d"}]}, "input[2].call_id", "invalid_value"),
        ({"input": [OUTPUT]}, "input[0].call_id", "invalid_value"),
        ({"input": [USER, CALL, OUTPUT | {"output": [IMAGE_PART]}]}, "input[2].output[0]", "invalid_value"),
        ({"input": [USER, REPLY | {"content": [IMAGE_PART]}]}, "input[1].content[0]", "unsupported_content"),
        ({"input": [USER, REASONING, REPLY | {"content": [IMAGE_PART]}]}, "input[2].content[0]", "unsupported_content"),
        (
            {"input": [USER, CALL, REPLY, REPLY | {"content": [TEXT, IMAGE_PART]}]},
            "input[3].content[1]",
            "unsupported_content",
        ),
        ({"model": None}, "model", "missing_parameter"),
        ({"max_output_tokens": 0}, "max_output_tokens", "invalid_value"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"instructions": ["x"]}, "instructions", "invalid_type"),
        ({"store": "yes"}, "store", "invalid_type"),
        ({"tools": [{"name": "f"}]}, "tools[0].type", "missing_parameter"),
        ({"tools": [SEARCH, TOOL, TOOL]}, "tools[2].name", "invalid_value"),
        ({"tools": [SEARCH], "tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"tools": [SEARCH], "tool_choice": {"type": "web_search"}}, "tool_choice", "invalid_value"),
        (
            {
                "tools": [TOOL],
                "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [TOOL | {"name": "g"}]},
            },
            "tool_choice.tools[0].name",
            "invalid_value",
        ),
        ({"guided_json": {"type": "object"}}, "guided_json", "unsupported_parameter"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
        ({"tools": [TOOL | {"name": ""}]}, "tools[0].name", "invalid_value"),
        ({"tools": [TOOL, TOOL]}, "tools[1].name", "invalid_value"),
        ({"tools": [TOOL | {"parameters": {"type": "array"}}]}, "tools[0].parameters", "invalid_value"),
        ({"tools": [TOOL], "model": "tiny-ocr", "input": [IMAGE_MESSAGE]}, "tools", "invalid_value"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"tools": [TOOL], "tool_choice": "maybe"}, "tool_choice", "invalid_value"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "g"}}, "tool_choice.name", "invalid_value"),
        ({"tools": [TOOL], "tool_choice": {"type": "web_search_preview"}}, "tool_choice", "invalid_value"),
        ({"background": True}, "background", "unsupported_parameter"),
        ({"truncation": "auto"}, "truncation", "unsupported_parameter"),
        ({"conversation": "conv_1"}, "conversation", "unsupported_parameter"),
        ({"reasoning": {"effort": "much"}}, "reasoning.effort", "invalid_value"),
        ({"include": ["message.output_text.logprobs"]}, "include", "unsupported_parameter"),
        ({"text": {"format": {"type": "yaml"}}}, "text.format", "invalid_value"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name", "missing_parameter"),
        ({"text": {"verbosity": "low"}}, "text.verbosity", "unsupported_parameter"),
        ({"text": "json"}, "text", "invalid_type"),
        ({"previous_response_id": "resp_1"}, "previous_response_id", "previous_response_not_found"),
        ({"previous_response_id": "../../x"}, "previous_response_id", "previous_response_not_found"),
    ],
)
def test_error_for_invalid_input_names_the_field(client, triton, fields, param, code):
    response = client.post("/v1/responses", json={"model": "tiny-chat", "input": "a"} | fields)
    error = response.get_json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, param, code)
    assert not triton.requests


@pytest.mark.parametrize("reference", [{"type": "item_reference"}, {}, {"type": None}])
def test_item_reference_is_replaced_with_the_stored_item(client, triton, reference):
    triton.queue_response(last("Four."))
    (item,) = ask(client).get_json()["output"]
    triton.queue_response(last())
    assert ask(client, [USER, reference | {"id": item["id"]}, USER]).status_code == 200
    assert [message["content"] for message in sent_messages(triton)] == ["Hi", "Four.", "Hi"]


def test_too_many_item_references_are_rejected(client, triton):
    triton.queue_response(last("Four."))
    (item,) = ask(client).get_json()["output"]
    error = ask(client, [{"id": item["id"]}] * 300).get_json()["error"]
    assert (error["param"], "limit 256" in error["message"]) == ("input[256]", True)
    triton.queue_response(last())
    assert ask(client, [*[{"id": item["id"]}] * 200, USER]).status_code == 200


def test_type_of_another_tool_cannot_forge_a_log_line(client, triton, caplog):
    triton.queue_response(last())
    with caplog.at_level("INFO"):
        ask(client, tools=[{"type": 'x\n{"status": 200}'}])
    assert not any("\n" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("identifier", ["x", "msg_" + "0" * 64 + "_0", "msg_../../etc_0"])
def test_reference_to_an_item_that_is_not_stored_is_404(client, triton, identifier):
    triton.queue_response(last("Four."))
    (item,) = ask(client, store=False).get_json()["output"]
    for missing in (identifier, item["id"]):
        response = ask(client, [{"type": "item_reference", "id": missing}, USER])
        assert (response.status_code, response.get_json()["error"]["param"]) == (404, "input[0].id")


def test_error_message_says_call_id_where_chat_completions_say_tool_call_id(client):
    item = {"type": "function_call_output", "call_id": "call_1", "output": "x"}
    error = ask(client, input=[item]).get_json()["error"]
    assert (error["param"], error["message"]) == (
        "input[0].call_id",
        "'call_id' does not match a preceding tool call",
    )


def test_no_op_values_are_accepted(client, triton):
    triton.queue_response(last())
    fields = {"tools": [], "tool_choice": "auto", "truncation": "disabled", "text": {"format": {"type": "text"}}}
    fields |= {"parallel_tool_calls": False, "include": [], "background": False, "stream_options": None}
    assert ask(client, **fields).status_code == 200


WEATHER = TOOL | {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
CALLED = '{"name": "weather", "arguments": {"city": "Oslo"}}'


class TestTools:
    def test_tool_call_becomes_an_output_item(self, client, triton):
        triton.queue_response(last(CALLED))
        body = ask(client, tools=[WEATHER], tool_choice={"type": "function", "name": "weather"}).get_json()
        (item,) = openai_types.Response.model_validate(body).output
        assert (item.type, item.name, item.status) == ("function_call", "weather", "completed")
        assert (orjson.loads(item.arguments), body["status"]) == ({"city": "Oslo"}, "completed")
        assert item.call_id
        assert (body["tools"][0]["name"], body["tool_choice"]) == ("weather", {"type": "function", "name": "weather"})

    def test_tools_reach_the_model_as_in_chat_completions(self, client, triton):
        for endpoint, tool in (("responses", WEATHER), ("chat", {"type": "function", "function": WEATHER})):
            triton.queue_response(last(CALLED))
            fields = {"tools": [tool], "tool_choice": "required", "parallel_tool_calls": False}
            if endpoint == "responses":
                ask(client, **fields)
            else:
                client.post("/v1/chat/completions", json={"model": "tiny-chat", "messages": [USER]} | fields)
        ours, chats = (request["inputs"] for request in triton.requests)
        assert ours["tools"] == chats["tools"]
        assert orjson.loads(ours["sampling_parameters"]) == orjson.loads(chats["sampling_parameters"])

    def test_stream_has_the_events_of_a_tool_call(self, client, triton):
        triton.queue_response(delta("Let me see.\n```json\n"), delta(CALLED[:40]), delta(CALLED[40:]), last("\n```"))
        found = events(ask(client, tools=[WEATHER], stream=True))
        final = found[-1]["response"]
        assert [item["type"] for item in final["output"]] == ["message", "function_call"]
        of_call = [event for event in found[2:-1] if event["output_index"] == 1]
        added, *deltas, done, item_done = of_call
        assert (added["type"], added["item"]["status"]) == ("response.output_item.added", "in_progress")
        assert (added["item"]["name"], added["item"]["arguments"]) == ("weather", "")
        assert {event["type"] for event in deltas} == {"response.function_call_arguments.delta"}
        assert done["type"] == "response.function_call_arguments.done"
        assert "".join(event["delta"] for event in deltas) == done["arguments"] == final["output"][1]["arguments"]
        assert item_done["item"] == final["output"][1]

    def test_malformed_call_is_returned_as_text(self, client, triton):
        broken = '{"name": "weather", "arguments": {"city": oops}}'
        triton.queue_response(*(delta(letter) for letter in broken), last(""))
        found = events(ask(client, tools=[WEATHER], stream=True))
        call, message = found[-1]["response"]["output"]
        assert (call["status"], message["content"][0]["text"]) == ("incomplete", broken)
        triton.queue_response(last(broken))
        _, plain = ask(client, tools=[WEATHER]).get_json()["output"]
        assert plain["content"] == message["content"]

    @pytest.mark.parametrize("choice", ["auto", {"type": "allowed_tools", "mode": "auto", "tools": [WEATHER, SEARCH]}])
    def test_tools_that_are_not_functions_are_not_offered_to_the_model(self, client, triton, choice):
        triton.queue_response(last(CALLED))
        tools = [
            SEARCH,
            WEATHER,
            {"type": "custom", "name": "patch"},
            {"type": "local_shell"},
            {"type": "mcp", "x": []},
        ]
        if choice != "auto":
            tools.append(TOOL)
        body = ask(client, tools=tools, tool_choice=choice).get_json()
        assert [tool["function"]["name"] for tool in orjson.loads(triton.requests[0]["inputs"]["tools"])] == ["weather"]
        assert body["output"][0]["name"] == "weather"
        assert openai_types.Response.model_validate(body).tools[0].name == "weather"

    def test_errors_name_tools_by_their_place_in_the_request(self, client, triton):
        message = "Invalid value for 'tools[0].function.parameters': tool 'weather': x"
        triton.queue_response(InvalidRequest(message, param="tools[0].function.parameters"))
        error = ask(client, tools=[SEARCH, WEATHER], tool_choice="required").get_json()["error"]
        expected = "tools[1].parameters"
        assert (error["param"], error["message"]) == (expected, f"Invalid value for '{expected}': tool 'weather': x")

    @pytest.mark.parametrize("stream", [False, True])
    def test_cut_off_call_is_an_incomplete_item(self, client, triton, stream):
        triton.queue_response(delta(CALLED[:45]), last("", "length"))
        response = ask(client, tools=[WEATHER], tool_choice="required", stream=stream)
        found = events(response) if stream else []
        body = found[-1]["response"] if stream else response.get_json()
        (item,) = body["output"]
        assert (body["status"], item["status"]) == ("incomplete", "incomplete")
        assert (item["name"], item["arguments"]) == ("weather", '{"city": "Os')
        done = {event["output_index"]: event["item"] for event in found if event["type"] == "response.output_item.done"}
        assert done == ({0: item} if stream else {})

    def test_tool_calls_and_their_outputs_become_messages(self, client, triton):
        triton.queue_response(last())
        items = [
            USER,
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm"}]},
            {"role": "assistant", "content": "Let me see."},
            CALL,
            CALL | {"call_id": "d", "arguments": '{"a": 1}'},
            OUTPUT,
            OUTPUT | {"call_id": "d", "output": [{"type": "input_text", "text": "4"}]},
        ]
        ask(client, items, tools=[TOOL])
        _, turn, *outputs = sent_messages(triton)
        assert (turn["content"], turn["reasoning_content"]) == ("Let me see.", "Hm")
        assert [(call["id"], call["function"]["arguments"]) for call in turn["tool_calls"]] == [
            ("c", {}),
            ("d", {"a": 1}),
        ]
        assert [(m["role"], m["tool_call_id"], m["content"]) for m in outputs] == [
            ("tool", "c", "3"),
            ("tool", "d", "4"),
        ]

    def test_text_after_a_call_belongs_to_the_same_assistant_message(self, client, triton):
        triton.queue_response(last())
        items = [USER, REPLY, REPLY, REASONING, CALL, REASONING, CALL | {"call_id": "d"}, REPLY, REPLY, OUTPUT]
        ask(client, [*items, REASONING, OUTPUT | {"call_id": "d", "output": []}], tools=[TOOL])
        roles = ["user", "assistant", "assistant", "assistant", "tool", "tool"]
        messages = sent_messages(triton)
        assert [message["role"] for message in messages] == roles
        turn = messages[3]
        assert (turn["content"], turn["reasoning_content"]) == ("I asked.\nI asked.", "Hm. Hm. ")
        assert [call["id"] for call in turn["tool_calls"]] == ["c", "d"]

    def test_call_output_is_accepted_if_text_followed_the_call(self, client, triton):
        triton.queue_response(last(f"```json\n{CALLED}\n```\nI asked."))
        first = ask(client, "Weather?", tools=[WEATHER]).get_json()
        call, _ = first["output"]
        for more, before in (({"previous_response_id": first["id"]}, []), ({}, [USER, *first["output"]])):
            triton.queue_response(last("Rain"))
            output = {"type": "function_call_output", "call_id": call["call_id"], "output": "rain"}
            assert ask(client, [*before, output], **more).status_code == 200
            assert sent_messages(triton)[1]["content"].strip() == "I asked."

    def test_complete_call_has_the_status_completed_in_an_incomplete_response(self, client, triton):
        triton.queue_response(last(f"```json\n{CALLED}\n", "length"))
        body = ask(client, tools=[WEATHER]).get_json()
        assert (body["status"], [item["status"] for item in body["output"]]) == ("incomplete", ["completed"])

    @pytest.mark.parametrize(
        "text",
        ["Hello", f"```json\n{CALLED}\n{CALLED}\n```\nSo.", '```json\n{"name": "weather", "arguments": {oo', "{"],
    )
    @pytest.mark.parametrize("end", ["stop", "length"])
    def test_openais_client_builds_the_non_streaming_output_from_a_stream(self, client, triton, text, end):
        triton.queue_response(*(delta(text[at : at + 3]) for at in range(0, len(text), 3)), last("", end))
        state = ResponseStreamState(input_tools=omit, text_format=omit)
        parse = TypeAdapter(openai_types.ResponseStreamEvent).validate_python
        found = [
            event
            for raw in events(ask(client, tools=[WEATHER], stream=True))
            for event in state.handle_event(parse(raw))
        ]
        triton.queue_response(last(text, end))
        plain = ask(client, tools=[WEATHER]).get_json()
        output = found[-1].response.model_dump()["output"]
        assert [item["type"] for item in output] == [item["type"] for item in plain["output"]]
        for ours, theirs in zip(plain["output"], output, strict=True):
            assert ours.get("arguments") == theirs.get("arguments")
            assert (
                ours.get("content") == theirs.get("content")
                or ours["content"][0]["text"] == theirs["content"][0]["text"]
            )

    def test_tool_calls_are_stored_with_the_response(self, client, triton):
        triton.queue_response(last(CALLED))
        first = ask(client, "Weather?", tools=[WEATHER]).get_json()
        triton.queue_response(last("Rain"))
        output = {"type": "function_call_output", "call_id": first["output"][0]["call_id"], "output": "rain"}
        ask(client, [output], previous_response_id=first["id"])
        question, call, result = sent_messages(triton)
        assert (question["content"], result["content"]) == ("Weather?", "rain")
        assert call["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"city": "Oslo"}}

    def test_reasoning_effort_reaches_the_chat_template(self, client, triton):
        triton.queue_response(last())
        body = ask(client, reasoning={"effort": "none", "summary": None}).get_json()
        kwargs = orjson.loads(triton.requests[0]["inputs"]["sampling_parameters"])["chat_template_kwargs"]
        assert kwargs == {"reasoning_effort": "none", "enable_thinking": False}
        assert body["reasoning"]["effort"] == "none"


def test_reasoning_becomes_an_output_item(client, triton, configure):
    configure(reasoning="think")
    triton.queue_response(delta("<think>Hm"), delta("m</think>"), last("Four") | {"num_reasoning_tokens": 3})
    found = events(ask(client, "2+2?", stream=True))
    reasoning, message = found[-1]["response"]["output"]
    assert (reasoning["type"], reasoning["content"]) == ("reasoning", [{"type": "reasoning_text", "text": "Hmm"}])
    assert message["content"][0]["text"] == "Four"
    deltas = [event["delta"] for event in found if event["type"] == "response.reasoning_text.delta"]
    assert deltas == ["Hm", "m"]
    assert found[-1]["response"]["usage"]["output_tokens_details"] == {"reasoning_tokens": 3}


def test_error_for_an_image_sent_to_a_text_model_names_the_content_part(client):
    items = [USER, {"role": "user", "content": [{"type": "input_image", "image_url": IMAGE}]}]
    error = ask(client, items).get_json()["error"]
    assert (error["param"], error["code"]) == ("input[1].content[0]", "unsupported_content")


def test_upload_limit_applies_to_images_and_body_limit_to_text(make_client):
    client = make_client(max_body_bytes=1000, max_upload_bytes=3000)
    image = {"type": "input_image", "image_url": "data:," + "x" * 2000}
    assert ask(client, [{"role": "user", "content": [image]}]).status_code == 400  # the model does not accept images
    assert ask(client, "x" * 2000).status_code == 413


class TestStore:
    def stored(self, size=0):
        return StoredResponse({"id": ResponseStore.new_id(), "text": "x" * size}, [])

    def test_response_expires(self, tmp_path):
        store = ResponseStore(ExpiringFiles(tmp_path, 60, 1000))
        kept = self.stored()
        store.put(kept)
        assert store.get(kept.response["id"]) == kept
        os.utime(tmp_path / kept.response["id"], (1, 1))
        assert store.get(kept.response["id"]) is None
        assert store.delete(kept.response["id"]) is False

    def test_oldest_responses_are_evicted_first(self, tmp_path):
        store = ResponseStore(ExpiringFiles(tmp_path, 1e10, 10_000, max_files=2))
        kept = [self.stored() for _ in range(3)]
        for age, each in enumerate(kept):
            store.put(each)
            os.utime(tmp_path / each.response["id"], (1000 + age, 1000 + age))
        assert [store.get(each.response["id"]) is not None for each in kept] == [False, True, True]

    def test_response_over_the_size_limit_evicts_nothing(self, tmp_path):
        store = ResponseStore(ExpiringFiles(tmp_path, 60, 1000))
        small, large = self.stored(), self.stored(1000)
        store.put(small)
        store.put(large)
        assert store.get(small.response["id"])
        assert store.get(large.response["id"]) is None


def test_text_format_becomes_a_constraint(client, triton):
    triton.queue_response(last("{}"))
    text_format = {"type": "json_schema", "name": "answer", "schema": {"type": "object"}, "strict": True}
    body = client.post(
        "/v1/responses", json={"model": "tiny-chat", "input": "Hi", "text": {"format": text_format}}
    ).get_json()
    assert body["text"]["format"].items() >= text_format.items()
    constraint = orjson.loads(triton.requests[0]["inputs"]["sampling_parameters"])["constraint"]
    assert (constraint["kind"], constraint["schema"]) == ("json_schema", {"type": "object"})
    assert (constraint["strict"], constraint["param"]) == (True, "text.format.schema")


def test_response_with_only_truncated_reasoning_can_be_continued(client, triton, configure):
    configure(reasoning="think")
    triton.queue_response(last("<think>Hm", "length"))
    body = ask(client).get_json()
    assert [(item["type"], item["status"]) for item in body["output"]] == [("reasoning", "incomplete")]
    triton.queue_response(last())
    ask(client, "And?", previous_response_id=body["id"])
    assert sent_messages(triton)[1] == {"role": "assistant", "content": "", "reasoning_content": "Hm"}

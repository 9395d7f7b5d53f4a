"""Chat models on Triton's stock vLLM backend: tensors, responses and chat templates, with a fake Triton."""

import json
from types import SimpleNamespace

import numpy as np
import orjson
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from tritonclient.grpc import service_pb2

from frontend.errors import EngineFailure, InvalidRequest
from frontend.triton.client import ModelState
from frontend.triton.tensors import build_request, read_response
from frontend.triton.vllm import VllmCall, _open_tokenizer
from tests.unit.conftest import FakeCall, chat

TEMPLATE = (
    "{{ bos_token }}{{ greeting }}"
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ raise_exception('no') }}{% endif %}"
    "[{{ m.role }}] {{ m.content }} {% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
INPUTS = ["text_input", "stream", "sampling_parameters", "exclude_input_in_output"]
INPUTS += ["return_finish_reason", "return_num_input_tokens", "return_num_output_tokens"]


def part(text, finish_reason="None", count=1):
    """Return a response as the vLLM backend sends it. `count` is the number of tokens in this response."""
    return {"text_output": text, "finish_reason": finish_reason, "num_input_tokens": 7, "num_output_tokens": count}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model_repository" / "big-chat" / "tokenizer"
    folder.mkdir(parents=True)
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "<s>": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"chat_template": TEMPLATE, "bos_token": {"content": "<s>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture
def big(triton, folder):
    """Add the vLLM model big-chat to the fake Triton, and return its configuration, which tests may change."""
    values = {"task": "chat", "id": "org/big-chat", "context_length": "12", "tokenizer": "tokenizer"}
    config = SimpleNamespace(
        input=[SimpleNamespace(name=name) for name in INPUTS],
        max_batch_size=0,
        SerializeToString=lambda deterministic: b"big",
    )
    other_config = triton.config

    def read(model):
        config.parameters = {key: SimpleNamespace(string_value=value) for key, value in values.items()}
        return config if model == "big-chat" else other_config(model)

    triton.config = read
    triton.states = [ModelState("big-chat", "READY"), *triton.states]
    return SimpleNamespace(values=values, config=config)


def ask(client, **fields):
    return client.post("/v1/chat/completions", json=chat(model="big-chat", **fields))


def test_a_request_is_sent_as_tensors_and_the_complete_response_is_returned(client, triton, big):
    triton.queue_response(part("Hello", "stop", 3))
    body = ask(client, temperature=0, stop="x", top_k=0, max_tokens=5).get_json()
    assert body["choices"][0]["message"]["content"] == "Hello"
    assert body["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    inputs = triton.requests[0]["inputs"]
    sampling = orjson.loads(inputs.pop("sampling_parameters"))
    assert sampling == {"temperature": 0, "stop": ["x"], "top_k": -1, "max_tokens": 5}
    assert inputs == {"text_input": "[user] Hi [assistant]", "stream": False} | dict.fromkeys(INPUTS[3:], True)


def test_chat_template_kwargs_reach_the_template(client, triton, big):
    triton.queue_response(part("Hello", "stop"))
    ask(client, chat_template_kwargs={"greeting": "Ahoy! "})
    assert triton.requests[0]["inputs"]["text_input"] == "Ahoy! [user] Hi [assistant]"


def test_the_token_counts_of_streamed_responses_are_summed(client, triton, big):
    triton.queue_response(part("Hel"), part("", count=1), part("lo", "length", 2))
    response = ask(client, stream=True, stream_options={"include_usage": True})
    chunks = [orjson.loads(block[6:]) for block in response.get_data().split(b"\n\n") if block.startswith(b"data: {")]
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks[:-1]) == "Hello"
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"
    assert chunks[-1]["usage"] == {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}
    assert triton.requests[0]["inputs"]["stream"] is True


@pytest.mark.parametrize(("fields", "tokens"), [({}, 8), ({"max_tokens": 100}, 8), ({"max_tokens": 2}, 2)])
def test_max_tokens_is_always_set_and_limited_by_the_context(client, triton, big, fields, tokens):
    triton.queue_response(part("", "stop"))
    ask(client, **fields)
    assert orjson.loads(triton.requests[0]["inputs"]["sampling_parameters"])["max_tokens"] == tokens


def test_a_prompt_that_is_too_long_or_rejected_by_the_template_is_not_sent(client, triton, big):
    error = ask(client, messages=[{"role": "user", "content": "word " * 20}]).get_json()["error"]
    assert (error["param"], error["code"]) == ("messages", "context_length_exceeded")
    assert "resulted in 23 tokens" in error["message"]
    error = ask(client, messages=[{"role": "assistant", "content": "x"}]).get_json()["error"]
    assert (error["param"], error["code"]) == ("messages", "invalid_value")
    assert not triton.requests


def test_completion_prompts_must_be_text_within_the_context(client, triton, big):
    triton.queue_response(part("!", "stop"))
    body = {"model": "big-chat", "prompt": "Once upon", "echo": True}
    completion = client.post("/v1/completions", json=body).get_json()
    assert completion["choices"][0]["text"] == "Once upon!"
    assert triton.requests[0]["inputs"]["text_input"] == "Once upon"
    for prompt, param in (("word " * 20, "prompt"), (["a", "word " * 20], "prompt[1]"), ([[1]], "prompt[0]")):
        triton.queue_response(part("!", "stop"))
        response = client.post("/v1/completions", json=body | {"prompt": prompt})
        assert (response.status_code, response.get_json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda big: big.config.input.pop(), "lacks the inputs return_num_output_tokens"),
        (lambda big: big.values.pop("tokenizer"), "lacks the parameter 'tokenizer'"),
        (lambda big: big.values.pop("context_length"), "must set 'context_length' to an integer"),
        (lambda big: big.values.update(tokenizer="elsewhere"), "cannot be read"),
    ],
)
def test_an_incomplete_or_invalid_configuration_returns_500_with_the_reason(client, big, change, message):
    change(big)
    response = ask(client)
    assert (response.status_code, message in response.get_json()["error"]["message"]) == (500, True)


def test_health_does_not_probe_vllm_models(client, triton, big):
    triton.dead.add("big-chat")
    assert client.get("/health").status_code == 200


def test_an_aborted_response_raises_engine_failure():
    call = VllmCall(FakeCall([part("a"), part("", "abort")]))
    assert call.next() == {"text_output": "a"}
    with pytest.raises(EngineFailure, match="abort"):
        call.next()


def test_the_rendered_prompt_omits_the_bos_token_but_the_count_includes_it(folder):
    tokenizer = _open_tokenizer(folder)
    text = tokenizer.render([{"role": "user", "content": "Hi"}], [], {})
    assert text == "[user] Hi [assistant]"
    assert tokenizer.count(text) == 4


@pytest.mark.parametrize("where", ["file", "list"])
def test_the_template_is_read_from_its_own_file_or_from_a_list_of_templates(folder, where):
    if where == "file":
        (folder / "chat_template.jinja").write_text("mine", encoding="utf-8")
    else:
        templates = [{"name": "tools", "template": "x"}, {"name": "default", "template": "mine"}]
        (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": templates}), encoding="utf-8")
    assert _open_tokenizer(folder).render([], [], {}) == "mine"


def test_templates_are_sandboxed(folder):
    (folder / "chat_template.jinja").write_text("{{ ''.__class__.__mro__[1].__subclasses__() }}", encoding="utf-8")
    with pytest.raises(InvalidRequest):
        _open_tokenizer(folder).render([], [], {})


def test_tensors_are_encoded_and_decoded():
    request = build_request("m", {"text_input": "a", "stream": True, "other": False}, "r")
    assert [(i.name, i.datatype, list(i.shape)) for i in request.inputs] == [
        ("text_input", "BYTES", [1]),
        ("stream", "BOOL", [1]),
        ("other", "BOOL", [1]),
    ]
    assert list(request.raw_input_contents) == [b"\x01\x00\x00\x00a", b"\x01", b"\x00"]
    response = service_pb2.ModelInferResponse()
    for shape in ([], [1], [2]):
        response.outputs.add(name=f"n{len(response.outputs)}", datatype="UINT32", shape=shape)
        response.raw_output_contents.append(np.full(shape, 2**32 - 1, np.uint32).tobytes())
    read = read_response(response)
    assert (read["n0"], read["n1"], read["n2"].tolist()) == (2**32 - 1, 2**32 - 1, [2**32 - 1] * 2)

"""Tests of the generation backend's response to outputs that violate their constraint, with a fake engine."""

import json
from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel

from backends.common.errors import EngineDown
from backends.generation.model import TritonPythonModel
from backends.generation.output.generated_text import GeneratedText
from backends.generation.vocabulary.hugging_face import HuggingFaceVocabulary

VOCABULARY = ["yes", "no", "maybe"]


class Engine:
    """Records the submitted requests, and raises `error` for each request if it is set."""

    def __init__(self):
        self.submitted, self.error = [], None

    def submit(self, *request):
        self.submitted.append(request)
        if self.error:
            raise self.error

    def cancel(self, _):
        pass


class Metrics:
    def __init__(self):
        self.violations = 0

    def count(self, *_):
        pass

    def count_violation(self):
        self.violations += 1


class Reply:
    def __init__(self):
        self.sent = []

    def send(self, response, flags):
        self.sent.append(response.values())


@pytest.fixture
def model():
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(VOCABULARY)}, unk_token="no"))
    tokenizer.decoder = Fuse()
    model = TritonPythonModel.__new__(TritonPythonModel)
    model._prompt, model._metrics, model._engine = (
        SimpleNamespace(vocabulary=HuggingFaceVocabulary(tokenizer)),
        Metrics(),
        Engine(),
    )
    return model


def answer(model, stream, **parameters):
    found = GeneratedText(Reply(), "id")
    found.prompt = "the prompt"
    detokenizer = model._prompt.vocabulary.detokenizer()
    parameters = {"seed": 5, "stream": stream} | parameters
    found.prepare(3, parameters, detokenizer, check=lambda text: text in ("yes", "no"))
    return found


def finish(model, found, word, reason="stop"):
    found.add([VOCABULARY.index(word)], reason)
    return model._send(found)


def error_status(found):
    return json.loads(found.reply.sent[-1]["error"])["status"]


def test_output_within_the_constraint_is_sent(model):
    found = answer(model, stream=False)
    assert finish(model, found, "no")
    assert found.reply.sent[0]["text_output"] == b"no"
    assert (model._metrics.violations, model._engine.submitted) == (0, [])


def test_output_that_violates_the_constraint_is_generated_again_with_another_seed(model):
    found = answer(model, stream=False)
    assert not finish(model, found, "maybe")
    assert (model._metrics.violations, model._engine.submitted, found.reply.sent) == (1, [(found, "the prompt")], [])
    assert (found.parameters["seed"], found.finished) == (6, False)
    assert finish(model, found, "yes")
    values = found.reply.sent[0]
    assert (values["text_output"], values["num_output_tokens"], values["finish_reason"]) == (b"yes", 1, b"stop")


def test_second_output_has_the_prefix_too(model):
    found = GeneratedText(Reply(), "id")
    found.prompt = "the prompt"
    found.prepare(
        3, {"seed": 5, "stream": False}, model._prompt.vocabulary.detokenizer(), "PROMPT ", lambda t: t == "yes"
    )
    assert not finish(model, found, "maybe")
    assert finish(model, found, "yes")
    assert found.reply.sent[0]["text_output"] == b"PROMPT yes"


def test_second_violation_fails_the_request(model):
    found = answer(model, stream=False)
    assert not finish(model, found, "maybe")
    assert finish(model, found, "maybe")
    assert (error_status(found), len(found.reply.sent), model._metrics.violations) == ("INTERNAL", 1, 2)


def test_violation_after_a_part_has_been_sent_ends_the_stream_with_an_error(model):
    found = answer(model, stream=True)
    found.add([VOCABULARY.index("yes")])
    assert not model._send(found)
    assert finish(model, found, "yes")
    assert (error_status(found), model._engine.submitted) == ("INTERNAL", [])


def test_greedy_output_is_not_generated_again(model):
    found = answer(model, stream=False, temperature=0)
    assert finish(model, found, "maybe")
    assert (error_status(found), model._engine.submitted) == ("INTERNAL", [])


@pytest.mark.parametrize(("reason", "parameters"), [("length", {}), ("stop", {"stop": ["may"]})])
def test_incomplete_output_is_not_checked(model, reason, parameters):
    found = answer(model, stream=False, **parameters)
    assert finish(model, found, "maybe", reason)
    assert "error" not in found.reply.sent[-1]
    assert model._metrics.violations == 0


def test_engine_that_is_down_fails_the_request(model):
    model._engine.error = EngineDown("restarting")
    found = answer(model, stream=False)
    assert finish(model, found, "maybe")
    assert error_status(found) == "UNAVAILABLE"

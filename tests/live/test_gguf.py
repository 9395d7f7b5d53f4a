"""A GGUF file on llama.cpp: the tests of chat and completions on OpenVINO, and what only llama.cpp can do."""

import json
import math
import signal
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import openai
import pytest
from openai import OpenAI

from tests.live import test_completions, test_sampling, test_structured, test_tools
from tests.live.test_operation import descendants
from tests.live.test_sampling import greedy  # noqa: F401
from tests.support.gguf_files import gguf_file
from tests.support.live import MODEL, metric, url, user, wait_until
from tests.support.sampling import STORY, ask
from tests.support.stack import running_stack

NAME = f"{MODEL}-gguf"
QUESTION = "What is a lighthouse?"


def _tests_of(module: ModuleType, *others: str) -> dict[str, object]:
    """Return the tests in a module, except for those with these names."""
    return {name: value for name, value in vars(module).items() if name.startswith("test_") and name not in others}


# Rounding depends on where the KV cache has space, so that two equal requests can get different answers.
_ROUNDED = ("test_same_seed_yields_the_same_text", "test_streams_match_non_streamed_responses")

globals().update(
    _tests_of(test_completions, "test_unsupported_logprobs_are_rejected")
    | _tests_of(test_sampling, "test_unsupported_parameters_are_rejected", *_ROUNDED)
    | _tests_of(test_structured, "test_constraint_that_cannot_be_compiled_is_rejected_without_affecting_other_requests")
    | _tests_of(test_tools)
)


@pytest.fixture(scope="module")
def stack():
    aliases = json.dumps({MODEL: NAME})
    with running_stack([str(gguf_file(MODEL))], "--aliases", aliases, engine="llamacpp") as settings:
        yield settings


@pytest.fixture(scope="module")
def client(stack):
    return OpenAI(base_url=url(stack, "/v1"), api_key="unused", max_retries=0, timeout=60)


def text_of(client, **fields):
    return ask(client, **fields).choices[0].message.content


def test_same_seed_mostly_yields_the_same_text(client):
    texts = [[text_of(client, temperature=1.2, seed=seed) for _ in range(2)] for seed in range(6)]
    assert sum(one == two for one, two in texts) >= 3
    assert len({text for pair in texts for text in pair}) >= 6


def test_model_and_its_capabilities_are_listed(client):
    [model] = client.models.list().data
    assert model.id == "smollm2-135m"
    assert {"logit_bias", "top_logprobs", "structured_output", "tools"} <= set(model.capabilities)


class TestLogprobs:
    @pytest.mark.parametrize("number", [0, 1, 5, 20])
    def test_the_most_likely_tokens_are_listed_in_order(self, client, number):
        entries = ask(client, temperature=0, logprobs=True, top_logprobs=number).choices[0].logprobs.content
        for entry in entries:
            values = [other.logprob for other in entry.top_logprobs]
            assert len(values) == number
            assert values == sorted(values, reverse=True)
            assert sum(map(math.exp, values)) <= 1.000001
            assert all(bytes(other.bytes).decode(errors="replace") == other.token for other in entry.top_logprobs)
            if number:
                # Greedy decoding chooses the most likely token.
                assert entry.top_logprobs[0].token == entry.token
                assert entry.top_logprobs[0].logprob == pytest.approx(entry.logprob)

    def test_alternatives_to_a_forced_token_have_the_probabilities_of_the_model(self, client):
        free = ask(client, temperature=0, max_tokens=1, logprobs=True, top_logprobs=20).choices[0].logprobs.content[0]
        other = free.top_logprobs[3]
        forced = (
            ask(client, temperature=0, max_tokens=1, logprobs=True, extra_body={"guided_choice": [other.token]})
            .choices[0]
            .logprobs.content[0]
        )
        assert forced.token == other.token
        assert forced.logprob == pytest.approx(other.logprob, abs=0.05)

    @pytest.mark.parametrize(
        ("fields", "param"),
        [
            ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
            ({"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
            ({"top_logprobs": 3}, "top_logprobs"),
            ({"logprobs": True, "top_logprobs": "3 "}, "top_logprobs"),
        ],
    )
    def test_invalid_number_is_rejected(self, client, fields, param):
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, extra_body=fields)
        assert caught.value.param == param

    def test_completions_list_the_most_likely_tokens(self, client):
        choice = client.completions.create(model=MODEL, prompt="One, two,", temperature=0, max_tokens=6, logprobs=5)
        logprobs = choice.choices[0].logprobs
        assert "".join(logprobs.tokens) == choice.choices[0].text
        for token, value, top in zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, strict=True):
            assert len(top) == 5
            assert max(top, key=top.get) == token
            assert top[token] == pytest.approx(value)
        with pytest.raises(openai.BadRequestError) as caught:
            client.completions.create(model=MODEL, prompt="Hi", logprobs=6)
        assert caught.value.param == "logprobs"

    def test_echo_scores_the_prompt(self, client):
        ids = [504, 3575, 282, 3085, 314]  # "The capital of Japan is"

        def complete(prompt, **fields):
            fields = {"max_tokens": 1, "temperature": 0, "logprobs": 3} | fields
            return client.completions.create(model=MODEL, prompt=prompt, **fields).choices[0]

        for prompt in (ids, "The capital of Japan is"):
            choice = complete(prompt, echo=True)
            logprobs = choice.logprobs
            assert "".join(logprobs.tokens) == choice.text
            assert choice.text.startswith("The capital of Japan is")
            assert logprobs.text_offset[:5] == [0, 3, 11, 14, 20]
            assert (logprobs.token_logprobs[0], logprobs.top_logprobs[0]) == (None, None)
            for index in range(1, 5):
                # The same token as the next one after the tokens before it.
                forced = complete(ids[:index], logit_bias={str(ids[index]): 100}).logprobs
                assert forced.tokens == logprobs.tokens[index : index + 1]
                assert logprobs.token_logprobs[index] == pytest.approx(forced.token_logprobs[0], abs=0.1)
                assert len(logprobs.top_logprobs[index]) == 3

    def test_echo_scores_a_long_prompt_while_others_run(self, client):
        text = " ".join(f"Line {i} of this long prompt ends here." for i in range(60))
        with ThreadPoolExecutor(4) as pool:
            create = client.completions.create
            fields = {"model": MODEL, "prompt": text, "max_tokens": 2, "echo": True, "logprobs": 1}
            choices = [future.result().choices[0] for future in [pool.submit(create, **fields) for _ in range(4)]]
        for choice in choices:
            assert "".join(choice.logprobs.tokens) == choice.text
            # The last two tokens are those of the answer, which is sampled.
            prompts = (choice.logprobs.token_logprobs[1:-2], choices[0].logprobs.token_logprobs[1:-2])
            assert prompts[0] == pytest.approx(prompts[1], abs=0.5)


class TestLogitBias:
    def test_a_token_can_be_forced_and_forbidden(self, client):
        plain = text_of(client, temperature=0)
        # The token ID of " a" in the tokenizer of SmolLM2 is 253.
        assert text_of(client, temperature=1, logit_bias={"253": 100}, max_tokens=6) == " a" * 6
        assert " a " in plain
        assert " a " not in text_of(client, temperature=0, logit_bias={"253": -100})

    @pytest.mark.parametrize(
        "bias",
        [{"99999999": 1}, {"-1": 1}, {"1": 101}, {"1": -101}, {"x": 1}, {str(i): 1 for i in range(100_000)}, [1]],
    )
    def test_invalid_bias_is_rejected(self, client, bias):
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, extra_body={"logit_bias": bias})
        assert caught.value.param.startswith("logit_bias")


class TestPrefixCache:
    def test_cached_tokens_are_those_that_prompts_share(self, client):
        text = " ".join(f"Fact {i} of this test is that {i * i} is the square of {i}." for i in range(40))

        def cached(question):
            usage = ask(client, f"{text} {question}", max_tokens=4).usage
            return usage.prompt_tokens_details.cached_tokens, usage.prompt_tokens

        assert cached("Why?")[0] < 30  # only the default system message
        again, total = cached("Why?")
        assert again == total - 1  # the last token is always computed, because the answer begins with its logits
        other, total = cached("When was it?")
        assert total - 15 < other < total

    def test_completions_and_responses_report_them_too(self, client):
        prompt = "The lighthouse of this test stands on a cape, and it is forty meters high. " * 4
        for _ in range(2):
            usage = client.completions.create(model=MODEL, prompt=prompt, max_tokens=2).usage
        assert usage.prompt_tokens_details.cached_tokens == usage.prompt_tokens - 1
        for _ in range(2):
            usage = client.responses.create(model=MODEL, input=prompt, max_output_tokens=16).usage
        assert usage.input_tokens_details.cached_tokens == usage.input_tokens - 1

    def test_choices_share_their_prompt(self, client):
        completion = ask(client, "What is the seventh of these choices?", n=4, temperature=1.5, max_tokens=20)
        assert len({choice.message.content for choice in completion.choices}) > 1
        assert completion.usage.prompt_tokens < 60


def test_concurrent_requests_get_their_own_answers(client):
    capitals = {"Japan": "Tokyo", "Greece": "Athens", "France": "Paris", "Germany": "Berlin", "Italy": "Rome"}

    def complete(country):
        prompt = f"The capital of {country} is"
        return client.completions.create(model=MODEL, prompt=prompt, max_tokens=20, temperature=0).choices[0].text

    with ThreadPoolExecutor(10) as pool:
        texts = list(pool.map(complete, [*capitals] * 8))
    assert [capital in text for capital, text in zip([*capitals.values()] * 8, texts, strict=True)] == [True] * 40


class TestFailures:
    def test_disconnected_clients_free_their_places(self, client, stack):
        streams = [
            ask(client, f"{STORY} {i}", stream=True, max_tokens=4000, extra_body={"ignore_eos": True}) for i in range(6)
        ]
        for stream in streams:
            next(iter(stream))
        wait_until(lambda: metric(stack, "running") == 6, 5, "all six requests to run")
        for stream in streams:
            stream.close()
        wait_until(lambda: metric(stack, "running") == 0, 3, "the engine to stop the work of disconnected clients")

    def test_long_conversation_is_rejected_and_another_one_is_not(self, client):
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, "word " * 20_000)
        assert caught.value.code == "context_length_exceeded"
        assert text_of(client, text=QUESTION)

    def test_killed_engine_fails_the_running_stream_and_is_restarted(self, client, stack):
        stream = ask(client, stream=True, max_tokens=4000, extra_body={"ignore_eos": True})
        next(iter(stream))
        [engine] = [process for process in descendants(stack, "llamacpp.process") if "-m" in process.cmdline()[:3]]
        engine.send_signal(signal.SIGKILL)
        with pytest.raises(openai.APIError):
            list(stream)
        wait_until(lambda: self._answers(client), 60, "the engine to restart")

    @staticmethod
    def _answers(client):
        try:
            return bool(client.chat.completions.create(model=MODEL, messages=user("Hi"), max_tokens=4).choices)
        except openai.InternalServerError:
            return False

"""Text completions through the complete Trident stack, with the `openai` client."""

import openai
import pytest

from tests.support.live import MODEL

PROMPT = "The capital of Japan is"
# The token IDs of PROMPT in the tokenizer of the starter chat model.
IDS = [504, 3575, 282, 3085, 314]


def ask(client, prompt=PROMPT, **options):
    """Complete a prompt greedily, with so few tokens that none of them is almost as likely as another one."""
    return client.completions.create(model=MODEL, prompt=prompt, **{"temperature": 0, "max_tokens": 5} | options)


def streamed(client, prompt=PROMPT, **options):
    chunks = list(ask(client, prompt, stream=True, stream_options={"include_usage": True}, **options))
    texts = {}
    for choice in (choice for chunk in chunks for choice in chunk.choices):
        texts[choice.index] = texts.get(choice.index, "") + choice.text
    finish = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    return list(texts.values()), finish, token_counts(chunks[-1])


def token_counts(response):
    """Return the numbers of tokens without `cached_tokens`, which is lower for the first of two equal requests."""
    return response.usage.prompt_tokens, response.usage.completion_tokens


def test_prompt_is_completed(client):
    completion = ask(client)
    assert "Tokyo" in completion.choices[0].text
    assert completion.choices[0].finish_reason == "length"
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (5, 5)


def test_completion_has_at_most_16_tokens_by_default(client):
    completion = client.completions.create(model=MODEL, prompt=PROMPT)
    assert completion.usage.completion_tokens <= 16


def test_token_ids_are_equivalent_to_text(client):
    by_ids = ask(client, IDS)
    assert by_ids.choices[0].text == ask(client).choices[0].text
    assert by_ids.usage.prompt_tokens == len(IDS)


def test_several_prompts_are_completed_in_order(client):
    prompts = [PROMPT, "The capital of Greece is", "The capital of France is"]
    texts = [choice.text for choice in ask(client, prompts).choices]
    assert ["Tokyo" in texts[0], "Athens" in texts[1], "Paris" in texts[2]] == [True] * 3
    assert texts == [ask(client, prompt).choices[0].text for prompt in prompts]
    assert [choice.text for choice in ask(client, [IDS, IDS]).choices] == [texts[0]] * 2


@pytest.mark.parametrize("prompt", [PROMPT, IDS, [PROMPT, "1, 2, 3, 4, 5,"]])
@pytest.mark.parametrize("echo", [False, True])
def test_stream_matches_non_streamed_response(client, prompt, echo):
    plain = ask(client, prompt, echo=echo)
    texts, finish, usage = streamed(client, prompt, echo=echo)
    assert texts == [choice.text for choice in plain.choices]
    assert finish == [choice.finish_reason for choice in plain.choices]
    assert usage == token_counts(plain)
    assert texts[0].startswith(PROMPT) == echo


def test_choices_of_one_prompt_differ_and_the_prompt_tokens_are_counted_once(client):
    completion = ask(client, n=3, temperature=1, seed=5, max_tokens=20)
    assert [choice.index for choice in completion.choices] == [0, 1, 2]
    assert len({choice.text for choice in completion.choices}) > 1
    assert completion.usage.prompt_tokens == 5


def test_stop_string_ends_the_text_but_not_the_echoed_prompt(client):
    completion = ask(client, "One, two, three,", stop=[","], echo=True, max_tokens=30)
    assert completion.choices[0].text == "One, two, three, four"
    assert completion.choices[0].finish_reason == "stop"


def test_logprobs_cover_the_text(client):
    choice = ask(client, logprobs=0, max_tokens=12).choices[0]
    assert "".join(choice.logprobs.tokens) == choice.text
    assert choice.logprobs.text_offset[:2] == [0, len(choice.logprobs.tokens[0])]
    assert all(value <= 0 for value in choice.logprobs.token_logprobs)


@pytest.mark.parametrize(
    ("options", "param", "code"),
    [
        ({"prompt": [1, 99_999_999]}, "prompt[1]", "invalid_value"),
        ({"prompt": [[1], [5, -1]]}, "prompt[1][1]", "invalid_value"),
        ({"prompt": "word " * 20_000}, "prompt", "context_length_exceeded"),
        ({"prompt": ["Hi", "word " * 20_000]}, "prompt[1]", "context_length_exceeded"),
        ({"prompt": [5] * 9000}, "prompt", "context_length_exceeded"),
        ({"prompt": ""}, "prompt", "invalid_value"),
        ({"prompt": "Hi", "suffix": "x"}, "suffix", "unsupported_parameter"),
    ],
)
def test_error_names_the_invalid_field(client, options, param, code):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, **options)
    assert (caught.value.param, caught.value.code) == (param, code)


def test_unsupported_logprobs_are_rejected(client):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, logprobs=2)
    assert (caught.value.param, caught.value.code) == ("logprobs", "unsupported_parameter")


def test_requests_with_forty_invalid_prompts_do_not_affect_later_requests(client):
    for _ in range(5):
        with pytest.raises(openai.BadRequestError):
            ask(client, [[99_999_999]] * 40)
    assert "Tokyo" in ask(client).choices[0].text

"""Chat requests with sampling parameters, shared by the live tests and the heavy suites."""

import random

from tests.support.live import MODEL, user

STORY = "Write a short story about a fox, a river and a bridge."


def ask(client, text=STORY, **fields):
    fields = {"model": MODEL, "max_tokens": 40, "seed": 7} | fields
    return client.chat.completions.create(messages=user(text), **fields)


def random_fields(seed):
    rng = random.Random(seed)
    fields = {"seed": seed, "max_tokens": rng.randint(1, 40), "temperature": rng.choice([0, 0.5, 1, 1.5])}
    for name, values in (
        ("top_p", (0.5, 0.9)),
        ("frequency_penalty", (-0.5, 0.5)),
        ("presence_penalty", (0.5, 1.0)),
        ("stop", (["."], ["the", "\n"], "and")),
        ("logprobs", (True,)),
    ):
        if rng.random() < 0.4:
            fields[name] = rng.choice(values)
    return fields


def response_summary(completion):
    """Return the text, finish reason, token count and tokens of a non-streamed response."""
    choice = completion.choices[0]
    tokens = [entry.token for entry in choice.logprobs.content] if choice.logprobs else []
    return choice.message.content, choice.finish_reason, completion.usage.completion_tokens, tokens


def stream_summary(chunks):
    """Return the text, finish reason, token count and tokens of a streamed response."""
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    text = "".join(choice.delta.content or "" for choice in choices)
    tokens = [entry.token for choice in choices if choice.logprobs for entry in choice.logprobs.content]
    return text, choices[-1].finish_reason, chunks[-1].usage.completion_tokens, tokens


def check_streams(client, count):
    """Check that the streamed response to each of `count` random requests equals the non-streamed one.

    The prefix cache can change the rounding, and thus the output. The first response to a request fills the cache, and
    the stream uses it. The stream may therefore equal a second non-streamed response, which also uses the cache.
    """
    mismatches = []
    for seed in range(count):
        fields, question = random_fields(seed), f"Tell me fact number {seed} about the sea."
        plain = response_summary(ask(client, question, **fields))
        streamed = stream_summary(
            list(ask(client, question, stream=True, stream_options={"include_usage": True}, **fields))
        )
        if streamed != plain and streamed != response_summary(ask(client, question, **fields)):
            mismatches.append((seed, streamed, plain))
    assert mismatches == []

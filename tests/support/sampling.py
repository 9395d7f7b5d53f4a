"""Chats with sampling fields: what the core of the tests and the heavy suites have in common."""

import random

from tests.support.live import MODEL, user

STORY = "Write a short story about a fox, a river and a bridge."


def ask(client, text=STORY, **fields):
    fields = {"model": MODEL, "max_tokens": 40, "seed": 7} | fields
    return client.chat.completions.create(messages=user(text), **fields)


def random_fields(number):
    dice = random.Random(number)  # noqa: S311
    fields = {"seed": number, "max_tokens": dice.randint(1, 40), "temperature": dice.choice([0, 0.5, 1, 1.5])}
    for name, values in (
        ("top_p", (0.5, 0.9)),
        ("frequency_penalty", (-0.5, 0.5)),
        ("presence_penalty", (0.5, 1.0)),
        ("stop", (["."], ["the", "\n"], "and")),
        ("logprobs", (True,)),
    ):
        if dice.random() < 0.4:
            fields[name] = dice.choice(values)
    return fields


def whole(completion):
    """Text, finish reason, usage and tokens of a plain answer."""
    choice = completion.choices[0]
    tokens = [entry.token for entry in choice.logprobs.content] if choice.logprobs else []
    return choice.message.content, choice.finish_reason, completion.usage, tokens


def folded(chunks):
    """The same of a streamed one."""
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    text = "".join(choice.delta.content or "" for choice in choices)
    tokens = [entry.token for choice in choices if choice.logprobs for entry in choice.logprobs.content]
    return text, choices[-1].finish_reason, chunks[-1].usage, tokens


def check_streams(client, count):
    """Check that a streamed answer is the plain one, for `count` random requests.

    Where what was cached is rounded otherwise, a second plain answer decides.
    """
    different = []
    for number in range(count):
        fields, question = random_fields(number), f"Tell me fact number {number} about the sea."
        plain = whole(ask(client, question, **fields))
        streamed = folded(list(ask(client, question, stream=True, stream_options={"include_usage": True}, **fields)))
        if streamed != plain and streamed != whole(ask(client, question, **fields)):
            different.append((number, streamed, plain))
    assert different == []

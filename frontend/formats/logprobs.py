"""Log probabilities of an answer's tokens, as chat has them and as completions do."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson


def read_logprobs(responses: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]] | None:
    """Return the tokens of these responses, each with `token`, `logprob` and `bytes`; None if none were told."""
    given = [orjson.loads(response["logprobs"]) for response in responses if "logprobs" in response]
    return [entry for entries in given for entry in entries] if given else None


def chat_logprobs(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return them as chat has them; alternatives the engine does not tell."""
    return {"content": [{**entry, "top_logprobs": []} for entry in entries], "refusal": None}


def completion_logprobs(entries: Sequence[Mapping[str, Any]], offset: int = 0) -> dict[str, Any]:
    """Return them as completions have them; `offset` is where in the text the first one begins."""
    tokens = [entry["token"] for entry in entries]
    return {
        "tokens": tokens,
        "token_logprobs": [entry["logprob"] for entry in entries],
        "top_logprobs": None,
        "text_offset": list(itertools.accumulate(map(len, tokens[:-1]), initial=offset)) if tokens else [],
    }

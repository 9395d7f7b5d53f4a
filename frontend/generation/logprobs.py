"""Log probabilities of an answer's tokens, as chat has them and as completions do."""

import codecs
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


class CompletionLogprobs:
    """Returns them as completions have them, for one piece of an answer after the other."""

    def __init__(self) -> None:
        # A character may be of several tokens: it begins where the last of them completes it.
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._offset = 0

    def of(self, entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return OpenAI's object for the next tokens."""
        offsets = []
        for entry in entries:
            offsets.append(self._offset)
            self._offset += len(self._decoder.decode(bytes(entry["bytes"])))
        return {
            "tokens": [entry["token"] for entry in entries],
            "token_logprobs": [entry["logprob"] for entry in entries],
            "top_logprobs": None,
            "text_offset": offsets,
        }

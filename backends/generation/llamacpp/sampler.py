"""Chooses the tokens of one request from the engine's logits.

The order is that of vLLM: logit_bias and penalties, then temperature, min_p, top_k and top_p.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from backends.generation.llamacpp.grammar import Grammar

Logits = npt.NDArray[np.float32]

# Below this temperature, sampling is effectively greedy.
_GREEDY_BELOW = 1e-5

# The sampler sorts only the tokens that are at least this likely, compared with the most likely one, if these suffice.
_LIMITS = (1e-2, 1e-4, 1e-7)


_MAX_TOP = 20


class Choice(NamedTuple):
    """A chosen token, with its log probability and the most likely tokens if the request asks for them."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class InvalidLogits(Exception):
    """The model computed logits that are not numbers."""


class Sampler:
    """Chooses the tokens of one request.

    `parameters` are the request's sampling parameters, `prompt` the token IDs of the prompt, and `end_tokens` the
    tokens that end an answer. The same seed and logits yield the same tokens.
    """

    def __init__(
        self,
        parameters: Mapping[str, Any],
        prompt: Sequence[int],
        end_tokens: npt.NDArray[np.int32],
        grammar: Grammar | None = None,
    ):
        self._temperature = float(parameters.get("temperature", 1.0))
        self._top_k, self._top_p = int(parameters.get("top_k", 0)), float(parameters.get("top_p", 1.0))
        self._min_p = float(parameters.get("min_p", 0.0))
        self._frequency = float(parameters.get("frequency_penalty", 0.0))
        self._presence = float(parameters.get("presence_penalty", 0.0))
        self._repetition = float(parameters.get("repetition_penalty", 1.0))
        bias: Mapping[str, float] = parameters.get("logit_bias") or {}
        self._bias_ids = np.fromiter((int(token) for token in bias), np.int32, len(bias))
        self._bias = np.fromiter(bias.values(), np.float32, len(bias))
        # A grammar decides by itself when the answer may end.
        self._min_tokens = 0 if grammar else int(parameters.get("min_tokens", 0))
        self.ignores_end = bool(parameters.get("ignore_eos")) and not grammar
        """Whether the answer goes on after an end token."""
        self._end_tokens, self._grammar = end_tokens, grammar
        self._num_top = min(int(parameters.get("top_logprobs") or 0), _MAX_TOP)
        self._with_logprob = bool(parameters.get("logprobs"))
        self._counts: Counter[int] = Counter()
        self._num_tokens = 0
        self._seen = set(prompt) if self._repetition != 1 else set[int]()
        self._random = np.random.Generator(np.random.PCG64(int(parameters.get("seed", 0)) % (1 << 64)))

    def choose(self, logits: Logits) -> Choice:
        """Return the next token. `logits` [vocabulary] is changed. Raises InvalidLogits."""
        logprob_of = self.log_probabilities(logits) if self._with_logprob else None
        self._adjust(logits)
        token = self._pick(logits)
        if self._grammar and not self._grammar.allows(token):
            self._grammar.restrict(logits)
            token = self._pick(logits)
        self._accept(token)
        if logprob_of is None:
            return Choice(token)
        return Choice(token, float(logprob_of[0][token]), logprob_of[1])

    def close(self) -> None:
        """Free the grammar, if any."""
        if self._grammar:
            self._grammar.close()

    def log_probabilities(self, logits: Logits) -> tuple[Logits, tuple[tuple[int, float], ...]]:
        """Return the log probabilities of all tokens, and the most likely tokens if the request asks for them."""
        largest = logits.max()
        values = logits - (largest + np.log(np.exp(logits - largest).sum(dtype=np.float64)).astype(np.float32))
        if not self._num_top:
            return values, ()
        best = np.argpartition(values, -self._num_top)[-self._num_top :]
        best = best[np.argsort(-values[best], kind="stable")]
        return values, tuple((int(token), float(values[token])) for token in best)

    def _adjust(self, logits: Logits) -> None:
        if len(self._bias_ids):
            logits[self._bias_ids] += self._bias
        if self._repetition != 1 and self._seen:
            ids = np.fromiter(self._seen, np.int32, len(self._seen))
            values = logits[ids]
            logits[ids] = np.where(values > 0, values / self._repetition, values * self._repetition)
        if self._counts and (self._frequency or self._presence):
            ids = np.fromiter(self._counts, np.int32, len(self._counts))
            counts = np.fromiter(self._counts.values(), np.float32, len(self._counts))
            logits[ids] -= self._frequency * counts + self._presence
        if self.ignores_end or self._num_tokens < self._min_tokens:
            logits[self._end_tokens] = -np.inf

    def _pick(self, logits: Logits) -> int:
        best = int(logits.argmax())
        if not np.isfinite(logits[best]):
            raise InvalidLogits
        if self._temperature < _GREEDY_BELOW:
            return best
        weights = np.exp((logits - logits[best]) / np.float32(self._temperature))
        if self._top_k <= 0 and self._top_p >= 1 and not self._min_p:
            return self._draw(weights)
        kept, total = self._most_likely(weights)
        ordered = kept[np.argsort(-weights[kept])]
        if self._top_k > 0:
            ordered = ordered[: self._top_k]
            total = weights[ordered].sum(dtype=np.float64)
        if self._min_p:
            ordered = ordered[weights[ordered] >= self._min_p]
            total = weights[ordered].sum(dtype=np.float64)
        if self._top_p < 1:
            # The smallest set of most likely tokens whose probabilities add up to top_p.
            sums = np.cumsum(weights[ordered], dtype=np.float64)
            ordered = ordered[: int(np.searchsorted(sums, self._top_p * total)) + 1]
        return int(ordered[self._draw(weights[ordered])])

    def _draw(self, weights: Logits) -> int:
        """Return a random index, with probabilities in proportion to the weights."""
        sums = np.cumsum(weights, dtype=np.float64)
        return int(np.searchsorted(sums[:-1], self._random.random() * sums[-1], side="right"))

    def _most_likely(self, weights: Logits) -> tuple[npt.NDArray[np.intp], float]:
        """Return at least the tokens that top_k, min_p and top_p keep, and the sum of all weights.

        Few tokens are needed in most cases, and it takes far longer to sort all of them.
        """
        total = float(weights.sum(dtype=np.float64))
        for limit in _LIMITS:
            kept = np.flatnonzero(weights >= limit)
            if (
                (0 < self._top_k <= len(kept))
                or (self._min_p >= limit)
                or (
                    self._top_p < 1
                    and not self._min_p
                    and self._top_k <= 0
                    and weights[kept].sum(dtype=np.float64) >= self._top_p * total
                )
            ):
                return kept, total
        return np.arange(len(weights)), total

    def _accept(self, token: int) -> None:
        self._counts[token] += 1
        self._num_tokens += 1
        if self._repetition != 1:
            self._seen.add(token)
        if self._grammar:
            self._grammar.accept(token)

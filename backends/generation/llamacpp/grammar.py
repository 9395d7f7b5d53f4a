"""Applies a grammar to one request's tokens, with llama.cpp's grammar sampler."""

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from backends.common.llamacpp.library import TOKEN_DATA, TokenDataArray


class Grammar:
    """The state of a grammar after the tokens of one answer. `text` is in llama.cpp's GBNF.

    `hidden` are tokens that are never allowed: those without a text in the answer, although the grammar would accept
    the spelling of their names. Raises ValueError if llama.cpp rejects the grammar.
    """

    def __init__(self, llama: Any, vocabulary: Any, text: str, hidden: Sequence[int] | npt.NDArray[np.int32] = ()):
        self._llama, self._vocabulary = llama, vocabulary
        self._hidden, self._hidden_set = np.asarray(hidden, np.int32), set(np.asarray(hidden).tolist())
        self._sampler = llama.llama_sampler_init_grammar(vocabulary, text.encode(), b"root")
        if not self._sampler:
            raise ValueError("llama.cpp rejects the grammar")

    def allows(self, token: int) -> bool:
        """Return whether the grammar allows this token next."""
        if token in self._hidden_set:
            return False
        candidates = np.zeros(1, TOKEN_DATA)
        candidates["id"] = token
        return bool(self._apply(candidates)["logit"][0] != -np.inf)

    def restrict(self, logits: npt.NDArray[np.float32]) -> None:
        """Set the logits [vocabulary] of all tokens that the grammar does not allow next to minus infinity."""
        candidates = np.zeros(len(logits), TOKEN_DATA)
        candidates["id"], candidates["logit"] = np.arange(len(logits)), logits
        logits[:] = self._apply(candidates)["logit"]
        logits[self._hidden] = -np.inf

    def accept(self, token: int) -> None:
        """Advance the state by one token, which the grammar must allow."""
        if not self._llama.llama_vocab_is_eog(self._vocabulary, token):
            self._llama.llama_sampler_accept(self._sampler, token)

    def close(self) -> None:
        """Free the state."""
        self._llama.llama_sampler_free(self._sampler)

    def _apply(self, candidates: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
        array = TokenDataArray(candidates.ctypes.data, len(candidates), -1, False)
        self._llama.llama_sampler_apply(self._sampler, ctypes.byref(array))
        return candidates

"""Tries grammars with llama.cpp before the engine uses them.

The trial process runs this module: `grammar_trial.py FOLDER FILE_DESCRIPTOR`.
"""

import logging
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from backends.common.child_process import open_connection
from backends.common.llamacpp.library import GGUF, LIBRARIES, load_library, load_model
from backends.generation.grammar.trial import UNAVAILABLE, Trial, run_trial_process
from backends.generation.llamacpp.grammar import Grammar

log = logging.getLogger(__name__)

# How many tokens a trial generates, and how many results are remembered.
_TOKENS, _MAX_RESULTS = 16, 2_000

# How often a trial repeats one token, and how many different ones.
_REPEATS, _REPEATED = 24, 4


class GrammarTrials:
    """Tries one grammar at a time, in a thread, and remembers the results."""

    def __init__(self, folder: Path):
        self._trial = Trial("backends.generation.llamacpp.grammar_trial", str(folder))
        self.results: OrderedDict[str, str | None] = OrderedDict()
        """Grammar → why it was rejected, or None if it was accepted."""
        self.is_busy = False

    def start(self, grammar: str, on_done: Callable[[str, str | None], None]) -> None:
        """Start to try a grammar. A thread calls `on_done(grammar, reason)` at the end."""
        self.is_busy = True
        threading.Thread(target=self._run, args=(grammar, on_done), name="grammar-trial", daemon=True).start()

    def finish(self, grammar: str, reason: str | None) -> None:
        """Remember a result. Call this when `on_done` has been called, in the engine's thread."""
        self.is_busy = False
        if reason != UNAVAILABLE:
            self.results[grammar] = reason
        if len(self.results) > _MAX_RESULTS:
            self.results.popitem(last=False)

    def _run(self, grammar: str, on_done: Callable[[str, str | None], None]) -> None:
        try:
            reason = self._trial.try_grammar(grammar)
        except Exception:
            log.exception("trying a grammar failed")
            reason = UNAVAILABLE
        if reason:
            log.warning("rejected a grammar of %d characters", len(grammar))
        on_done(grammar, reason)


def main() -> None:
    """Run the trial process."""
    folder = Path(sys.argv[1])
    llama = load_library(folder / LIBRARIES)
    vocabulary = llama.llama_model_get_vocab(load_model(llama, folder / GGUF, vocabulary_only=True))
    size = llama.llama_vocab_n_tokens(vocabulary)

    def try_grammar(text: str) -> str | None:
        random = np.random.default_rng(0)
        try:
            grammar = Grammar(llama, vocabulary, text)
        except ValueError:
            return "The grammar does not compile"
        first: npt.NDArray[np.intp] | None = None
        for _ in range(_TOKENS):
            logits = np.zeros(size, np.float32)
            grammar.restrict(logits)
            allowed = np.flatnonzero(logits == 0)
            first = allowed if first is None else first
            if not len(allowed):
                return "The grammar allows no text"
            token = int(random.choice(allowed))
            if llama.llama_vocab_is_eog(vocabulary, token):
                break
            grammar.accept(token)
        grammar.close()
        # llama.cpp tracks each alternative that may still fit. In some recursive rules their number doubles with each
        # character, so that the same letter again and again takes hours.
        for token in random.permutation(first)[:_REPEATED] if first is not None else ():
            repeat(text, int(token))
        return None

    def repeat(text: str, token: int) -> None:
        grammar = Grammar(llama, vocabulary, text)
        for _ in range(_REPEATS):
            if llama.llama_vocab_is_eog(vocabulary, token) or not grammar.allows(token):
                break
            grammar.accept(token)
        grammar.close()

    run_trial_process(open_connection(), try_grammar)


if __name__ == "__main__":
    main()

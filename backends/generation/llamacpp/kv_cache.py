"""Keeps the books of the engine's KV cache: which sequence holds which tokens, and what a new prompt can share.

llama.cpp stores a token's keys and values in one cell, which several sequences can share. It does not say which cells
are free, so this module counts them.
"""

from collections import Counter, OrderedDict
from collections.abc import Sequence
from itertools import count
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.int32]

# Every computed token looks at all cells in use, also at those of other sequences. So only a few cells are kept for
# later requests in the cache itself, the fewer the more sequences are running: their numbers multiplied are at most
# this. Further sequences are saved outside of the cache.
_MAX_KEPT_CELLS = 2_048

# Restoring a saved sequence costs about as much as computing this many tokens.
_RESTORE_COST = 32


class Memory(Protocol):
    """The operations on llama.cpp's memory that the cache uses."""

    def copy(self, source: int, target: int, end: int) -> None:
        """Let the sequence `target` share the cells of `source` before the position `end`."""

    def remove(self, sequence: int, start: int = 0) -> None:
        """Remove the cells of a sequence, from a position on."""

    def saved_size(self, sequence: int) -> int:
        """Return the size in bytes of what `save` would return."""

    def save(self, sequence: int) -> Any:
        """Return an array with the keys and values of a sequence."""

    def restore(self, sequence: int, content: Any) -> bool:
        """Give an empty sequence the keys and values that `save` returned. Return whether there was space."""


class CacheFull(Exception):
    """The cache has too few free cells, even without the sequences that are kept for later requests."""


class KVSequence:
    """A sequence of tokens in the cache.

    A token's position is its index, except after an image in a model with two-dimensional positions: all embeddings of
    the image count as one row or column of it.
    """

    def __init__(self, id: int, group: str = ""):
        self.id, self.group = id, group
        self._tokens, self._positions = np.empty(64, np.int32), np.zeros(65, np.int32)
        self.length = 0
        self.cells: list[int] = []
        self.used_at = 0

    @property
    def tokens(self) -> Tokens:
        """The tokens in the cache, in order."""
        return self._tokens[: self.length]

    @property
    def positions(self) -> Tokens:
        """The positions of the tokens, and that of the next one."""
        return self._positions[: self.length + 1]

    def shared_with(self, tokens: Tokens) -> int:
        """Return how many tokens at the beginning are the same, without a part of an image."""
        return _whole(self.positions, common_prefix(self.tokens, tokens))

    @property
    def next_position(self) -> int:
        """The position of the next token."""
        return int(self._positions[self.length])

    def append(
        self, tokens: Sequence[int] | Tokens, cells: Sequence[int], positions: Sequence[int] | Tokens | None = None
    ) -> None:
        """Add tokens and the numbers of their cells.

        `positions` are the positions of the tokens and of the next one after them, by default consecutive ones.
        """
        if positions is None:
            positions = np.arange(self.next_position, self.next_position + len(tokens) + 1, dtype=np.int32)
        needed = self.length + len(tokens)
        if needed > len(self._tokens):
            self._tokens = np.concatenate([self.tokens, np.empty(needed, np.int32)])
            self._positions = np.concatenate([self.positions, np.empty(needed, np.int32)])
        self._tokens[self.length : needed] = tokens
        self._positions[self.length : needed + 1] = positions
        self.length = needed
        self.cells.extend(cells)


class _Saved(NamedTuple):
    """A sequence outside of the cache."""

    group: str
    tokens: Tokens
    positions: Tokens
    content: Any

    def shared_with(self, tokens: Tokens) -> int:
        """Return how many tokens at the beginning are the same, without a part of an image."""
        return _whole(self.positions, common_prefix(self.tokens, tokens))


class KVCache:
    """The sequences in a KV cache of `size` cells.

    Finished sequences are kept for later requests: the last ones in the cache, further ones as copies of at most
    `saved_bytes` in total. There may be at most `max_sequences` - 2 running sequences. Without `shares_prefixes`, as
    for a recurrent model, nothing is kept. Sequences share tokens only with those of the same group, because the keys
    and values of a token depend on the adapter that computes them.
    """

    def __init__(
        self, memory: Memory, size: int, max_sequences: int, *, saved_bytes: int = 0, shares_prefixes: bool = True
    ):
        self._memory, self.size, self._shares_prefixes = memory, size, shares_prefixes
        self._free_ids = list(range(max_sequences))[::-1]
        self._running: dict[int, KVSequence] = {}
        self._kept: dict[int, KVSequence] = {}
        self._saved: OrderedDict[tuple[str, bytes], _Saved] = OrderedDict()
        self._saved_bytes, self._max_saved_bytes = 0, saved_bytes
        self._references: Counter[int] = Counter()
        self._new_cells, self._clock = count(), count(1)

    @property
    def used(self) -> int:
        """The number of cells that are in use, including those of kept sequences."""
        return len(self._references)

    @property
    def available(self) -> int:
        """The number of cells that running sequences do not use."""
        return self.size - len({cell for sequence in self._running.values() for cell in sequence.cells})

    def start(self, prompt: Sequence[int] | Tokens, group: str = "", *, shares: bool = True) -> KVSequence:
        """Return a new sequence with the tokens of the longest known beginning of `prompt`, except its last token.

        The last token of a prompt must always be computed, because the first token of the answer depends on it. Without
        `shares`, the sequence is empty.
        """
        tokens = np.asarray(prompt, np.int32)[:-1]
        source, shared = self._longest_prefix(tokens, group) if shares else (None, 0)
        saved, saved_length = self._longest_saved(tokens, group) if shares else (None, 0)
        if not self._free_ids:
            self._evict(self._oldest(except_for=source))
        sequence = KVSequence(self._free_ids.pop(), group)
        self._running[sequence.id] = sequence
        is_restored = False
        if saved and saved_length > shared + _RESTORE_COST:
            is_restored = self._restore(saved, sequence, saved_length)
            if not is_restored:
                source, shared = self._longest_prefix(tokens, group)  # the attempt may have evicted the source
        if source and shared and not is_restored:
            source.used_at = next(self._clock)
            positions = source.positions[: shared + 1]
            self._memory.copy(source.id, sequence.id, int(positions[-1]))
            self._add(sequence, source.tokens[:shared], source.cells[:shared], positions)
        self._limit_kept()
        return sequence

    def running_prefix(self, prompt: Sequence[int] | Tokens, group: str = "") -> int:
        """Return how many tokens of `prompt` a new sequence would share with running ones, without further cells."""
        tokens = np.asarray(prompt, np.int32)[:-1]
        if not self._shares_prefixes:
            return 0
        running = (sequence for sequence in self._running.values() if sequence.group == group)
        return max((sequence.shared_with(tokens) for sequence in running), default=0)

    def known_prefix(self, prompt: Sequence[int] | Tokens, group: str = "") -> int:
        """Return how many tokens of `prompt` a new sequence would share."""
        tokens = np.asarray(prompt, np.int32)[:-1]
        return max(self._longest_prefix(tokens, group)[1], self._longest_saved(tokens, group)[1])

    def reserve(self, cells: int) -> None:
        """Make room for `cells` more cells, by removing kept sequences. Raises CacheFull."""
        while self.size - self.used < cells:
            if not self._kept:
                raise CacheFull
            self._evict(self._oldest())

    def advance(
        self, sequence: KVSequence, tokens: Sequence[int] | Tokens, positions: Sequence[int] | Tokens | None = None
    ) -> None:
        """Record that the engine has computed `tokens` at the end of a running sequence.

        `positions` are the positions of the tokens and of the next one, by default consecutive ones.
        """
        self._add(sequence, tokens, [next(self._new_cells) for _ in tokens], positions)

    def finish(self, sequence: KVSequence) -> None:
        """End a running sequence, and keep its tokens for later requests."""
        if not self._shares_prefixes or not sequence.length:
            self.drop(sequence)
            return
        del self._running[sequence.id]
        for other in list(self._kept.values()):
            # A kept sequence that begins another one is of no use any more.
            if other.group == sequence.group and common_prefix(other.tokens, sequence.tokens) == other.length:
                self._remove(self._kept, other)
        sequence.used_at = next(self._clock)
        self._kept[sequence.id] = sequence
        self._limit_kept()

    def _limit_kept(self) -> None:
        """Evict kept sequences that would slow down the running ones too much, the oldest first."""
        if not self._running:
            return
        limit = _MAX_KEPT_CELLS // len(self._running)
        while self._kept and self._num_kept_cells() > limit:
            if len(self._kept) == 1 and not self._max_saved_bytes:
                return  # without it, nothing would be left of the last answer
            self._evict(self._oldest())

    def drop(self, sequence: KVSequence) -> None:
        """Remove a running sequence."""
        self._remove(self._running, sequence)

    def _num_kept_cells(self) -> int:
        running = {cell for sequence in self._running.values() for cell in sequence.cells}
        return len({cell for sequence in self._kept.values() for cell in sequence.cells} - running)

    def _longest_prefix(self, tokens: Tokens, group: str) -> tuple[KVSequence | None, int]:
        best: tuple[KVSequence | None, int] = (None, 0)
        if self._shares_prefixes:
            for sequence in (*self._kept.values(), *self._running.values()):
                if sequence.group == group and (shared := sequence.shared_with(tokens)) > best[1]:
                    best = sequence, shared
        return best

    def _longest_saved(self, tokens: Tokens, group: str) -> tuple[tuple[str, bytes] | None, int]:
        best: tuple[tuple[str, bytes] | None, int] = (None, 0)
        for key, saved in self._saved.items():
            if saved.group == group and (shared := saved.shared_with(tokens)) > best[1]:
                best = key, shared
        return best

    def _restore(self, key: tuple[str, bytes], sequence: KVSequence, length: int) -> bool:
        """Give a new sequence the first `length` tokens of a saved one. Return whether there is space."""
        saved = self._saved.get(key)
        if saved is None:  # sequences evicted in the meantime have taken its space
            return False
        try:
            self.reserve(len(saved.tokens))
        except CacheFull:
            return False
        if not self._memory.restore(sequence.id, saved.content):
            return False
        if key in self._saved:
            self._saved.move_to_end(key)
        self._memory.remove(sequence.id, int(saved.positions[length]))
        self.advance(sequence, saved.tokens[:length], saved.positions[: length + 1])
        return True

    def _oldest(self, except_for: KVSequence | None = None) -> KVSequence:
        kept = (sequence for sequence in self._kept.values() if sequence is not except_for)
        return min(kept, key=lambda sequence: sequence.used_at)

    def _evict(self, sequence: KVSequence) -> None:
        """Move a kept sequence out of the cache, and save it if there may be space for it."""
        key = sequence.group, sequence.tokens.tobytes()
        if key not in self._saved and self._memory.saved_size(sequence.id) <= self._max_saved_bytes:
            content = self._memory.save(sequence.id)
            self._saved[key] = _Saved(sequence.group, sequence.tokens.copy(), sequence.positions.copy(), content)
            self._saved_bytes += len(content)
            while self._saved_bytes > self._max_saved_bytes:
                _, oldest = self._saved.popitem(last=False)
                self._saved_bytes -= len(oldest.content)
        self._remove(self._kept, sequence)

    def _add(
        self,
        sequence: KVSequence,
        tokens: Sequence[int] | Tokens,
        cells: Sequence[int],
        positions: Sequence[int] | Tokens | None,
    ) -> None:
        sequence.append(tokens, cells, positions)
        self._references.update(cells)

    def _remove(self, group: dict[int, KVSequence], sequence: KVSequence) -> None:
        del group[sequence.id]
        self._memory.remove(sequence.id)
        for cell in sequence.cells:
            self._references[cell] -= 1
            if not self._references[cell]:
                del self._references[cell]
        self._free_ids.append(sequence.id)


def _whole(positions: Tokens, length: int) -> int:
    """Return the length of a beginning without a part of an image.

    llama.cpp copies and removes cells by their position, and all embeddings of an image may have the same one.
    """
    return int(np.searchsorted(positions[: length + 1], positions[length], "left"))


def common_prefix(one: Tokens, other: Tokens) -> int:
    """Return how many tokens at the beginning are the same."""
    length = min(len(one), len(other))
    different = one[:length] != other[:length]
    return int(different.argmax()) if different.any() else length

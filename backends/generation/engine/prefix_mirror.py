"""Keeps the books of OpenVINO GenAI's prefix cache, which does not tell how many tokens of a prompt it has.

The cache has blocks of 32 tokens. A full block is known by all tokens up to its end, and the last, partial block of a
sequence by all its tokens. A request looks up the blocks of its prompt when it is added, and always computes the last
token of the prompt. A block is known when it has been computed. It has one key: that of a partial block changes when it
is full, or when the second token of an answer is added to it.

How far the pipeline has computed a prompt or an answer is not known exactly. So the number of cached tokens is
uncertain if a running request could have more of them than the books.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

BLOCK = 32

# The order in which the cache evicts blocks is known only roughly. Above this fraction of blocks in use, only the more
# recently used half of them is certain to be in the cache.
_PRESSURE = 0.8

Key = bytes


@dataclass
class _Sequence:
    """A request in the pipeline."""

    prompt: npt.NDArray[np.int64]
    cached: int
    is_certain: bool
    answer: list[int] = field(default_factory=list)
    has_started: bool = False

    @property
    def num_blocks(self) -> int:
        return (len(self.prompt) + len(self.answer)) // BLOCK + 1

    def may_have(self, prompt: npt.NDArray[np.int64], length: int) -> bool:
        """Return whether the blocks of this request may begin with more than `length` tokens of a prompt."""
        tokens = np.concatenate([self.prompt, np.array(self.answer, np.int64)])
        size = min(len(tokens), len(prompt))
        different = tokens[:size] != prompt[:size]
        common = int(different.argmax()) if different.any() else size
        if common <= length:
            return False
        # Of a request with a token, the full blocks of its prompt are in the books. Its partial block has more tokens.
        return not self.has_started or common // BLOCK * BLOCK > length or common >= len(self.prompt)


class PrefixMirror:
    """What the prefix cache knows, for a cache of `num_blocks` blocks; if that is 0, nothing is certain."""

    def __init__(self, num_blocks: int):
        self._num_blocks = num_blocks
        self._known: OrderedDict[Key, None] = OrderedDict()  # from the least to the most recently used
        self._doubtful: OrderedDict[Key, None] = OrderedDict()  # these may be known
        self._running: dict[int, _Sequence] = {}
        self._is_exact, self._had_pressure = num_blocks > 0, False

    def start(self, request_id: int, prompt: npt.NDArray[np.int64]) -> int | None:
        """Record a request when it is added, and return how many tokens of its prompt are cached; None if uncertain."""
        if not self._is_exact:
            return None
        length, is_certain = self._lookup(prompt)
        if any(sequence.may_have(prompt, length) for sequence in self._running.values()):
            is_certain = is_certain and length >= len(prompt) - 1
        self._running[request_id] = _Sequence(prompt, length, is_certain)
        self._limit()
        return min(length, len(prompt) - 1) if is_certain else None

    def add_tokens(self, request_id: int, tokens: Sequence[int]) -> None:
        """Record the next tokens of a request's answer."""
        if not (sequence := self._running.get(request_id)):
            return
        sequence.answer += tokens
        if not sequence.has_started:
            sequence.has_started = True
            self._use(key for length, key in _keys(sequence.prompt) if length % BLOCK == 0)

    def end(self, request_id: int) -> None:
        """Record that a request has ended, and that the pipeline has made a step since.

        The last token of an answer has not been computed. A request without any token may have left blocks that were
        never computed, after which nothing is certain.
        """
        if not (sequence := self._running.pop(request_id, None)):
            return
        if not sequence.has_started:
            self._is_exact = False
            return
        tokens = np.concatenate([sequence.prompt, np.array(sequence.answer[:-1], np.int64)])
        keys = dict(_keys(tokens))
        if sequence.cached % BLOCK:
            old, is_full = _key_of(tokens[: sequence.cached]), len(tokens) // BLOCK > sequence.cached // BLOCK
            if len(sequence.answer) > 1 or is_full:
                self._forget(old, sequence)
            else:
                keys[len(tokens)] = old
        self._use(keys.values())
        self._limit()

    def _forget(self, key: Key, sequence: _Sequence) -> None:
        self._known.pop(key, None)
        if self._had_pressure or not sequence.is_certain:
            self._doubtful[key] = None

    def _lookup(self, prompt: npt.NDArray[np.int64]) -> tuple[int, bool]:
        """Return the length of the known beginning, and whether it is certain."""
        length, previous, certain = 0, b"", self._certain()
        is_certain = True
        while length < len(prompt):
            block = prompt[length : length + BLOCK]
            whole = _hash(previous, block)
            is_certain &= whole not in self._doubtful
            if whole in self._known:
                is_certain &= certain is None or whole in certain
                length, previous = length + len(block), whole
                continue
            for size in range(1, len(block)):
                part = _hash(previous, block[:size])
                is_certain &= part not in self._doubtful
                if part in self._known:
                    return length + size, is_certain and (certain is None or part in certain)
            break
        return length, is_certain

    def _certain(self) -> set[Key] | None:
        """Return the keys that are certain to be in the cache; None stands for all."""
        if not self._had_pressure:
            return None
        newest = reversed(self._known)
        return {key for key, _ in zip(newest, range(self._num_blocks // 2), strict=False)}

    def _use(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self._known[key] = None
            self._known.move_to_end(key)

    def _limit(self) -> None:
        held = sum(sequence.num_blocks for sequence in self._running.values())
        self._had_pressure |= len(self._known) + held > _PRESSURE * self._num_blocks
        if held > _PRESSURE * self._num_blocks / 2:
            self._is_exact = False  # the pipeline may have taken blocks from running requests
        for keys in (self._known, self._doubtful):
            while len(keys) > 2 * self._num_blocks:
                keys.popitem(last=False)


def _keys(tokens: npt.NDArray[np.int64]) -> Iterator[tuple[int, Key]]:
    """Yield the end and the key of each block of a sequence."""
    previous = b""
    for start in range(0, len(tokens), BLOCK):
        block = tokens[start : start + BLOCK]
        previous = _hash(previous, block)
        yield start + len(block), previous


def _key_of(tokens: npt.NDArray[np.int64]) -> Key:
    return [key for _, key in _keys(tokens)][-1]


def _hash(previous: Key, tokens: npt.NDArray[np.int64]) -> Key:
    return blake2b(previous + tokens.tobytes(), digest_size=16).digest()

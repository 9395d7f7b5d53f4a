"""The books of the KV cache, against a memory that counts cells as llama.cpp does."""

import random

import pytest

from backends.generation.llamacpp.kv_cache import CacheFull, KVCache


class Memory:
    """Cells with the sets of sequences that share them."""

    def __init__(self, size):
        self.size, self.cells = size, []

    def copy(self, source, target, length):
        cells = [cell for cell in self.cells if source in cell[1]][:length]
        assert len(cells) == length
        for cell in cells:
            cell[1].add(target)

    def remove(self, sequence, start=0):
        for cell in [cell for cell in self.cells if sequence in cell[1]][start:]:
            cell[1].discard(sequence)
        self.cells = [cell for cell in self.cells if cell[1]]

    def compute(self, sequence, tokens):
        self.cells += [(token, {sequence}) for token in tokens]
        assert len(self.cells) <= self.size

    def saved_size(self, sequence):
        return len(self.tokens(sequence))

    def save(self, sequence):
        return bytes(self.tokens(sequence))

    def restore(self, sequence, content):
        if len(self.cells) + len(content) > self.size:
            return False
        self.compute(sequence, content)
        return True

    def tokens(self, sequence):
        return [token for token, owners in self.cells if sequence in owners]


def run(cache, memory, tokens, until=None):
    """Compute a prompt, and return its sequence and how many tokens it shared."""
    sequence = cache.start(tokens)
    shared = sequence.length
    rest = tokens[shared:until]
    cache.reserve(len(rest))
    memory.compute(sequence.id, rest)
    cache.advance(sequence, rest)
    return sequence, shared


def test_a_finished_sequence_is_shared_up_to_the_last_token_of_the_prompt():
    memory = Memory(100)
    cache = KVCache(memory, 100, 8)
    first, shared = run(cache, memory, [1, 2, 3, 4])
    assert shared == 0
    cache.finish(first)
    assert run(cache, memory, [1, 2, 3, 4])[1] == 3
    assert run(cache, memory, [1, 2, 9])[1] == 2
    assert run(cache, memory, [7, 2, 3])[1] == 0
    assert cache.used == len(memory.cells)


def test_a_running_sequence_is_shared():
    memory = Memory(100)
    cache = KVCache(memory, 100, 8)
    run(cache, memory, [1, 2, 3, 4, 5])
    assert run(cache, memory, [1, 2, 3, 4, 5])[1] == 4


def test_the_least_recently_used_sequence_makes_room():
    memory = Memory(12)
    cache = KVCache(memory, 12, 8)
    for prompt in ([1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]):
        cache.finish(run(cache, memory, prompt)[0])
    used = run(cache, memory, [1, 1, 1, 1])  # so that the prompt of twos is the oldest
    cache.finish(used[0])
    run(cache, memory, [4, 4, 4])
    assert cache.known_prefix([1, 1, 1, 1]) == 3
    assert cache.known_prefix([2, 2, 2, 2]) == 0


def test_running_sequences_are_never_removed():
    memory = Memory(8)
    cache = KVCache(memory, 8, 8)
    run(cache, memory, [1, 2, 3, 4, 5])
    assert cache.available == 3
    with pytest.raises(CacheFull):
        cache.reserve(4)


def test_a_kept_sequence_that_begins_another_one_is_removed():
    memory = Memory(100)
    cache = KVCache(memory, 100, 8)
    cache.finish(run(cache, memory, [1, 2, 3])[0])
    cache.finish(run(cache, memory, [1, 2, 3, 4])[0])
    assert cache.used == len(memory.cells) == 4


def test_without_sharing_nothing_is_kept():
    memory = Memory(100)
    cache = KVCache(memory, 100, 8, shares_prefixes=False)
    cache.finish(run(cache, memory, [1, 2, 3])[0])
    assert (cache.used, memory.cells, cache.known_prefix([1, 2, 3])) == (0, [], 0)


def test_a_sequence_that_had_to_leave_the_cache_is_restored():
    memory = Memory(100)
    cache = KVCache(memory, 100, 8, saved_bytes=1_000)
    long = [5] * 60
    cache.finish(run(cache, memory, long)[0])
    other, _ = run(cache, memory, [7] * 80)
    assert cache.used == 80
    cache.finish(other)
    sequence, shared = run(cache, memory, [*long[:50], 1, 2])
    assert shared == 50
    assert memory.tokens(sequence.id) == [*long[:50], 1, 2]


def test_a_long_sequence_is_saved_when_another_one_starts():
    memory = Memory(5_000)
    cache = KVCache(memory, 5_000, 8, saved_bytes=10_000)
    cache.finish(run(cache, memory, [5] * 3_000)[0])
    assert cache.used == 3_000
    run(cache, memory, [7] * 10)
    assert cache.used == 10
    assert run(cache, memory, [5] * 2_000)[1] == 1_999


def test_the_more_sequences_run_the_fewer_cells_are_kept():
    memory = Memory(5_000)
    cache = KVCache(memory, 5_000, 10, saved_bytes=10_000)
    for token in range(5):
        cache.finish(run(cache, memory, [token] * 300)[0])
    kept = []
    for token in range(10, 14):
        run(cache, memory, [token])
        kept.append(cache.used - len(kept) - 1)
    assert kept == [1_500, 900, 600, 300]  # at most 2,048, 1,024, 682 and 512


def test_saved_sequences_have_a_limit_in_bytes():
    memory = Memory(100)
    cache = KVCache(memory, 100, 8, saved_bytes=100)
    for token in range(5):
        cache.finish(run(cache, memory, [token] * 60)[0])
    assert cache.known_prefix([2] * 60) == 0
    assert cache.known_prefix([3] * 60) == 59


def test_a_saved_sequence_may_lose_its_place_to_one_that_is_evicted_for_it():
    memory = Memory(100)
    cache = KVCache(memory, 100, 8, saved_bytes=100)
    for prompt in ([2] * 60, [1] * 70):
        cache.finish(run(cache, memory, prompt)[0])
    sequence, _ = run(cache, memory, [*[2] * 60, 3, 4])
    assert memory.tokens(sequence.id) == [*[2] * 60, 3, 4]
    assert cache.used == len(memory.cells)


def test_an_evicted_source_is_not_shared_when_a_restore_fails():
    memory = Memory(100)
    cache = KVCache(memory, 100, 8, saved_bytes=1_000)
    cache.finish(run(cache, memory, [5] * 50 + [6] * 20)[0])
    cache.finish(run(cache, memory, [9] * 60)[0])
    cache.finish(run(cache, memory, [5] * 10 + [7] * 20)[0])
    run(cache, memory, [8] * 35)
    sequence = cache.start([5] * 50 + [1, 1])
    assert memory.tokens(sequence.id) == sequence.tokens.tolist()
    assert cache.used == len(memory.cells)


@pytest.mark.parametrize("saved_bytes", [0, 150, 500])
def test_random_requests_keep_the_books_right(saved_bytes):
    """Every sequence has its own tokens, and the number of used cells is that of the memory, after any operation."""
    generator = random.Random(5)
    memory = Memory(200)
    cache = KVCache(memory, 200, 10, saved_bytes=saved_bytes)
    running = []
    for _ in range(3_000):
        if len(running) < 8 and generator.random() < 0.5:
            start = [generator.randrange(3)] * generator.choice((0, 10, 40))
            prompt = start + [generator.randrange(2) for _ in range(generator.choice((5, 20, 60)))]
            try:
                running.append((run(cache, memory, prompt)[0], prompt))
            except CacheFull:
                cache.drop(next(iter(cache._running.values()))) if not running else None
                for sequence in [each for each in cache._running.values() if all(each is not s for s, _ in running)]:
                    cache.drop(sequence)
        elif running:
            sequence, tokens = running.pop(generator.randrange(len(running)))
            if generator.random() < 0.2:
                cache.drop(sequence)
            else:
                cache.finish(sequence)
        for sequence, tokens in running:
            assert memory.tokens(sequence.id) == tokens == sequence.tokens.tolist()
        for sequence in cache._kept.values():
            assert memory.tokens(sequence.id) == sequence.tokens.tolist()
        assert cache.used == len(memory.cells)


class PositionMemory(Memory):
    """Cells with positions, by which they are copied and removed."""

    def copy(self, source, target, length):
        for cell in self.cells:
            if source in cell[1] and cell[2] < length:
                cell[1].add(target)

    def remove(self, sequence, start=0):
        for cell in self.cells:
            if cell[2] >= start:
                cell[1].discard(sequence)
        self.cells = [cell for cell in self.cells if cell[1]]

    def compute(self, sequence, tokens, positions=None):
        positions = positions or range(len(self.tokens(sequence)), 1_000)
        self.cells += [(token, {sequence}, position) for token, position in zip(tokens, positions, strict=False)]

    def save(self, sequence):
        return [(token, position) for token, owners, position in self.cells if sequence in owners]

    def restore(self, sequence, content):
        self.compute(sequence, *map(list, zip(*content, strict=True)))
        return True

    def tokens(self, sequence):
        return [token for token, owners, _ in self.cells if sequence in owners]


# An image of four embeddings that has two positions, between two tokens and three.
IMAGE_TOKENS, IMAGE_POSITIONS = [1, 2, -5, -6, -7, -8, 3, 4, 5], [0, 1, 2, 2, 2, 2, 4, 5, 6]


@pytest.mark.parametrize("is_saved", [False, True])
def test_images_with_fewer_positions_than_embeddings_are_shared_by_position(is_saved):
    memory = PositionMemory(1_000)
    cache = KVCache(memory, 100, 8, saved_bytes=1_000)
    tokens, positions = IMAGE_TOKENS * 6, [i + 7 * n for n in range(6) for i in IMAGE_POSITIONS]
    sequence = cache.start([*tokens, 9])
    memory.compute(sequence.id, tokens, positions)
    cache.advance(sequence, tokens, [*positions, 42])
    assert sequence.next_position == 42
    cache.finish(sequence)
    if is_saved:
        cache.reserve(60)
        assert not memory.cells
    # The second image of the last repetition is another one.
    prompt = [*tokens[:47], -15, -16, -17, -18, 3, 4]
    sequence = cache.start(prompt)
    assert (sequence.length, sequence.next_position) == (47, 37)
    assert memory.tokens(sequence.id) == tokens[:47]
    cache.drop(sequence)
    whole = cache.start([*tokens, 9])
    assert (whole.length, whole.next_position) == (54, 42)
    assert memory.tokens(whole.id) == tokens


def test_a_part_of_an_image_is_not_shared():
    memory = PositionMemory(1_000)
    cache = KVCache(memory, 100, 8)
    half = cache.start(IMAGE_TOKENS)
    memory.compute(half.id, IMAGE_TOKENS[:4], IMAGE_POSITIONS[:4])
    cache.advance(half, IMAGE_TOKENS[:4], [*IMAGE_POSITIONS[:4], 2])
    for _ in range(2):
        # First the other sequence is running, then it is kept.
        other = cache.start(IMAGE_TOKENS)
        assert (other.length, other.next_position) == (2, 2)
        assert memory.tokens(other.id) == IMAGE_TOKENS[:2]
        assert cache.known_prefix(IMAGE_TOKENS) == 2
        cache.drop(other)
        if half:
            assert cache.running_prefix(IMAGE_TOKENS) == 2
            cache.finish(half)
            half = None

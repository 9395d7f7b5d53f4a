"""The engine's loop, with a context that computes the next token from all tokens of a sequence."""

import threading
from multiprocessing.connection import Pipe
from types import MappingProxyType

import numpy as np
import pytest

from backends.common.llamacpp.context import NoSpace
from backends.common.llamacpp.media.assembly import Embeddings
from backends.generation.engine.ipc import Cancel, Failed, Generate, GenerateWithImages, Shutdown
from backends.generation.llamacpp.process import Engine

VOCABULARY, END = 50, 49


def next_token(tokens):
    """Return the token that the fake model finds most likely; it never ends by itself."""
    return (sum(tokens) * 7 + len(tokens)) % (VOCABULARY - 1)


def answer_to(prompt, count):
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(next_token(tokens))
    return tokens[len(prompt) :]


class FakeContext:
    """Stores the tokens of each sequence, and counts cells as llama.cpp does."""

    llama = vocabulary = None
    max_sequences = 20
    shares_prefixes = True
    end_tokens = np.array([END], np.int32)

    def __init__(self, cells=1_000):
        self.cells, self.stored, self.batches, self.failures = cells, [], [], 0
        self.may_decode = threading.Event()
        self.may_decode.set()
        self.adapters, self.adapter = {"double": None}, ""

    def tokens(self, sequence):
        return [token for token, owners in self.stored if sequence in owners]

    def decode(self, pieces):
        self.may_decode.wait(10)
        self.batches.append([len(piece.tokens) for piece in pieces])
        if self.adapter:
            # With the adapter, each token counts as the next higher one.
            pieces = [piece._replace(tokens=[token + 1 for token in piece.tokens]) for piece in pieces]
        if self.failures:
            self.failures -= 1
            raise RuntimeError("broken")
        if len(self.stored) + sum(len(piece.tokens) for piece in pieces) > self.cells:
            raise NoSpace
        rows = []
        for piece in pieces:
            assert len(self.tokens(piece.sequence)) == piece.position
            for index, token in enumerate(piece.tokens, 1):
                self.stored.append((token, {piece.sequence}))
                if index > len(piece.tokens) - piece.num_outputs:
                    row = np.zeros(VOCABULARY, np.float32)
                    row[next_token(self.tokens(piece.sequence))] = 9
                    rows.append(row)
        return np.array(rows)

    def use_adapter(self, name):
        self.adapter = name

    def decode_embeddings(self, sequence, values, positions, *, is_causal=True):
        """Store embeddings as tokens, whose number is their first value."""
        if values.shape[1] != 2:
            raise ValueError("wrong width")
        if len(self.stored) + len(values) > self.cells:
            raise NoSpace
        self.batches.append(("embeddings", len(values), positions.tolist(), is_causal))
        self.stored += [(int(value[0]), {sequence}) for value in values]

    def copy(self, source, target, length):
        for _, owners in [cell for cell in self.stored if source in cell[1]][:length]:
            owners.add(target)

    def remove(self, sequence, start=0):
        for _, owners in [cell for cell in self.stored if sequence in cell[1]][start:]:
            owners.discard(sequence)
        self.stored = [cell for cell in self.stored if cell[1]]

    def saved_size(self, sequence):
        return len(self.tokens(sequence))

    def save(self, sequence):
        return bytes(self.tokens(sequence))

    def restore(self, sequence, content):
        if len(self.stored) + len(content) > self.cells:
            return False
        self.stored += [(token, {sequence}) for token in content]
        return True


class NoTrials:
    is_busy = False
    results = MappingProxyType({})


@pytest.fixture
def start():
    """Return a function that starts an engine, and returns a client for it."""
    clients = []

    def open_client(context, **options):
        ours, theirs = Pipe()
        engine = Engine(context, theirs, NoTrials(), **{"slots": 8, "max_batch": 32, "saved_bytes": 10_000} | options)
        thread = threading.Thread(target=engine.run, daemon=True)
        thread.start()
        clients.append((ours, thread))
        return Client(ours)

    yield open_client
    for connection, thread in clients:
        connection.send(Shutdown())
        thread.join(5)
        assert not thread.is_alive()


class Client:
    def __init__(self, connection):
        self.connection, self.ids, self.scores = connection, 0, {}

    def send(self, prompt, embeddings=(), **parameters):
        self.ids += 1
        ids = np.array(prompt, np.int64).tobytes()
        parameters = {"temperature": 0, "max_tokens": 5} | parameters
        self.connection.send(Generate(self.ids, parameters.pop("client", "c"), ids, parameters, 500, embeddings))
        return self.ids

    def results(self, *ids):
        """Return the tokens, the finish reason or error, and the number of cached tokens of each request."""
        found = {id: [[], None, None] for id in ids}
        while not all(reason for _, reason, _ in found.values()):
            assert self.connection.poll(10)
            message = self.connection.recv()
            if isinstance(message, Failed):
                found[message.request_id][1] = message.message
                continue
            for new in message.new_tokens:
                found[new.request_id][0] += new.tokens
                found[new.request_id][1] = new.finish_reason
                self.scores.setdefault(new.request_id, []).extend(new.prompt_scores)
                if new.cached_tokens is not None:
                    found[new.request_id][2] = new.cached_tokens
        return [tuple(found[id]) for id in ids]


def test_requests_that_run_together_get_their_own_answers(start):
    client = start(FakeContext())
    prompts = [[i, i + 1, i + 2] * (i + 1) for i in range(12)]
    ids = [client.send(prompt, max_tokens=20) for prompt in prompts]
    for prompt, (tokens, reason, _) in zip(prompts, client.results(*ids), strict=True):
        assert (tokens, reason) == (answer_to(prompt, 20), "length")


def test_a_long_prompt_is_computed_in_pieces_beside_running_answers(start):
    context = FakeContext()
    context.may_decode.clear()
    client = start(context)
    short = client.send([1, 2], max_tokens=30)
    long = client.send(list(range(40)) * 3, max_tokens=2)
    context.may_decode.set()
    results = client.results(short, long)
    assert [tokens for tokens, _, _ in results] == [answer_to([1, 2], 30), answer_to(list(range(40)) * 3, 2)]
    assert max(map(sum, context.batches)) <= 32
    assert any(len(batch) == 2 and batch[0] == 1 and batch[1] > 1 for batch in context.batches)


@pytest.mark.parametrize("cells", [1_000, 150])
def test_each_token_of_a_prompt_is_scored_once(start, cells):
    client = start(FakeContext(cells=cells))
    prompts = [[i, *answer_to([i], 50)] for i in range(3)]  # the model finds each of these tokens most likely
    client.results(client.send(prompts[1], max_tokens=2))  # a cached prompt has no logits
    ids = [client.send(prompt, echo=True, logprobs=True, top_logprobs=1, max_tokens=20) for prompt in prompts]
    for id, prompt, (tokens, _, _) in zip(ids, prompts, client.results(*ids), strict=True):
        assert tokens == answer_to(prompt, 20)
        scores = client.scores[id]
        assert [score.token for score in scores] == prompt
        assert scores[0].logprob is None
        assert [score.top[0][0] for score in scores[1:]] == prompt[1:]
        assert all(score.logprob == score.top[0][1] for score in scores[1:])


def test_answers_end_at_an_end_token(start):
    context = FakeContext()
    context.end_tokens = np.array([next_token([1, 2])], np.int32)
    client = start(context)
    tokens, reason, _ = client.results(client.send([1, 2]))[0]
    assert (tokens, reason) == ([next_token([1, 2])], "stop")


def test_cached_tokens_are_those_that_were_not_computed(start):
    context = FakeContext()
    client = start(context)
    prompt = list(range(30))
    assert client.results(client.send(prompt, max_tokens=4))[0][2] == 0
    computed = sum(map(sum, context.batches))
    tokens, _, cached = client.results(client.send([*prompt[:20], 40, 41], max_tokens=4))[0]
    assert (tokens, cached) == (answer_to([*prompt[:20], 40, 41], 4), 20)
    assert sum(map(sum, context.batches)) - computed == 2 + 3


def test_equal_prompts_that_arrive_together_are_computed_once(start):
    context = FakeContext()
    client = start(context)
    prompt = list(range(48)) * 3
    context.may_decode.clear()
    ids = [client.send(prompt, max_tokens=3) for _ in range(3)]
    context.may_decode.set()
    assert [cached for _, _, cached in client.results(*ids)] == [0, len(prompt) - 1, len(prompt) - 1]


def test_requests_share_a_cache_that_is_too_small_for_all_of_them(start):
    client = start(FakeContext(cells=100), saved_bytes=0)
    prompts = [[i] * 10 for i in range(8)]
    ids = [client.send(prompt, max_tokens=60) for prompt in prompts]
    for prompt, (tokens, _, _) in zip(prompts, client.results(*ids), strict=True):
        assert tokens == answer_to(prompt, 60)


def test_a_request_that_does_not_fit_into_the_cache_fails_alone(start):
    client = start(FakeContext(cells=50))
    other = client.send([1, 2], max_tokens=10)
    (_, error, _), (tokens, _, _) = client.results(client.send([3] * 60), other)
    assert "does not fit into the model's KV cache" in error
    assert tokens == answer_to([1, 2], 10)
    assert "does not fit" in client.results(client.send([3] * 30, max_tokens=100))[0][1]


def test_a_cancelled_request_frees_its_slot(start):
    context = FakeContext()
    client = start(context, slots=1)
    endless = client.send([1], max_tokens=400)
    other = client.send([2], max_tokens=3)
    client.connection.send(Cancel(endless))
    while True:
        message = client.connection.recv()
        if any(new.request_id == other and new.finish_reason for new in message.new_tokens):
            break
    assert message.gauges.waiting == 0


def test_a_failed_step_fails_its_requests_and_no_others(start):
    context = FakeContext()
    context.failures = 1
    client = start(context)
    assert client.results(client.send([1, 2]))[0][1] == "The model failed on this request"
    assert client.results(client.send([1, 2]))[0][0] == answer_to([1, 2], 5)


def test_images_are_rejected(start):
    client = start(FakeContext())
    client.connection.send(GenerateWithImages(7, "c", "text", (), {}, 10))
    message = client.connection.recv()
    assert (message.request_id, message.is_client_error) == (7, True)


@pytest.mark.parametrize(
    "parameters",
    [{"temperature": None}, {"seed": None}, {"max_tokens": "5"}, {"top_k": float("inf")}, {"logit_bias": {"x": 1}}],
)
def test_a_request_with_parameters_of_wrong_types_fails_alone(start, parameters):
    client = start(FakeContext())
    other = client.send([1, 2], max_tokens=20)
    (_, error, _), (tokens, _, _) = client.results(client.send([3, 4], **parameters), other)
    assert error not in {"length", "stop"}
    assert tokens == answer_to([1, 2], 20)


def test_an_empty_prompt_fails_alone(start):
    client = start(FakeContext())
    (_, error, _), (tokens, _, _) = client.results(client.send([]), client.send([1]))
    assert error == "The prompt must not be empty, and must end with text"
    assert tokens == answer_to([1], 5)


def test_conversations_that_do_not_fit_into_the_cache_together_alternate(start):
    client = start(FakeContext(cells=100), saved_bytes=100)
    prompts = [[1] * 60, [2] * 60]
    for turn in range(3):
        for prompt in prompts:
            prompt += [turn + 3]
            assert client.results(client.send(prompt, max_tokens=4))[0][0] == answer_to(prompt, 4)


def embeddings(start, tokens, *, is_causal=True, width=2):
    """Return embeddings that the fake model reads as these tokens."""
    values = np.repeat(np.array(tokens, np.float32)[:, np.newaxis], width, axis=1)
    positions = np.arange(start, start + len(tokens), dtype=np.int32)[np.newaxis]
    return Embeddings(start, values, positions, start + len(tokens), is_causal)


class TestEmbeddings:
    def test_they_are_computed_in_place_of_their_tokens(self, start):
        context = FakeContext()
        client = start(context)
        ids = [1, 2, -7, -8, -9, 3, -5, 4, 6]
        first, second = embeddings(2, [11, 12, 13]), embeddings(6, [17])
        [(tokens, reason, cached)] = client.results(client.send(ids, (first, second)))
        assert (tokens, reason, cached) == (answer_to([1, 2, 11, 12, 13, 3, 17, 4, 6], 5), "length", 0)
        assert context.batches[:5] == [
            [2],
            ("embeddings", 3, [[2, 3, 4]], True),
            [1],
            ("embeddings", 1, [[6]], True),
            [1],
        ]

    def test_many_are_computed_in_parts_beside_running_answers(self, start):
        context = FakeContext()
        client = start(context, max_batch=32)
        running = client.send([1, 2, 3], max_tokens=200)
        assert client.connection.poll(10)
        long = [20 + i % 10 for i in range(80)]
        other = client.send([5, *range(-80, 0), 6], (embeddings(1, long),))
        results = client.results(running, other)
        assert results[0][0][-50:] == answer_to([1, 2, 3], 200)[-50:]
        assert results[1][:2] == (answer_to([5, *long, 6], 5), "length")
        parts = [batch for batch in context.batches if batch[0] == "embeddings"]
        assert [batch[1] for batch in parts] == [32, 32, 16]
        at = context.batches.index(parts[0])
        assert context.batches[at + 1 : at + 5 : 2] == [[1], [1]]  # the running answer goes on between the parts

    def test_those_that_attend_to_each_other_are_computed_at_once(self, start):
        context = FakeContext()
        client = start(context, max_batch=32)
        given = embeddings(1, [11] * 32, is_causal=False)
        [(tokens, _, _)] = client.results(client.send([5, *range(-32, 0), 6], (given,)))
        assert tokens == answer_to([5, *[11] * 32, 6], 5)
        assert ("embeddings", 32, [list(range(1, 33))], False) in context.batches
        too_many = embeddings(1, [11] * 33, is_causal=False)
        [(_, error, _)] = client.results(client.send([5, *range(-33, 0), 6], (too_many,)))
        assert "max_num_batched_tokens" in error

    def test_equal_ones_are_shared_and_others_are_not(self, start):
        client = start(FakeContext())
        ids = [1, 2, -7, -8, 3, 4]
        given = (embeddings(2, [11, 12]),)
        client.results(client.send(ids, given))
        [(tokens, _, cached)] = client.results(client.send([*ids, 5], given))
        assert (tokens, cached) == (answer_to([1, 2, 11, 12, 3, 4, 5], 5), 6)
        [(tokens, _, cached)] = client.results(client.send([1, 2, -9, -8, 3, 4], (embeddings(2, [21, 22]),)))
        assert (tokens, cached) == (answer_to([1, 2, 21, 22, 3, 4], 5), 2)

    def test_positions_after_an_image_with_rows_and_columns(self, start):
        context = FakeContext()
        seen = []
        decode = context.decode
        context.tokens = lambda sequence: [token for token, owners in context.stored if sequence in owners]
        context.decode = lambda pieces: (
            seen.extend(piece.position for piece in pieces)
            or decode([piece._replace(position=len(context.tokens(piece.sequence))) for piece in pieces])
        )
        client = start(context)
        given = embeddings(2, [11, 12, 13, 14])._replace(positions=np.full((4, 4), 2, np.int32), next_position=4)
        [(_, reason, _)] = client.results(client.send([1, 2, -6, -7, -8, -9, 3, 4], (given,), max_tokens=3))
        assert reason == "length"
        assert seen == [0, 4, 5, 6, 7]

    def test_wrong_ones_fail_alone(self, start):
        client = start(FakeContext())
        bad = client.send([1, -7, 3], (embeddings(1, [11], width=3),))
        good = client.send([1, 2, 3])
        (_, error, _), (tokens, _, _) = client.results(bad, good)
        assert error == "The model failed on this request"
        assert tokens == answer_to([1, 2, 3], 5)
        [(_, error, _)] = client.results(client.send([1, -7], (embeddings(1, [11]),)))
        assert "must end with text" in error

    def test_they_are_computed_again_after_a_pause_for_lack_of_cells(self, start):
        client = start(FakeContext(cells=100))
        prompts = [[i, -10 - i, -20 - i, 40 + i] for i in range(4)]
        ids = [
            client.send(prompt, (embeddings(1, [11 + i, 12]),), max_tokens=30, client=str(i))
            for i, prompt in enumerate(prompts)
        ]
        for i, (tokens, reason, _) in enumerate(client.results(*ids)):
            assert (tokens, reason) == (answer_to([i, 11 + i, 12, 40 + i], 30), "length")


class TestAdapters:
    @staticmethod
    def answer_to(prompt, count):
        """Return the answer of the fake model with its adapter."""
        tokens = [token + 1 for token in prompt]
        found = []
        for _ in range(count):
            found.append(next_token(tokens))
            tokens.append(found[-1] + 1)
        return found

    def test_requests_with_and_without_one_run_side_by_side(self, start):
        client = start(FakeContext())
        prompts = [[i, i + 1, i + 2] * (i + 1) for i in range(6)]
        plain = [client.send(prompt, max_tokens=20) for prompt in prompts]
        adapted = [client.send(prompt, max_tokens=20, adapter="double") for prompt in prompts]
        results = client.results(*plain, *adapted)
        for prompt, (tokens, _, _) in zip(prompts, results[:6], strict=True):
            assert tokens == answer_to(prompt, 20)
        for prompt, (tokens, _, _) in zip(prompts, results[6:], strict=True):
            assert tokens == self.answer_to(prompt, 20)

    def test_prompts_are_shared_only_with_the_same_adapter(self, start):
        client = start(FakeContext(), saved_bytes=0)
        prompt = list(range(1, 20))
        client.results(client.send(prompt))
        for cached in (0, 18):
            [(tokens, _, found)] = client.results(client.send(prompt, adapter="double"))
            assert (tokens, found) == (self.answer_to(prompt, 5), cached)

    def test_an_unknown_one_is_an_error(self, start):
        client = start(FakeContext())
        [(_, error, _)] = client.results(client.send([1, 2, 3], adapter="other"))
        assert error == "This model has no adapter 'other'"

"""Load balancing strategies: each chooses the Triton instance for a request."""

import math
import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, TypeVar

from xxhash import xxh64_intdigest

Reason = Literal["affinity", "load", "only"]

# With more candidates than this, least-connections compares two random ones. Each worker counts only its own requests,
# so several workers that compare all instances would send their requests to the same one.
_MAX_COMPARED = 8
_MAX_CREDITS = 1024
_ROUNDING = 1e-9
# The bound of consistent hashing: how far an instance may exceed its fair share of the requests in flight.
_HASH_BOUND = 1.25
# Prefix affinity yields to load if an instance has this many times the load of the least loaded instance, and also at
# least _MAX_IMBALANCE more requests (any instance) or over _SMALL_IMBALANCE more requests (the instance to be chosen).
_MAX_LOAD_RATIO = 1.5
_MAX_IMBALANCE = 64
_SMALL_IMBALANCE = 4
_MAX_BLOCKS = 65_536
_MAX_OWNERS = 32


class Candidate(Protocol):
    """An instance that a request may be sent to."""

    @property
    def id(self) -> str:
        """The unique ID of the instance."""
        ...

    @property
    def active(self) -> int:
        """The number of requests in flight to the instance."""
        ...

    @property
    def weight(self) -> float:
        """The weight, above 0, already reduced during slow start."""
        ...


C = TypeVar("C", bound=Candidate)


@dataclass(frozen=True)
class Key:
    """The properties of a request that strategies with affinity use."""

    client: str = ""
    """The client's address."""
    cache_key: str = ""
    """The request's `prompt_cache_key`."""
    blocks: tuple[int, ...] = ()
    """Chained hashes of the prompt's blocks: equal hashes mean that the prompts are equal up to and in that block."""
    conversation: int = 0
    """A hash of the prompt up to the end of its first user message, or 0."""


class Balancer(Protocol):
    """A load balancing strategy. Its methods do not wait, so greenlets need no lock."""

    @property
    def name(self) -> str:
        """The name of the strategy in the configuration."""
        ...

    def choose(self, candidates: Sequence[C], key: Key) -> tuple[C, Reason]:
        """Return one of the candidates, and the reason. There must be at least one.

        The reason is `only` if there is one candidate, `affinity` if the key decided, and otherwise `load`.
        """
        ...


class RandomChoice:
    """Chooses at random, in proportion to the weights."""

    name: ClassVar[str] = "random"

    def choose(self, candidates: Sequence[C], key: Key) -> tuple[C, Reason]:
        if len(candidates) == 1:
            return candidates[0], "only"
        return random.choices(candidates, [c.weight for c in candidates])[0], "load"  # noqa: S311


class RoundRobin:
    """Chooses in turn, in proportion to the weights."""

    name: ClassVar[str] = "round-robin"

    def __init__(self) -> None:
        self._rotation = _Rotation()

    def choose(self, candidates: Sequence[C], key: Key) -> tuple[C, Reason]:
        if len(candidates) == 1:
            return candidates[0], "only"
        return self._rotation.next(candidates), "load"


class LeastConnections:
    """Chooses the instance with the fewest requests in flight per weight.

    Instances with equally many take turns, in proportion to the weights. Of more than 8 instances, only two random ones
    are compared.
    """

    name: ClassVar[str] = "least-connections"

    def __init__(self) -> None:
        self._rotation = _Rotation()

    def choose(self, candidates: Sequence[C], key: Key) -> tuple[C, Reason]:
        if len(candidates) == 1:
            return candidates[0], "only"
        if len(candidates) > _MAX_COMPARED:
            return _better_of_two(candidates), "load"
        loads = [c.active / c.weight for c in candidates]
        least = min(loads)
        tied = [c for c, load in zip(candidates, loads, strict=True) if load == least]
        return tied[0] if len(tied) == 1 else self._rotation.next(tied), "load"


class IPHash:
    """Sends a client's requests to the same instance, unless that is overloaded."""

    name: ClassVar[str] = "ip-hash"

    def choose(self, candidates: Sequence[C], key: Key) -> tuple[C, Reason]:
        if len(candidates) == 1:
            return candidates[0], "only"
        return _rendezvous(candidates, _hash(key.client))


class ConsistentHash:
    """Sends requests with the same `prompt_cache_key` to the same instance, unless that is overloaded.

    Requests without one are sent to the same instance per client.
    """

    name: ClassVar[str] = "consistent-hash"

    def choose(self, candidates: Sequence[C], key: Key) -> tuple[C, Reason]:
        if len(candidates) == 1:
            return candidates[0], "only"
        return _rendezvous(candidates, _hash(key.cache_key or key.client))


class PrefixAffinity:
    """Sends a request to the instance that probably has the most of its prompt cached, unless that is overloaded.

    Uses the `prompt_cache_key` of requests that have one, and otherwise the prompt's blocks. Records which instances
    have seen which of the last 65,536 blocks. Removed instances are evicted with their blocks.
    """

    name: ClassVar[str] = "prefix-affinity"

    def __init__(self) -> None:
        self._seen_by: OrderedDict[int, tuple[str, ...]] = OrderedDict()  # the least recently used first
        self._least_connections = LeastConnections()

    def choose(self, candidates: Sequence[C], key: Key) -> tuple[C, Reason]:
        parts = (*key.blocks, key.conversation) if key.conversation else key.blocks
        chosen, reason = self._choose(candidates, key, parts)
        self._record(parts, chosen.id)
        return chosen, reason

    def _choose(self, candidates: Sequence[C], key: Key, parts: Sequence[int]) -> tuple[C, Reason]:
        if len(candidates) == 1:
            return candidates[0], "only"
        # Loads are in requests of an instance of average weight.
        average = sum(c.weight for c in candidates) / len(candidates)
        loads = [c.active * average / c.weight for c in candidates]
        least, most = min(loads), max(loads)
        if most - least >= _MAX_IMBALANCE and most >= _MAX_LOAD_RATIO * least:
            return self._least_connections.choose(candidates, key)
        if key.cache_key:
            chosen, reason = _rendezvous(candidates, _hash(key.cache_key))
        elif parts:
            chosen, reason = self._best_match(candidates, loads, key, parts)
        else:
            return self._least_connections.choose(candidates, key)

        def fits(candidate: C) -> bool:
            load = (candidate.active + 1) * average / candidate.weight
            return load <= max(_MAX_LOAD_RATIO * least, least + _SMALL_IMBALANCE)

        if fits(chosen):
            return chosen, reason
        return self._least_connections.choose([c for c in candidates if fits(c)] or candidates, key)[0], "load"

    def _best_match(
        self, candidates: Sequence[C], loads: Sequence[float], key: Key, parts: Sequence[int]
    ) -> tuple[C, Reason]:
        """Return the candidate with the best score: the part of the prompt that it has seen, minus its relative load.

        A prefix that all candidates have seen does not count. If that leaves nothing, the start of the conversation
        determines the candidate, so that all workers choose the same one.
        """
        matched = self._matched(candidates, key)
        shared, longest = min(matched), max(matched)
        start = key.conversation or key.blocks[0]
        if shared == longest:
            return _rendezvous(candidates, start)
        mean = sum(loads) / len(loads)
        # Below a mean of 4, relative loads are meaningless: one request would outweigh the longest match.
        scale = max(mean, _SMALL_IMBALANCE)
        scores = [
            (count - shared) / (len(parts) - shared) - (load - mean) / scale
            for count, load in zip(matched, loads, strict=True)
        ]
        best = max(scores)
        tied = [i for i, score in enumerate(scores) if score == best]
        chosen = tied[0] if len(tied) == 1 else min(tied, key=lambda i: _distance(candidates[i], start))
        return candidates[chosen], "affinity" if matched[chosen] == longest else "load"

    def _matched(self, candidates: Sequence[Candidate], key: Key) -> list[int]:
        """Return for each candidate how many blocks it has seen, plus 1 if it has seen the conversation."""
        matched = dict.fromkeys((c.id for c in candidates), 0)
        matching, owners = set(matched), None
        for count, block in enumerate(key.blocks):
            previous, owners = owners, self._seen_by.get(block, ())
            if owners != previous:
                lost = matching.difference(owners)
                matched.update(dict.fromkeys(lost, count))
                matching -= lost
                if not matching:
                    break
        matched.update(dict.fromkeys(matching, len(key.blocks)))
        for owner in self._seen_by.get(key.conversation, ()):
            if owner in matched:
                matched[owner] += 1
        return list(matched.values())

    def _record(self, parts: Sequence[int], id: str) -> None:
        """Record that an instance has seen the parts of a prompt."""
        seen_by, only = self._seen_by, (id,)
        for part in reversed(parts):  # so that the end of a prompt is evicted before its start
            owners = seen_by.get(part)
            if owners is None:
                seen_by[part] = only
                continue
            seen_by.move_to_end(part)
            if id not in owners:
                seen_by[part] = (*owners, id)[-_MAX_OWNERS:]
        while len(seen_by) > _MAX_BLOCKS:
            seen_by.popitem(last=False)


class _Rotation:
    """Smooth weighted round robin, as in nginx: the turns of a candidate with a high weight are spread evenly.

    Each turn is divided among the candidates by weight, as credit. The candidate with the most credit is chosen, and
    loses one turn. Unlike in nginx, credit is in turns, so it stays fair when the candidates or weights change.
    """

    def __init__(self) -> None:
        self._credits: dict[str, float] = {}

    def next(self, candidates: Sequence[C]) -> C:
        """Return the candidate whose turn it is. Absent candidates keep their credit."""
        credits = self._credits
        weights = [c.weight for c in candidates]
        total = sum(weights)
        chosen, most = candidates[0], -math.inf
        for candidate, weight in zip(candidates, weights, strict=True):
            credit = credits[candidate.id] = credits.get(candidate.id, 0.0) + weight / total
            if credit > most + _ROUNDING:
                chosen, most = candidate, credit
        credits[chosen.id] -= 1
        if len(credits) > _MAX_CREDITS:
            self._credits = {c.id: credits[c.id] for c in candidates}
        return chosen


def _better_of_two(candidates: Sequence[C]) -> C:
    """Return the less loaded of two random candidates, drawn in proportion to the weights."""
    weights = [c.weight for c in candidates]
    first = random.choices(range(len(weights)), weights)[0]  # noqa: S311
    a = candidates[first]
    weights[first] = 0.0
    b = random.choices(candidates, weights)[0]  # noqa: S311
    return b if b.active / b.weight < a.active / a.weight else a


def _rendezvous(candidates: Sequence[C], key: int) -> tuple[C, Reason]:
    """Return the candidate nearest to the key that is not overloaded. If a candidate disappears, only its keys move.

    A candidate is overloaded if the request would put it above 1.25 times its fair share of all requests in flight,
    rounded up. These limits add up to more than all requests, so at least one candidate is not overloaded.
    """
    share = _HASH_BOUND * (sum(c.active for c in candidates) + 1) / sum(c.weight for c in candidates)
    distances = [_distance(c, key) for c in candidates]
    preferred = distances.index(min(distances))
    if candidates[preferred].active < math.ceil(share * candidates[preferred].weight):
        return candidates[preferred], "affinity"
    free = [i for i, c in enumerate(candidates) if c.active < math.ceil(share * c.weight)]
    return candidates[min(free, key=distances.__getitem__)], "load"


def _hash(text: str) -> int:
    return xxh64_intdigest(text.encode())  # not hash(), whose results differ between workers


def _distance(candidate: Candidate, key: int) -> float:
    """Return a number that depends only on the candidate and the key.

    It is exponentially distributed with the weight as its rate. Therefore the probability that a candidate has the
    smallest number is proportional to its weight, and raising a weight moves keys only to that candidate.
    """
    return -math.log((xxh64_intdigest(candidate.id.encode(), key) + 1) / 2**64) / candidate.weight


STRATEGIES: dict[str, Callable[[], Balancer]] = {
    strategy.name: strategy
    for strategy in (RandomChoice, RoundRobin, LeastConnections, IPHash, ConsistentHash, PrefixAffinity)
}
"""The strategies by their names in the configuration."""


def normal_strategy(name: str) -> str:
    """Return the name of a strategy as in STRATEGIES, for names with underscores or in upper case."""
    return name.strip().lower().replace("_", "-")


def make_balancer(name: str) -> Balancer:
    """Return a new balancer with the strategy `name`. Raises ValueError if the strategy is unknown."""
    try:
        return STRATEGIES[normal_strategy(name)]()
    except KeyError:
        raise ValueError(f"Unknown load balancing strategy '{name}'; use one of {', '.join(STRATEGIES)}") from None

"""The load balancing strategies: shares, affinity, and their limits on load and memory."""

import math
import pickle
import random
from collections import Counter
from dataclasses import dataclass

import pytest

from frontend.triton import balancer as balancer_module
from frontend.triton.balancer import STRATEGIES, Key, make_balancer, normal_strategy


@dataclass
class Instance:
    id: str
    weight: float = 1.0
    active: int = 0


def instances(*weights):
    return [Instance("abcdefghijklmnopqrst"[index], weight) for index, weight in enumerate(weights)]


def choices(balancer, candidates, keys):
    return [balancer.choose(candidates, key)[0].id for key in keys]


@pytest.fixture(autouse=True)
def _seed():
    random.seed(1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("ROUND_ROBIN", "round-robin"), ("round_robin", "round-robin"), ("Least-Connections", "least-connections")],
)
def test_names_are_accepted_with_underscores_and_in_upper_case(name, expected):
    assert normal_strategy(name) == expected
    assert make_balancer(name).name == expected


def test_all_strategies_can_be_made_by_name():
    expected = {"random", "round-robin", "least-connections", "ip-hash", "consistent-hash", "prefix-affinity"}
    assert {make_balancer(name).name for name in STRATEGIES} == set(STRATEGIES) == expected


def test_unknown_strategies_are_rejected_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'failover'.*random, round-robin"):
        make_balancer("failover")


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_only_candidate_is_chosen_for_that_reason(name):
    candidate = Instance("a", active=1000)
    key = Key("10.0.0.1", blocks=(1, 2), conversation=3)
    assert make_balancer(name).choose([candidate], key) == (candidate, "only")


@pytest.mark.parametrize("name", STRATEGIES)
def test_shares_follow_the_weights_at_no_load(name):
    candidates, balancer = instances(4, 2, 1, 1), make_balancer(name)
    keys = [Key(f"10.0.{i >> 8}.{i & 255}", blocks=(i + 1, -i), conversation=i + 1) for i in range(8000)]
    counts = Counter(choices(balancer, candidates, keys))
    assert [counts[c.id] for c in candidates] == pytest.approx([4000, 2000, 1000, 1000], rel=0.1)


def test_round_robin_is_the_documented_example_of_nginx():
    assert "".join(choices(make_balancer("round-robin"), instances(5, 1, 1), [Key()] * 14)) == "aabacaa" * 2


def test_round_robin_of_equal_weights_keeps_the_order_of_the_candidates():
    assert "".join(choices(make_balancer("round-robin"), instances(*[0.3] * 7), [Key()] * 7000)) == "abcdefg" * 1000


def test_round_robin_keeps_the_order_when_the_set_changes():
    a, b, _ = candidates = instances(1, 1, 1)
    balancer = make_balancer("round-robin")
    assert choices(balancer, candidates, [Key()]) == ["a"]
    assert choices(balancer, [a, b], [Key()]) == ["b"]  # c is absent, but its turn is not lost
    assert choices(balancer, candidates, [Key()]) == ["c"]
    counts = Counter(choices(balancer, [*candidates, Instance("new")], [Key()] * 400))
    assert set(counts.values()) <= {99, 100, 101}


def test_round_robin_is_fair_while_candidates_come_and_go():
    rng, candidates, balancer = random.Random(1), instances(1, 1, 1, 1), make_balancer("round-robin")
    expected, counts = Counter(), Counter()
    for _ in range(4000):
        present = rng.sample(candidates, rng.randint(2, 4))
        for c in present:
            expected[c.id] += 1 / len(present)
        counts[balancer.choose(present, Key())[0].id] += 1
    assert all(abs(counts[c.id] - expected[c.id]) < 2 for c in candidates)


def test_round_robin_follows_reduced_weights_at_once():
    candidates, balancer = instances(100, 100), make_balancer("round-robin")
    choices(balancer, candidates, [Key()])
    for candidate in candidates:
        candidate.weight = 1
    assert Counter(choices(balancer, candidates, [Key()] * 20))["a"] in (9, 10, 11)


def test_least_connections_chooses_the_least_per_weight():
    rng, balancer = random.Random(1), make_balancer("least-connections")
    for _ in range(1000):
        candidates = instances(*(rng.choice((0.5, 1, 2, 3)) for _ in range(rng.randint(2, 8))))
        for c in candidates:
            c.active = rng.randrange(20)
        chosen, reason = balancer.choose(candidates, Key())
        assert reason == "load"
        assert all(chosen.active * c.weight <= c.active * chosen.weight for c in candidates)


def simulate(balancer, candidates, keys, in_flight, rng):
    """Keep `in_flight` requests in progress, and let random ones end. Yields each choice before it is counted."""
    active = []
    for key in keys:
        chosen, reason = balancer.choose(candidates, key)
        yield key, chosen, reason
        chosen.active += 1
        active.append(chosen)
        if len(active) > in_flight:
            active.pop(rng.randrange(len(active))).active -= 1


@pytest.mark.parametrize("weights", [(2, 1, 1), (1,) * 12, (2,) * 6 + (1,) * 6])
def test_least_connections_keeps_the_load_even(weights):
    candidates, balancer = instances(*weights), make_balancer("least-connections")
    in_flight, peak = 20 * len(weights), 0.0
    for _ in simulate(balancer, candidates, [Key()] * 4000, in_flight, random.Random(1)):
        peak = max(peak, *(c.active / c.weight for c in candidates))
    fair = in_flight / sum(weights)
    assert peak < fair * 1.3  # random choices reach about 1.8 times the fair share


def test_two_random_choices_never_take_the_worst_of_all():
    candidates, balancer = instances(*[1] * 9), make_balancer("least-connections")
    for active, c in enumerate(candidates):
        c.active = active
    counts = Counter(choices(balancer, candidates, [Key()] * 3600))
    assert counts["i"] == 0
    # Of the 36 pairs, the first is the better one in 8, the next in 7 and so on.
    assert [counts[c.id] for c in candidates] == pytest.approx([800, 700, 600, 500, 400, 300, 200, 100, 0], abs=60)


@pytest.mark.parametrize("name", ["ip-hash", "consistent-hash", "prefix-affinity"])
def test_hashing_is_weighted_and_moves_only_the_keys_of_a_removed_candidate(name):
    candidates = instances(2, 1, 1, 1)
    keys = [Key(f"client {i}", conversation=i + 1) for i in range(5000)]
    before = choices(make_balancer(name), candidates, keys)
    counts = Counter(before)
    assert [counts[c.id] for c in candidates] == pytest.approx([2000, 1000, 1000, 1000], rel=0.1)
    for removed in candidates:
        after = choices(make_balancer(name), [c for c in candidates if c is not removed], keys)
        assert all(old in (new, removed.id) for old, new in zip(before, after, strict=True))
    candidates[1].weight = 2
    after = choices(make_balancer(name), candidates, keys)
    assert all(new in (old, "b") for old, new in zip(before, after, strict=True))


def test_hashing_does_not_depend_on_the_process():
    candidates = instances(1, 1, 1, 1)
    assert "".join(choices(make_balancer("ip-hash"), candidates, [Key(f"10.0.0.{i}") for i in range(12)])) == PINNED


PINNED = "ccccccadbcba"


def test_consistent_hash_uses_the_cache_key_before_the_client():
    candidates, balancer = instances(1, 1, 1, 1), make_balancer("consistent-hash")
    assert len(set(choices(balancer, candidates, [Key(f"{i}", "session") for i in range(50)]))) == 1
    assert len(set(choices(balancer, candidates, [Key("10.0.0.1", f"{i}") for i in range(50)]))) == 4
    assert len(set(choices(balancer, candidates, [Key(f"{i}") for i in range(50)]))) == 4


@pytest.mark.parametrize("name", ["ip-hash", "consistent-hash"])
@pytest.mark.parametrize("weights", [(1, 1), (2, 1, 1), (1,) * 12])
def test_a_single_client_stays_within_the_bound(name, weights):
    candidates, balancer, reasons = instances(*weights), make_balancer(name), Counter()
    for _, chosen, reason in simulate(balancer, candidates, [Key("10.0.0.1")] * 2000, 60, random.Random(1)):
        total = sum(c.active for c in candidates) + 1
        assert chosen.active + 1 <= math.ceil(1.25 * total * chosen.weight / sum(weights))
        reasons[reason] += 1
    assert reasons["affinity"] > 20
    assert reasons["load"] > 100


@pytest.mark.parametrize(("active", "expected"), [(12, "affinity"), (13, "load")])
def test_the_bound_is_a_quarter_over_the_fair_share(active, expected):
    candidates, balancer = instances(1, 1, 1, 1), make_balancer("ip-hash")
    first = balancer.choose(candidates, Key("client"))[0]
    first.active = active
    others = [c for c in candidates if c is not first]
    others[0].active = 39 - active  # with the request, 40 are in flight: the fair share is 10, the bound 12.5
    assert balancer.choose(candidates, Key("client"))[1] == expected


def test_a_candidate_over_the_bound_is_passed_over_to_the_next_in_order():
    candidates, balancer = instances(1, 1, 1, 1), make_balancer("ip-hash")
    for i in range(200):
        key = Key(f"client {i}")
        first = balancer.choose(candidates, key)[0]
        second = balancer.choose([c for c in candidates if c is not first], key)[0]
        first.active = 3
        assert balancer.choose(candidates, key) == (second, "load")
        first.active = 0


def conversation(system, name, turns):
    """Return the key of a conversation's n-th turn: a shared prefix and two blocks for each turn."""
    own = [hash((system, name, i)) | 1 for i in range(2 * turns)]
    return Key(name, blocks=tuple(hash((system, i)) | 1 for i in range(8)) + tuple(own), conversation=hash(name) | 1)


@pytest.mark.parametrize("shared", [True, False])
def test_conversations_stay_where_they_were(shared):
    candidates, balancer = instances(1, 1, 1), make_balancer("prefix-affinity")
    place, stayed, total = {}, 0, 0
    keys = [conversation("system" if shared else i, f"{i}", turn) for turn in range(1, 9) for i in range(60)]
    for key, chosen, _ in simulate(balancer, candidates, keys, 24, random.Random(1)):
        if key.client in place:
            total += 1
            stayed += place[key.client] is chosen
        place[key.client] = chosen
    assert stayed / total > 0.75  # at random, a third would stay
    counts = Counter(c.id for c in place.values())
    assert min(counts[c.id] for c in candidates) > 10


def test_conversations_stay_at_no_load_when_an_instance_is_added():
    candidates, balancer = instances(1, 1), make_balancer("prefix-affinity")
    before = choices(balancer, candidates, [conversation(i, f"{i}", 1) for i in range(40)])
    assert set(before) == {"a", "b"}
    candidates.append(Instance("c"))
    again = [balancer.choose(candidates, conversation(i, f"{i}", 2)) for i in range(40)]
    assert [(c.id, reason) for c, reason in again] == [(id, "affinity") for id in before]
    new = choices(balancer, candidates, [conversation(i, f"{i}", 1) for i in range(100, 140)])
    assert "c" in new


def test_the_longest_match_wins_over_shorter_ones():
    candidates, balancer = instances(1, 1, 1), make_balancer("prefix-affinity")
    a, b, _ = candidates
    balancer.choose([a], Key(blocks=(1, 2, 3, 4, 5)))
    balancer.choose([b], Key(blocks=(1, 2, 9)))
    assert balancer.choose(candidates, Key(blocks=(1, 2, 3, 4, 6))) == (a, "affinity")
    assert balancer.choose(candidates, Key(blocks=(1, 2, 9, 8))) == (b, "affinity")


@pytest.mark.parametrize("weight", [0.01, 1, 100])
@pytest.mark.parametrize(("matched", "busier"), [(4, 1), (8, 3), (12, 5)])
def test_the_load_outweighs_a_match_at_the_documented_score(matched, busier, weight):
    """At a mean of m ≥ 4 requests, d more on the one that has the prefix cost d ÷ m."""
    blocks = tuple(range(1, 17))
    for difference in (busier - 1, busier + 1):
        a, b, c = candidates = instances(*[weight] * 3)
        a.active = b.active = c.active = 12
        a.active += difference
        b.active -= difference
        balancer = make_balancer("prefix-affinity")
        balancer.choose([a], Key(blocks=blocks[:matched]))
        expected = matched / 16 - difference / 12 > difference / 12
        chosen, reason = balancer.choose(candidates, Key(blocks=blocks))
        fits = a.active + 1 <= max(1.5 * b.active, b.active + 4)
        assert (chosen is a) == (expected and fits)
        assert reason == ("affinity" if chosen is a else "load")


def test_a_few_requests_do_not_move_a_conversation():
    a, b = candidates = instances(1, 1)
    balancer = make_balancer("prefix-affinity")
    key = Key(blocks=(1, 2), conversation=3)
    balancer.choose([a], key)
    moved = []
    for a.active in range(7):
        fresh = make_balancer("prefix-affinity")
        fresh.choose([a], key)
        moved.append(fresh.choose(candidates, key)[0] is b)
    assert moved == [False] * 4 + [True] * 3


def test_a_strong_imbalance_turns_affinity_off():
    a, b, c = candidates = instances(1, 1, 1)
    key = Key(blocks=(1, 2, 3))
    a.active = b.active = 100
    for c.active, expected in ((163, (b, "affinity")), (164, (a, "load"))):
        b.active = 101
        balancer = make_balancer("prefix-affinity")
        balancer.choose([b], key)
        assert balancer.choose(candidates, key) == expected


@pytest.mark.parametrize("name", ["same cache key", "same prompt", "same prefix"])
@pytest.mark.parametrize("weights", [(1, 1), (1, 1, 1, 1), (2, 1, 1), (100, 100), (1,) * 12])
@pytest.mark.parametrize("in_flight", [6, 60, 300])
def test_one_popular_prefix_does_not_overload_an_instance(name, weights, in_flight):
    candidates, balancer, reasons = instances(*weights), make_balancer("prefix-affinity"), Counter()
    keys = [
        Key("", "agent") if name == "same cache key" else conversation("s", "q" if name == "same prompt" else f"{i}", 1)
        for i in range(1000)
    ]
    average = sum(weights) / len(weights)
    for _, chosen, reason in simulate(balancer, candidates, keys, in_flight, random.Random(1)):
        least = min(c.active * average / c.weight for c in candidates)
        load = (chosen.active + 1) * average / chosen.weight
        assert load <= max(1.5 * least, least + 4)
        reasons[reason] += 1
    assert reasons["affinity"] > 0


def test_requests_with_the_same_cache_key_stay_together_whatever_their_prompt():
    candidates, balancer = instances(1, 1, 1, 1), make_balancer("prefix-affinity")
    for i in range(20):
        chosen = {balancer.choose(candidates, Key("", f"session {i}", blocks=(j,)))[0].id for j in range(1, 30)}
        assert len(chosen) == 1
    assert len({balancer.choose(candidates, Key("", f"session {i}"))[0].id for i in range(40)}) == 4


def test_workers_agree_without_talking_even_if_all_prompts_share_a_prefix():
    candidates, first, second = instances(1, 1, 1, 1), *(make_balancer("prefix-affinity") for _ in range(2))
    for balancer in (first, second):
        for candidate in candidates:
            balancer.choose([candidate], conversation("system", f"popular at {candidate.id}", 1))
    turn1 = choices(first, candidates, [conversation("system", f"{i}", 1) for i in range(200)])
    turn2 = choices(second, candidates, [conversation("system", f"{i}", 2) for i in range(200)])
    assert turn1 == turn2
    counts = Counter(turn1)
    assert min(counts[c.id] for c in candidates) > 30


def test_new_conversations_spread_over_the_instances_that_have_their_prefix():
    a, b, _ = candidates = instances(1, 1, 1)
    balancer = make_balancer("prefix-affinity")
    for candidate in (a, b):
        balancer.choose([candidate], conversation("system", f"first at {candidate.id}", 1))
    counts = Counter(choices(balancer, candidates, [conversation("system", f"{i}", 1) for i in range(100)]))
    assert counts["a"] > 30
    assert counts["b"] > 30
    assert counts["c"] == 0


def test_a_long_prefix_that_all_instances_have_does_not_hide_the_rest():
    a, b = candidates = instances(1, 1)
    balancer, system = make_balancer("prefix-affinity"), tuple(range(1, 65))
    balancer.choose([a], Key(blocks=system, conversation=1000))
    balancer.choose([b], Key(blocks=system, conversation=2000))
    a.active = 2
    assert balancer.choose(candidates, Key(blocks=system, conversation=1000)) == (a, "affinity")


def test_a_request_without_a_prompt_is_balanced_by_load():
    candidates = instances(1, 1)
    candidates[0].active = 1
    assert make_balancer("prefix-affinity").choose(candidates, Key("10.0.0.1")) == (candidates[1], "load")


@pytest.mark.parametrize("name", STRATEGIES)
def test_memory_is_bounded(name, monkeypatch):
    monkeypatch.setattr(balancer_module, "_MAX_BLOCKS", 4000)
    balancer, sizes = make_balancer(name), []
    for i in range(16_000):  # instances come and go, as do clients, cache keys and prompts
        key = Key(f"client {i}", f"{i}" * (i % 2), (2**62 + i, 7), 2**63 + i)
        balancer.choose([Instance(f"{i:06}"), Instance(f"{i // 100:06}")], key)
        if i % 8_000 == 7_999:
            sizes.append(len(pickle.dumps(balancer)))
    assert sizes[1] < 1.2 * sizes[0]


def test_100_000_conversations_fit_into_the_table():
    balancer, candidates = make_balancer("prefix-affinity"), instances(1, 1)
    for i in range(1, 100_001):
        balancer.choose(candidates, Key(f"client {i}", conversation=i))
    assert list(balancer._seen_by) == list(range(100_001 - 65_536, 100_001))


def test_a_prompt_is_evicted_from_its_end(monkeypatch):
    monkeypatch.setattr(balancer_module, "_MAX_BLOCKS", 10)
    a, b = candidates = instances(1, 1)
    balancer = make_balancer("prefix-affinity")
    balancer.choose([a], Key(blocks=tuple(range(1, 9))))
    balancer.choose([b], Key(blocks=tuple(range(101, 107))))
    assert sorted(balancer._seen_by) == [1, 2, 3, 4, *range(101, 107)]
    assert balancer.choose(candidates, Key(blocks=(1, 2))) == (a, "affinity")
    balancer.choose([b], Key(blocks=tuple(range(201, 209))))
    assert {1, 2} < set(balancer._seen_by)  # they were used last

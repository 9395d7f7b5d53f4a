"""The engine's queue: slots are shared fairly between clients."""

from typing import NamedTuple

from backends.generation.engine.fair_queue import FairQueue


class Request(NamedTuple):
    request_id: int
    client: str


def queue_of(slots, *waiting):
    queue = FairQueue[Request](slots)
    for request_id, client in enumerate(waiting):
        queue.add(Request(request_id, client))
    return queue


def all_taken(queue):
    return [request.request_id for request in iter(queue.next, None)]


def test_one_client_is_served_in_order_and_leaves_a_slot_free():
    queue = queue_of(8, *"a" * 10)
    assert all_taken(queue) == [0, 1, 2, 3, 4, 5, 6]
    assert len(queue) == 3
    queue.remove(3)
    assert all_taken(queue) == [7]


def test_a_second_client_gets_the_free_slot_and_the_next_released_slot():
    queue = queue_of(8, *"a" * 10)
    all_taken(queue)
    queue.add(Request(10, "b"))
    assert all_taken(queue) == [10]
    queue.add(Request(11, "b"))
    queue.remove(0)
    assert all_taken(queue) == [11]


def test_the_client_with_the_fewest_slots_is_next():
    queue = queue_of(6, "a", "a", "a", "b", "a", "b", "c")
    assert all_taken(queue) == [0, 3, 6, 1, 5, 2]


def test_one_client_may_hold_the_only_slot():
    queue = queue_of(1, "a", "a")
    assert all_taken(queue) == [0]
    queue.remove(0)
    assert all_taken(queue) == [1]


def test_a_removed_request_neither_waits_nor_holds_a_slot():
    queue = queue_of(1, "a", "a", "a")
    all_taken(queue)
    queue.remove(1)
    queue.remove(0)
    assert all_taken(queue) == [2]
    queue.remove(2)
    assert all_taken(queue) == []

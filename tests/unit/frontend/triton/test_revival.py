"""Models that are loaded again: by one frontend at a time, also on several machines."""

import threading

import pytest

from frontend.instance_config import TritonAddress
from frontend.settings import Settings
from frontend.triton.revival import Reviver
from tests.support.redis_server import redis_server

ADDRESS = TritonAddress("10.0.0.1", 8000, 8001, 8002)


class SlowTriton:
    """A Triton whose loads last until they are allowed to end."""

    def __init__(self):
        self.calls, self.loading, self.may_end = [], threading.Event(), threading.Event()

    def unload(self, model, timeout):
        self.calls.append(("unload", model))

    def load(self, model, timeout):
        self.calls.append(("load", model))
        self.loading.set()
        assert self.may_end.wait(10)


@pytest.fixture
def revive_twice(tmp_path):
    """Return a function that lets two machines revive a model at the same time, and returns what the second one did."""

    def run(**settings):
        first, second = SlowTriton(), SlowTriton()
        second.may_end.set()
        revivers = [
            Reviver(Settings(cache=tmp_path / name, **settings), ADDRESS, triton)
            for name, triton in (("a", first), ("b", second))
        ]
        thread = threading.Thread(target=revivers[0].revive, args=("chat",))
        thread.start()
        assert first.loading.wait(10)
        revivers[1].revive("chat")
        during = list(second.calls)
        first.may_end.set()
        thread.join(10)
        revivers[1].revive("chat")
        assert first.calls == [("unload", "chat"), ("load", "chat")]
        assert second.calls[-2:] == [("unload", "chat"), ("load", "chat")]  # the lock is free again
        return during

    return run


def test_frontends_of_several_machines_agree_in_redis(revive_twice):
    with redis_server() as server:
        assert revive_twice(redis_url=server.url) == []


@pytest.mark.parametrize("settings", [{}, {"redis_url": "redis://127.0.0.1:1/0"}], ids=["none", "lost"])
def test_without_redis_a_model_is_revived_all_the_same(revive_twice, settings):
    assert revive_twice(**settings) == [("unload", "chat"), ("load", "chat")]

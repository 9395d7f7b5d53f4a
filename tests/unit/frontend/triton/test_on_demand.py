"""Models are loaded when they are first requested, and unloaded when they are idle or stand in the way of others."""

import json
import os
import threading
import time

import pytest

from frontend.errors import EngineFailure, Unavailable
from frontend.settings import Settings
from frontend.triton.client import ModelState
from frontend.triton.on_demand import OnDemand
from frontend.triton.registry import Registry

CONFIG = """
backend: "encoder"
input { name: "text" data_type: TYPE_STRING dims: 1 }
parameters { key: "task" value { string_value: "embedding" } }
parameters { key: "id" value { string_value: "org/%s" } }
"""


class FakeTriton:
    def __init__(self, repository, *loaded):
        self.repository, self.loaded, self.calls = repository, list(loaded), []
        self.failing, self.seconds, self.loading = set(), 0.0, 0
        self.unloading, self.unloading_seconds = {}, 0.0

    def index(self):
        names = [path.name for path in self.repository.iterdir()]
        self.unloading = {name: end for name, end in self.unloading.items() if end > time.monotonic()}
        states = dict.fromkeys(self.loaded, "READY") | dict.fromkeys(self.unloading, "UNLOADING")
        return [ModelState(name, states.get(name, "")) for name in names]

    def config(self, name):
        return on_demand_config(self.repository, name)

    def load(self, name, timeout):
        self.loading += 1
        assert self.loading == 1, "two models are loaded at once"
        time.sleep(self.seconds)
        self.loading -= 1
        self.calls.append(("load", name))
        if name in self.failing:
            raise EngineFailure("it is broken")
        self.loaded.append(name)

    def unload(self, name, timeout):
        self.calls.append(("unload", name))
        self.loaded.remove(name)
        self.unloading[name] = time.monotonic() + self.unloading_seconds


def on_demand_config(repository, name):
    from frontend.triton.client import read_config

    return read_config(repository / name / "config.pbtxt")


@pytest.fixture
def start(tmp_path):
    """Return a function that starts with models of these sizes in GB, of which some are loaded."""

    def run(sizes, loaded=(), limit=10, **fields):
        settings = Settings(
            cache=tmp_path, models_on_demand=True, **{"models": ("resident",), "keep_alive": -1} | fields
        )
        for name in sizes:
            (settings.served_repository / name).mkdir(parents=True)
            (settings.served_repository / name / "config.pbtxt").write_text(CONFIG % name, encoding="utf-8")
        content = {"limit": limit * 10**9, "models": {name: size * 10**9 for name, size in sizes.items()}}
        settings.footprints_file.write_text(json.dumps(content), encoding="utf-8")
        triton = FakeTriton(settings.served_repository, *loaded)
        registry = Registry(settings, lambda _: triton)
        registry.models()
        return triton, registry, OnDemand(settings, triton, registry)

    return run


def use(loader, name, seconds_ago=0):
    """Send a request that ended so long ago."""
    loader.hold(name)()
    then = time.time() - seconds_ago
    if name != "resident":
        os.utime(loader._file(name), (then, then))


def test_unloaded_models_are_listed_and_loaded_at_the_first_request(start):
    triton, registry, loader = start({"resident": 1, "other": 1}, ["resident"])
    assert {model.name: model.state for model in registry.models()} == {"resident": "READY", "other": "UNLOADED"}
    assert registry.require("org/other", "embedding").state == "UNLOADED"
    assert registry.require(None, "embedding").name == "resident"
    use(loader, "resident")
    assert triton.calls == []
    use(loader, "other")
    use(loader, "other")
    assert triton.calls == [("load", "other")]
    assert registry.require("other", "embedding").state == "READY"


def test_least_recently_used_model_makes_room(start):
    triton, _, loader = start({"resident": 4, "a": 3, "b": 3, "c": 3}, ["resident"])
    use(loader, "a", 10)
    use(loader, "b", 20)
    use(loader, "c")
    assert triton.calls[2:] == [("unload", "b"), ("load", "c")]
    use(loader, "a", 0)
    use(loader, "c", 5)
    use(loader, "b")
    assert triton.calls[4:] == [("unload", "c"), ("load", "b")]


def test_several_models_make_room_for_a_large_one(start):
    triton, _, loader = start({"resident": 1, "a": 3, "b": 3, "large": 8}, ["resident"])
    use(loader, "a", 10)
    use(loader, "b", 20)
    use(loader, "large")
    assert triton.calls[2:] == [("unload", "b"), ("unload", "a"), ("load", "large")]


def test_models_of_the_start_and_models_in_use_are_not_unloaded(start):
    triton, _, loader = start({"resident": 6, "a": 3, "b": 3}, ["resident"], keep_alive=0.0)
    release = loader.hold("a")
    loader.unload_idle()
    with pytest.raises(Unavailable, match=r"'b' needs 3\.0 GB, and the loaded models, which are in use, leave 1\.0 GB"):
        loader.hold("b")
    assert triton.calls == [("load", "a")]
    release()
    use(loader, "b")
    assert triton.calls[1:] == [("unload", "a"), ("load", "b")]


def test_model_that_cannot_be_loaded_fails_only_its_own_requests(start):
    triton, registry, loader = start({"resident": 1, "broken": 1, "other": 1}, ["resident"])
    triton.failing.add("broken")
    with pytest.raises(Unavailable, match="'broken' could not be loaded"):
        loader.hold("broken")
    use(loader, "other")
    assert registry.require("other", "embedding").state == "READY"
    assert registry.require("resident", "embedding").state == "READY"


def test_one_model_is_loaded_at_a_time_and_once(start):
    triton, _, loader = start({"resident": 1, "a": 1, "b": 1}, ["resident"])
    triton.seconds = 0.2
    threads = [threading.Thread(target=use, args=(loader, name)) for name in ("a", "b", "a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(triton.calls) == [("load", "a"), ("load", "b")]


def test_idle_models_are_unloaded_after_a_while(start):
    triton, registry, loader = start({"resident": 1, "a": 1, "b": 1}, ["resident"], keep_alive=30.0)
    use(loader, "a", 31)
    use(loader, "b", 10)
    loader.unload_idle()
    assert triton.calls[2:] == [("unload", "a")]
    assert registry.state("a") == "UNLOADED"
    use(loader, "a")
    assert triton.calls[3:] == [("load", "a")]


def test_idle_models_stay_loaded_with_a_negative_keep_alive(start):
    triton, _, loader = start({"resident": 1, "a": 1}, ["resident"])
    use(loader, "a", 1e6)
    loader.unload_idle()
    assert triton.calls == [("load", "a")]


def test_unloading_is_no_failure(start):
    triton, registry, loader = start({"resident": 1, "a": 1}, ["resident"], keep_alive=0.0)
    triton.probe = lambda *_, **__: None
    use(loader, "a", 5)
    loader.unload_idle()
    assert registry.unresponsive_models() == []
    triton.loaded.remove("resident")
    registry.refresh()
    assert registry.unresponsive_models() == ["resident"]


def test_model_that_never_fits_is_refused_without_unloading_others(start):
    triton, _, loader = start({"resident": 6, "a": 3, "huge": 5}, ["resident"])
    use(loader, "a")
    with pytest.raises(Unavailable, match=r"'huge' needs 5\.0 GB, which do not fit beside the models"):
        loader.hold("huge")
    assert triton.calls == [("load", "a")]


def test_unloading_is_awaited_before_another_model_is_loaded(start):
    triton, _, loader = start({"resident": 4, "a": 4, "b": 4}, ["resident"])
    use(loader, "a", 10)
    triton.unloading_seconds = 0.3
    use(loader, "b")
    assert triton.calls[1:] == [("unload", "a"), ("load", "b")]
    assert triton.unloading == {}


def test_model_that_was_just_unloaded_is_not_taken_for_loaded(start):
    triton, registry, loader = start({"resident": 1, "a": 1}, ["resident"])
    use(loader, "a", 10)
    triton.loaded.remove("a")  # another worker has unloaded it, and this one does not know yet
    loader._file("a").write_text("unloaded", encoding="utf-8")
    assert registry.state("a") == "READY"
    use(loader, "a")
    assert triton.calls == [("load", "a")] * 2


def test_waiting_for_other_models_ends_with_the_time_limit(start):
    triton, _, loader = start({"resident": 1, "a": 1, "b": 1}, ["resident"], request_timeout=0.2)
    triton.seconds = 1.0
    thread = threading.Thread(target=use, args=(loader, "a"))
    thread.start()
    time.sleep(0.1)
    with pytest.raises(Unavailable, match="Other models are being loaded"):
        loader.hold("b")
    thread.join(10)


def test_configuration_that_is_not_valid_hides_only_its_model(start):
    triton, registry, _ = start({"resident": 1, "bad": 1, "good": 1}, ["resident"])
    (triton.repository / "bad" / "config.pbtxt").write_text("{", encoding="utf-8")
    registry.refresh()
    assert {model.name for model in registry.models()} == {"resident", "good"}

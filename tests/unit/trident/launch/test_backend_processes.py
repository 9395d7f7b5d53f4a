"""The launcher tells backend processes that died from processes that were replaced or unloaded, and kills hung ones."""

import subprocess
import sys

import psutil
import pytest

from frontend.settings import Settings
from frontend.triton.incarnations import Incarnations, report_hung
from trident.launch.incarnations import count_incarnations
from trident.launch.triton_server import ModelDied, TritonServer


@pytest.fixture
def settings(tmp_path):
    settings = Settings(cache=tmp_path, models=("chat", "other"))
    settings.incarnations_file.parent.mkdir(parents=True)
    return settings


@pytest.fixture
def server(settings, monkeypatch):
    server = TritonServer(settings)
    children = {}

    class Running:
        pid = 1

        def poll(self):
            return None

    server._process = Running()
    server.children, server.loaded = children, {"chat", "other"}
    monkeypatch.setattr(
        server, "_children", lambda: {pid: name for pid, name in children.items() if psutil.pid_exists(pid)}
    )
    monkeypatch.setattr(server, "_is_loaded", lambda name: name in server.loaded)
    monkeypatch.setattr(server, "is_live", lambda: True)
    yield server
    for pid in children:
        if psutil.pid_exists(pid):
            psutil.Process(pid).kill()


def start(server, name):
    """Start a process that stands for the backend of a model, and return it."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    server.children[process.pid] = name
    return process


def end(process):
    process.kill()
    process.wait()


def test_dead_process_of_a_loaded_model_is_reported(server):
    process = start(server, "chat")
    server.mark_ready()
    server.check()
    end(process)
    with pytest.raises(ModelDied, match="of chat died") as caught:
        server.check()
    assert caught.value.model == "chat"


def test_model_that_is_unloaded_and_loaded_again_has_not_died(server):
    process = start(server, "chat")
    server.mark_ready()
    server.loaded = {"other"}
    end(process)
    server.check()
    successor = start(server, "chat")
    server.loaded = {"chat", "other"}
    server.check()
    end(successor)
    with pytest.raises(ModelDied):
        server.check()


def test_hung_process_is_killed(server, settings):
    process, other = start(server, "chat"), start(server, "other")
    count_incarnations(settings.incarnations_file, settings.models)
    server.mark_ready()
    report_hung(settings.hung_folder, "chat", Incarnations(settings.incarnations_file).number("chat"))
    server._kill_hung()
    assert process.wait(5) == -9
    assert other.poll() is None
    assert not list(settings.hung_folder.iterdir())


def test_report_about_an_earlier_process_is_ignored(server, settings):
    process = start(server, "chat")
    count_incarnations(settings.incarnations_file, settings.models)
    number = Incarnations(settings.incarnations_file).number("chat")
    count_incarnations(settings.incarnations_file, ["chat"])
    server.mark_ready()
    report_hung(settings.hung_folder, "chat", number)
    server.check()
    assert process.poll() is None


def test_frontend_learns_which_models_have_a_new_process(settings):
    count_incarnations(settings.incarnations_file, settings.models)
    seen = Incarnations(settings.incarnations_file)
    assert seen.changed() == []
    count_incarnations(settings.incarnations_file, ["chat"])
    assert seen.changed() == ["chat"]
    assert seen.changed() == []

"""ONNX sessions give back the memory of large runs when they are idle."""

import threading
import time

import numpy as np
import pytest
from onnx import TensorProto, helper, save

from backends.common import onnx_session
from backends.common.onnx_session import OnnxSession, _IdleMemory, _own_memory, open_session


@pytest.fixture
def network(tmp_path):
    """Write a network that needs far more memory for long inputs than for short ones."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "t"], ["product"]),
        helper.make_node("Exp", ["product"], ["exp"]),
        helper.make_node("ReduceSum", ["exp"], ["y"], keepdims=0),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [])
    model = helper.make_model(helper.make_graph(nodes, "n", [x], [y]), opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def run(session, length):
    (result,) = session.run(None, {"x": np.zeros((length, 1), np.float32)})
    return float(result)


def test_memory_of_a_large_run_is_released_when_idle(network, monkeypatch):
    monkeypatch.setattr(onnx_session, "_idle_memory", memory := _IdleMemory(0.05, 1e9, _own_memory))
    session = open_session(network, "CPU", 1)
    assert run(session, 10) == 100
    before = _own_memory()
    assert run(session, 6000) == 36_000_000
    grown = _own_memory() - before
    assert grown > 200 << 20
    memory.release()
    assert _own_memory() - before > 200 << 20  # it is not idle yet
    time.sleep(0.1)
    memory.release()
    assert _own_memory() - before < 64 << 20
    assert run(session, 10) == 100


def test_nothing_is_reopened_unless_the_process_has_grown(network, monkeypatch):
    sizes = iter([100 << 20, 50 << 20, 60 << 20, 200 << 20, 70 << 20])
    monkeypatch.setattr(onnx_session, "_idle_memory", memory := _IdleMemory(0, 1e9, lambda: next(sizes)))
    session = open_session(network, "CPU", 1)
    reopened = []
    monkeypatch.setattr(session, "reopen", reopened.append)
    memory.release()  # after the first period of use, always
    memory.release()  # 60 MB: 10 more than after the last release
    assert len(reopened) == 1
    memory.release()
    assert len(reopened) == 2


def test_runs_wait_while_the_session_is_reopened(network, monkeypatch):
    session = open_session(network, "CPU", 1)
    entered, leave = threading.Event(), threading.Event()
    original = OnnxSession.set_providers

    def set_providers(self, providers):
        entered.set()
        leave.wait(10)
        original(self, providers)

    monkeypatch.setattr(OnnxSession, "set_providers", set_providers)
    session.used_at -= 10
    thread = threading.Thread(target=session.reopen, args=(1,))
    thread.start()
    entered.wait(10)
    results = []
    runner = threading.Thread(target=lambda: results.append(run(session, 10)))
    runner.start()
    time.sleep(0.05)
    assert results == []
    leave.set()
    thread.join(10)
    runner.join(10)
    assert results == [100]


def test_session_in_use_is_not_reopened(network, monkeypatch):
    session = open_session(network, "CPU", 1)
    monkeypatch.setattr(OnnxSession, "set_providers", lambda *_: pytest.fail("it was reopened"))
    session._running = 1
    session.reopen(0)
    session._running = 0
    session.reopen(60)

"""Starting, stopping, deadlines and failures of the complete Trident stack."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import openai
import psutil
import pytest
import requests
from openai import OpenAI

from contract.paths import default_model_repository
from frontend.settings import Settings
from tests.support import traffic
from tests.support.live import MODEL, MODELS, url, user, wait_until
from tests.support.stack import free_ports, read_config, running_stack

CHECKOUT = Path(__file__).resolve().parents[2]
EMBEDDING = "bge-small-en-v1.5"


def healthy(settings):
    try:
        return requests.get(url(settings, "/health"), timeout=10).status_code == 200
    except requests.ConnectionError:
        return False


def launcher(settings):
    return psutil.Process(int(settings.pid_file.read_text(encoding="utf-8")))


def descendants(settings, *words):
    """Return the launcher's descendant processes whose command lines contain all the words."""
    children = launcher(settings).children(recursive=True)
    children = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in children if all(word in " ".join(child.cmdline()) for word in words)]


def chat(settings, **options):
    client = OpenAI(base_url=url(settings, "/v1"), api_key="unused", max_retries=0, timeout=60)
    return client.chat.completions.create(model=MODEL, messages=user("Tell me a long story."), **options)


def test_health_is_ok_and_models_are_listed_with_their_tasks(stack):
    assert requests.get(url(stack, "/health"), timeout=10).json() == {"status": "ok"}
    models = requests.get(url(stack, "/v1/models"), timeout=10).json()["data"]
    tasks = ["chat", "embedding", "rerank", "transcription", "speech", "speech", "background_removal", "ocr"]
    assert [model["task"] for model in models] == tasks
    model = models[0]
    assert (model["id"], model["state"]) == ("HuggingFaceTB/SmolLM2-135M-Instruct", "READY")
    assert requests.get(url(stack, f"/v1/models/{model['id']}"), timeout=10).json() == model


def test_triton_listens_on_loopback_only(stack):
    (server,) = descendants(stack, "bin/tritonserver")
    listening = [c.laddr for c in server.net_connections() if c.status == psutil.CONN_LISTEN]
    assert {address.ip.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}
    assert {stack.triton_http_port, stack.triton_grpc_port, stack.triton_metrics_port} <= {a.port for a in listening}


@pytest.mark.parametrize("path", ["repository/index", f"repository/models/{MODEL}/unload", "logging", "trace/setting"])
def test_triton_administration_is_closed_over_http(stack, path):
    address = f"http://127.0.0.1:{stack.triton_http_port}/v2/{path}"
    assert requests.post(address, json={}, headers={"Origin": "http://evil.example"}, timeout=10).status_code == 403
    assert healthy(stack)


def test_unknown_host_is_rejected(stack):
    response = requests.get(url(stack, "/v1/models"), headers={"Host": "evil.example"}, timeout=10)
    assert (response.status_code, response.json()["error"]["code"]) == (403, "unknown_host")


def test_second_instance_on_the_same_port_fails_and_names_the_stop_command(stack):
    command = [sys.executable, "-m", "trident", "serve", MODEL, "--port", str(stack.port)]
    output = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=30, check=False)
    assert output.returncode == 1
    assert f"trident stop --port {stack.port}" in output.stderr
    assert "Traceback" not in output.stderr
    assert stack.pid_file.exists()


def test_start_fails_if_a_model_is_not_exported():
    with pytest.raises(RuntimeError, match=r"Unknown model 'no-such-model'"), running_stack(["no-such-model"]):
        pass


def test_moved_repository_still_loads(tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(default_model_repository() / MODEL, moved / MODEL, copy_function=os.link)
    with running_stack([MODEL], "--model-repository", str(moved)) as own:
        assert can_chat(own)


def test_parameters_of_exported_models_contain_no_absolute_paths():
    configurations = list(default_model_repository().glob("*/config.pbtxt"))
    assert len(configurations) >= len(MODELS)
    for path in configurations:
        values = read_config(path.parent).parameters.values()
        assert not [value.string_value for value in values if value.string_value.startswith("/")], path


def test_second_instance_needs_only_another_port(stack):
    port = first_of_free_ports(4)
    command = [sys.executable, "-m", "trident"]
    second = subprocess.Popen([*command, "serve", MODEL, "--port", str(port)])
    own = Settings(port=port)
    try:
        wait_until(lambda: healthy(own), 60, "the second instance")
        assert can_chat(own)
        listed = subprocess.run([*command, "ps"], capture_output=True, encoding="utf-8", timeout=30, check=True).stdout
        assert {str(port), str(stack.port)} <= set(listed.split())
        subprocess.run([*command, "stop", "--port", str(port)], timeout=30, check=True)
        assert second.wait(15) == 0
        assert healthy(stack)
    finally:
        second.terminate()
        second.wait(30)


def first_of_free_ports(count):
    """Return the first of `count` consecutive free ports."""
    for port in range(20_000, 30_000, count):
        with contextlib.ExitStack() as sockets:
            try:
                for each in range(port, port + count):
                    sockets.enter_context(socket.create_server(("127.0.0.1", each)))
            except OSError:
                continue
        return port
    raise AssertionError("no free ports")


def test_request_contents_are_never_logged(stack):
    """The logs contain a request's path but no word of its contents, whether the request succeeds or fails."""
    canary = "zebrafishcanary"
    tool = {"type": "function", "function": {"name": canary, "parameters": {"type": "object", "properties": {}}}}
    grammar = {"guided_grammar": f"root ::= {canary}("}
    cases = [
        ("/v1/chat/completions", {"messages": user(canary), "max_tokens": 5}, 200),
        ("/v1/chat/completions", {"messages": user(canary), "max_tokens": 5, "stream": True}, 200),
        ("/v1/chat/completions", {"messages": user("Hi"), "tools": [tool], "max_tokens": 5}, 200),
        ("/v1/chat/completions", {"messages": user(canary), "max_tokens": -1}, 400),
        ("/v1/chat/completions", {"messages": user("Hi"), "max_tokens": 5} | grammar, 400),
        ("/v1/chat/completions", {"messages": user(canary * 100_000)}, 400),
        ("/v1/chat/completions", {"messages": user("Hi"), "model": canary}, 404),
        ("/v1/completions", {"prompt": canary, "max_tokens": 5}, 200),
        ("/v1/responses", {"input": canary, "max_output_tokens": 16}, 200),
        ("/v1/embeddings", {"input": canary, "model": "text-embedding-3-small"}, 200),
        ("/v1/embeddings", {"input": canary * 10_000, "model": "text-embedding-3-small"}, 400),
        ("/v1/rerank", {"query": canary, "documents": [canary]}, 200),
        ("/v1/audio/speech", {"input": canary}, 200),
        ("/v1/audio/speech", {"input": canary, "voice": canary}, 400),
    ]
    for path, body, status in cases:
        model = {"model": "gpt-4"} if "chat" in path or path in ("/v1/completions", "/v1/responses") else {}
        response = requests.post(url(stack, path), json=model | body, timeout=60)
        assert response.status_code == status, (path, body, response.text)
    logs = {path.name: path.read_text(encoding="utf-8") for path in stack.run_folder.glob("*.log*")}
    assert "/v1/audio/speech" in logs["frontend.log"]
    assert {"frontend.log", "triton.log"} <= logs.keys()
    assert not [name for name, text in logs.items() if canary in text.lower()]


def test_exceeded_deadline_returns_504_or_an_error_event_mid_stream(stack):
    with running_stack([MODEL], "--request-timeout", "3", triton_of=stack) as with_deadline:
        with pytest.raises(openai.APIStatusError) as caught:
            chat(with_deadline, extra_body={"ignore_eos": True})
        assert (caught.value.status_code, caught.value.code) == (504, "deadline_exceeded")
        received = []
        with pytest.raises(openai.APIError, match="exceeded its time limit"):
            for chunk in chat(with_deadline, stream=True, extra_body={"ignore_eos": True}):
                received.append(chunk)  # noqa: PERF402
        assert len(received) > 5


def test_health_models_and_chat_return_errors_without_triton(stack):
    """The frontend runs, but nothing listens on the port at which it expects Triton."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        settings = Settings(port=free_ports(1)[0], triton=address)
        server = subprocess.Popen([sys.executable, "-m", "frontend.server"], env=os.environ | settings.as_environment())
        base = url(settings, "")
        try:
            wait_until(lambda: responds(base), 15, "the frontend")
            assert requests.get(f"{base}/health", timeout=10).json()["error"] == "model not initialized"
            assert requests.get(f"{base}/models", timeout=10).json() == {"error": "model not initialized"}
            body = {"model": "gpt-4", "messages": user("Hi")}
            response = requests.post(f"{base}/v1/chat/completions", json=body, timeout=10)
            assert response.status_code == 503
            assert response.json()["error"]["code"] == "model_not_loaded"
        finally:
            server.terminate()
            assert server.wait(15) == 0


def responds(base):
    try:
        return requests.get(f"{base}/health", timeout=10).status_code in (200, 503)
    except requests.ConnectionError:
        return False


@pytest.fixture(scope="module")
def own():
    """A Trident stack, used only by this module, whose processes the tests may kill."""
    with running_stack([MODEL, EMBEDDING]) as settings:
        yield settings


def backend(settings, *words):
    """Return the process whose program has the first word and whose command line has all of them."""
    (found,) = [each for each in descendants(settings, *words) if words[0] in " ".join(each.cmdline()[:3])]
    return found


def has_ended(process):
    """Return whether a process has exited. Triton leaves its backends' entries in the process table."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


class TestProcessFailure:
    """A process that dies costs only the streams that had begun on it; all other requests are answered."""

    @pytest.mark.parametrize(
        ("words", "streams"),
        [
            (("triton_python_backend_stub", f"/{EMBEDDING}/"), 0),
            (("triton_python_backend_stub", f"/{MODEL}/"), 2),
            (("backends.generation.engine.process",), 2),
            (("bin/tritonserver",), 2),
        ],
        ids=["embedding stub", "chat stub", "engine", "triton"],
    )
    def test_killed_process_loses_only_streams_that_had_begun(self, own, words, streams):
        base = url(own, "")
        clients = {"stream": [traffic.chat(base, MODEL, stream=True)] * 2}
        clients["chat"] = [traffic.chat(base, MODEL, stream=False)]
        clients["embedding"] = [traffic.embed(base, EMBEDDING)] * 2
        with traffic.running_traffic(clients) as seen:
            time.sleep(2)
            backend(own, *words).kill()
            time.sleep(8)
        assert not seen.failed()
        assert seen.count(traffic.BROKEN_OFF) <= streams
        assert all(counts[traffic.OK] for counts in seen.outcomes.values())
        wait_until(lambda: healthy(own), 30, "the health check")

    def test_hung_backend_is_replaced(self, own):
        victim = backend(own, "triton_python_backend_stub", f"/{MODEL}/")
        victim.suspend()
        wait_until(lambda: has_ended(victim), 60, "the hung process to be killed")
        wait_until(lambda: can_chat(own), 60, "a response after that")

    def test_hung_triton_is_restarted(self, own):
        victim = backend(own, "bin/tritonserver")
        victim.suspend()
        wait_until(lambda: not victim.is_running(), 60, "the hung Triton to be killed")
        wait_until(lambda: can_chat(own), 60, "a response after the restart")

    def test_new_connections_are_answered_soon_after_a_frontend_worker_is_killed(self, own):
        worker = max(descendants(own, "frontend.server"), key=lambda process: process.create_time())
        worker.kill()
        wait_until(lambda: can_chat(own), 10, "a response of the next worker")

    def test_model_is_loaded_again_while_requests_wait(self, own):
        """No request fails, and the launcher does not take the old process for dead."""
        before = backend(own, "triton_python_backend_stub", f"/{MODEL}/")
        base = url(own, "")
        clients = {"stream": [traffic.chat(base, MODEL, stream=True, tokens=100)] * 2}
        clients["chat"] = [traffic.chat(base, MODEL, stream=False)]
        with traffic.running_traffic(clients) as seen:
            command = [sys.executable, "-m", "trident", "reload", MODEL, "--port", str(own.port)]
            done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120, check=False)
            assert "is loaded again at 1 Triton" in done.stdout, done.stderr
            wait_until(lambda: has_ended(before), 30, "the old process to exit")
            time.sleep(1)
        assert not seen.failed()
        assert seen.count(traffic.BROKEN_OFF) == 0
        assert backend(own, "triton_python_backend_stub", f"/{MODEL}/") != before


def test_no_process_outlives_the_launcher():
    with contextlib.suppress(psutil.NoSuchProcess), running_stack([MODEL]) as own:
        main, below = launcher(own), launcher(own).children(recursive=True)
        main.kill()
        assert not psutil.wait_procs(below, 20)[1]


def can_chat(settings):
    try:
        return chat(settings, max_tokens=3).usage.completion_tokens == 3
    except openai.APIStatusError as error:
        assert error.status_code in (500, 503), error
        return False
    except openai.APIConnectionError:
        return False


class TestShutdown:
    """Shutdown by SIGINT or by POST /shutdown, whose responses AHA prescribes (see docs/compatibility.md)."""

    def test_shutdown_from_loopback_stops_all_processes_and_removes_their_files(self):
        with running_stack([MODEL]) as own:
            main, below = launcher(own), launcher(own).children(recursive=True)
            response = requests.post(url(own, "/shutdown"), timeout=10)
            assert (response.status_code, response.json()) == (200, {"message": "Shutting down..."})
            assert main.wait(15) in (0, None)
            assert not psutil.wait_procs(below, 5)[1]
            assert not own.pid_file.exists()
            assert not list(Path("/dev/shm").glob(f"trident-{own.port}-*"))

    def test_server_is_not_ready_before_it_stops_to_serve(self, stack):
        """A load balancer that asks for readiness has `shutdown_delay` to send its requests elsewhere."""
        with running_stack([MODEL], "--shutdown-delay", "3", triton_of=stack) as own:
            readiness = url(own, "/actuator/health/readiness")
            assert requests.get(readiness, timeout=10).json()["status"] == "UP"
            main = launcher(own)
            main.terminate()
            wait_until(lambda: requests.get(readiness, timeout=10).status_code == 503, 2, "the server to be not ready")
            assert requests.get(url(own, "/actuator/health/liveness"), timeout=10).status_code == 200
            assert can_chat(own)
            assert main.wait(15) in (0, None)

    def test_shutdown_during_a_stream_ends_within_15_seconds(self):
        with running_stack([MODEL]) as own:
            stream = chat(own, stream=True, extra_body={"ignore_eos": True})
            next(stream)
            main = launcher(own)
            requests.post(url(own, "/shutdown"), timeout=10)
            assert main.wait(15) in (0, None)

    def test_shutdown_from_another_address_is_forbidden(self, stack):
        address = next((a for a in addresses() if not a.startswith("127.")), None)
        assert address, (
            "this machine has only loopback addresses; tests/unit/frontend/test_operation.py covers the rule"
        )
        with running_stack([MODEL], "--host", "0.0.0.0", triton_of=stack) as open_to_all:
            response = requests.post(f"http://{address}:{open_to_all.port}/shutdown", timeout=10)
            assert response.status_code == 403
            assert response.json() == {
                "error": "Remote shutdown not allowed. Use --allow-remote-shutdown flag to enable (not recommended)."
            }
            assert healthy(open_to_all)

    def test_sigint_stops_trident_without_an_error_code(self):
        with running_stack([MODEL]) as own:
            main = launcher(own)
            os.kill(main.pid, signal.SIGINT)
            assert main.wait(15) in (0, None)
            assert not own.pid_file.exists()


def addresses():
    return [a.address for nic in psutil.net_if_addrs().values() for a in nic if a.family == socket.AF_INET]

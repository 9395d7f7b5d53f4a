"""One frontend in front of several Tritons: shares, failures, changes and reloads while requests go on."""

import http.server
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from openai import OpenAI

from export.catalog import load_catalog
from tests.support.live import MODEL, url, user, wait_until
from tests.support.promtool import check_metrics
from tests.support.recordings import AUDIOEVAL, package_files
from tests.support.stack import free_ports, make_repository, running_stack
from tests.support.traffic import BROKEN_OFF, OK, chat, embed, running_traffic, speak, transcribe
from tests.support.tritons import Triton, instance_counts, is_up, running_gateway, running_tritons

EMBEDDING, SPEECH, TRANSCRIPTION = "bge-small-en-v1.5", "hibari", "whisper-base"
ALL = (MODEL, EMBEDDING, SPEECH, TRANSCRIPTION)
QUICK = ("--health-seconds", "1", "--slow-start-seconds", "1")


@pytest.fixture(scope="module")
def tritons():
    with running_tritons(2, ALL) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(tritons):
    with running_gateway([triton.entry() for triton in tritons], *QUICK) as settings:
        yield settings


def all_up(gateway, tritons):
    return all(is_up(gateway, model, triton) for triton in tritons for model in ALL)


def mixed_clients(gateway):
    base, clip = url(gateway, ""), min(package_files(AUDIOEVAL).rglob("*.wav"))
    return {
        "stream": [chat(base, MODEL, stream=True)] * 3,
        "chat": [chat(base, MODEL, stream=False)],
        "embedding": [embed(base, EMBEDDING)] * 2,
        "transcription": [transcribe(base, TRANSCRIPTION, clip.read_bytes())],
        "speech": [speak(base, SPEECH)],
    }


def test_models_of_all_tritons_are_listed_once(gateway):
    listed = [model["id"] for model in requests.get(url(gateway, "/v1/models"), timeout=10).json()["data"]]
    assert sorted(listed) == sorted(load_catalog()[name].id for name in ALL)


@pytest.mark.parametrize("strategy", ["round-robin", "random"])
def test_each_instance_gets_its_share(tritons, strategy):
    """With weights of 2 and 1, an instance gets two thirds of the requests."""
    entries = [tritons[0].entry(weight=2.0), tritons[1].entry()]
    flags = ("--load-balance", json.dumps({"embedding": strategy}))
    with running_gateway(entries, *flags) as own, ThreadPoolExecutor(8) as pool:
        before = instance_counts(own, EMBEDDING)  # the launcher has sent a first request
        outcomes = Counter(pool.map(lambda _: embed(url(own, ""), EMBEDDING)(), range(1000)))
        after = instance_counts(own, EMBEDDING)
    assert outcomes == {OK: 1000}
    first, second = (after[triton.base_url] - before.get(triton.base_url, 0) for triton in tritons)
    assert first + second == 1000
    assert first == pytest.approx(2000 / 3, rel=0.1)


@pytest.mark.parametrize("victim", ["embedding stub", "chat stub", "engine", "triton"])
def test_killed_process_loses_only_streams_that_had_begun(tritons, gateway, victim):
    kill = {
        "embedding stub": lambda: tritons[0].stub(EMBEDDING).kill(),
        "chat stub": lambda: tritons[0].stub(MODEL).kill(),
        "engine": lambda: tritons[0].engine().kill(),
        "triton": lambda: tritons[0].stop(0),
    }[victim]
    wait_until(lambda: all_up(gateway, tritons), 30, "all instances")
    with running_traffic(mixed_clients(gateway)) as traffic:
        time.sleep(2)
        kill()
        time.sleep(3)
        if victim == "triton":
            tritons[0].start()
    assert not traffic.failed()
    assert traffic.count(BROKEN_OFF) <= {"embedding stub": 0, "triton": 4}.get(victim, 3)  # three chats, one speech
    assert all(counts[OK] for counts in traffic.outcomes.values())
    wait_until(lambda: all_up(gateway, tritons), 30, "all instances")


def test_hung_triton_is_left_out_until_it_responds(tritons, gateway):
    with running_traffic(mixed_clients(gateway)) as traffic:
        time.sleep(1)
        tritons[0].process().suspend()
        wait_until(lambda: not is_up(gateway, EMBEDDING, tritons[0]), 20, "the Triton to be left out")
        before = instance_counts(gateway, EMBEDDING)[tritons[0].base_url]
        time.sleep(2)
        after = instance_counts(gateway, EMBEDDING)[tritons[0].base_url]
        tritons[0].process().resume()
    assert not traffic.failed()
    assert after - before <= 2  # requests that were lost there are counted when they end
    wait_until(lambda: all_up(gateway, tritons), 30, "all instances")


def test_slow_triton_gets_fewer_requests(tritons):
    """With least-connections, requests that are still in progress keep further ones away."""
    with running_gateway([triton.entry() for triton in tritons], *QUICK) as own:
        before = instance_counts(own, EMBEDDING)
        stub, stop = tritons[0].stub(EMBEDDING), threading.Event()

        def slow_down():
            while not stop.is_set():
                stub.suspend()
                time.sleep(0.15)
                stub.resume()
                time.sleep(0.05)

        thread = threading.Thread(target=slow_down)
        thread.start()
        try:
            with running_traffic({"embedding": [embed(url(own, ""), EMBEDDING)] * 6}) as traffic:
                time.sleep(5)
        finally:
            stop.set()
            thread.join()
        after = instance_counts(own, EMBEDDING)
    slow, fast = (after[triton.base_url] - before.get(triton.base_url, 0) for triton in tritons)
    assert not traffic.failed()
    assert 0 < slow < 0.6 * fast


def test_full_triton_loses_no_request(tritons, tmp_path):
    """A Triton whose queue is full rejects requests, which go to the other one."""
    small = Triton([MODEL], make_repository(tmp_path, MODEL, {"queue_size": "0", "max_num_seqs": "1"}))
    small.start()
    try:
        flags = ("--load-balance", json.dumps({"chat": "random"}))
        with running_gateway([small.entry(), tritons[0].entry()], *flags) as own, ThreadPoolExecutor(8) as pool:
            assert Counter(pool.map(lambda _: chat(url(own, ""), MODEL, stream=True)(), range(24))) == {OK: 24}
            metrics = requests.get(url(own, "/metrics"), timeout=10).text
            assert f'instance="{MODEL}@{small.base_url}",outcome="overloaded"' in metrics
            assert instance_counts(own, MODEL)[small.base_url] > 0
    finally:
        small.stop()


def test_reload_fails_no_request(tritons, gateway):
    """Each Triton loads the model again while the other one serves: over 2,000 requests succeed meanwhile."""
    stubs = [triton.stub(EMBEDDING).pid for triton in tritons]
    with running_traffic({"embedding": [embed(url(gateway, ""), EMBEDDING)] * 8}) as traffic:
        response = requests.post(url(gateway, "/api/models/reload"), json={"model": EMBEDDING}, timeout=120)
        wait_until(lambda: traffic.count(OK) >= 2000, 60, "2,000 requests")
    assert response.json()["data"]["instances"] == [f"{EMBEDDING}@{triton.base_url}" for triton in tritons]
    assert not traffic.failed()
    assert not set(stubs) & {triton.stub(EMBEDDING).pid for triton in tritons}


@pytest.mark.parametrize(
    ("body", "status"), [({"model": "no-such-model"}, 404), ({"model": EMBEDDING, "force": True}, 400), ({}, 400)]
)
def test_invalid_reload_is_rejected(gateway, body, status):
    assert requests.post(url(gateway, "/api/models/reload"), json=body, timeout=10).status_code == status


def test_reload_of_a_forwarded_request_is_forbidden(gateway):
    forwarded = {"X-Forwarded-For": "203.0.113.1"}
    response = requests.post(
        url(gateway, "/api/models/reload"), json={"model": EMBEDDING}, headers=forwarded, timeout=10
    )
    assert response.status_code == 403


def test_instance_is_added_and_removed_while_requests_go_on(tritons, tmp_path, monkeypatch):
    """The settings file is applied when it changes. An invalid file changes nothing."""
    file = tmp_path / "trident.toml"
    monkeypatch.setenv("TRIDENT_CONFIG", str(file))

    def write(*entries):
        tables = [
            "[[instances]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in entry.items())
            for entry in entries
        ]
        file.write_text("\n".join(["slow_start_seconds = 1", "instance_drain_seconds = 20", *tables]), encoding="utf-8")

    first, second = (triton.entry() for triton in tritons)
    write(first)
    with running_stack([]) as own, running_traffic(mixed_clients(own)) as traffic:
        assert not is_up(own, EMBEDDING, tritons[1])
        write(first, second)
        wait_until(lambda: instance_counts(own, EMBEDDING).get(tritons[1].base_url, 0) > 10, 20, "the added instance")
        write(first | {"weight": -1})
        time.sleep(1)
        assert is_up(own, EMBEDDING, tritons[0])
        write(second)
        wait_until(lambda: not is_up(own, EMBEDDING, tritons[0]), 20, "the removed instance to disappear")
        count = instance_counts(own, EMBEDDING)[tritons[0].base_url]
        time.sleep(1)
        assert instance_counts(own, EMBEDDING)[tritons[0].base_url] == count
    assert not traffic.failed()
    assert traffic.count(BROKEN_OFF) == 0


def test_instance_with_other_weights_is_rejected_and_shown(tritons, tmp_path):
    """Embeddings of two models of the same name would silently damage an index."""
    odd = Triton([EMBEDDING], make_repository(tmp_path, EMBEDDING, {"fingerprint": "other"}))
    odd.start()
    try:
        with running_gateway([tritons[0].entry(), odd.entry()]) as own, ThreadPoolExecutor(4) as pool:
            assert Counter(pool.map(lambda _: embed(url(own, ""), EMBEDDING)(), range(20))) == {OK: 20}
            assert list(instance_counts(own, EMBEDDING)) == [tritons[0].base_url]
            log = (own.run_folder / "frontend.log").read_text(encoding="utf-8")
            assert f"{EMBEDDING}@{odd.base_url} gets no requests: its weights, engine or precision differ" in log
    finally:
        odd.stop()


def test_address_without_triton_is_left_out(tritons):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    other = f"http://127.0.0.1:{server.server_port}"
    entry = {"base_url": other, "grpc_port": server.server_port}
    try:
        with running_gateway([tritons[0].entry(), entry]) as own:
            assert Counter(embed(url(own, ""), EMBEDDING)() for _ in range(10)) == {OK: 10}
            log = (own.run_folder / "frontend.log").read_text(encoding="utf-8")
            assert f"{other} is not responding" in log
    finally:
        server.shutdown()


def test_metrics_of_all_processes_are_merged_and_valid(tritons, gateway):
    embed(url(gateway, ""), EMBEDDING)()
    text = requests.get(url(gateway, "/metrics"), timeout=10).text
    check_metrics(text)
    for triton in tritons:
        assert f'instance="{triton.base_url.removeprefix("http://")}"' in text
        assert f'trident_instance_up{{instance="{EMBEDDING}@{triton.base_url}",service="embedding"}} 1.0' in text


def cached_share(tritons, strategy):
    """Return the share of prompt tokens that were cached in 16 conversations, and the requests of each instance."""
    flags = ("--load-balance", json.dumps({"chat": strategy}), "--slow-start-seconds", "0")
    with running_gateway([triton.entry() for triton in tritons], *flags) as own:
        client = OpenAI(base_url=url(own, "/v1"), api_key="unused", max_retries=0, timeout=60)
        cached = total = 0

        def turn(conversation):
            completion = client.chat.completions.create(model=MODEL, messages=conversation, max_tokens=8, temperature=0)
            conversation += [completion.choices[0].message.model_dump(include={"role", "content"}), *user("Go on.")]
            return completion.usage

        starts = [user(f"Conversation {strategy} {index}: " + f"word{index} " * 150) for index in range(16)]
        with ThreadPoolExecutor(4) as pool:
            for _ in range(2):
                for usage in pool.map(turn, starts):
                    cached += usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else 0
                    total += usage.prompt_tokens
        return cached / total, sorted(instance_counts(own, MODEL).values())


def test_prefix_affinity_raises_the_cached_share_and_balances_the_load(tritons):
    share, (least, most) = cached_share(tritons, "prefix-affinity")
    random_share, _ = cached_share(tritons, "random")
    assert share > random_share + 0.1
    assert most <= 1.5 * least


def test_a_frontend_waits_for_a_triton_that_starts_later():
    triton, (port,) = Triton([EMBEDDING]), free_ports(1)

    def status():
        try:
            return requests.get(f"http://127.0.0.1:{port}/health", timeout=10).status_code
        except requests.ConnectionError:
            return 0

    command = [sys.executable, "-m", "trident", "serve", "--port", str(port)]
    command += ["--instances", json.dumps([triton.entry()])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as process:
        try:
            wait_until(lambda: status() == 503, 30, "the frontend")
            assert any("Waiting for Triton" in line for line in process.stdout)
            triton.start()
            assert any("serves OpenAI's API" in line for line in process.stdout)
            assert embed(f"http://127.0.0.1:{port}", EMBEDDING)() == OK
        finally:
            process.terminate()
            process.communicate(timeout=30)
            triton.stop()

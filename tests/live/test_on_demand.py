"""Models of the repository that are loaded on demand, with the real Triton."""

from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import requests
from openai import OpenAI

from tests.support.live import url, wait_until
from tests.support.stack import running_stack

FIRST, SECOND, CHAT = "bge-small-en-v1.5", "ms-marco-minilm-l-12-v2", "smollm2-135m"


@pytest.fixture(scope="module")
def stack():
    with running_stack([FIRST], "--models-on-demand", "--keep-alive", "8", "--workers", "2") as settings:
        yield settings


def states(stack):
    models = requests.get(url(stack, "/v1/models"), timeout=10).json()["data"]
    return {model["id"].rpartition("/")[2].lower(): model["state"] for model in models}


def wait_until_all_workers_list(stack, model, state):
    """Wait until many requests in a row, which the workers share, list a model in a state. They read it each second."""
    wait_until(lambda: {states(stack)[model] for _ in range(10)} == {state}, 30, f"{model} to be {state}")


def rerank(stack):
    body = {"model": SECOND, "query": "What is Rust?", "documents": ["Rust is a language.", "Apples are fruit."]}
    return requests.post(url(stack, "/v1/rerank"), json=body, timeout=60)


def test_models_are_loaded_when_requested_and_unloaded_when_idle(stack):
    assert states(stack)[FIRST] == "READY"
    assert states(stack)[SECOND] == "UNLOADED"
    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(lambda _: rerank(stack), range(16)))
    assert [response.status_code for response in responses] == [200] * 16
    assert responses[0].json()["results"][0]["index"] == 0
    wait_until_all_workers_list(stack, SECOND, "READY")
    client = OpenAI(base_url=url(stack, "/v1"), api_key="unused", max_retries=0, timeout=60)
    completion = client.chat.completions.create(
        model=CHAT,
        messages=[{"role": "user", "content": "What is the capital of Japan?"}],
        temperature=0,
        max_tokens=16,
    )
    assert "Tokyo" in completion.choices[0].message.content
    wait_until_all_workers_list(stack, "smollm2-135m-instruct", "READY")
    wait_until_all_workers_list(stack, SECOND, "UNLOADED")
    assert requests.get(url(stack, "/health"), timeout=10).status_code == 200
    assert client.embeddings.create(model=FIRST, input="sea").data
    assert rerank(stack).status_code == 200
    assert requests.get(url(stack, "/health"), timeout=10).json() == {"status": "ok"}
    assert client.embeddings.create(model=FIRST, input="sea").data


def test_process_of_a_model_that_dies_is_replaced(stack):
    assert rerank(stack).status_code == 200
    stub = next(
        process
        for process in psutil.process_iter(["cmdline"])
        if f"run/{stack.port}/" in (line := " ".join(process.info["cmdline"] or ())) and f"/{SECOND}/" in line
    )
    stub.kill()
    assert rerank(stack).status_code == 200


def test_unknown_models_are_still_unknown(stack):
    response = requests.post(url(stack, "/v1/embeddings"), json={"model": "nothing", "input": "x"}, timeout=10)
    assert response.status_code == 404

"""A larger chat model is suggested where a hub can be reached, and fits the machine."""

import pytest

from export.sources.reference import parse_reference
from tests.support.hub import Hub, running_hub
from trident.launch import better_model
from trident.launch.better_model import Suggestion

CLOSED = "http://127.0.0.1:9"


@pytest.fixture
def suggest(monkeypatch):
    def run(hugging_face, modelscope, memory=8, cores=2):
        monkeypatch.setenv("HF_ENDPOINT", hugging_face)
        monkeypatch.setenv("MODELSCOPE_DOMAIN", modelscope)
        monkeypatch.setattr(better_model, "memory_limit", lambda: memory * 1e9)
        monkeypatch.setattr(better_model.os, "sched_getaffinity", lambda _: range(cores))
        suggestion = Suggestion()
        suggestion._thread.join(20)
        return suggestion.text()

    return run


@pytest.mark.parametrize(
    ("memory", "cores", "name"), [(4, 2, "Qwen3-1.7B"), (8, 16, "Qwen3-4B"), (64, 4, "Qwen3-4B"), (64, 16, "Qwen3-8B")]
)
def test_suggested_model_fits_the_machine(suggest, memory, cores, name):
    with running_hub(Hub({})) as hub:
        text = suggest(hub.url, CLOSED, memory, cores)
    assert name in text
    reference = parse_reference(text.partition("MODELS=")[2])
    assert (reference.kind, reference.location) == ("huggingface", f"Qwen/{name}-GGUF")


def test_hub_that_can_be_reached_is_suggested(suggest):
    with running_hub(Hub({})) as hub:
        assert "MODELS=ms:Qwen/" in suggest(CLOSED, hub.url)
        hub.status = 503
        assert suggest(CLOSED, hub.url) == ""
    assert suggest(CLOSED, CLOSED) == ""

"""A first request for a model of each task: asked once at the start, and shown to the user."""

from typing import Any

# Task → path, and the body but for the model.
_EXAMPLES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "What is the capital of Japan?"}], "temperature": 0},
    ),
    "embedding": ("/v1/embeddings", {"input": "Hello world"}),
    "speech": ("/v1/audio/speech", {"input": "Hello world"}),
    "rerank": (
        "/v1/rerank",
        {"query": "What is Rust?", "documents": ["Rust is a programming language.", "Apples are fruit."]},
    ),
}


def example(model: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Return path and body of a request to a model, as /v1/models describes it; None for a task without one."""
    if model["task"] not in _EXAMPLES or "voice_cloning" in model["capabilities"]:
        return None  # the latter may have no voice of its own
    path, body = _EXAMPLES[model["task"]]
    return path, {"model": model["id"]} | body

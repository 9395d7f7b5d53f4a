"""Example requests for some tasks. At startup, the launcher sends them to the models and prints the first one."""

from typing import Any

# Task → path, and body without the field `model`.
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
    """Return the path and body of an example request to a model, an item of /v1/models; None if it has no example."""
    if model["task"] not in _EXAMPLES or "voice_cloning" in model["capabilities"]:
        return None  # a voice-cloning model may have no built-in voice
    path, body = _EXAMPLES[model["task"]]
    return path, {"model": model["id"]} | body

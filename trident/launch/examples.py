"""Example requests for some tasks.

At startup, the launcher sends each model the example for its task, if there is one, and prints the first example.
"""

from typing import Any

# The keys are tasks. Each value is a path and a request body without the field `model`.
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


# Fields that keep the response to the launcher's own request short, also from a model that does not stop by itself.
_BRIEF: dict[str, dict[str, Any]] = {"chat": {"max_tokens": 32}}


def brief_example(model: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Return the same as `example`, for a request whose response is only read to the end."""
    found = example(model)
    return found and (found[0], found[1] | _BRIEF.get(model["task"], {}))


def example(model: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Return the path and body of an example request to a model, or None if the model has no example.

    `model` is an item of the response of /v1/models.
    """
    if model["task"] not in _EXAMPLES or "voice_cloning" in model["capabilities"]:
        return None  # a voice-cloning model may have no built-in voice
    path, body = _EXAMPLES[model["task"]]
    return path, {"model": model["id"]} | body

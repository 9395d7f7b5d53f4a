"""Records how many processes each model has had, which the frontend follows (frontend/triton/incarnations.py)."""

import json
from collections.abc import Iterable
from pathlib import Path


def count_incarnations(path: Path, models: Iterable[str]) -> None:
    """Tell the frontend that these models get a new process, so that it does not wait for the old one."""
    counts = read_incarnations(path)
    counts |= {model: counts.get(model, 0) + 1 for model in models}
    new = path.with_suffix(".new")
    new.write_text(json.dumps(counts), encoding="utf-8")
    new.replace(path)


def read_incarnations(path: Path) -> dict[str, int]:
    """Return how many processes each model has had."""
    try:
        counts: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return counts

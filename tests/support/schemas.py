"""Generates random JSON schemas. The same seed yields the same schema."""

import random
from typing import Any

_WORDS = [
    "name",
    "age",
    "city",
    "kind",
    "price",
    "tags",
    "items",
    "owner",
    "colour",
    "size",
    "weight",
    "street",
    "country",
    "email",
    "notes",
    "score",
    "title",
]


def random_schema(seed: int) -> dict[str, Any]:
    """Return a random schema of an object, which may contain objects, arrays, enums, constants, `anyOf` and limits."""
    return _object(random.Random(seed), 0)


def _object(rng: random.Random, depth: int) -> dict[str, Any]:
    names = rng.sample(_WORDS, rng.randint(1, 5))
    return {
        "type": "object",
        "properties": {name: _value(rng, depth + 1) for name in names},
        "required": [name for name in names if rng.random() < 0.7],
        "additionalProperties": False,
    }


def _value(rng: random.Random, depth: int) -> dict[str, Any]:
    kinds = ["string", "integer", "number", "boolean", "null", "enum", "const", "either", "bounded", "formed"]
    kind = rng.choice(kinds + (["object", "array"] * 3 if depth < 3 else []))
    if kind == "object":
        return _object(rng, depth)
    low = rng.randint(-100, 100)
    schemas: dict[str, dict[str, Any]] = {
        "enum": {"enum": rng.sample(_WORDS, 3)},
        "const": {"const": rng.choice([1, "x", None, True])},
        "either": {"anyOf": [{"type": "null"}, {"type": "string", "maxLength": 12}]},
        "bounded": {"type": rng.choice(["integer", "number"]), "minimum": low, "maximum": low + rng.randint(0, 1000)},
        "formed": rng.choice(
            [{"type": "string", "pattern": "^[A-Z]{3}-\\d{1,4}$"}, {"type": "string", "format": "date"}]
        ),
        "string": {"type": "string", "maxLength": rng.randint(1, 20)},
    }
    if kind == "array":
        minimum = rng.randint(0, 2)
        return {"type": "array", "items": _value(rng, depth + 1), "minItems": minimum, "maxItems": minimum + 2}
    return schemas.get(kind, {"type": kind})

"""Samples texts that the engine's compiled grammar allows, with a network for which all tokens are equally likely.

If a compiled grammar wrongly allows a text, uniform sampling is more likely to produce that text than a real model is,
because a model rarely tries what the constraint forbids.
"""

import json
import random
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import openvino
import openvino_genai as genai

from backends.generation.grammar.compiler import uniform_network
from backends.generation.grammar.constraints import grammar_from

_MAX_TOKENS = 200


class GrammarSampler:
    """A pipeline with the tokenizer of an exported chat model, and a network whose logits are always zero."""

    def __init__(self, version: Path):
        self._tokenizer = genai.Tokenizer(str(version))
        end = json.loads((version / "generation_config.json").read_text(encoding="utf-8"))["eos_token_id"]
        self._end = end[0] if isinstance(end, list) else end
        with tempfile.TemporaryDirectory() as folder:
            network = uniform_network(len(self._tokenizer.get_vocab()))
            openvino.save_model(network, Path(folder) / "openvino_model.xml")
            self._pipeline = genai.LLMPipeline(folder, self._tokenizer, "CPU", ATTENTION_BACKEND="SDPA")

    def samples(self, grammar: str, count: int) -> Iterator[str]:
        """Yield up to `count` complete texts; samples that reach the token limit are left out."""
        config = genai.GenerationConfig()
        config.max_new_tokens, config.do_sample, config.temperature = _MAX_TOKENS, True, 1.0
        config.apply_chat_template = False
        config.set_eos_token_id(self._end)
        config.structured_output_config = genai.StructuredOutputConfig(grammar=grammar)
        one = openvino.Tensor(np.ones((1, 1), np.int64))
        for seed in range(count):
            config.rng_seed = seed
            tokens = list(self._pipeline.generate(genai.TokenizedInputs(one, one), config).tokens[0])
            if len(tokens) < _MAX_TOKENS:
                yield self._tokenizer.decode(tokens)


def texts_outside(sampler: GrammarSampler, name: str, count: int) -> tuple[list[str], int]:
    """Draw `count` samples for a case. Return the texts that violate its constraint, and how many samples are complete.

    A sample is complete if it ends before the token limit; other samples are ignored. Raises AssertionError if all
    samples are incomplete.
    """
    constraint, accepts = CASES[name]
    samples = list(sampler.samples(grammar_from(constraint | {"param": "test"}), count))
    assert samples, f"{name}: no sample was complete"
    return [text for text in samples if not accepts(text)], len(samples)


def _words(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    syllables = ["red", "green", "小", "大", "un", "re", "-", "x1", "ab", "a"]
    words: dict[str, None] = {}
    while len(words) < count:
        words["".join(rng.choices(syllables, k=rng.randint(1, 4)))] = None
    return list(words)


def _grid() -> list[str]:
    colors, sizes = ("red", "green", "blue", "black"), ("small", "medium", "large", "huge")
    return [f"{color}-{size}" for color in colors for size in sizes if (color, size) != ("green", "small")]


def _enum(values: list[str]) -> tuple[dict[str, object], Callable[[str], bool]]:
    schema = {"enum": values}
    return {"kind": "json_schema", "schema": schema, "strict": True}, lambda text: json.loads(text) in values


def _range(low: int, high: int) -> tuple[dict[str, object], Callable[[str], bool]]:
    schema = {"type": "integer", "minimum": low, "maximum": high}
    return {"kind": "json_schema", "schema": schema, "strict": True}, lambda text: low <= json.loads(text) <= high


def _choice(values: list[str]) -> tuple[dict[str, object], Callable[[str], bool]]:
    return {"kind": "choice", "choices": values}, lambda text: text in values


def _regex(pattern: str) -> tuple[dict[str, object], Callable[[str], bool]]:
    return {"kind": "regex", "pattern": pattern}, lambda text: bool(re.fullmatch(pattern, text))


def _any_of_constants(values: list[str]) -> tuple[dict[str, object], Callable[[str], bool]]:
    schema = {
        "type": "object",
        "properties": {"v": {"anyOf": [{"const": value} for value in values]}},
        "required": ["v"],
    }
    return {"kind": "json_schema", "schema": schema, "strict": True}, lambda text: json.loads(text)["v"] in values


def _pattern_of_length(pattern: str, minimum: int, maximum: int) -> tuple[dict[str, object], Callable[[str], bool]]:
    schema = {"type": "string", "pattern": pattern, "minLength": minimum, "maxLength": maximum}

    def accepts(text: str) -> bool:
        value = json.loads(text)
        return minimum <= len(value) <= maximum and bool(re.search(pattern, value))

    return {"kind": "json_schema", "schema": schema, "strict": True}, accepts


CASES: dict[str, tuple[dict[str, object], Callable[[str], bool]]] = {
    "enum of 2": _enum(_words(2, 1)),
    "enum of 15 color-size pairs": _enum(_grid()),
    "enum of 60": _enum(_words(60, 2)),
    "enum of 300": _enum(_words(300, 3)),
    "range of ±9,999": _range(-9_999, 9_999),
    "range of int16": _range(-(2**15), 2**15 - 1),
    "range of int32": _range(-(2**31), 2**31 - 1),
    "range of int64": _range(-(2**63), 2**63 - 1),
    "range from -1,000 to 98,765": _range(-1_000, 98_765),
    "choice": _choice(_grid()),
    "choice of 100": _choice(_words(100, 4)),
    "regex": _regex(r"(red|green|blue)-(small|big)(-(small|big))?|red-x[0-9]{2}"),
    "regex with loops": _regex(r"[a-z]*[a-z][0-9][0-9]"),
    "regex beyond ASCII": _regex(r"(红|绿|红绿)[大小]{0,2}(é|è)?"),
    "pattern with a length": _pattern_of_length("^[a-z]+(-[a-z]+)*$", 3, 20),
    "pattern anywhere, with a length": _pattern_of_length("x[0-9]+é?", 5, 12),
    "anyOf of const": _any_of_constants(_grid()),
}
"""Name → a constraint (without `param`, which `texts_outside` adds), and a function: whether it allows a text."""

"""The number of reasoning tokens in an answer."""

import pytest

from backends.generation.output.generated_text import ReasoningCounter


@pytest.mark.parametrize(
    ("reasoning_prefix", "pieces", "tokens"),
    [
        ("", ["<think>", "Hm", ".", "</think>", "Four"], 4),
        ("", ["\n", "<thi", "nk>", "Hm", "</th", "ink>", "<think>"], 6),
        ("<think>\n", ["Hm", ".", "</think>", "Four"], 3),
        ("<think>\n", ["Hm", "."], 2),
        ("<think>", ["", "Hm </think> Four", "."], 2),
        ("", ["Four", "<think>", "</think>"], 0),
        ("", ["<", "b>", "</think>"], 0),
        ("", ["<thi"], 0),
        ("", [], 0),
    ],
)
def test_reasoning_tokens_are_counted(reasoning_prefix, pieces, tokens):
    counter = ReasoningCounter(reasoning_prefix)
    for piece in pieces:
        counter.push(piece)
    assert counter.tokens == tokens

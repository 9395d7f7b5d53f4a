"""Detokenizing and stop strings: nothing is shown that changes later, or that should not be seen."""

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from backends.generation.output.answer import Answer, Detokenizer, StopStrings


@pytest.fixture(scope="module")
def tokenizer():
    """One token a byte, so that every character outside ASCII is split."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<end>", special=True)])
    return tokenizer


TEXT = "你好,世界! Grüße 👩‍👩‍👧 café — ok"


def test_every_piece_is_whole_and_together_they_are_the_text(tokenizer):
    detokenizer = Detokenizer(tokenizer)
    pieces = [detokenizer.push(token) for token in tokenizer.encode(TEXT).ids]
    assert "".join(pieces) == TEXT
    assert not any("\ufffd" in piece for piece in pieces)


def test_half_a_character_at_the_end_is_dropped(tokenizer):
    detokenizer = Detokenizer(tokenizer)
    ids = tokenizer.encode("ok 你").ids[:-1]
    assert "".join(detokenizer.push(token) for token in ids) + detokenizer.flush() == "ok "


def test_special_tokens_are_not_text(tokenizer):
    detokenizer = Detokenizer(tokenizer)
    ids = [*tokenizer.encode("a").ids, tokenizer.token_to_id("<end>")]
    assert "".join(detokenizer.push(token) for token in ids) + detokenizer.flush() == "a"


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_stop_string_never_leaks_however_the_text_is_cut(cut):
    stops = StopStrings(["</end>", "STOP"])
    text = "one </en two </end> three STOP"
    shown = ""
    for start in range(0, len(text), cut):
        shown += stops.push(text[start : start + cut])
        assert "one </en two ".startswith(shown)
        if stops.hit:
            break
    assert stops.hit
    assert shown == "one </en two "


def test_what_only_looked_like_a_stop_is_shown_at_the_end():
    stops = StopStrings(["STOP"])
    assert stops.push("do not ST") + stops.flush() == "do not ST"
    assert not stops.hit


def test_the_earliest_of_several_stops_counts():
    stops = StopStrings(["b", "a"])
    assert stops.push("x a b") == "x "


def answer(tokenizer, **parameters):
    made = Answer(reply=None, request_id="r")
    made.open(3, parameters, Detokenizer(tokenizer))
    return made


def test_tokens_pile_up_until_they_are_taken(tokenizer):
    made = answer(tokenizer)
    ids = tokenizer.encode("Hello").ids
    made.add(ids[:2])
    made.add(ids[2:4])
    assert made.take().text == "Hell"
    made.add(ids[4:], "length")
    last = made.take()
    assert (last.text, last.finish_reason, last.num_input_tokens, last.num_output_tokens) == ("o", "length", 3, 5)


def test_a_stop_string_ends_the_answer_and_the_count(tokenizer):
    made = answer(tokenizer, stop=["ll"])
    made.add(tokenizer.encode("Hello world").ids)
    last = made.take()
    assert (last.text, last.finish_reason, last.num_output_tokens) == ("He", "stop", 4)


def test_a_stop_string_in_the_last_characters_wins_over_length(tokenizer):
    made = answer(tokenizer, stop=["lo"])
    made.add(tokenizer.encode("Hello").ids, "length")
    assert (made.take().finish_reason) == "stop"


def test_what_was_kept_back_for_a_stop_comes_at_the_end(tokenizer):
    made = answer(tokenizer, stop=["lot"])
    made.add(tokenizer.encode("Hello").ids, "length")
    last = made.take()
    assert (last.text, last.finish_reason) == ("Hello", "length")


def test_a_failure_is_raised_to_whoever_sends(tokenizer):
    made = answer(tokenizer)
    made.fail(RuntimeError("broken"))
    assert made.finished
    with pytest.raises(RuntimeError, match="broken"):
        made.take()


def test_an_echoed_prompt_comes_first_once_and_stops_nothing(tokenizer):
    made = Answer(reply=None, request_id="r")
    made.open(3, {"stop": ["ll"]}, Detokenizer(tokenizer), "All: ")
    made.add(tokenizer.encode("He").ids)
    assert made.take().text == "All: He"
    made.add(tokenizer.encode("llo").ids)
    assert (made.take().text, made.finished) == ("", False)

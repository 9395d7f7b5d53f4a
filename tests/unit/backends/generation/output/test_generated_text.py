"""Tests of detokenization and stop strings: sent text never changes, and stop strings are never sent."""

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from backends.generation.output.generated_text import GeneratedText, StopStrings
from backends.generation.vocabulary.hugging_face import HuggingFaceDetokenizer


@pytest.fixture(scope="module")
def tokenizer():
    """A tokenizer with one token per byte, so that every non-ASCII character is split."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<end>", special=True)])
    return tokenizer


TEXT = "你好,世界! Grüße 👩‍👩‍👧 café — ok"


def test_pieces_have_whole_characters_and_add_up_to_the_text(tokenizer):
    detokenizer = HuggingFaceDetokenizer(tokenizer)
    pieces = [detokenizer.push(token) for token in tokenizer.encode(TEXT).ids]
    assert "".join(pieces) == TEXT
    assert not any("\ufffd" in piece for piece in pieces)


def test_an_incomplete_character_at_the_end_is_dropped(tokenizer):
    detokenizer = HuggingFaceDetokenizer(tokenizer)
    ids = tokenizer.encode("ok 你").ids[:-1]
    assert "".join(detokenizer.push(token) for token in ids) + detokenizer.flush() == "ok "


def test_special_tokens_are_omitted(tokenizer):
    detokenizer = HuggingFaceDetokenizer(tokenizer)
    ids = [*tokenizer.encode("a").ids, tokenizer.token_to_id("<end>")]
    assert "".join(detokenizer.push(token) for token in ids) + detokenizer.flush() == "a"


@pytest.mark.parametrize("length", range(1, 12))
def test_a_stop_string_is_never_leaked_however_the_text_is_split(length):
    stops = StopStrings(["</end>", "STOP"])
    text = "one </en two </end> three STOP"
    sent = ""
    for start in range(0, len(text), length):
        sent += stops.push(text[start : start + length])
        assert "one </en two ".startswith(sent)
        if stops.hit:
            break
    assert stops.hit
    assert sent == "one </en two "


def test_an_incomplete_stop_string_is_sent_at_the_end():
    stops = StopStrings(["STOP"])
    assert stops.push("do not ST") + stops.flush() == "do not ST"
    assert not stops.hit


def test_the_earliest_of_several_stop_strings_ends_the_text():
    stops = StopStrings(["b", "a"])
    assert stops.push("x a b") == "x "


def prepared_answer(tokenizer, **parameters):
    answer = GeneratedText(reply=None, request_id="r")
    answer.prepare(3, parameters, HuggingFaceDetokenizer(tokenizer))
    return answer


def test_tokens_accumulate_until_they_are_taken(tokenizer):
    answer = prepared_answer(tokenizer)
    ids = tokenizer.encode("Hello").ids
    answer.add(ids[:2])
    answer.add(ids[2:4])
    assert answer.take_delta().text == "Hell"
    answer.add(ids[4:], "length")
    last = answer.take_delta()
    assert (last.text, last.finish_reason, last.num_input_tokens, last.num_output_tokens) == ("o", "length", 3, 5)


def test_a_stop_string_ends_the_answer_and_the_token_count(tokenizer):
    answer = prepared_answer(tokenizer, stop=["ll"])
    answer.add(tokenizer.encode("Hello world").ids)
    last = answer.take_delta()
    assert (last.text, last.finish_reason, last.num_output_tokens) == ("He", "stop", 4)


def test_a_stop_string_in_the_last_characters_takes_precedence_over_finish_reason_length(tokenizer):
    answer = prepared_answer(tokenizer, stop=["lo"])
    answer.add(tokenizer.encode("Hello").ids, "length")
    assert (answer.take_delta().finish_reason) == "stop"


def test_text_held_back_for_a_stop_string_is_sent_at_the_end(tokenizer):
    answer = prepared_answer(tokenizer, stop=["lot"])
    answer.add(tokenizer.encode("Hello").ids, "length")
    last = answer.take_delta()
    assert (last.text, last.finish_reason) == ("Hello", "length")


def test_take_delta_raises_the_error_of_a_failed_answer(tokenizer):
    answer = prepared_answer(tokenizer)
    answer.fail(RuntimeError("broken"))
    assert answer.finished
    with pytest.raises(RuntimeError, match="broken"):
        answer.take_delta()


def test_an_echoed_prompt_is_sent_once_before_the_text_and_cannot_match_a_stop_string(tokenizer):
    answer = GeneratedText(reply=None, request_id="r")
    answer.prepare(3, {"stop": ["ll"]}, HuggingFaceDetokenizer(tokenizer), "All: ")
    answer.add(tokenizer.encode("He").ids)
    assert answer.take_delta().text == "All: He"
    answer.add(tokenizer.encode("llo").ids)
    assert (answer.take_delta().text, answer.finished) == ("", False)

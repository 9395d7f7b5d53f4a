"""Prompts and answers of speech recognizers that are language models."""

import pytest

from backends.transcription.language_models import FAMILIES, max_tokens, parse_answer, plain_prompt, spaced
from contract.languages import LANGUAGES, language_code

# The languages in AHA's API document.
AHA = [
    *("zh", "en", "yue", "ar", "de", "fr", "es", "pt", "id", "it", "ko", "ru", "th", "vi", "ja", "tr"),
    *("hi", "ms", "nl", "sv", "da", "fi", "pl", "cs", "fil", "fa", "el", "ro", "hu", "mk"),
]


def test_qwen3_asr_knows_the_languages_of_the_api_document():
    known = FAMILIES["qwen3-asr"].languages
    assert {language_code(code) for code in AHA} == set(known)
    assert (known["yue"], known["tl"], known["el"]) == ("Cantonese", "Filipino", "Greek")


def test_languages_are_codes_of_whisper():
    assert all(set(family.languages) <= set(LANGUAGES) for family in FAMILIES.values())


@pytest.mark.parametrize(
    ("answer", "language", "text"),
    [
        ("language English<asr_text>Hello there.", "en", "Hello there."),
        ("language Chinese<asr_text>你好，\n世界。", "zh", "你好，\n世界。"),
        ("language Filipino<asr_text>", "tl", ""),
        ("language None<asr_text>", "", ""),
        (" Hello there.", "", "Hello there."),
    ],
)
def test_an_answer_names_its_language(answer, language, text):
    assert parse_answer(answer) == (language, text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello", " Hello"),
        ("你好", "你好"),
        ("こんにちは", "こんにちは"),
        ("สวัสดี", "สวัสดี"),
        ("안녕", " 안녕"),
        ("", ""),
    ],
)
def test_segments_of_languages_with_spaces_begin_with_one(text, expected):
    assert spaced(text) == expected


def test_control_tokens_in_a_prompt_are_removed():
    assert plain_prompt("<|im_end|>Dickens<|audio_pad|> <asr_text>a <b> c") == "Dickens   a <b> c"
    assert len(plain_prompt("x" * 10_000)) == 2_000


def test_the_length_of_an_answer_is_limited_by_the_length_of_the_audio():
    assert max_tokens(0.1) == 34
    assert max_tokens(30) == 512

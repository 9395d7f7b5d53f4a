"""The text and bytes of single tokens of a byte-level BPE tokenizer and a SentencePiece tokenizer."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from backends.generation.vocabulary.hugging_face import HuggingFaceVocabulary


@pytest.fixture
def byte_level():
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(letters)} | {"ĠHi": 256}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>"])
    return tokenizer


def test_each_token_of_a_split_character_has_its_own_bytes(byte_level):
    texts, euro = HuggingFaceVocabulary(byte_level), "€".encode()
    ids = [byte_level.token_to_id(c) for c in "âĤ¬"]
    entries = [texts.describe(token, -1.0) for token in ids]
    assert b"".join(bytes(entry["bytes"]) for entry in entries) == euro
    assert all(entry["token"] == "\ufffd" for entry in entries)


def test_a_leading_space_belongs_to_the_token(byte_level):
    entry = HuggingFaceVocabulary(byte_level).describe(256, -0.25)
    assert entry == {"token": " Hi", "logprob": -0.25, "bytes": list(b" Hi")}


def test_special_tokens_have_no_logprobs_entry(byte_level):
    assert HuggingFaceVocabulary(byte_level).describe(byte_level.token_to_id("<|end|>"), 0.0) is None


def test_sentencepiece_tokens_have_exact_bytes():
    vocabulary = [("<unk>", 0.0), ("<0xE2>", -1.0), ("\u2581Hi", -1.0), ("there", -1.0)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, 0, byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    texts = HuggingFaceVocabulary(tokenizer)
    assert [bytes(texts.describe(token, 0.0)["bytes"]) for token in (1, 2, 3)] == [b"\xe2", b" Hi", b"there"]

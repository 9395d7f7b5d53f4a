"""Builds a Hugging Face `tokenizer.json` from the vocabulary in a GGUF file (byte-level BPE only)."""

from collections.abc import Callable
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

_CONTROL, _USER_DEFINED = 3, 4  # llama.cpp's token types

# The end-of-turn tokens of known model families. Like llama.cpp, `end_token_ids` looks them up by name.
_END_OF_TURN = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<|end|>", "<end_of_turn>")

_QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _smollm(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


def _qwen2(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


# `tokenizer.ggml.pre` → function that configures how a tokenizer normalizes and splits text before byte-pair merging.
PRE_TOKENIZERS: dict[str, Callable[[Tokenizer], None]] = {"smollm": _smollm, "qwen2": _qwen2}


def build_tokenizer(metadata: dict[str, Any]) -> Tokenizer:
    """Return the tokenizer that a GGUF file's metadata describes.

    Raise ValueError if the vocabulary is not byte-level BPE or the pre-tokenizer is unknown.
    """
    kind, pre = metadata["tokenizer.ggml.model"], metadata.get("tokenizer.ggml.pre")
    if kind != "gpt2" or pre not in PRE_TOKENIZERS:
        raise ValueError(f"Tokenizer {kind}/{pre} (other than gpt2 with {', '.join(PRE_TOKENIZERS)}) is not supported")
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    PRE_TOKENIZERS[pre](tokenizer)
    tokenizer.decoder = decoders.ByteLevel()
    types = metadata["tokenizer.ggml.token_type"]
    tokenizer.add_special_tokens(
        [AddedToken(t, special=True) for t, k in zip(tokens, types, strict=True) if k == _CONTROL]
    )
    added = [AddedToken(t, special=False) for t, k in zip(tokens, types, strict=True) if k == _USER_DEFINED]
    tokenizer.add_tokens(added)
    return tokenizer


def end_token_ids(metadata: dict[str, Any], tokenizer: Tokenizer) -> list[int]:
    """Return the IDs of the tokens that end generation, the file's EOS token first."""
    ids = [metadata["tokenizer.ggml.eos_token_id"]]
    named = (tokenizer.token_to_id(token) for token in _END_OF_TURN)
    return ids + [i for i in named if i is not None and i not in ids]

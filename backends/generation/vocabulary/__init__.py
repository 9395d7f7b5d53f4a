"""A model's vocabulary: it converts text to tokens and back."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

from backends.common.llamacpp.library import GGUF


class Detokenizer(Protocol):
    """Decodes the tokens of one answer incrementally. Text that `push` has returned never changes."""

    def push(self, token: int) -> str:
        """Return the text that `token` completes; an incomplete character is held back."""

    def flush(self) -> str:
        """Return the text of the tokens that were held back, without an incomplete character at the end."""


class Vocabulary(Protocol):
    """Converts text to tokens and back."""

    @property
    def size(self) -> int:
        """The number of tokens. Token IDs range from 0 to `size` - 1."""

    def encode(self, text: str, *, add_special: bool = False) -> list[int]:
        """Return the token IDs of a text, with the special tokens that begin and end a text if `add_special`."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token IDs, with special tokens."""

    def detokenizer(self, visible: Collection[str] = ()) -> Detokenizer:
        """Return a detokenizer that omits special tokens, except those in `visible`, such as the tags of tool calls."""

    def describe(self, token: int, logprob: float | None, *, with_special: bool = False) -> dict[str, Any] | None:
        """Return a token's entry in OpenAI's `logprobs`, without `top_logprobs`. Return None for a special token."""


def open_vocabulary(folder: Path) -> Vocabulary:
    """Return the vocabulary of the model in a version folder."""
    if (folder / GGUF).exists():
        from backends.common.llamacpp.vocabulary import LlamaVocabulary  # needs the libraries of llama.cpp

        return LlamaVocabulary(folder)
    from backends.generation.vocabulary.hugging_face import HuggingFaceVocabulary

    return HuggingFaceVocabulary.open(folder / "tokenizer.json")

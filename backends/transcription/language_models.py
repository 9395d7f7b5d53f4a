"""The languages, prompts and answers of speech recognizers that are language models with an audio encoder."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from contract.languages import LANGUAGES, language_code

_QWEN3_ASR = "ar cs da de el en es fa fi fr hi hu id it ja ko mk ms nl pl pt ro ru sv th tl tr vi yue zh"

# Chinese, Japanese and Thai characters and punctuation.
_UNSPACED = re.compile(r"[\u0e00-\u0e7f\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]")

_TOKENS = re.compile(r"<\|[^|>]*\|>|<asr_text>")
_MAX_PROMPT_CHARACTERS = 2_000

_QWEN_ANSWER = re.compile(r"\s*language\s+([\w ]+?)\s*<asr_text>(.*)", re.DOTALL)

# Nobody speaks more tokens in a second. The answer may also name the language.
_TOKENS_PER_SECOND, _MIN_TOKENS = 16, 32


class Family(NamedTuple):
    """How to ask the recognizers of a family for a transcript."""

    languages: Mapping[str, str]
    """The languages that the family knows: Whisper's code → the family's name."""
    before: str = ""
    """On llama.cpp: the prompt before the audio. `{context}` stands for the request's prompt, if there is a place."""
    after: str = ""
    """On llama.cpp: the prompt after the audio. `{language}` stands for the beginning of the answer, which names it."""


FAMILIES = {
    "qwen3-asr": Family(
        {code: LANGUAGES[code].title() for code in _QWEN3_ASR.split()} | {"tl": "Filipino"},
        "<|im_start|>system\n{context}<|im_end|>\n<|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n{language}",
    ),
    "fun-asr": Family({"zh": "中文", "en": "英文", "ja": "日文"}),
    # The prompt of GLM-ASR has no place for a language, so none is rejected.
    "glm-asr": Family(
        LANGUAGES,
        "<|user|>\n<|begin_of_audio|>",
        "<|end_of_audio|><|user|>\nPlease transcribe this audio into text<|assistant|>\n",
    ),
}
"""The parameter `family` of a model → how to ask it."""


def plain_prompt(prompt: str) -> str:
    """Return the end of a request's prompt, without what would be read as control tokens."""
    return _TOKENS.sub(" ", prompt).strip()[-_MAX_PROMPT_CHARACTERS:]


def spaced(text: str) -> str:
    """Return the text of a segment, which begins with a space where the language separates words by spaces."""
    return text if not text or _UNSPACED.match(text) else f" {text}"


def max_tokens(seconds: float) -> int:
    """Return the maximum number of tokens in the transcript of so many seconds of speech."""
    return _MIN_TOKENS + round(seconds * _TOKENS_PER_SECOND)


def parse_answer(answer: str) -> tuple[str, str]:
    """Return the code of the language that an answer names, or an empty string, and the text."""
    match = _QWEN_ANSWER.fullmatch(answer)
    return (language_code(match[1]) or "", match[2].strip()) if match else ("", answer.strip())

"""The engine for Whisper on OpenVINO GenAI.

With greedy decoding on CPUs, this engine is faster than the engine that uses faster-whisper. It does not report
`avg_logprob` and `no_speech_prob` of segments.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import openvino_genai

from backends.common.audio.decoding import RATE, Samples
from backends.transcription.engines import (
    MAX_COMPRESSION_RATIO,
    Segment,
    WindowTranscript,
    Word,
    closest_language,
    compression_ratio,
    temperatures,
)
from contract.options import TranscriptionOptions
from contract.parameters import TranscriptionParameters

# If the model stops before the end of a window, another run decodes the rest of the window, provided that both the rest
# and the part decoded by the previous run are longer than this many seconds.
_REST_SECONDS = 1.0

# Maximum number of tokens in a prompt. The context is 448 tokens, and the engine rejects prompts that do not fit.
_PROMPT_TOKENS = 220


class OpenVINOEngine:
    """A Whisper model in OpenVINO's format."""

    batch_size = 1
    # False, because the model omits timestamps if its prompt is the preceding text.
    uses_previous_text = False
    has_times = True

    def __init__(self, folder: Path, parameters: TranscriptionParameters):
        self._pipeline = openvino_genai.ASRPipeline(
            folder,
            parameters.device,
            word_timestamps=True,
            INFERENCE_PRECISION_HINT=parameters.precision,
            INFERENCE_NUM_THREADS=parameters.threads,
        )
        self._tokenizer = self._pipeline.get_tokenizer()
        published = json.loads((folder / "generation_config.json").read_bytes())
        self._known = frozenset(name.strip("<|>") for name in published.get("lang_to_id", {}))
        self.can_translate = bool(self._known)
        self.languages = self._known or frozenset({"en"})
        self._beam_size = parameters.beam_size

    def decode(self, windows: Sequence[Samples], options: TranscriptionOptions) -> Iterator[WindowTranscript | None]:
        for window in windows:
            segments: list[Segment] = []
            start, seconds, language = 0.0, len(window) / RATE, ""
            while seconds - start > (_REST_SECONDS if start else 0):
                rest = window[int(start * RATE) :]
                for temperature in temperatures(options):
                    result = self._generate(rest, options, temperature)
                    if compression_ratio(result.texts[0]) <= MAX_COMPRESSION_RATIO:
                        break
                    yield None
                language = language or result.languages[0]
                segments += self._segments(result, start, seconds, temperature)
                ended = result.chunks[0][-1].end_ts if result.chunks and result.chunks[0] else -1.0
                if ended < _REST_SECONDS:
                    break
                start += ended
                yield None
            yield WindowTranscript(segments, options.language or (language if language in self.languages else ""))

    def _generate(self, samples: Samples, options: TranscriptionOptions, temperature: float) -> Any:
        config = self._pipeline.get_generation_config()
        config.return_timestamps, config.word_timestamps = True, options.word_timestamps
        if self._known:
            config.task = options.task
        if language := closest_language(options.language, self._known):
            config.language = f"<|{language}|>"
        if prompt := self._shorten(options.prompt or ""):
            config.initial_prompt = prompt
        config.num_beams = 1 if temperature else self._beam_size
        config.do_sample, config.temperature = temperature > 0, temperature or 1.0
        return self._pipeline.generate(samples, config)

    def _segments(self, result: Any, start: float, seconds: float, temperature: float) -> list[Segment]:
        """Return the segments of a result whose audio starts `start` seconds into a window of `seconds` seconds."""
        words = list(result.words[0]) if result.words else None
        ratio = compression_ratio(result.texts[0])
        segments = []
        for chunk in result.chunks[0] if result.chunks else []:
            spoken = [Word(w.text, start + w.start_ts, start + w.end_ts) for w in _take(words, chunk.text)]
            # The model may omit the end time of the last segment.
            end = start + chunk.end_ts if chunk.end_ts >= chunk.start_ts else seconds
            tokens = self._tokens(chunk.text)
            begin = start + chunk.start_ts
            segments.append(
                Segment(begin, end, chunk.text, tokens, temperature, ratio, words=None if words is None else spoken)
            )
        return [segment for segment in segments if segment.text.strip()]

    def _tokens(self, text: str) -> list[int]:
        ids = self._tokenizer.encode(text, add_special_tokens=False).input_ids.data[0]
        return [int(token) for token in ids]

    def _shorten(self, prompt: str) -> str:
        """Return the end of a prompt: at most its last _PROMPT_TOKENS tokens."""
        if not prompt.strip():
            return ""
        shortened: str = self._tokenizer.decode(self._tokens(prompt.strip())[-_PROMPT_TOKENS:])
        return shortened.strip("\ufffd")


def _take(words: list[Any] | None, text: str) -> list[Any]:
    """Remove the words that make up `text` from the start of `words`, and return them."""
    taken: list[Any] = []
    length = 0
    while words and length < len(text):
        taken.append(words.pop(0))
        length += len(taken[-1].text)
    return taken

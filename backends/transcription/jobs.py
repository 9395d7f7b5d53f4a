"""One transcription in the making: blocks of audio, segments of each, in the time of the whole."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from audio.decoding import RATE, read_blocks
from transcription.whisper import Options, Whisper

# So much of the text before a block goes into it as its prompt, so that names and style go on.
_CONTEXT_CHARACTERS = 200


class Job:
    """Turns an encoded file into segments; every step of the work is one item of `segments()`."""

    def __init__(self, whisper: Whisper, content: bytes, options: Options, block_seconds: float, most_seconds: float):
        self._whisper, self._options = whisper, options
        self._blocks = read_blocks(content, block_seconds, most_seconds)
        self.language = options.language or ""
        self.duration = 0.0

    def segments(self) -> Iterator[dict[str, Any] | None]:
        """Yield segments as OpenAI describes them, times in seconds; None where a step gave none.

        Raises InvalidRequest. `language` is known after the first block, `duration` after the last.
        """
        number, options = 0, self._options
        for samples in self._blocks:
            segments, language = self._whisper.transcribe(samples, options)
            self.language = options.language or language
            yield None  # looking for speech took a while: somebody else's turn
            for segment in segments:
                yield self._describe(segment, number, len(samples) / RATE)
                number += 1
                context = f"{options.prompt or ''} {segment.text.strip()}"[-_CONTEXT_CHARACTERS:]
                options = replace(options, prompt=context, language=self.language)
            self.duration += len(samples) / RATE

    def _describe(self, segment: Any, number: int, seconds: float) -> dict[str, Any]:
        """Return a segment of the block of `seconds` that is being read; Whisper's times may go beyond its end."""

        def at(time: float) -> float:
            return round(self.duration + min(time, seconds), 2)

        described = {
            "id": number,
            "seek": int(at(segment.start) * 100),
            "start": at(segment.start),
            "end": at(segment.end),
            "text": segment.text,
            "tokens": segment.tokens,
            "temperature": segment.temperature,
            "avg_logprob": segment.avg_logprob,
            "compression_ratio": segment.compression_ratio,
            "no_speech_prob": segment.no_speech_prob,
        }
        if segment.words is not None:
            words = segment.words
            described["words"] = [{"word": word.word, "start": at(word.start), "end": at(word.end)} for word in words]
        return described

"""The engine that runs Whisper models with faster-whisper (CTranslate2)."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from faster_whisper import BatchedInferencePipeline, WhisperModel

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

# faster-whisper's default thresholds. Text is improbable if its average log probability is below _IMPROBABLE. A segment
# is probably silence if its no-speech probability is above _SILENT.
_IMPROBABLE, _SILENT = -1.0, 0.6

# In a batch, each window is decoded in a single pass. If the transcript of a window ends more than this many seconds
# before the end of the window, the window is decoded again by itself.
_REST_SECONDS = 1.0


class CTranslate2Engine:
    """A Whisper model in CTranslate2's format."""

    uses_previous_text = True
    has_times = True

    def __init__(self, folder: Path, parameters: TranscriptionParameters):
        self._model = WhisperModel(
            str(folder),
            device=parameters.device.lower(),
            compute_type=parameters.compute_type,
            cpu_threads=parameters.threads,
            local_files_only=True,
        )
        self._batched = BatchedInferencePipeline(self._model)
        tokens = self._model.hf_tokenizer
        codes = self._model.supported_languages
        self.languages = frozenset(
            code for code in codes if tokens.token_to_id(f"<|{code}|>") is not None
        ) or frozenset({"en"})
        self.can_translate = self._model.model.is_multilingual
        self._beam_size, self.batch_size = parameters.beam_size, parameters.batch_size

    def decode(self, windows: Sequence[Samples], options: TranscriptionOptions) -> Iterator[WindowTranscript]:
        if len(windows) == 1:
            yield self._decode_single(windows[0], options)
            return
        for window, segments in zip(windows, self._decode_batch(windows, options), strict=True):
            seconds = len(window) / RATE
            yield (
                self._decode_single(window, options)
                if _is_doubtful(segments, seconds)
                else WindowTranscript(segments, "")
            )

    def _decode_single(self, window: Samples, options: TranscriptionOptions) -> WindowTranscript:
        segments, info = self._model.transcribe(window, temperature=temperatures(options), **self._arguments(options))
        return WindowTranscript([_convert(segment, 0) for segment in segments], options.language or info.language)

    def _decode_batch(self, windows: Sequence[Samples], options: TranscriptionOptions) -> list[list[Segment]]:
        """Return the segments of each window."""
        ends = list(itertools.accumulate(len(window) for window in windows))
        starts = [0, *ends[:-1]]
        clips = [{"start": start / RATE, "end": end / RATE} for start, end in zip(starts, ends, strict=True)]
        self._batched.last_speech_timestamp = 0.0  # a call that failed may have left another value
        segments, _ = self._batched.transcribe(
            np.concatenate(windows),
            clip_timestamps=clips,
            batch_size=len(windows),
            without_timestamps=False,
            temperature=options.temperature,
            **self._arguments(options),
        )
        found: list[list[Segment]] = [[] for _ in windows]
        for segment in segments:
            # Find the window by `seek`, the start of the segment's clip, because the segment's own times may lie
            # outside the clip. `seek` is in hundredths of a second. It was rounded down twice, so it may be up to 2 too
            # low.
            index = max(n for n, start in enumerate(starts) if segment.seek >= start * 100 / RATE - 2)
            if segment.text.strip() and segment.end > segment.start:
                found[index].append(_convert(segment, starts[index] / RATE))
        return found

    def _arguments(self, options: TranscriptionOptions) -> dict[str, Any]:
        return {
            "language": closest_language(options.language, self.languages),
            "initial_prompt": options.prompt or None,
            "task": options.task,
            "beam_size": self._beam_size,
            "word_timestamps": options.word_timestamps,
            "vad_filter": False,
        }


def _convert(segment: Any, offset: float) -> Segment:
    words = segment.words and [Word(word.word, word.start - offset, word.end - offset) for word in segment.words]
    return Segment(
        segment.start - offset,
        segment.end - offset,
        segment.text,
        segment.tokens,
        segment.temperature or 0.0,
        segment.compression_ratio,
        segment.avg_logprob,
        segment.no_speech_prob,
        words,
    )


def _is_doubtful(segments: list[Segment], seconds: float) -> bool:
    """Return whether a window must be decoded again by itself, with the fallback temperatures."""
    if not segments or segments[-1].end < seconds - _REST_SECONDS:
        return True
    improbable = any((s.avg_logprob or 0) < _IMPROBABLE or (s.no_speech_prob or 0) > _SILENT for s in segments)
    return improbable or compression_ratio("".join(segment.text for segment in segments)) > MAX_COMPRESSION_RATIO

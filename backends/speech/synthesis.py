"""Speaks one text, and encodes each piece of speech as soon as it is ready."""

import logging
import queue
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import closing
from functools import partial
from typing import Any

import av
import numpy as np

from backends.common.audio.encoding import Encoder
from backends.common.errors import InvalidRequest, RequestFailure
from backends.common.stepwise import IDLE
from backends.speech.engines import Samples, SpeechEngine, StreamingVoice
from contract.languages import LANGUAGES
from contract.options import SpeechOptions
from contract.scripts import can_speak

log = logging.getLogger(__name__)

# How long a request waits for a part of its speech before other requests get their turns.
_WAIT_SECONDS = 0.02


class SpeechSynthesis:
    """Turns a text into an audio file. It runs in steps (see backends/common/stepwise.py): a step
    ends each time `chunks()` yields.

    A piece of text is a sentence or part of a sentence. While one piece is being encoded and sent, the threads of
    `pool` speak up to `ahead` further pieces.

    Raises InvalidRequest if the voice is unknown, or if the text has nothing to speak or letters that the model, which
    speaks `languages`, cannot speak.
    """

    def __init__(
        self,
        engine: SpeechEngine,
        text: str,
        options: SpeechOptions,
        reference: bytes | None,
        pool: Executor,
        ahead: int,
        languages: Sequence[str] = ("en",),
    ):
        if not any(character.isalnum() for character in text):
            raise InvalidRequest("'input' contains nothing to speak", "input")
        if not can_speak(text, languages):
            names = ", ".join(LANGUAGES.get(code, code).title() for code in languages)
            raise InvalidRequest(
                f"'input' contains text in a language that this model does not speak; it speaks {names}",
                "input",
                "unsupported_language",
            )
        self._engine, self._text, self._pool, self._ahead = engine, text, pool, ahead
        self._voice = engine.voice(options, reference)
        slowest, fastest = engine.speeds
        self._speed = min(max(options.speed, slowest), fastest)
        self._tempo = options.speed / self._speed
        self._encoder = Encoder(options.format, engine.rate)
        self._is_closed = False
        self.num_input_tokens = self.num_output_tokens = 0
        """The phonemes spoken so far, and the length of their audio in units of `engine.hop` samples."""

    def chunks(self) -> Iterator[Any]:
        """Yield the encoded audio of each piece, and then the end of the file.

        A chunk may be empty, and is IDLE while the piece is being spoken.
        """
        # Parts of a piece cannot be sped up one by one.
        streams = isinstance(self._voice, StreamingVoice) and self._tempo == 1
        for phonemes, samples in self._streamed() if streams else self._spoken():
            self.num_input_tokens += len(phonemes)
            if samples is None:
                yield IDLE
                continue
            self.num_output_tokens += len(samples) // self._engine.hop
            if len(samples):
                yield self._encoder.encode(change_tempo(samples, self._engine.rate, self._tempo))
        if not self.num_output_tokens:
            raise InvalidRequest("'input' contains nothing to speak", "input")
        yield self._encoder.finish()

    def _streamed(self) -> Iterator[tuple[str, Samples | None]]:
        """Yield the phonemes of each piece with the first part of its speech, and the other parts without phonemes."""
        assert isinstance(self._voice, StreamingVoice)  # noqa: S101
        for phonemes in self._phonemes():
            parts: queue.SimpleQueue[Samples | None] = queue.SimpleQueue()
            task = self._pool.submit(self._stream_into, parts, phonemes)
            task.add_done_callback(partial(_end, parts))
            try:
                while (samples := _next_part(parts)) is not None:
                    yield phonemes if len(samples) else "", samples if len(samples) else None
                    phonemes = "" if len(samples) else phonemes
            finally:
                self._is_closed = not task.done()
                task.cancel()
            task.result()

    def _stream_into(self, parts: "queue.SimpleQueue[Samples | None]", phonemes: str) -> None:
        """Put the parts of a piece into a queue, in a thread of the pool, until the request has ended."""
        assert isinstance(self._voice, StreamingVoice)  # noqa: S101
        with closing(self._voice.stream(phonemes)) as spoken:
            for samples in spoken:
                if self._is_closed:
                    return
                parts.put(samples)

    def _spoken(self) -> Iterator[tuple[str, Samples | None]]:
        """Yield the phonemes of each piece, in order, with their samples."""
        waiting: deque[tuple[str, Future[Samples]]] = deque()
        try:
            for phonemes in self._phonemes():
                waiting.append((phonemes, self._pool.submit(self._voice.speak, phonemes, self._speed)))
                while len(waiting) > self._ahead or (waiting and waiting[0][1].done()):
                    first, samples = waiting.popleft()
                    yield first, samples.result()
            while waiting:
                first, samples = waiting.popleft()
                yield first, samples.result()
        finally:
            for _, unwanted in waiting:
                unwanted.cancel()

    def _phonemes(self) -> Iterator[str]:
        try:
            yield from self._voice.phonemes(self._text)
        except RequestFailure:
            raise
        except Exception as error:  # the libraries that produce the phonemes raise many kinds of exceptions
            log.warning("text could not be converted to phonemes: %s", type(error).__name__)
            raise InvalidRequest("'input' contains text that this model cannot speak", "input") from error


def _end(parts: "queue.SimpleQueue[Samples | None]", _: "Future[None]") -> None:
    parts.put(None)


def _next_part(parts: "queue.SimpleQueue[Samples | None]") -> Samples | None:
    """Return the next part of a piece, an empty one if there is none yet, or None at the end."""
    try:
        return parts.get(timeout=_WAIT_SECONDS)
    except queue.Empty:
        return np.zeros(0, np.float32)


def change_tempo(samples: Samples, rate: int, factor: float) -> Samples:
    """Return mono samples sped up by `factor` at the same pitch (FFmpeg's atempo)."""
    if factor == 1 or not len(samples):
        return samples
    graph = av.filter.Graph()
    source = graph.add_abuffer(format="flt", sample_rate=rate, layout="mono")
    sink = graph.add("abuffersink")
    last: Any = source
    for step in _steps(factor):
        tempo = graph.add("atempo", f"{step:.4f}")
        last.link_to(tempo)
        last = tempo
    last.link_to(sink)
    graph.configure()
    frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="flt", layout="mono")
    frame.sample_rate = rate
    source.push(frame)
    source.push(None)
    changed = []
    while True:
        try:
            changed.append(sink.pull().to_ndarray().reshape(-1))
        except (av.error.EOFError, av.error.BlockingIOError):
            return np.concatenate(changed) if changed else samples[:0]


def _steps(factor: float) -> Iterator[float]:
    """Yield factors of at least 0.5, FFmpeg's minimum, whose product is `factor`."""
    while factor < 0.5:
        yield 0.5
        factor /= 0.5
    yield factor

"""The engine for speech recognizers that are language models, as GGUF files on llama.cpp.

The audio is encoded by a projector, in a process of its own (see backends/common/llamacpp/media/), or by a network for
OpenVINO (`audio_encoder.py`).
"""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from backends.common.audio.decoding import RATE, Samples
from backends.common.llamacpp.context import LlamaContext, Piece
from backends.common.llamacpp.library import LibraryError
from backends.common.llamacpp.media.assembly import Assembly
from backends.common.llamacpp.media.encoder import Encoding, MediaEncoder
from backends.common.llamacpp.media.messages import Audio
from backends.common.llamacpp.vocabulary import LlamaVocabulary
from backends.transcription.audio_encoder import FILE, AudioEncoder
from backends.transcription.engines import (
    MAX_COMPRESSION_RATIO,
    Segment,
    WindowTranscript,
    closest_language,
    compression_ratio,
    temperatures,
)
from backends.transcription.language_models import FAMILIES, max_tokens, parse_answer, plain_prompt, spaced
from contract.options import TranscriptionOptions
from contract.parameters import TranscriptionParameters

# The samples of a frame of the spectrogram.
_FRAME = RATE // 100

# The KV cache holds the prompt, at most 40 embeddings per second of audio, and the answer.
_CELLS, _MAX_BATCH = 4_096, 512

_MAX_CONTEXT_TOKENS = 1_024


class LlamaCppEngine:
    """A speech recognizer in a GGUF file, with its projector or audio encoder."""

    batch_size = 1
    uses_previous_text = False
    has_times = False
    can_translate = False

    def __init__(self, folder: Path, parameters: TranscriptionParameters):
        self._family = FAMILIES[parameters.family]
        self.languages = frozenset(self._family.languages)
        self._vocabulary = LlamaVocabulary(folder)
        self._encode = self._open_encoder(folder, parameters)
        threads = parameters.threads or len(os.sched_getaffinity(0))
        self._context = LlamaContext(folder, cells=_CELLS, max_batch=_MAX_BATCH, max_running=1, threads=threads)
        self._random = np.random.default_rng()

    def decode(self, windows: Sequence[Samples], options: TranscriptionOptions) -> Iterator[WindowTranscript | None]:
        for window in windows:
            seconds, encoding = len(window) / RATE, self._encode(window.astype(np.float32))
            yield None
            language = closest_language(options.language, self.languages)
            for temperature in temperatures(options):
                prompt = self._prompt(encoding, options.prompt or "", language)
                # In one go, because requests share the KV cache.
                generated = list(self._generate(prompt, temperature, max_tokens(seconds)))
                tokens = [token for token, _ in generated]
                answer = "".join(map(self._vocabulary.detokenizer(["<asr_text>"]).push, tokens))
                found, text = parse_answer(answer)
                ratio = compression_ratio(text)
                if ratio <= MAX_COMPRESSION_RATIO:
                    break
                yield None
            average = float(np.mean([logprob for _, logprob in generated])) if generated else None
            segments = [Segment(0.0, seconds, spaced(text), tokens, temperature, ratio, average)] if text else []
            yield WindowTranscript(segments, options.language or found)

    def _open_encoder(self, folder: Path, parameters: TranscriptionParameters) -> Callable[[Samples], Encoding]:
        if (folder / FILE).exists():
            return AudioEncoder(folder, parameters).encode
        encoder = MediaEncoder(folder, -1, max_cache_bytes=0)  # windows do not come again
        if encoder.ready.sample_rate != RATE:
            raise LibraryError(f"the projector does not accept audio with {RATE} Hz")
        return lambda samples: encoder.encode(Audio(_whole_seconds(samples).tobytes()), "file")

    def _prompt(self, encoding: Encoding, context: str, language: str | None) -> Assembly:
        given = self._vocabulary.encode(plain_prompt(context))[-_MAX_CONTEXT_TOKENS:]
        before, _, rest = self._family.before.partition("{context}")
        begun = f"language {self._family.languages[language]}<asr_text>" if language else ""
        assembly = Assembly()
        assembly.add_tokens(self._vocabulary.encode(before))
        assembly.add_tokens(given if rest else [])
        assembly.add_tokens(self._vocabulary.encode(rest) if rest else [])
        assembly.add_file(encoding)
        assembly.add_tokens(self._vocabulary.encode(self._family.after.replace("{language}", begun)))
        return assembly

    def _generate(self, prompt: Assembly, temperature: float, limit: int) -> Iterator[tuple[int, float]]:
        """Yield tokens and their log probabilities, until the answer ends or has `limit` tokens."""
        context, start, position = self._context, 0, 0
        context.remove(0)
        for each in prompt.embeddings:
            self._decode_tokens(prompt.ids[start : each.start], position, 0)
            for first in range(0, len(each.values), _MAX_BATCH):
                part = slice(first, first + _MAX_BATCH)
                context.decode_embeddings(0, each.values[part], each.positions[:, part], is_causal=each.is_causal)
            start, position = each.start + len(each.values), each.next_position
        logits = self._decode_tokens(prompt.ids[start:], position, 1)
        position += len(prompt.ids) - start
        for _ in range(limit):
            logprobs = _log_softmax(logits)
            token = self._choose(logits, temperature)
            if token in context.end_tokens:
                return
            yield token, float(logprobs[token])
            logits = self._decode_tokens([token], position, 1)
            position += 1

    def _decode_tokens(self, tokens: Sequence[int], position: int, num_outputs: int) -> npt.NDArray[np.float32]:
        """Compute tokens, and return the logits after the last one if `num_outputs` is 1."""
        logits = np.empty(0, np.float32)
        for first in range(0, len(tokens), _MAX_BATCH):
            part = tokens[first : first + _MAX_BATCH]
            outputs = num_outputs if first + _MAX_BATCH >= len(tokens) else 0
            rows = self._context.decode([Piece(0, position + first, part, outputs)])
            logits = rows[0] if outputs else logits
        return logits

    def _choose(self, logits: npt.NDArray[np.float32], temperature: float) -> int:
        if not temperature:
            return int(logits.argmax())
        noise = self._random.gumbel(size=len(logits))  # samples from the softmax
        return int((logits / temperature + noise).argmax())


def _whole_seconds(samples: Samples) -> Samples:
    """Append silence up to a frame before the end of a second: the projector computes whole seconds.

    Otherwise, it would see zeros instead of the spectrogram of silence in the rest of the last second.
    """
    missing = -(len(samples) + _FRAME) % RATE
    return np.pad(samples, (0, missing))


def _log_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    shifted: npt.NDArray[np.float32] = logits - logits.max()
    return shifted - np.float32(np.log(np.exp(shifted).sum()))

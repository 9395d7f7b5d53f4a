"""The process that runs VoxCPM in its own Python environment, because the package needs torch.

It is started as `python voxcpm_process.py FOLDER THREADS SOCKET`. SOCKET is a file descriptor, over which the process
exchanges requests and results with `voxcpm_engine.py`. The process imports nothing from this project, downloads
nothing, and reads weights from .safetensors files only. The export runs it as `voxcpm_process.py FOLDER` once, which
writes the default voice to the folder.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TQDM_DISABLE"] = "1"

import json
import math
import sys
import traceback
import warnings
from collections import OrderedDict
from collections.abc import Generator
from contextlib import closing, nullcontext
from functools import partial
from importlib.machinery import ModuleSpec
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer as TokenizerFile


class Tokenizer:
    """Reads tokenizer.json. It has the part of `transformers.LlamaTokenizerFast` that the package voxcpm uses."""

    def __init__(self, path: Path):
        self._tokenizer = TokenizerFile.from_file(str(path))
        # A text that contains the name of a control token does not control the model.
        self._tokenizer.encode_special_tokens = True
        self.vocab = self._tokenizer.get_vocab()

    @classmethod
    def from_pretrained(cls, folder: str) -> "Tokenizer":
        """Return the tokenizer of a model's folder."""
        return cls(Path(folder) / "tokenizer.json")

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of a text, without a beginning-of-sequence token."""
        tokens: list[str] = self._tokenizer.encode(text, add_special_tokens=False).tokens
        return tokens

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]:
        """Return the IDs of tokens. A token that is not in the vocabulary has the ID of `<unk>`."""
        return [self.vocab.get(token, self.vocab["<unk>"]) for token in tokens]


def _install_stand_ins() -> None:
    """Let `import voxcpm` succeed without three packages that it imports and that this process does not need."""
    for name in ("librosa", "torchaudio", "transformers"):
        module: Any = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        sys.modules[name] = module
    sys.modules["transformers"].__dict__.update(LlamaTokenizerFast=Tokenizer, PreTrainedTokenizer=Tokenizer)


_install_stand_ins()
warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch")

from voxcpm.model import VoxCPM2Model, VoxCPMModel
from voxcpm.modules.audiovae.audio_vae_v2 import CausalDecoder, StreamingVAEDecoder

# Maximum number of voices in the cache; the least recently used one is evicted.
_MAX_VOICES = 8

# Without a reference, the model speaks each text in a different voice. So the default voice is cloned from this
# sentence, which is spoken without a reference during the export.
_DEFAULT_VOICE_TEXT = "The ship sailed out of the harbour at dawn, and by noon the coast was only a thin blue line."

# The number of patches at the end of a reference that are decoded before the speech that continues it. These are the
# package's numbers.
_CONTEXT_PATCHES = {"voxcpm": 2, "voxcpm2": 3}

# The number of tokens in a prompt that stand for neither text nor audio.
_NUM_CONTROL_TOKENS = 3

_DEFAULT_VOICE = "default_voice.safetensors"

# What the package calls a prompt cache: an encoded reference, with its transcript.
Voice = dict[str, Any]


class Speaker:
    """A loaded model. It speaks one text at a time, because the generation's state is part of the model."""

    def __init__(self, folder: Path, threads: int):
        torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        architecture = config["architecture"]
        self._folder = folder
        self._hop = config["patch_size"] * math.prod(config["audio_vae_config"]["decoder_rates"])
        self._isolates_references = architecture == "voxcpm2"
        self._context = _CONTEXT_PATCHES[architecture]
        model_class = VoxCPM2Model if self._isolates_references else VoxCPMModel
        self._model: Any = model_class.from_local(str(folder), optimize=False, device="cpu")
        # The package ignores missing weights, and would speak with random ones.
        missing = self._model.state_dict().keys() - _weight_names(folder)
        if missing:
            raise ValueError(f"{len(missing)} weights are missing, for example {min(missing)}")
        if not self._isolates_references:
            self._model.audio_vae.decoder = _streamable(self._model.audio_vae)
        self._voices: OrderedDict[str, Voice] = OrderedDict()
        self._chunks: Generator[bytes, None, None] | None = None

    def describe(self) -> dict[str, Any]:
        """Return sample rates, the samples per step, and whether a reference needs a transcript."""
        return {
            "rate": self._model.sample_rate,
            "hop": self._hop,
            "reference_rate": self._model.audio_vae.sample_rate,
            "needs_transcript": not self._isolates_references,
        }

    def load_voice(self, name: str, reference: bytes | None, transcript: str = "") -> bool:
        """Cache a voice as `name`, cloned from `reference` (float32 samples), or else the default voice.

        With a transcript, the model continues the reference; without, it only imitates the reference's voice. Return
        False if they leave too little of the context for speech.
        """
        if name in self._voices:
            self._voices.move_to_end(name)
            return True
        if reference is None:
            features = load_file(self._folder / _DEFAULT_VOICE)["features"]
            self._voices[name] = self._continuation(_DEFAULT_VOICE_TEXT + " ", features)
        elif transcript:
            self._voices[name] = self._continuation(transcript, self._encode(reference, pad_left=True))
        elif self._isolates_references:
            encoded = self._encode(reference, pad_left=False)
            self._voices[name] = self._no_voice() | {"mode": "reference", "ref_audio_feat": encoded}
        else:
            raise ValueError("This model needs a transcript of the reference")
        if self._size(self._voices[name]) > self._model.config.max_length // 2:
            del self._voices[name]
            return False
        if len(self._voices) > _MAX_VOICES:
            self._voices.popitem(last=False)
        return True

    def start(self, name: str, text: str) -> bool:
        """Start to speak a text, instead of the current one if there is one. Return False if the voice is not cached.

        `next_chunk` returns the speech, which is the same on every call.
        """
        self._stop()
        if name not in self._voices:
            return False
        self._voices.move_to_end(name)
        self._chunks = self._speech(text, self._voices[name])
        return True

    def next_chunk(self) -> bytes | None:
        """Return the next float32 samples of the current text, or None at its end."""
        return next(self._chunks, None) if self._chunks else None

    def save_default_voice(self) -> None:
        """Write the default voice to the model's folder."""
        features: list[torch.Tensor] = []
        for _ in self._speech(_DEFAULT_VOICE_TEXT, self._no_voice(), features):
            pass
        save_file({"features": torch.cat(features).contiguous()}, self._folder / _DEFAULT_VOICE)

    def _stop(self) -> None:
        if self._chunks:
            self._chunks.close()
        self._chunks = None

    def _speech(
        self, text: str, voice: Voice, features: list[torch.Tensor] | None = None
    ) -> Generator[bytes, None, None]:
        """Yield chunks of speech, and append the audio features of each chunk to `features` if given.

        The samples are those of the package's `generate`, which decodes all features at once.
        """
        text, prompt = " ".join(text.split()), voice["audio_feat"]
        room = self._model.config.max_length - self._size(voice, text)
        torch.manual_seed(0)
        with StreamingVAEDecoder(self._model.audio_vae) as decoder:
            self._model.audio_vae.streaming_decode = partial(nullcontext, decoder)
            if len(prompt):
                with torch.inference_mode():
                    decoder.decode_chunk(prompt[-self._context :].flatten(0, 1).T[None])
            steps = self._model.generate_with_prompt_cache_streaming(text, voice, max_len=room, streaming_prefix_len=1)
            with closing(steps):
                for samples, _, patches in steps:
                    if features is not None:
                        features.append(patches[-1][0].float())
                    yield samples.numpy().astype(np.float32).tobytes()

    def _size(self, voice: Voice, text: str = "") -> int:
        """Return how much of the context a voice and a text take."""
        num_tokens = len(self._model.text_tokenizer(voice["prompt_text"] + text))
        return num_tokens + len(voice["audio_feat"]) + len(voice["ref_audio_feat"]) + _NUM_CONTROL_TOKENS

    def _no_voice(self) -> Voice:
        none = torch.empty(0, self._model.patch_size, self._model.audio_vae.latent_dim)
        return {"mode": "zero_shot", "prompt_text": "", "audio_feat": none, "ref_audio_feat": none}

    def _continuation(self, transcript: str, features: torch.Tensor) -> Voice:
        return self._no_voice() | {"mode": "continuation", "prompt_text": transcript, "audio_feat": features}

    def _encode(self, reference: bytes, pad_left: bool) -> torch.Tensor:
        """Return the audio features of samples, padded with silence to whole patches, as the package pads them."""
        samples = torch.from_numpy(np.frombuffer(reference, np.float32).copy())[None]
        missing = -samples.shape[1] % (self._model.patch_size * self._model.chunk_size)
        samples = torch.nn.functional.pad(samples, (missing, 0) if pad_left else (0, missing))
        with torch.inference_mode():
            features = self._model.audio_vae.encode(samples, self._model.audio_vae.sample_rate)
        return features.view(self._model.audio_vae.latent_dim, -1, self._model.patch_size).permute(1, 2, 0)


def _streamable(vae: Any) -> CausalDecoder:
    """Return the decoder of a model with `architecture` voxcpm as the class that can decode patch by patch."""
    sizes = vae.latent_dim, vae.decoder_dim, vae.decoder_rates, vae.depthwise
    decoder = CausalDecoder(*sizes, use_noise_block=vae.use_noise_block)
    decoder.load_state_dict(vae.decoder.state_dict())
    return decoder.eval()


def _weight_names(folder: Path) -> set[str]:
    """Return the names of the weights in a model's folder, as the package names them.

    Raises FileNotFoundError if a .safetensors file is missing; the package would then look for a pickle.
    """
    names = set()
    for path, prefix in (folder / "model.safetensors", ""), (folder / "audiovae.safetensors", "audio_vae."):
        with safe_open(path, "pt") as weights:
            names |= {prefix + name for name in weights.keys()}  # noqa: SIM118
    return names


def main() -> None:
    """Load the model, then respond to each (method, arguments) with (True, result) or (False, error)."""
    if len(sys.argv) == 2:
        try:
            Speaker(Path(sys.argv[1]), 0).save_default_voice()
        except (KeyError, RuntimeError, ValueError) as error:  # the files are not those of one model
            sys.exit(f"{type(error).__name__}: {str(error)[:500]}")
        return
    with Connection(int(sys.argv[3])) as connection:
        speaker = Speaker(Path(sys.argv[1]), int(sys.argv[2]))
        connection.send(speaker.describe())
        while True:
            try:
                method, arguments = connection.recv()
            except EOFError:
                return
            try:
                connection.send((True, getattr(speaker, method)(*arguments)))
            except Exception as error:
                # Send only the stack frame. The exception's message may contain the user's text.
                frame = traceback.extract_tb(error.__traceback__)[-1]
                connection.send((False, f"{type(error).__name__} in {frame.name}, line {frame.lineno}"))


if __name__ == "__main__":
    main()

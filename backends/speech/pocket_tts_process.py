"""The process that runs Pocket TTS in its own Python environment, because the package needs torch.

It is started as `python pocket_tts_process.py FOLDER THREADS SOCKET`. SOCKET is a file descriptor, over which the
process exchanges requests and results with `pocket_tts_engine.py`. The process imports nothing from this project, and
downloads nothing.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import sys
import tempfile
import traceback
from collections import OrderedDict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pocket_tts
import torch
import yaml
from pocket_tts import TTSModel

# Maximum number of voices in the cache; the least recently loaded one is evicted.
_MAX_VOICES = 8


class Speaker:
    """A loaded model. It speaks one sentence at a time."""

    def __init__(self, folder: Path, threads: int):
        self._folder = folder
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "config.yaml"
            path.write_text(yaml.safe_dump(_local_config(folder)), encoding="utf-8")
            self._model = TTSModel.load_model(config=path)
        # Importing pocket_tts limits torch to one thread.
        torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
        # Decode frame by frame: otherwise timing decides how many frames are decoded together, which changes the sound.
        self._model.max_decoder_frames_per_call = 1
        self._voices: OrderedDict[str, Any] = OrderedDict()

    def describe(self) -> dict[str, Any]:
        """Return the sample rate, and whether the model can clone voices."""
        return {"rate": self._model.sample_rate, "can_clone": self._can_clone()}

    def load_voice(self, name: str, reference: bytes | None) -> None:
        """Cache a voice as `name`: cloned from `reference` (float32 samples) if given, else loaded from a file."""
        if name in self._voices:
            self._voices.move_to_end(name)
            return
        if reference is None:
            prompt: Any = self._folder / f"{name}.safetensors"
        else:
            prompt = torch.from_numpy(np.frombuffer(reference, np.float32).copy())[None]
        self._voices[name] = self._model.get_state_for_audio_prompt(prompt)
        if len(self._voices) > _MAX_VOICES:
            self._voices.popitem(last=False)

    def speak(self, name: str, text: str) -> bytes | None:
        """Return a spoken sentence as float32 samples, the same on every call, or None if the voice is not cached."""
        if name not in self._voices:
            return None
        torch.manual_seed(0)
        samples: bytes = self._model.generate_audio(self._voices[name], text).numpy().astype(np.float32).tobytes()
        return samples

    def _can_clone(self) -> bool:
        """Return whether the weights for cloning are present: the model without cloning has zeros in their place."""
        weights = [w for name, w in self._model.mimi.named_parameters() if name.startswith("encoder.") and w.dim() > 1]
        weights.append(self._model.flow_lm.speaker_proj_weight)
        return all(bool(torch.isfinite(weight).all() and weight.any()) for weight in weights)


def _local_config(folder: Path) -> dict[str, Any]:
    """Return the model's configuration, with paths to the files in `folder`.

    The configuration is read from the folder's config.yaml or, if there is none, from the package's english.yaml.
    """
    own = folder / "config.yaml"
    packaged = Path(pocket_tts.__file__).parent / "config" / "english.yaml"
    config: dict[str, Any] = yaml.safe_load((own if own.exists() else packaged).read_text(encoding="utf-8"))
    # If the weights failed to load, the package would fall back to the weights at this path and speak in a wrong voice.
    config.pop("weights_path_without_voice_cloning", None)
    for part in (config, config["flow_lm"], config["mimi"]):
        if part.get("weights_path"):
            part["weights_path"] = str(folder / "model.safetensors")
    table = config["flow_lm"]["lookup_table"]
    table["tokenizer_path"] = str(folder / table["tokenizer_path"].split("@")[0].rpartition("/")[2])
    return config


def main() -> None:
    """Load the model, then respond to each (method, arguments) with (True, result) or (False, error)."""
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

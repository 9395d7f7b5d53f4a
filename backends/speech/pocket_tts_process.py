"""Pocket TTS in a process of its own, with its own Python: the package needs torch.

`python pocket_tts_process.py FOLDER THREADS SOCKET`. Everything it is asked and answers goes over the socket, see
`pocket_tts_engine.py`. It imports nothing of this project's, and nothing from the network.
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

# Voices that were heard, kept for the next sentence.
_MAX_VOICES = 8


class Speaker:
    """One model. Speaks one sentence at a time."""

    def __init__(self, folder: Path, threads: int):
        self._folder = folder
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "config.yaml"
            path.write_text(yaml.safe_dump(_local_config(folder)), encoding="utf-8")
            self._model = TTSModel.load_model(config=path)
        # Importing the package has set one thread.
        torch.set_num_threads(threads or os.cpu_count() or 1)
        # Frame by frame: otherwise how many are decoded together depends on the time they took, and the sound with it.
        self._model.max_decoder_frames_per_call = 1
        self._voices: OrderedDict[str, Any] = OrderedDict()

    def about(self) -> dict[str, Any]:
        """Return what the engine has to know of the model."""
        return {"rate": self._model.sample_rate, "can_clone": self._can_clone()}

    def learn(self, name: str, reference: bytes | None) -> None:
        """Take over the voice in `reference` (float32 samples), or of the file of this name; keep it as `name`."""
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
        """Return float32 samples of a sentence, the same each time; None if the voice has to be learnt again."""
        if name not in self._voices:
            return None
        torch.manual_seed(0)
        said: bytes = self._model.generate_audio(self._voices[name], text).numpy().astype(np.float32).tobytes()
        return said

    def _can_clone(self) -> bool:
        """Tell whether the weights of what listens are there: the variant without cloning is published with zeros."""
        weights = [w for name, w in self._model.mimi.named_parameters() if name.startswith("encoder.") and w.dim() > 1]
        weights.append(self._model.flow_lm.speaker_proj_weight)
        return all(bool(torch.isfinite(weight).all() and weight.any()) for weight in weights)


def _local_config(folder: Path) -> dict[str, Any]:
    """Return the model's configuration, without one in the folder the package's for English, with local files alone."""
    own = folder / "config.yaml"
    packaged = Path(pocket_tts.__file__).parent / "config" / "english.yaml"
    config: dict[str, Any] = yaml.safe_load((own if own.exists() else packaged).read_text(encoding="utf-8"))
    # To which the package would turn for any reason at all, and then speak in a wrong voice.
    config.pop("weights_path_without_voice_cloning", None)
    for part in (config, config["flow_lm"], config["mimi"]):
        if part.get("weights_path"):
            part["weights_path"] = str(folder / "model.safetensors")
    table = config["flow_lm"]["lookup_table"]
    table["tokenizer_path"] = str(folder / table["tokenizer_path"].split("@")[0].rpartition("/")[2])
    return config


def main() -> None:
    """Load the model, then answer each request: (method, arguments) with (True, result) or (False, what went wrong)."""
    with Connection(int(sys.argv[3])) as connection:
        speaker = Speaker(Path(sys.argv[1]), int(sys.argv[2]))
        connection.send(speaker.about())
        while True:
            try:
                method, arguments = connection.recv()
            except EOFError:
                return
            try:
                connection.send((True, getattr(speaker, method)(*arguments)))
            except Exception as error:
                # Where, but not what: an error's message may have the user's text in it.
                place = traceback.extract_tb(error.__traceback__)[-1]
                connection.send((False, f"{type(error).__name__} in {place.name}, line {place.lineno}"))


if __name__ == "__main__":
    main()

"""Compares the speech of our VoxCPM process with that of the package voxcpm, for the same seed.

Run it in .venv-voice: `python -m tests.support.voxcpm_reference PUBLISHED EXPORTED`. It prints, as JSON, how a voice is
made → the number of samples, and the greatest difference between two samples.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from backends.speech.voxcpm_process import Speaker, VoxCPM2Model, VoxCPMModel

TEXT = "Pack my box, please."


def compare(published: Path, exported: Path) -> dict[str, tuple[int, float]]:
    speaker = Speaker(exported, 1)
    has_references = not speaker.describe()["needs_transcript"]
    original = (VoxCPM2Model if has_references else VoxCPMModel).from_local(
        str(published), optimize=False, device="cpu"
    )
    rate = speaker.describe()["reference_rate"]
    recording = np.sin(np.arange(3 * rate) * 440 / rate, dtype=np.float32) * np.float32(0.3)
    speaker.load_voice("continued", recording.tobytes(), "The words.")
    voices = {"none": None, "continued": speaker._voices["continued"]}
    if has_references:
        speaker.load_voice("imitated", recording.tobytes())
        voices["imitated"] = speaker._voices["imitated"]
    found = {}
    for name, voice in voices.items():
        torch.manual_seed(0)
        expected = original.generate_with_prompt_cache(target_text=TEXT, prompt_cache=voice)[0].numpy()[0]
        chunks = speaker._speech(TEXT, voice or speaker._no_voice())
        spoken = np.concatenate([np.frombuffer(chunk, np.float32) for chunk in chunks])
        assert len(spoken) == len(expected), name
        found[name] = len(spoken), float(np.abs(spoken - expected).max())
    return found


if __name__ == "__main__":
    print(json.dumps(compare(Path(sys.argv[1]), Path(sys.argv[2]))))

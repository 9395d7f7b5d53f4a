"""The audio encoder of speech recognizers whose encoder llama.cpp does not compute as the original does: GLM-ASR."""

from pathlib import Path

import numpy as np
import openvino
from faster_whisper.feature_extractor import FeatureExtractor

from backends.common.audio.decoding import RATE, Samples
from backends.common.llamacpp.media.encoder import Encoding
from backends.common.llamacpp.media.messages import Chunk
from contract.parameters import TranscriptionParameters

FILE = "audio_encoder.xml"
"""The network in a version folder."""

_SECONDS = 30


class AudioEncoder:
    """Turns up to 30 seconds of audio into embeddings, with a network for OpenVINO."""

    def __init__(self, folder: Path, parameters: TranscriptionParameters):
        core = openvino.Core()
        properties = {"INFERENCE_PRECISION_HINT": parameters.precision, "INFERENCE_NUM_THREADS": parameters.threads}
        self._network = core.compile_model(folder / FILE, parameters.device, properties)
        self._features = FeatureExtractor(feature_size=128)

    def encode(self, samples: Samples) -> Encoding:
        """Return the embeddings of audio. The network always computes 30 seconds; those of the silence are dropped."""
        padded = np.pad(samples, (0, _SECONDS * RATE - len(samples)))
        features = self._features(padded, padding=0)[None]
        embeddings = self._network(features)[0][0]
        frames = -(-len(samples) // self._features.hop_length)
        count = max(1, ((frames - 1) // 2 + 1 - 4) // 4 + 1)
        positions = np.arange(count, dtype=np.int32)[None]
        chunk = Chunk(
            embeddings=np.ascontiguousarray(embeddings[:count]),
            positions=positions,
            steps=np.ones_like(positions),
            num_positions=count,
        )
        return Encoding(b"", [chunk])

"""Splits GLM-ASR into its parts: `python -m export.isolated.glm_asr_parts SOURCE TARGET`, in .venv-gguf.

SOURCE is a published folder in the layout of transformers 5 (GlmAsrForConditionalGeneration). TARGET/language_model
receives the language model in a layout that llama.cpp's converter reads. TARGET/audio_encoder.xml receives the network
that turns the log-mel spectrogram of 30 seconds into embeddings, for OpenVINO: llama.cpp's own code for it does not
rotate queries and keys by their positions, as the original does.
"""

import json
import shutil
import sys
from pathlib import Path

import openvino
import torch
from safetensors.torch import save_file
from transformers import GlmAsrForConditionalGeneration

_MEL_BINS, _FRAMES = 128, 3_000


class _AudioEncoder(torch.nn.Module):  # type: ignore[misc]
    """The encoder and the projector: [1, 128, 3000] → [1, 375, width]."""

    def __init__(self, model: GlmAsrForConditionalGeneration):
        super().__init__()
        self._tower, self._projector = model.model.audio_tower, model.model.multi_modal_projector
        self._width = model.config.audio_config.intermediate_size

    def forward(self, input_features: torch.Tensor) -> torch.Tensor:
        hidden = self._tower(input_features).last_hidden_state.reshape(1, -1, self._width)
        embeddings: torch.Tensor = self._projector(hidden)
        return embeddings


def split(source: Path, target: Path) -> None:
    """Write both parts."""
    model = GlmAsrForConditionalGeneration.from_pretrained(source, attn_implementation="eager").eval()
    _write_language_model(model, source, target / "language_model")
    encoder = _AudioEncoder(model.float())
    example = torch.zeros(1, _MEL_BINS, _FRAMES)
    converted = openvino.convert_model(encoder, example_input=example, input=[list(example.shape)])
    openvino.save_model(converted, target / "audio_encoder.xml", compress_to_fp16=True)


def _write_language_model(model: GlmAsrForConditionalGeneration, source: Path, target: Path) -> None:
    target.mkdir()
    text = model.config.text_config.to_dict()
    rope = text.get("rope_parameters") or {}
    text |= {"architectures": ["LlamaForCausalLM"], "rope_theta": rope.get("rope_theta", 10_000.0)}
    # By this architecture, the converter recognizes the tokenizer.
    config = {"architectures": ["GlmasrModel"], "model_type": "Glmasr", "lm_config": text}
    (target / "config.json").write_text(json.dumps(config), encoding="utf-8")
    weights = {f"model.{name}": weight for name, weight in model.model.language_model.state_dict().items()}
    weights["lm_head.weight"] = model.lm_head.weight
    contiguous = {name: weight.detach().contiguous().clone() for name, weight in weights.items()}
    save_file(contiguous, target / "model.safetensors", metadata={"format": "pt"})
    for path in source.iterdir():
        if path.suffix in (".json", ".jinja", ".txt", ".model") and not path.name.startswith(("config", "model")):
            shutil.copyfile(path, target / path.name)


if __name__ == "__main__":
    split(Path(sys.argv[1]), Path(sys.argv[2]))

"""Converts Qwen3-ASR to OpenVINO: `python -m export.isolated.openvino_qwen3_asr SOURCE TARGET PRECISION`, in .venv-asr.

SOURCE is a published folder in the layout of the package qwen-asr, or in that of transformers 5 ("-hf" repositories).
TARGET receives the files that OpenVINO GenAI loads. PRECISION is int8 or f32.
"""

import json
import logging
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from optimum.exporters.openvino.convert import export_tokenizer
from optimum.exporters.openvino.model_configs import Qwen3ASROpenVINOConfig
from optimum.exporters.openvino.model_patcher import Qwen3ASRModelPatcher
from optimum.intel import OVModelForSpeechSeq2Seq, OVWeightQuantizationConfig
from torch.nn.functional import gelu, scaled_dot_product_attention
from transformers import PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutput

from export.isolated import qwen3_asr_package  # registers the model's classes
from export.isolated.chat_model import load_tokenizer
from export.isolated.qwen3_asr_layout import has_package_layout, write_package_layout

# Without a configuration, Optimum quantizes models with more than 1e9 parameters to int8.
_QUANTIZATION: dict[str, Any] = {
    "f32": {"load_in_8bit": False},
    "int8": {"quantization_config": OVWeightQuantizationConfig(bits=8)},
}


# The convolutions of the encoder turn this many frames into one position.
_STRIDE = 8


class _WindowedEncoder(Qwen3ASRModelPatcher):  # type: ignore[misc]
    """Exports the encoder with its attention over windows of several chunks, as in the published implementation.

    The engine passes the chunks of an audio, one second each, as one batch. Optimum's own patch restricts attention
    to one chunk, instead of the 8 seconds of the published configuration.
    """

    def _patch_audio_encoder(self) -> None:
        encoder = self._model
        self._model._orig_forward = encoder.forward  # restored by the base class
        chunks = encoder.n_window_infer // (2 * encoder.n_window)

        def forward(input_features: torch.Tensor) -> BaseModelOutput:
            count = input_features.shape[0]
            hidden = input_features.unsqueeze(1)
            for convolution in (encoder.conv2d1, encoder.conv2d2, encoder.conv2d3):
                hidden = gelu(convolution(hidden))
            hidden = encoder.conv_out(hidden.permute(0, 3, 1, 2).flatten(2))
            hidden = hidden + encoder.positional_embedding(hidden.shape[1])
            length, width = hidden.shape[1:]
            # The engine pads the last chunk with frames of zeros, which no sound, not even silence, has.
            heard = (input_features != 0).any(dim=1)[:, ::_STRIDE]
            windows = _in_groups(hidden, chunks).reshape(-1, chunks * length, width)
            mask = _in_groups(heard, chunks).reshape(-1, 1, 1, chunks * length)
            for layer in encoder.layers:
                windows = windows + _attention(layer.self_attn, layer.self_attn_layer_norm(windows), mask)
                inner = layer.activation_fn(layer.fc1(layer.final_layer_norm(windows)))
                windows = windows + layer.fc2(inner)
            hidden = encoder.ln_post(windows.reshape(-1, length, width)[:count])
            return BaseModelOutput(last_hidden_state=encoder.proj2(encoder.act(encoder.proj1(hidden))))

        encoder.forward = forward


def _in_groups(tensor: torch.Tensor, size: int) -> torch.Tensor:
    """Append zeros, so that the first dimension is a multiple of `size`."""
    padded = torch.cat([tensor, torch.zeros_like(tensor[:1]).repeat(size - 1, *[1] * (tensor.dim() - 1))])
    return padded[: (tensor.shape[0] + size - 1) // size * size]


def _attention(module: Any, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    query, key, value = (
        projection(hidden).unflatten(-1, (module.num_heads, -1)).transpose(1, 2)
        for projection in (module.q_proj, module.k_proj, module.v_proj)
    )
    mixed = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=module.scaling)
    return module.out_proj(mixed.transpose(1, 2).flatten(2))


def export_qwen3_asr(source: Path, target: Path, precision: str) -> None:
    """Write encoder and decoder, tokenizer and detokenizer, and their configurations."""
    Qwen3ASROpenVINOConfig._MODEL_PATCHER = _WindowedEncoder
    model = OVModelForSpeechSeq2Seq.from_pretrained(
        str(source), export=True, compile=False, stateful=True, **_QUANTIZATION[precision]
    )
    model.save_pretrained(target)
    shutil.copyfile(source / "preprocessor_config.json", target / "preprocessor_config.json")


def main(source: Path, target: Path, precision: str) -> None:
    """Convert a folder in either layout."""
    tokenizer: PreTrainedTokenizerBase = load_tokenizer(source, trust_remote_code=False)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    if has_package_layout(config):
        export_qwen3_asr(source, target, precision)
    else:
        with tempfile.TemporaryDirectory() as folder:
            write_package_layout(source, Path(folder))
            tokenizer.save_pretrained(folder)
            export_qwen3_asr(Path(folder), target, precision)
    export_tokenizer(tokenizer, target)


if __name__ == "__main__":
    logging.getLogger("optimum").setLevel(logging.ERROR)
    qwen3_asr_package.register()
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])

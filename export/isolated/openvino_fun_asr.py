"""Converts Fun-ASR-Nano to OpenVINO, in .venv-asr.

`python -m export.isolated.openvino_fun_asr SOURCE TARGET PRECISION`: SOURCE is a published folder (config.yaml and
model.pt, and the tokenizer and configuration of the language model). TARGET receives the files that OpenVINO GenAI
loads. PRECISION is int8 or f32.
"""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nncf
import openvino
import torch
import yaml

from export.isolated.funasr_package import SenseVoiceEncoderSmall, Transformer  # before optimum imports funasr

# isort: split
from optimum.exporters.openvino.convert import export_from_model, export_tokenizer
from optimum.exporters.openvino.model_configs import FunASROpenVINOConfig
from optimum.exporters.openvino.model_patcher import FunASRModelPatcher
from optimum.intel import OVConfig
from optimum.intel.openvino.modeling_funasr import _FunASRForSpeechSeq2Seq
from optimum.intel.openvino.modeling_seq2seq import FunASRPretrainedConfig
from transformers import AutoConfig, AutoTokenizer, Qwen3ForCausalLM

_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "eos_token_id",
    "bos_token_id",
    "max_position_embeddings",
)


class _Patcher(FunASRModelPatcher):  # type: ignore[misc]
    """Keeps the embedding of an exclamation mark in an answer.

    The placeholder of audio in the prompt has the ID of that token, 0, so the embedding would be replaced by the first
    one of the audio. The prompt is computed at once, and the answer token by token.
    """

    def _patch_decoder(self) -> None:
        super()._patch_decoder()
        spliced = self._model.forward

        def forward(
            encoder_outputs: Any = None,
            decoder_input_ids: Any = None,
            attention_mask: Any = None,
            past_key_values: Any = None,
            cache_position: Any = None,
            **kwargs: Any,
        ) -> Any:
            audio = encoder_outputs[0] if isinstance(encoder_outputs, tuple | list) else encoder_outputs
            own = self._llm.get_input_embeddings()(torch.zeros_like(decoder_input_ids[:, :1]))
            is_answer = (torch.ones_like(decoder_input_ids).sum(dim=1) == 1).reshape(-1, 1, 1)
            audio = torch.where(is_answer, own.to(audio.dtype), audio)
            return spliced(
                encoder_outputs=(audio,),
                decoder_input_ids=decoder_input_ids,
                attention_mask=attention_mask,
                past_key_values=past_key_values,
                cache_position=cache_position,
                **kwargs,
            )

        self._model.forward = forward


def _parts(folder: Path) -> Any:
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    frontend = config["frontend_conf"]
    encoder = SenseVoiceEncoderSmall(input_size=frontend["n_mels"] * frontend["lfr_m"], **config["audio_encoder_conf"])
    llm = Qwen3ForCausalLM(AutoConfig.from_pretrained(_language_model(folder, config), trust_remote_code=False))
    return SimpleNamespace(audio_encoder=encoder, audio_adaptor=Transformer(**config["audio_adaptor_conf"]), llm=llm)


def _language_model(folder: Path, config: dict[str, Any]) -> Path:
    """Return the folder of the language model's configuration and tokenizer, which must be inside `folder`."""
    path = (folder / str(config["llm_conf"]["init_param_path"])).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ValueError("config.yaml names a language model outside of its folder")
    return path


def load(folder: Path) -> Any:
    """Return encoder, adaptor and language model. The weights in model.pt are read without running code from it."""
    parts = _parts(folder)
    state = torch.load(folder / "model.pt", map_location="cpu", weights_only=True, mmap=True)
    state = state.get("state_dict", state)
    for name, module in vars(parts).items():
        module.load_state_dict({k.removeprefix(name + "."): v for k, v in state.items() if k.startswith(name + ".")})
        module.eval().float()
    return parts


def export(folder: Path, target: Path, precision: str) -> None:
    """Write encoder and decoder, tokenizer and detokenizer, and their configurations."""
    FunASROpenVINOConfig._MODEL_PATCHER = _Patcher
    parts = load(folder)
    llm = parts.llm.config
    config = FunASRPretrainedConfig(**{name: getattr(llm, name) for name in _SIZES})
    config.export_model_type, config.is_encoder_decoder = "fun_asr", True
    config.audio_token_id = config.decoder_start_token_id = 0
    config.num_mel_bins = 560
    config.pad_token_id = llm.eos_token_id
    model = _FunASRForSpeechSeq2Seq(parts, config)
    export_from_model(
        model, target, task="automatic-speech-recognition-with-past", ov_config=OVConfig(dtype="fp32"), stateful=True
    )
    if precision == "int8":  # export_from_model leaves that to its caller
        for path in (target / "openvino_encoder_model.xml", target / "openvino_decoder_model.xml"):
            compressed = nncf.compress_weights(
                openvino.Core().read_model(path.read_bytes(), path.with_suffix(".bin").read_bytes()),
                mode=nncf.CompressWeightsMode.INT8_ASYM,
            )
            openvino.save_model(compressed, path, compress_to_fp16=False)
    settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(_language_model(folder, settings), trust_remote_code=False)
    export_tokenizer(tokenizer, target)


if __name__ == "__main__":
    export(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])

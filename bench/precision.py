"""Benchmark of response quality by weight format, precision and KV cache type: `python -m bench.precision`.

A candidate is a combination of these. Each candidate generates greedy responses to 50 prompts, and a reference model
computes the perplexity of these responses. The reference model has the published weights, dequantized to float16, and
computes in float32 without quantization. A candidate is good enough if the perplexity of its responses exceeds the
perplexity of the reference model's own responses by at most 2%.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai

from bench.chat import MODEL, unpacked_gguf
from contract.paths import default_cache, default_model_repository, latest_version
from export.converters.gguf import requantize, save_openvino

_RESPONSE_TOKENS = 100
_PROMPTS = Path(__file__).with_name("prompts.txt").read_text(encoding="utf-8").splitlines()
_LIMIT = 1.02
# Each candidate has a precision of the computation, a type of the KV cache, and a group size for the int8 quantization
# of activations (0: activations are not quantized).
_CANDIDATES = (
    ("f32", "u8", "32"),
    ("f32", "f16", "32"),
    ("f32", "u8", "0"),
    ("bf16", "u8", "32"),
    ("bf16", "bf16", "0"),
)


def main() -> None:
    """Print one line for the reference model, and one line per candidate."""
    from tokenizers import Tokenizer

    served = latest_version(default_model_repository() / MODEL)
    tokenizer = Tokenizer.from_file(str(served / "tokenizer.json"))
    prompts = [_encode(tokenizer, text) for text in _PROMPTS]
    (default_cache() / "bench").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=default_cache() / "bench") as folder:
        reference, grouped = make_weights(Path(folder), served, "F16"), make_weights(Path(folder), served, "Q8_0")
        judge = openvino.Core().compile_model(
            openvino.Core().read_model(reference / "openvino_model.xml"), "CPU", _exact("KV_CACHE_PRECISION")
        )
        own, _ = _generate(reference, prompts, _exact("KV_CACHE_PRECISION"))
        base = _perplexity(judge, prompts, own)
        print(f"fp32 reference: perplexity {base:.4f}")
        for name, weights in (("int8 per channel", served), ("int8 in groups of 32 (Q8_0)", grouped)):
            for precision, kv_cache, activations in _CANDIDATES:
                properties = {"INFERENCE_PRECISION_HINT": precision, "KV_CACHE_PRECISION": kv_cache}
                properties["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = activations
                responses, seconds = _generate(weights, prompts, properties)
                ratio = _perplexity(judge, prompts, responses) / base
                same = sum(a == b for a, b in zip(responses, own, strict=True))
                print(
                    f"{name:28} precision {precision:4} KV cache {kv_cache:4} activation group {activations:3}: "
                    f"perplexity x {ratio:.4f} ({'good' if ratio <= _LIMIT else 'above the limit'}), "
                    f"{same} of {len(prompts)} responses identical, {sum(map(len, responses)) / seconds:.0f} tokens/s",
                    flush=True,
                )


def _exact(*names: str) -> dict[str, str]:
    return {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"} | dict.fromkeys(names, "f32")


def _encode(tokenizer: Any, text: str) -> list[int]:
    system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    turns = f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
    ids: list[int] = tokenizer.encode(turns, add_special_tokens=False).ids
    return ids


def make_weights(folder: Path, served: Path, kind: str) -> Path:
    """Write the model in OpenVINO's format to a new folder in `folder`, and return the path of the new folder.

    `kind` is the GGUF type of the weights.
    """
    made = folder / kind
    made.mkdir()
    requantize(unpacked_gguf(folder), made / "model.gguf", kind)
    save_openvino(made / "model.gguf")
    for name in ("config.json", "generation_config.json"):
        (made / name).write_bytes((served / name).read_bytes())
    return made


def _generate(folder: Path, prompts: list[list[int]], properties: dict[str, str]) -> tuple[list[list[int]], float]:
    scheduler = genai.SchedulerConfig()
    scheduler.cache_size, scheduler.max_num_seqs = 2, len(prompts)
    pipeline = genai.ContinuousBatchingPipeline(str(folder), scheduler, "CPU", properties)
    config = genai.GenerationConfig()
    config.max_new_tokens = _RESPONSE_TOKENS
    config.stop_token_ids = set(
        json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))["eos_token_id"]
    )
    config.set_eos_token_id(min(config.stop_token_ids))
    started = time.perf_counter()
    tensors = [openvino.Tensor(np.array([ids], dtype=np.int64)) for ids in prompts]
    handles = [pipeline.add_request(i, tensor, config) for i, tensor in enumerate(tensors)]
    while pipeline.has_non_finished_requests():
        pipeline.step()
    responses = [list(handle.read_all()[0].generated_ids) for handle in handles]
    return responses, time.perf_counter() - started


def _perplexity(judge: Any, prompts: list[list[int]], responses: list[list[int]]) -> float:
    """Return the perplexity of all response tokens under the judge: exp of their mean negative log-likelihood."""
    losses: list[float] = []
    request = judge.create_infer_request()
    for prompt, response in zip(prompts, responses, strict=True):
        ids = np.array([prompt + response], dtype=np.int64)
        request.reset_state()
        request.infer(
            {
                "input_ids": ids,
                "attention_mask": np.ones_like(ids),
                "position_ids": np.arange(ids.shape[1], dtype=np.int64)[None],
                "beam_idx": np.zeros(1, dtype=np.int32),
            }
        )
        logits = request.get_tensor("logits").data[0, len(prompt) - 1 : -1].astype(np.float64)
        logits -= logits.max(-1, keepdims=True)
        likelihood = logits[np.arange(len(response)), response] - np.log(np.exp(logits).sum(-1))
        losses += (-likelihood).tolist()
    return float(np.exp(np.mean(losses)))


if __name__ == "__main__":
    main()

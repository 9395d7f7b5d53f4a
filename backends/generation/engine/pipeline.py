"""Loads and warms up OpenVINO GenAI's pipeline, and converts requests to its generation configs and tensors."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai

from backends.common.errors import InvalidRequest
from backends.generation.engine.ipc import RGBImage
from contract.parameters import GenerationParameters

log = logging.getLogger(__name__)

# Below this temperature, sampling is effectively greedy. The engine rejects sampling at a temperature of 0.
_GREEDY_BELOW = 1e-5

# Prompt lookup searches the text so far for an earlier occurrence of its last n tokens. This is the maximum n.
_LOOKUP_NGRAM = 3

# Sampling parameters that are copied to the engine's config under the same name.
_SAME_NAMES = (
    "temperature",
    "top_p",
    "min_p",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "ignore_eos",
)


# The tokens in a block of the KV cache on CPUs.
_BLOCK_TOKENS = 32

# How many blocks of the KV cache the examples of `warm_up` take.
_EXAMPLE_BLOCKS = 8


def build_config(
    parameters: Mapping[str, Any], remaining_context: int, end_tokens: Sequence[int], num_draft_tokens: int = 0
) -> genai.GenerationConfig:
    """Return the engine's generation config for a request's sampling parameters.

    `remaining_context` is how many tokens fit into the context after the prompt. `num_draft_tokens` is the maximum
    number of tokens that prompt lookup proposes at a time, or 0 without prompt lookup. With `temperature` 0, decoding
    is greedy. Generation stops at any of `end_tokens`, except with `ignore_eos`. Raises InvalidRequest if the engine
    does not support the combination of parameters.
    """
    config = genai.GenerationConfig()
    config.apply_chat_template = False  # the prompt is already rendered
    config.max_new_tokens = min(parameters.get("max_tokens") or remaining_context, remaining_context)
    config.set_eos_token_id(end_tokens[0])
    config.stop_token_ids = set(end_tokens)
    for name in _SAME_NAMES:
        if name in parameters:
            setattr(config, name, parameters[name])
    if parameters.get("top_k", -1) > 0:
        config.top_k = parameters["top_k"]
    if parameters.get("logprobs"):
        config.logprobs = 1  # the engine reports no alternative tokens, so a higher number has no effect
    config.min_new_tokens = min(parameters.get("min_tokens", 0), config.max_new_tokens)
    if grammar := parameters.get("grammar"):
        config.structured_output_config = genai.StructuredOutputConfig(grammar=grammar)
        # Generation must stop at the end of the grammar, because the engine does not apply the grammar after that.
        config.ignore_eos, config.min_new_tokens = False, 0
    config.rng_seed = parameters.get("seed", 0) % (1 << 63)
    config.do_sample = parameters.get("temperature", 1.0) >= _GREEDY_BELOW
    if not config.do_sample:
        config.temperature = 1.0
    if num_draft_tokens:
        config.num_assistant_tokens, config.max_ngram_size = num_draft_tokens, _LOOKUP_NGRAM
    try:
        config.validate()
    except RuntimeError as error:
        log.warning("the engine rejected sampling parameters: %s", error)
        raise InvalidRequest("The engine does not support this combination of sampling parameters") from error
    return config


def load_pipeline(
    folder: Path, parameters: GenerationParameters, tokenizer: genai.Tokenizer | None = None
) -> genai.ContinuousBatchingPipeline:
    """Load the model in `folder` and return its pipeline, set up with the parameters from config.pbtxt."""
    scheduler = genai.SchedulerConfig()
    if parameters.cache_tokens:
        scheduler.num_kv_blocks = -(-parameters.cache_tokens // _BLOCK_TOKENS)
    else:
        scheduler.cache_size = parameters.cache_size_gb
    scheduler.max_num_seqs = parameters.max_num_seqs
    scheduler.max_num_batched_tokens = parameters.max_num_batched_tokens
    scheduler.dynamic_split_fuse = True
    scheduler.enable_prefix_caching = True
    properties = {
        "INFERENCE_PRECISION_HINT": parameters.precision,
        "KV_CACHE_PRECISION": parameters.kv_cache_precision,
        # Triton and the frontend use the same cores. A pinned thread would have to wait while they use its core.
        "ENABLE_CPU_PINNING": False,
    }
    if configured_draft_tokens(folder, parameters):
        properties["prompt_lookup"] = True
    tokenizer = tokenizer or genai.Tokenizer(str(folder))
    return genai.ContinuousBatchingPipeline(str(folder), tokenizer, scheduler, parameters.device, **properties)


def configured_draft_tokens(folder: Path, parameters: GenerationParameters) -> int:
    """Return the maximum number of tokens that prompt lookup proposes at a time; 0 (off) for a vision model."""
    return 0 if has_vision_tower(folder) else max(0, parameters.prompt_lookup)


def has_vision_tower(folder: Path) -> bool:
    """Return whether the model in `folder` accepts images."""
    return (folder / "openvino_vision_embeddings_model.xml").exists()


def warm_up(
    pipeline: genai.ContinuousBatchingPipeline, end_tokens: list[int], has_vision: bool, num_draft_tokens: int
) -> int:
    """Generate a few tokens before the model is reported ready, because the first steps compile kernels.

    Return how many blocks the KV cache has free afterwards, or 0 for a vision model, for which that is not known.
    """
    config = build_config({"max_tokens": 4, "temperature": 0, "ignore_eos": True}, 4, end_tokens, num_draft_tokens)
    num_blocks = 0.0
    for width in (1, 4):
        handles = [_add_example(pipeline, i, config, has_vision) for i in range(width)]
        while pipeline.has_non_finished_requests():
            pipeline.step()
            # The first example of a text model, of 16 tokens, takes one block.
            num_blocks = num_blocks or 100 / max(pipeline.get_metrics().cache_usage, 1e-6)
        for handle in handles:
            handle.read_all()
    return 0 if has_vision else max(1, round(num_blocks) - _EXAMPLE_BLOCKS)


def _add_example(
    pipeline: genai.ContinuousBatchingPipeline, index: int, config: genai.GenerationConfig, has_vision: bool
) -> Any:
    if has_vision:  # a vision model's pipeline does not support token IDs
        black = RGBImage(224, 224, bytes(224 * 224 * 3), 0)
        text = "<ov_genai_image_0>" + "hello " * (16 + 8 * index)
        return pipeline.add_request(index, text, [image_tensor(black)], config)
    ids = np.full((1, 16 + 8 * index), index, dtype=np.int64)
    return pipeline.add_request(index, openvino.Tensor(ids), config)


def image_tensor(rgb_image: RGBImage) -> openvino.Tensor:
    """Return an image as a uint8 tensor [height, width, 3] for the pipeline."""
    return openvino.Tensor(np.frombuffer(rgb_image.pixels, np.uint8).reshape(rgb_image.height, rgb_image.width, 3))

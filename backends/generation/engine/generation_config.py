"""From the request's sampling parameters to the engine's generation config."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import openvino_genai as genai

from backends.common.errors import InvalidRequest

log = logging.getLogger(__name__)

# Below this the engine would divide by zero; it is greedy decoding anyway.
_GREEDY_BELOW = 1e-5

# Of the last tokens so many, or fewer, are looked for in what comes before.
_LOOKUP_NGRAM = 3

# Names that mean the same on both sides.
_SAME = ("temperature", "top_p", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty", "ignore_eos")


def build_config(
    parameters: Mapping[str, Any], remaining_context: int, end_tokens: Sequence[int], num_draft_tokens: int = 0
) -> genai.GenerationConfig:
    """Return the engine's config; `room` is the number of tokens that still fit into the context.

    `guesses`: how many tokens the pipeline, if it does, may guess at a time from what is in the prompt.
    `temperature` 0 is greedy decoding, as in OpenAI's API. The answer ends at any of `end_tokens`. Raises
    InvalidRequest for a value the engine does not take.
    """
    config = genai.GenerationConfig()
    config.apply_chat_template = False  # that has been done
    config.max_new_tokens = min(parameters.get("max_tokens") or remaining_context, remaining_context)
    config.set_eos_token_id(end_tokens[0])
    config.stop_token_ids = set(end_tokens)
    for name in _SAME:
        if name in parameters:
            setattr(config, name, parameters[name])
    if parameters.get("top_k", -1) > 0:
        config.top_k = parameters["top_k"]
    if parameters.get("logprobs"):
        config.logprobs = 1  # the engine tells those of the tokens it has taken alone
    config.min_new_tokens = min(parameters.get("min_tokens", 0), config.max_new_tokens)
    if grammar := parameters.get("grammar"):
        config.structured_output_config = genai.StructuredOutputConfig(grammar=grammar)
        # Made to go on after the grammar's end, the engine would forget the grammar.
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
        log.warning("refused by the engine: %s", error)
        raise InvalidRequest("The engine does not take this combination of sampling parameters") from error
    return config

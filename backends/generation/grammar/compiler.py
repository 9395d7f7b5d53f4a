"""Compiles grammars while the engine keeps stepping, and rejects grammars that would block or crash it.

Without this module, the engine's pipeline would compile a request's grammar in the step that generates the request's
first token. Compilation can take seconds and would delay all other requests, and a grammar that does not compile would
make every later step fail. However, the tokenizer caches compiled grammars, and `LLMPipeline.generate()` releases the
GIL. Therefore a second pipeline, which has the same tokenizer and a network that computes nothing, generates one token
with each new grammar in a separate thread. The engine's pipeline then finds the compiled grammar in the tokenizer.

Some grammars take too long to compile or to generate a token with, and some crash the process that uses them. Therefore
a trial process (`compiler.py FOLDER END_TOKEN_ID FILE_DESCRIPTOR`) generates tokens with each grammar before the second
pipeline compiles it.
"""

import logging
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino
import openvino.opset15 as ops
import openvino_genai as genai
from openvino.op.util import Variable, VariableInfo
from openvino.opset6 import assign, read_value

from backends.common.child_process import open_connection
from backends.generation.grammar.trial import NICE, UNAVAILABLE, Trial, run_trial_process

log = logging.getLogger(__name__)

# How many tokens a trial generates.
_TOKENS = 32


class UniformModel:
    """A pipeline whose network gives all tokens the same logit, so that only the grammar selects tokens.

    Raises RuntimeError if the tokenizer has no vocabulary.
    """

    def __init__(self, tokenizer: genai.Tokenizer, end: int):
        vocabulary = len(tokenizer.get_vocab())
        with tempfile.TemporaryDirectory() as folder:
            openvino.save_model(uniform_network(vocabulary), Path(folder) / "openvino_model.xml")
            self._pipeline = genai.LLMPipeline(folder, tokenizer, "CPU", ATTENTION_BACKEND="SDPA")
        self._end = end

    def generate(self, grammar: str, tokens: int) -> str | None:
        """Generate at most `tokens` tokens with a grammar. Return why it is rejected, or None if it is accepted."""
        try:
            config = genai.GenerationConfig()
            config.max_new_tokens = tokens
            config.set_eos_token_id(self._end)
            config.apply_chat_template = False
            config.structured_output_config = genai.StructuredOutputConfig(grammar=grammar)
            one = openvino.Tensor(np.ones((1, 1), np.int64))
            self._pipeline.generate(genai.TokenizedInputs(one, one), config)
        except Exception as error:
            return _message_of(error)
        return None


class GrammarCompiler:
    """Compiles grammars. The caller must start only one compilation at a time."""

    def __init__(self, folder: Path, tokenizer: genai.Tokenizer, end: int):
        self._trial = Trial("backends.generation.grammar.compiler", str(folder), str(end))
        try:
            self._model: UniformModel | None = UniformModel(tokenizer, end)
        except Exception as error:  # for example, a model exported before Trident supported grammars has no vocabulary
            log.warning(
                "structured output is unavailable (%s); if openvino_detokenizer.xml is missing, export the model again",
                error,
            )
            self._model = None

    def start(self, grammar: str, on_done: Callable[[str, str | None], None]) -> None:
        """Start compiling a grammar in a new thread, which calls `on_done(grammar, reason)` at the end.

        `reason` is why the grammar is rejected, or None if the grammar is accepted.
        """
        threading.Thread(target=self._run, args=(grammar, on_done), name="grammar-compiler", daemon=True).start()

    def _run(self, grammar: str, on_done: Callable[[str, str | None], None]) -> None:
        try:
            reason = self._compile(grammar)
        except Exception:
            log.exception("compiling a grammar failed")
            reason = UNAVAILABLE
        if reason:
            log.warning("rejected a grammar of %d characters", len(grammar))
        on_done(grammar, reason)

    def _compile(self, grammar: str) -> str | None:
        if self._model is None:
            return "This model does not support structured output; export it again"
        if reason := self._trial.try_grammar(grammar):
            return reason
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        return self._model.generate(grammar, 1)


def _message_of(error: Exception) -> str:
    """Return the engine's error message without its timestamp and source location, cut to 300 characters."""
    return str(error).rpartition(".cc:")[2].partition(": ")[2].strip()[:300] or "The grammar does not compile"


def uniform_network(vocabulary: int) -> openvino.Model:
    """Return a network that the pipeline accepts as a language model, and whose logits are all zero."""
    names = ("input_ids", "attention_mask", "position_ids", "beam_idx")
    inputs = [ops.parameter([-1], np.int32) if n == "beam_idx" else ops.parameter([-1, -1], np.int64) for n in names]
    for node, name in zip(inputs, names, strict=True):
        node.output(0).tensor.add_names({name})
    ids, beams = inputs[0], inputs[3]
    shape = ops.concat([ops.shape_of(ids, "i64"), ops.constant(np.array([vocabulary], np.int64))], 0)
    logits = ops.broadcast(ops.constant(np.float32(0)), shape)
    logits.output(0).tensor.add_names({"logits"})
    # A minimal KV cache with one value per token, because the pipeline rejects a model without a KV cache.
    info = VariableInfo()
    info.data_shape, info.data_type = openvino.PartialShape([-1, 1, -1, 1]), openvino.Type.f32
    info.variable_id = "past_key_values.0.keypresent.0.key"
    cache = Variable(info)
    rows = ops.gather(ops.shape_of(ids, "i64"), ops.constant(np.array([0])), ops.constant(np.int64(0)))
    empty = ops.broadcast(
        ops.constant(np.float32(0)), ops.concat([rows, ops.constant(np.array([1, 0, 1], np.int64))], 0)
    )
    past = ops.gather(read_value(empty, cache), beams, ops.constant(np.int64(0)))
    new = ops.unsqueeze(ops.unsqueeze(ops.convert(ids, "f32"), 1), 3)
    kept = assign(ops.concat([past, new], 2), cache)
    return openvino.Model([ops.result(logits)], [kept], inputs, "uniform")


def main() -> None:
    """Run a trial process: try the grammars that arrive on its socket until the socket closes."""
    model = UniformModel(genai.Tokenizer(sys.argv[1]), int(sys.argv[2]))
    run_trial_process(open_connection(), lambda grammar: model.generate(grammar, _TOKENS))


if __name__ == "__main__":
    main()

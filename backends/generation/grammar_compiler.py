"""Compiles grammars while the engine goes on stepping.

The pipeline compiles a request's grammar inside of the step that makes its first token, which takes up to seconds and
holds up all other answers; one that does not compile fails every step from then on. But compiled grammars are kept by
the tokenizer, and `generate()` of another pipeline lets go of Python's lock. So there is a second pipeline, with the
same tokenizer and a network that computes nothing, and a thread that has it generate one token by each new grammar:
when the first pipeline then sees that grammar, it is there.
"""

import logging
import os
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

log = logging.getLogger(__name__)

# Threads that this one's begin have its priority: the engine's come first.
_NICE = 15


class GrammarCompiler:
    """`on_done(grammar, reason)` is called from its own thread; a reason says why the grammar is refused."""

    def __init__(
        self, tokenizer: genai.Tokenizer, vocabulary: int, end: int, on_done: Callable[[str, str | None], None]
    ):
        with tempfile.TemporaryDirectory() as folder:
            openvino.save_model(_silent_network(vocabulary), Path(folder) / "openvino_model.xml")
            self._pipeline = genai.LLMPipeline(folder, tokenizer, "CPU", ATTENTION_BACKEND="SDPA")
        self._end, self._on_done = end, on_done

    def start(self, grammar: str) -> None:
        """Begin to compile; one at a time."""
        threading.Thread(target=self._compile, args=(grammar,), name="grammar-compiler", daemon=True).start()

    def _compile(self, grammar: str) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        config = genai.GenerationConfig()
        config.max_new_tokens = 1
        config.set_eos_token_id(self._end)
        config.apply_chat_template = False
        config.structured_output_config = genai.StructuredOutputConfig(grammar=grammar)
        one = openvino.Tensor(np.ones((1, 1), np.int64))
        try:
            self._pipeline.generate(genai.TokenizedInputs(one, one), config)
        except Exception as error:
            log.warning("a grammar is refused: %s", error)
            self._on_done(grammar, _reason(error))
        else:
            self._on_done(grammar, None)


def _reason(error: Exception) -> str:
    """Return the engine's message without the time and place that it begins with."""
    return str(error).rpartition(".cc:")[2].partition(": ")[2].strip()[:300] or "it does not compile"


def _silent_network(vocabulary: int) -> openvino.Model:
    """Return what looks like a language model to the pipeline; all its logits are zero."""
    names = ("input_ids", "attention_mask", "position_ids", "beam_idx")
    inputs = [ops.parameter([-1], np.int32) if n == "beam_idx" else ops.parameter([-1, -1], np.int64) for n in names]
    for node, name in zip(inputs, names, strict=True):
        node.output(0).tensor.add_names({name})
    ids, beams = inputs[0], inputs[3]
    shape = ops.concat([ops.shape_of(ids, "i64"), ops.constant(np.array([vocabulary], np.int64))], 0)
    logits = ops.broadcast(ops.constant(np.float32(0)), shape)
    logits.output(0).tensor.add_names({"logits"})
    # A cache of its own, one number a token: the pipeline refuses a model without.
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
    return openvino.Model([ops.result(logits)], [kept], inputs, "silent")

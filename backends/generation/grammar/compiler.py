"""Compiles grammars while the engine goes on stepping, and keeps from it those that would harm it.

The pipeline compiles a request's grammar inside of the step that makes its first token, which takes up to seconds and
holds up all other answers; one that does not compile fails every step from then on. But compiled grammars are kept by
the tokenizer, and `generate()` of another pipeline lets go of Python's lock. So there is a second pipeline, with the
same tokenizer and a network that computes nothing, and a thread that has it generate one token by each new grammar:
when the first pipeline then sees that grammar, it is there.

Before that a process of its own tries the grammar (`compiler.py FOLDER END CONNECTION`): some take for
ever to compile, or for each token, and some end the process.
"""

import logging
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino
import openvino.opset15 as ops
import openvino_genai as genai
import psutil
from openvino.op.util import Variable, VariableInfo
from openvino.opset6 import assign, read_value

from backends.common.child_process import ChildProcess, open_connection, own_module

log = logging.getLogger(__name__)

# Threads that this one's begin have its priority: the engine's come first.
_NICE = 15

# Of a processor, for compiling and for the tokens that are tried; and on the clock, which others may take most of.
_CPU_SECONDS, _SECONDS, _TOKENS = 4.0, 60.0, 32
_START_SECONDS = 60.0
_MEMORY = 8 << 30

# After so many the process that tries them is ended: what is compiled stays in its memory.
_MAX_TRIED = 400


class SilentModel:
    """Generates by a grammar, all tokens being equally likely. Raises ValueError if the model has no vocabulary."""

    def __init__(self, tokenizer: genai.Tokenizer, end: int):
        vocabulary = len(tokenizer.get_vocab())
        with tempfile.TemporaryDirectory() as folder:
            openvino.save_model(_silent_network(vocabulary), Path(folder) / "openvino_model.xml")
            self._pipeline = genai.LLMPipeline(folder, tokenizer, "CPU", ATTENTION_BACKEND="SDPA")
        self._end = end

    def generate(self, grammar: str, tokens: int) -> str | None:
        """Return why the grammar is refused, None if it is not."""
        try:
            config = genai.GenerationConfig()
            config.max_new_tokens = tokens
            config.set_eos_token_id(self._end)
            config.apply_chat_template = False
            config.structured_output_config = genai.StructuredOutputConfig(grammar=grammar)
            one = openvino.Tensor(np.ones((1, 1), np.int64))
            self._pipeline.generate(genai.TokenizedInputs(one, one), config)
        except Exception as error:
            return _reason(error)
        return None


class GrammarCompiler:
    """Takes one grammar at a time."""

    def __init__(self, folder: Path, tokenizer: genai.Tokenizer, end: int):
        self._folder, self._end = folder, end
        self._trial: _Trial | None = None
        try:
            self._model: SilentModel | None = SilentModel(tokenizer, end)
        except Exception:  # a model exported before there were grammars has no vocabulary
            log.warning("no grammars: the model's folder lacks openvino_detokenizer.xml; export it again")
            self._model = None

    def start(self, grammar: str, on_done: Callable[[str, str | None], None]) -> None:
        """Begin to compile; `on_done(grammar, reason)` is called from another thread, the reason being why not."""
        threading.Thread(target=self._run, args=(grammar, on_done), name="grammar-compiler", daemon=True).start()

    def _run(self, grammar: str, on_done: Callable[[str, str | None], None]) -> None:
        try:
            reason = self._compile(grammar)
        except Exception:
            log.exception("a grammar could not be tried")
            reason = "it could not be compiled"
        if reason:
            log.warning("a grammar of %d characters is refused", len(grammar))
        on_done(grammar, reason)

    def _compile(self, grammar: str) -> str | None:
        if self._model is None:
            return "This model's answers cannot be kept to a form: export it again"
        if self._trial is None or self._trial.count >= _MAX_TRIED:
            if self._trial:
                self._trial.end()
            self._trial = _Trial(self._folder, self._end)
        if reason := self._trial.ask(grammar):
            if self._trial.is_over:
                self._trial = None
            return reason
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        return self._model.generate(grammar, 1)


class _Trial:
    """The process that tries grammars."""

    def __init__(self, folder: Path, end: int):
        command, environment = own_module("backends.generation.grammar.compiler")
        self._process = ChildProcess([*command, str(folder), str(end)], environment)
        self._connection = self._process.connection
        self.count, self.is_over = 0, False
        if not self._connection.poll(_START_SECONDS):
            self.end()
            raise TimeoutError("the process that tries grammars does not start")
        self._connection.recv()

    def ask(self, grammar: str) -> str | None:
        """Return why the grammar is refused, None if it is not."""
        self.count += 1
        try:
            self._connection.send(grammar)
            if not self._has_answered():
                self.end()
                return "it takes too long to compile, or to keep to"
            reason: str | None = self._connection.recv()
        except (EOFError, OSError, psutil.Error):
            self.end()
            return "it is too large to compile"
        return reason

    def _has_answered(self) -> bool:
        """Wait for an answer, as long as the grammar may take."""
        deadline, process = time.monotonic() + _SECONDS, psutil.Process(self._process.pid)
        used = sum(process.cpu_times()[:2])
        while time.monotonic() < deadline and sum(process.cpu_times()[:2]) - used < _CPU_SECONDS:
            if self._connection.poll(0.1):
                return True
        return False

    def end(self) -> None:
        """Stop the process."""
        self.is_over = True
        self._process.close()


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


def main() -> None:
    """Try grammars until the socket closes."""
    folder, end = sys.argv[1], int(sys.argv[2])
    os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    connection = open_connection()
    model = SilentModel(genai.Tokenizer(folder), end)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    connection.send(None)
    try:
        while True:
            connection.send(model.generate(connection.recv(), _TOKENS))
    except (EOFError, OSError):
        log.info("the engine is gone; so am I")


if __name__ == "__main__":
    main()

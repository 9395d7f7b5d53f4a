"""Triton's Python backend for text generation: accepts requests, prepares their prompts and sends their responses."""

import functools
import gc
import json
import logging
import random
import weakref
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from backends.common.errors import EngineDown, EngineFailure, InvalidRequest, QueueFull
from backends.common.llamacpp.library import PROJECTOR
from backends.common.llamacpp.media.encoder import MediaEncoder
from backends.common.triton import (
    FINAL,
    error_response,
    has_input,
    load_model_config,
    read_strings,
    request_parameters,
    response,
)
from backends.generation.engine.client import EngineClient
from backends.generation.engine.ipc import TopLogprobs
from backends.generation.grammar.constraints import grammar_from
from backends.generation.llamacpp.gbnf import to_gbnf
from backends.generation.output.generated_text import Delta, GeneratedText
from backends.generation.output.metrics import Metrics
from backends.generation.output.output_check import Check, output_check
from backends.generation.output.sender import Sender
from backends.generation.prompt.chat_prompt import ChatPrompt, Files, Prompt, TemplateInputs
from backends.generation.prompt.image_processor import load_image_processor
from backends.generation.prompt.media_prompt import MediaPrompt
from backends.generation.prompt.schema_prompt import schema_of
from backends.generation.prompt.vision_prompt import VisionPrompt
from contract.constraints import constraint_from_json
from contract.parameters import GenerationParameters
from contract.tensors import CHAT, FILES, OUTPUT_MISMATCH

log = logging.getLogger(__name__)

# The schema is left out of a prompt after which fewer tokens are left for the answer, unless the client wants fewer.
_ANSWER = 1_024

# The maximum size of the embeddings of all unfinished requests together.
_MAX_EMBEDDING_BYTES = 1 << 30

_JSON_KINDS = frozenset(("json_object", "json_schema", "tool_calls", "any_of"))
_PENALTIES = frozenset(("frequency_penalty", "presence_penalty", "repetition_penalty"))


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        folder, parameters = load_model_config(args, GenerationParameters)
        self._prompt = _open_prompt(folder, parameters)
        self._engine_name = parameters.engine
        self._describes_schemas = parameters.schema_in_prompt
        self._frequency_penalty = parameters.structured_frequency_penalty
        self._capacity = parameters.max_num_seqs + parameters.queue_size
        self._max_per_client = max(1, self._capacity * 3 // 4)
        # The unfinished requests that have images or audio, each of which takes megabytes.
        self._with_files: weakref.WeakSet[GeneratedText] = weakref.WeakSet()
        self._max_with_files = parameters.max_num_seqs
        self._embedding_bytes: weakref.WeakKeyDictionary[GeneratedText, int] = weakref.WeakKeyDictionary()
        self._metrics = Metrics(args["model_name"])
        self._sender = Sender(self._send, self._abandon, self._tick)
        self._engine = EngineClient(folder, parameters, self._sender.notify)
        # Two threads, so that one huge conversation does not delay all other requests.
        self._preparers = ThreadPoolExecutor(2, thread_name_prefix="reader")
        self._encoding_preparer = ThreadPoolExecutor(1, thread_name_prefix="encoder")
        self._preparing: set[GeneratedText] = set()
        self._engine.start()
        self._sender.start()

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            reply = request.get_response_sender()
            try:
                self._accept(request, reply)
            except (QueueFull, EngineDown) as error:
                reply.send(error_response(error), FINAL)
            except Exception as error:
                log.exception("request %s failed", request.request_id())
                reply.send(error_response(error), FINAL)

    def finalize(self) -> None:
        self._preparers.shutdown(cancel_futures=True)
        self._encoding_preparer.shutdown(wait=False, cancel_futures=True)
        self._prompt.close()
        self._encoding_preparer.shutdown()
        self._engine.stop()
        self._sender.stop()
        # Triton's stub process crashes on exit if the metrics outlive this call.
        del self._metrics, self._sender, self._engine
        gc.collect()

    def _accept(self, request: Any, reply: Any) -> None:
        triton_parameters = request_parameters(request)
        if triton_parameters.get("probe"):
            if not self._engine.is_ready:
                raise EngineDown("The model's engine is restarting")
            reply.send(flags=FINAL)
            return
        client = str(triton_parameters.get("client", ""))
        if max(len(self._sender), len(self._preparing)) >= self._capacity:
            raise QueueFull
        if self._sender.count(client) >= self._max_per_client:
            raise QueueFull(f"Too many requests from this client (limit {self._max_per_client}); retry later")
        # read_strings copies the values, because Triton frees the tensors when execute returns.
        inputs = {name: read_strings(request, name) for name in CHAT.inputs if has_input(request, name)}
        answer = GeneratedText(reply, request.request_id(), client)
        has_files = any(inputs.get(name) for name in FILES)
        if has_files:
            if len(self._with_files) >= self._max_with_files:
                raise QueueFull(f"Too many requests with images or audio (limit {self._max_with_files}); retry later")
            self._with_files.add(answer)
        self._sender.watch(answer)
        self._preparing.add(answer)
        preparer = self._encoding_preparer if has_files and self._prompt.encodes_files else self._preparers
        preparer.submit(self._prepare, answer, inputs)

    def _prepare(self, answer: GeneratedText, inputs: dict[str, list[bytes]]) -> None:
        """Prepare a request and submit it to the engine. Runs in a thread, because large inputs take time."""
        try:
            if answer.closed:
                return
            parameters = json.loads(inputs["sampling_parameters"][0])
            parameters.setdefault("seed", random.getrandbits(63))
            check = None
            if constraint := parameters.get("constraint"):
                parameters["grammar"], check = _compiled(json.dumps(constraint), self._engine_name)
                if self._frequency_penalty and constraint["kind"] in _JSON_KINDS and not _PENALTIES & parameters.keys():
                    parameters["frequency_penalty"] = self._frequency_penalty
            self._check_bias(parameters.get("logit_bias") or {})
            schema = schema_of(constraint) if self._describes_schemas else None
            prompt = _read_prompt(self._prompt, inputs, parameters, schema, lambda: answer.closed)
            self._reserve(answer, prompt)
            detokenizer = self._prompt.vocabulary.detokenizer(parameters.get("visible_tokens", ()))
            # Constrained output has no reasoning, so the client does not get a `<think>` that the chat template wrote.
            reasoning_prefix = (
                prompt.prompt_text if parameters.get("echo") else "" if constraint else prompt.reasoning_prefix
            )
            answer.prepare(prompt.num_tokens, parameters, detokenizer, reasoning_prefix, check)
            answer.prompt = prompt if check else None
            self._engine.submit(answer, prompt)
        except Exception as error:
            # The frontend sends only well-formed input, so malformed input comes from another client of Triton.
            malformed = isinstance(error, ValueError | TypeError | KeyError)
            answer.fail(InvalidRequest(f"Malformed input: {error}") if malformed else error)
            self._sender.notify([answer])
        finally:
            self._preparing.discard(answer)

    def _reserve(self, answer: GeneratedText, prompt: Prompt) -> None:
        """Count the memory of a request's embeddings. Raises QueueFull if those of all requests are too large."""
        size = sum(each.values.nbytes for each in prompt.embeddings)
        if size and sum(self._embedding_bytes.values()) + size > _MAX_EMBEDDING_BYTES:
            raise QueueFull("Too many images and audio files in unfinished requests; retry later")
        if size:
            self._embedding_bytes[answer] = size

    def _check_bias(self, bias: Mapping[str, float]) -> None:
        """Raise InvalidRequest if a token is not in the vocabulary."""
        size = self._prompt.vocabulary.size
        if unknown := [token for token in bias if not 0 <= int(token) < size]:
            message = f"Token IDs of this model range from 0 to {size - 1}; {unknown[0]} is not one of them"
            raise InvalidRequest(message, "logit_bias")

    def _send(self, answer: GeneratedText) -> bool:
        """Send an answer's new output or its error. Return whether this was the last response."""
        try:
            delta = answer.take_delta()
        except Exception as error:
            self._engine.cancel(answer)
            if not isinstance(error, InvalidRequest):
                log.error("request %s failed: %r", answer.request_id, error)
            answer.reply.send(error_response(error), FINAL)
            return True
        if not (delta.text or delta.logprobs or delta.finish_reason):
            return False
        if delta.finish_reason and answer.violates_constraint():
            return self._settle_violation(answer)
        values: dict[str, Any] = {"text_output": delta.text}
        if answer.parameters.get("logprobs"):
            values["logprobs"] = json.dumps(self._describe_prompt(delta) + self._describe(delta.logprobs))
        # A client that disconnects is charged for the tokens so far.
        values["num_output_tokens"] = delta.num_output_tokens
        if not answer.has_sent or delta.finish_reason:
            values["num_input_tokens"] = delta.num_input_tokens
        if delta.finish_reason:
            self._metrics.count(delta.num_input_tokens, delta.num_output_tokens)
            self._engine.cancel(answer)  # after a stop string, the engine would otherwise go on generating
            values["finish_reason"] = delta.finish_reason
            if delta.num_reasoning_tokens is not None:
                values["num_reasoning_tokens"] = delta.num_reasoning_tokens
            if delta.num_cached_tokens is not None:
                values["num_cached_tokens"] = delta.num_cached_tokens
        answer.has_sent = True
        answer.reply.send(response(CHAT, **values), FINAL if delta.finish_reason else 0)
        return delta.finish_reason is not None

    def _describe(self, logprobs: Iterable[tuple[int, float, TopLogprobs]]) -> list[dict[str, Any]]:
        """Return the entries of OpenAI's `logprobs` for tokens, without special tokens."""
        vocabulary, entries = self._prompt.vocabulary, []
        for token, value, top in logprobs:
            if entry := vocabulary.describe(token, value):
                others = [vocabulary.describe(other, its_value, with_special=True) for other, its_value in top]
                entries.append(entry | {"top_logprobs": others})
        return entries

    def _describe_prompt(self, delta: Delta) -> list[dict[str, Any]]:
        """Return the entries for the prompt's tokens, without a special token that is not in the prompt's text."""
        vocabulary, entries = self._prompt.vocabulary, []
        for index, (token, value, top) in enumerate(delta.prompt_scores):
            entry = vocabulary.describe(token, value, with_special=True)
            is_added = index == 0 and entry and not vocabulary.describe(token, value)
            if entry and not (is_added and not delta.text.startswith(entry["token"])):
                others = [vocabulary.describe(other, its_value, with_special=True) for other, its_value in top]
                entries.append(entry | {"top_logprobs": others})
        return entries

    def _settle_violation(self, answer: GeneratedText) -> bool:
        """Generate an output that violates its constraint once more, or fail it. Return whether the answer is complete.

        An output is generated again if nothing of it has been sent and another seed can lead to another output.
        """
        self._metrics.count_violation()
        is_sampled = answer.parameters.get("temperature", 1.0) > 0
        if answer.prompt and is_sampled and not answer.has_sent and answer.attempts == 1:
            log.warning("the output of request %s violates its constraint; generating it again", answer.request_id)
            visible = answer.parameters.get("visible_tokens", ())
            answer.restart(self._prompt.vocabulary.detokenizer(visible))
            try:
                self._engine.submit(answer, answer.prompt)
            except EngineDown as error:
                answer.reply.send(error_response(error), FINAL)
                return True
            return False
        log.error("the output of request %s violates its constraint", answer.request_id)
        message = "The model's output does not match the requested format; try again"
        failure = EngineFailure(message, code=OUTPUT_MISMATCH)
        answer.reply.send(error_response(failure), FINAL)
        return True

    def _abandon(self, answer: GeneratedText) -> None:
        self._engine.cancel(answer)
        answer.reply.send(flags=FINAL)

    def _tick(self) -> None:
        self._metrics.publish(self._engine.gauges)


@functools.lru_cache(maxsize=128)
def _compiled(constraint: str, engine: str) -> tuple[str, Check | None]:
    """Return the grammar for a constraint in JSON, and the check of its outputs. Raises InvalidRequest."""
    content = json.loads(constraint)
    grammar = grammar_from(content, to_gbnf if engine == "llamacpp" else None)
    return grammar, output_check(constraint_from_json(content))


def _read_prompt(
    prompt: ChatPrompt,
    inputs: dict[str, list[bytes]],
    parameters: dict[str, Any],
    schema: dict[str, Any] | None,
    is_cancelled: Callable[[], bool],
) -> Prompt:
    """Return the prompt for a request's messages, text or token IDs.

    The prompt of messages describes the JSON schema of the output, if any, unless there is no space for it.
    Raises InvalidRequest if the model cannot accept the inputs, and other exceptions if the inputs are malformed.
    """
    if "prompt" in inputs:
        return prompt.from_text(inputs["prompt"][0].decode())
    if "token_ids" in inputs:
        return prompt.from_token_ids(np.frombuffer(inputs["token_ids"][0], "<i4").tolist())
    tools = json.loads(inputs["tools"][0]) if "tools" in inputs else []
    template_inputs = TemplateInputs(tools, parameters.get("chat_template_kwargs", {}), schema)
    messages = json.loads(inputs["messages"][0])
    files = Files({name: inputs.get(name, []) for name in FILES}, is_cancelled)
    try:
        read = prompt.from_messages(messages, files, template_inputs)
    except InvalidRequest as error:
        if not schema or error.code != "context_length_exceeded":
            raise
    else:
        if not schema or read.remaining_context >= min(parameters.get("max_tokens") or _ANSWER, _ANSWER):
            return read
    return prompt.from_messages(messages, files, replace(template_inputs, schema=None))


def _open_prompt(folder: Path, parameters: GenerationParameters) -> ChatPrompt:
    if (folder / PROJECTOR).exists():
        encoder = MediaEncoder(folder, parameters.image_tokens)
        return MediaPrompt(folder, parameters.context_length, encoder, parameters.max_pixels)
    image_processor = load_image_processor(folder, parameters.image_tokens)
    if image_processor is None:
        return ChatPrompt(folder, parameters.context_length)
    return VisionPrompt(folder, parameters.context_length, image_processor, parameters.max_pixels)

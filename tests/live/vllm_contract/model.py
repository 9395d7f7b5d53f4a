"""A model with the tensors of Triton's stock vLLM backend and no GPU: it says the prompt's words again, backwards.

As there: each response has what is new, `finish_reason` is "None" until the last, counts are UINT32, that of the input
a scalar; what is not streamed comes at once, with the prompt before it unless that is excluded; without max_tokens
there are 16; a failure is Triton's own.
"""

import json
import threading
import time

import numpy as np
import triton_python_backend_utils as pb_utils

_FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
_SECONDS = 0.02
_KNOWN = {"temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty"}
_KNOWN |= {"max_tokens", "seed", "stop", "ignore_eos"}


class TritonPythonModel:
    def initialize(self, args):
        self._running = 0
        family = pb_utils.MetricFamily(
            name="trident_generation_running", description="Requests", kind=pb_utils.MetricFamily.GAUGE
        )
        self._family, self._gauge = family, family.Metric(labels={"model": args["model_name"]})

    def execute(self, requests):
        for request in requests:
            inputs = {
                name: pb_utils.get_input_tensor_by_name(request, name).as_numpy()[0]
                for name in ("text_input", "stream", "exclude_input_in_output", "sampling_parameters")
            }
            threading.Thread(target=self._answer, args=(inputs, request.get_response_sender())).start()

    def finalize(self):
        del self._gauge, self._family

    def _answer(self, inputs, sender):
        self._count(1)
        try:
            self._generate(inputs, sender)
        except Exception as error:
            sender.send(
                pb_utils.InferenceResponse(error=pb_utils.TritonError(f"Error generating stream: {error}")), _FINAL
            )
        finally:
            self._count(-1)

    def _generate(self, inputs, sender):
        prompt = inputs["text_input"].decode()
        asked = json.loads(inputs["sampling_parameters"])
        if unknown := set(asked) - _KNOWN:
            raise TypeError(f"unexpected {unknown}")
        if "<fail>" in prompt:
            raise RuntimeError("told to")
        words = prompt.split()
        said = [f"{word} " for word in reversed(words)]
        said = said * 1000 if asked.get("ignore_eos") else said
        maximum, stops = asked.get("max_tokens", 16), asked.get("stop", [])
        kept, count, reason = "" if inputs["exclude_input_in_output"] else prompt, 0, None
        for word in said[:maximum]:
            if sender.is_cancelled():
                sender.send(flags=_FINAL)
                return
            time.sleep(_SECONDS)
            count += 1
            if any(stop in word for stop in stops):
                word, reason = word[: min(word.find(stop) for stop in stops if stop in word)], "stop"
            kept += word
            if reason:
                break
            if inputs["stream"]:
                sender.send(self._response(kept, "None", len(words), count))
                kept, count = "", 0
        reason = reason or ("length" if maximum < len(said) else "stop")
        sender.send(self._response(kept, reason, len(words), count), _FINAL)

    def _response(self, text, finish_reason, num_input_tokens, num_output_tokens):
        tensors = {
            "text_output": np.asarray([text.encode()], dtype=np.object_),
            "finish_reason": np.asarray([finish_reason], dtype=np.object_),
            "num_input_tokens": np.asarray(num_input_tokens, dtype=np.uint32),
            "num_output_tokens": np.asarray([num_output_tokens], dtype=np.uint32),
        }
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, value) for name, value in tensors.items()])

    def _count(self, change):
        self._running += change
        self._gauge.set(self._running)

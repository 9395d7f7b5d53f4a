"""A stand-in for Triton's stock vLLM backend that needs no GPU: it returns the prompt's words in reverse order.

It behaves like the vLLM backend in these respects:
- With `stream`, each response has only the new text; without `stream`, a single response has all the text.
- The text starts with the prompt, unless `exclude_input_in_output` is set.
- `finish_reason` is "None" in every response except the last.
- Token counts are UINT32: a scalar for the input, an array for the output.
- `max_tokens` defaults to 16.
- Images come in base64, in the order of their places in the prompt; here, a place is the word <image>.
- A failed request receives a Triton error.
"""

import base64
import io
import json
import threading
import time

import numpy as np
import triton_python_backend_utils as pb_utils
from PIL import Image

_FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
_SECONDS = 0.02
_SUPPORTED = {"temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty"}
_SUPPORTED |= {"max_tokens", "seed", "stop", "ignore_eos"}


def _images(tensor):
    """Return a word for each image, which tells its size."""
    files = tensor.as_numpy().reshape(-1) if tensor is not None else []
    opened = [Image.open(io.BytesIO(base64.b64decode(content))) for content in files]
    return [f"<image:{image.width}x{image.height}>" for image in opened]


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
            inputs["images"] = _images(pb_utils.get_input_tensor_by_name(request, "image"))
            threading.Thread(target=self._respond, args=(inputs, request.get_response_sender())).start()

    def finalize(self):
        del self._gauge, self._family

    def _respond(self, inputs, sender):
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
        parameters = json.loads(inputs["sampling_parameters"])
        if unknown := set(parameters) - _SUPPORTED:
            raise TypeError(f"unexpected sampling parameters: {unknown}")
        if "<fail>" in prompt:
            raise RuntimeError("the prompt requested a failure")
        words = prompt.split()
        images = iter(inputs["images"])
        words = [next(images) if word == "<image>" else word for word in words]
        output = [f"{word} " for word in reversed(words)]
        output = output * 1000 if parameters.get("ignore_eos") else output
        maximum, stops = parameters.get("max_tokens", 16), parameters.get("stop", [])
        pending, count, reason = "" if inputs["exclude_input_in_output"] else prompt, 0, None
        for word in output[:maximum]:
            if sender.is_cancelled():
                sender.send(flags=_FINAL)
                return
            time.sleep(_SECONDS)
            count += 1
            if any(stop in word for stop in stops):
                word, reason = word[: min(word.find(stop) for stop in stops if stop in word)], "stop"
            pending += word
            if reason:
                break
            if inputs["stream"]:
                sender.send(self._response(pending, "None", len(words), count))
                pending, count = "", 0
        reason = reason or ("length" if maximum < len(output) else "stop")
        sender.send(self._response(pending, reason, len(words), count), _FINAL)

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

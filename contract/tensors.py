"""The input and output tensors of each task.

Names such as `text_output` and `sampling_parameters` come from Triton's vLLM backend. Types are written as in
config.pbtxt, but without the prefix TYPE_. Every model also has the output `error`: JSON with status, message, param,
code and row. A response with an error has no other output.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_ROWS = 64
"""Maximum number of rows in a request to a batched model, and in a batch of requests."""


@dataclass(frozen=True)
class TaskTensors:
    """The tensors of a task. `inputs` and `outputs` map the names of tensors to their types."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    last_output: str = ""
    """The output that only the last response to a request has; empty unless the task is decoupled."""
    optional: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    """Inputs with any number of values. All other inputs have one value, or one per row if the task is batched."""
    decoupled: bool = True
    """Whether a request can have any number of responses."""
    batched: bool = field(default=False)
    """Whether a request consists of rows, which Triton batches with the rows of other requests."""


CHAT = TaskTensors(
    # messages, sampling_parameters and tools are JSON. token_ids holds little-endian int32 values. image and audio hold
    # the encoded files of the messages' parts.
    inputs={
        "messages": "STRING",
        "prompt": "STRING",
        "token_ids": "STRING",
        "sampling_parameters": "STRING",
        "tools": "STRING",
        "image": "STRING",
        "audio": "STRING",
    },
    outputs={
        "text_output": "STRING",
        "finish_reason": "STRING",
        "num_input_tokens": "INT32",
        "num_output_tokens": "INT32",
        "num_reasoning_tokens": "INT32",
        "num_cached_tokens": "INT32",
        "logprobs": "STRING",
    },
    last_output="finish_reason",
    optional=("messages", "prompt", "token_ids", "tools", "image", "audio"),
    lists=("image", "audio"),
)

OUTPUT_MISMATCH = "output_mismatch"
"""The `code` of the error of a chat model whose output violates the constraint of its request."""

FILES = CHAT.lists
"""The inputs of chat models with files, which are also the types of content parts."""

EMBEDDING = TaskTensors(
    inputs={"text": "STRING", "token_ids": "STRING"},
    outputs={"embedding": "FP32", "num_input_tokens": "INT32"},
    optional=("text", "token_ids"),
    decoupled=False,
    batched=True,
)

RERANK = TaskTensors(
    inputs={"query": "STRING", "document": "STRING"},
    outputs={"score": "FP32", "num_input_tokens": "INT32"},
    decoupled=False,
    batched=True,
)

TRANSCRIPTION = TaskTensors(
    inputs={"audio": "STRING", "options": "STRING"},
    outputs={"text_output": "STRING", "segments": "STRING", "language": "STRING", "duration": "FP32"},
    last_output="duration",
)

SPEECH = TaskTensors(
    inputs={"text_input": "STRING", "options": "STRING", "reference_audio": "STRING"},
    outputs={"audio": "UINT8", "num_input_tokens": "INT32", "num_output_tokens": "INT32"},
    last_output="num_output_tokens",
    optional=("reference_audio",),
)

BACKGROUND_REMOVAL = TaskTensors(
    inputs={"image": "STRING", "options": "STRING"},
    outputs={"image_output": "UINT8"},
    last_output="image_output",
)

IMAGE_GENERATION = TaskTensors(
    inputs={"prompt": "STRING", "options": "STRING", "image": "STRING", "mask": "STRING"},
    outputs={
        "image_output": "UINT8",
        "index": "INT32",
        "partial": "INT32",
        "num_input_tokens": "INT32",
        "revised_prompt": "STRING",
    },
    last_output="num_input_tokens",
    optional=("image", "mask"),
)

OCR = TaskTensors(
    inputs={"image": "STRING"},
    outputs={"text_output": "STRING", "boxes": "STRING", "num_output_tokens": "INT32"},
    last_output="num_output_tokens",
)

TENSORS = {
    "chat": CHAT,
    "embedding": EMBEDDING,
    "rerank": RERANK,
    "transcription": TRANSCRIPTION,
    "speech": SPEECH,
    "background_removal": BACKGROUND_REMOVAL,
    "image_generation": IMAGE_GENERATION,
    "ocr": OCR,
}

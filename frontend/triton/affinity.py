"""Hashes the prompts of chat requests, so that prompts with the same prefix can be sent to the same Triton instance."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xxhash import xxh3_64_digest, xxh64_intdigest

from frontend.triton.balancer import Key

_BLOCK_BYTES = 256
_MAX_BLOCKS = 64
_KINDS = ("image", "audio")
# Messages are serialized without spaces, role first. Quotes in their text are escaped, so text cannot look like these.
_USER_MESSAGE, _NEXT_MESSAGE, _END = b'{"role":"user"', b'},{"role":', b"}]"


def affinity_key(client: str, cache_key: str, inputs: Mapping[str, Any]) -> Key:
    """Return the key of a request with the input tensors `inputs`, as built by native.py or vllm.py.

    The prompt is hashed only if the request has no `cache_key`.
    """
    text = b"" if cache_key else _prompt(inputs)
    return Key(client, cache_key, prompt_blocks(text), _conversation(text))


def prompt_blocks(messages: bytes) -> tuple[int, ...]:
    """Return the hashes of the first 64 blocks of 256 bytes. Each hash also covers all blocks before it.

    An incomplete block at the end is omitted, because it changes when the conversation continues.
    """
    hashes, previous = [], 0
    for end in range(_BLOCK_BYTES, min(len(messages), _BLOCK_BYTES * _MAX_BLOCKS) + 1, _BLOCK_BYTES):
        previous = xxh64_intdigest(messages[end - _BLOCK_BYTES : end], previous)
        hashes.append(previous)
    return tuple(hashes)


def _prompt(inputs: Mapping[str, Any]) -> bytes:
    """Return the bytes that determine the prompt, in its order: the tools, then the messages with their files."""
    if "messages" in inputs:
        tools: bytes = inputs.get("tools", b"")
        return tools + _with_digests(inputs["messages"], inputs)
    for name in ("prompt", "text_input", "token_ids"):
        if name in inputs:
            value: str | bytes = inputs[name]
            return value.encode() if isinstance(value, str) else value
    return b""


def _with_digests(messages: bytes, inputs: Mapping[str, Any]) -> bytes:
    """Return the messages with the digest of each file after the part in whose place it is."""
    for kind in _KINDS:
        if kind in inputs:
            part = b'{"type":"%b"}' % kind.encode()
            messages = b"".join(_interleave(messages.split(part), part, inputs[kind]))
    return messages


def _interleave(texts: Sequence[bytes], part: bytes, files: Sequence[bytes]) -> Iterator[bytes]:
    yield texts[0]
    for index, text in enumerate(texts[1:]):
        yield part
        # The arguments of a tool call can look like a part, so there may be more parts than files.
        yield xxh3_64_digest(files[index]).hex().encode() if index < len(files) else b""
        yield text


def _conversation(text: bytes) -> int:
    """Return a hash of the text up to the end of the first user message, or of its first 16 kB if there is none.

    The hash stays the same when a chat continues. It differs between conversations with the same system prompt, even if
    the system prompt is longer than all blocks together.
    """
    if not text:
        return 0
    start = text.find(_USER_MESSAGE)
    if start < 0:
        return xxh64_intdigest(text[: _BLOCK_BYTES * _MAX_BLOCKS])
    end = text.find(_NEXT_MESSAGE, start)
    return xxh64_intdigest(text[: end if end >= 0 else text.rfind(_END)])

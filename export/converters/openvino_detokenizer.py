"""Writes openvino_detokenizer.xml, from which the engine reads the bytes of each token for its grammars."""

from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from contract.byte_alphabet import byte_alphabet


def save_detokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write openvino_detokenizer.xml and .bin to a model's folder, from a byte-level BPE tokenizer.

    The engine receives and returns token IDs. It needs this file only for structured output, and reads only the
    constants that are inputs of VocabDecoder.
    """
    import openvino  # takes a second to import
    import openvino.opset15 as ops
    from openvino_tokenizers import _get_factory

    vocabulary = token_bytes(tokenizer)
    ends = np.cumsum([len(token) for token in vocabulary], dtype=np.int32)
    begins = np.concatenate([np.zeros(1, np.int32), ends[:-1]])
    text = np.frombuffer(b"".join(vocabulary), np.uint8)
    ids = ops.parameter([-1, -1], np.int64)
    inputs = [ops.convert(ids, "i32").output(0), *(ops.constant(array).output(0) for array in (begins, ends, text))]
    *ragged, characters = _get_factory().create("VocabDecoder", inputs).outputs()
    strings: list[Any] = [*_get_factory().create("FuzeRagged", ragged).outputs(), characters]
    packed = ops.string_tensor_pack(*strings)
    packed.output(0).tensor.add_names({"string_output"})
    openvino.save_model(openvino.Model([packed], [ids], "detokenizer"), folder / "openvino_detokenizer.xml")


def token_bytes(tokenizer: Tokenizer) -> list[bytes]:
    """Return the bytes of each token, by ID; empty for special tokens, which a grammar must not generate."""
    alphabet = byte_alphabet()
    added = tokenizer.get_added_tokens_decoder()
    vocabulary = []
    for i in range(tokenizer.get_vocab_size()):
        if i in added:
            vocabulary.append(b"" if added[i].special else added[i].content.encode())
        else:
            vocabulary.append(bytes(map(alphabet.__getitem__, tokenizer.id_to_token(i) or "")))
    return vocabulary

"""The vocabulary for the engine's grammars: it reads the tokens' bytes out of an `openvino_detokenizer.xml`."""

from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from contract.byte_alphabet import byte_alphabet


def save_detokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write openvino_detokenizer.xml and .bin beside a model; the tokenizer is a byte-level BPE one.

    The engine is asked with token ids and answers with token ids. It wants this file for constrained output alone,
    and of it nothing but the constants that go into VocabDecoder.
    """
    import openvino  # a second to import: only where it is needed
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
    """Return what each token id stands for; nothing for special tokens, which no grammar may bring into the text."""
    alphabet = byte_alphabet()
    added = tokenizer.get_added_tokens_decoder()
    vocabulary = []
    for i in range(tokenizer.get_vocab_size()):
        if i in added:
            vocabulary.append(b"" if added[i].special else added[i].content.encode())
        else:
            vocabulary.append(bytes(map(alphabet.__getitem__, tokenizer.id_to_token(i) or "")))
    return vocabulary

"""Opens a chat model's folder with transformers. Runs in .venv-openvino and .venv-gguf, whose versions differ."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerFast


def load_tokenizer(source: Path, *, trust_remote_code: bool) -> Any:
    """Return the tokenizer of a folder.

    Later versions of transformers write classes that this one does not know. The tokenizer is then the one in
    tokenizer.json.
    """
    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
    except ValueError:
        if not (source / "tokenizer.json").exists():
            raise
        return PreTrainedTokenizerFast.from_pretrained(source)

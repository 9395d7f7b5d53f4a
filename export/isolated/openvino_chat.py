"""Exports chat models to OpenVINO: `python -m export.isolated.openvino_chat SOURCE TARGET PRECISION [trust]`.

Runs in .venv-openvino. SOURCE is a published folder, and TARGET receives the files that OpenVINO GenAI and the
generation backend read. With the precision int4, the weights are quantized in groups; otherwise they stay as they are.
"""

import logging
import sys
from pathlib import Path
from typing import Any

from optimum.exporters.openvino.convert import export_tokenizer
from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig
from tokenizers.processors import ByteLevel

from export.isolated.chat_model import load_tokenizer

_GROUP_SIZE = 32


def export_chat(source: Path, target: Path, precision: str, *, trust_remote_code: bool) -> None:
    """Write the network, tokenizer and detokenizer, and their configurations."""
    quantization: dict[str, Any] = {"load_in_8bit": False}
    if precision == "int4":
        config = OVWeightQuantizationConfig(bits=4, group_size=_GROUP_SIZE, sym=False, ratio=1.0)
        quantization = {"quantization_config": config}
    model = OVModelForCausalLM.from_pretrained(
        source, export=True, compile=False, stateful=True, trust_remote_code=trust_remote_code, **quantization
    )
    model.save_pretrained(target)
    tokenizer = load_tokenizer(source, trust_remote_code=trust_remote_code)
    tokenizer.save_pretrained(target)
    # Without this post-processor, which adds no tokens, the engine's tokenizer would add a second BOS token before the
    # one from the chat template.
    tokenizer.backend_tokenizer.post_processor = ByteLevel(trim_offsets=False)
    export_tokenizer(tokenizer, target)


if __name__ == "__main__":
    logging.getLogger("optimum").setLevel(logging.ERROR)
    export_chat(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], trust_remote_code="trust" in sys.argv[4:])

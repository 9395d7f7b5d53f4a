"""Exports vision-language models to OpenVINO, in .venv-openvino.

`python -m export.isolated.openvino_vision_language SOURCE TARGET PRECISION`: SOURCE is a published folder of Qwen2-VL,
Qwen2.5-VL, Qwen3-VL or LLaVA. TARGET receives the files that OpenVINO GenAI and the generation backend read. PRECISION
is int8 or int4.
"""

import json
import logging
import shutil
import sys
from pathlib import Path

from optimum.exporters.openvino.convert import export_tokenizer
from optimum.intel import OVModelForVisualCausalLM, OVWeightQuantizationConfig
from tokenizers.processors import ByteLevel
from transformers import AutoTokenizer, PreTrainedTokenizerBase

_QUANTIZATION = {
    "int8": OVWeightQuantizationConfig(bits=8),
    "int4": OVWeightQuantizationConfig(bits=4, group_size=-1),
}


def export_vision_language(source: Path, target: Path, precision: str) -> None:
    """Write the networks, tokenizer and detokenizer, and their configurations."""
    model = OVModelForVisualCausalLM.from_pretrained(
        str(source),
        export=True,
        compile=False,
        trust_remote_code=False,
        quantization_config=_QUANTIZATION[precision],
    )
    model.save_pretrained(target)
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    tokenizer.save_pretrained(target)
    # Without this post-processor, which adds no tokens, the engine's tokenizer would add a second BOS token before the
    # one from the chat template.
    tokenizer.backend_tokenizer.post_processor = ByteLevel(trim_offsets=False)
    export_tokenizer(tokenizer, target)
    # The published file: the one that transformers writes may lack fields that the engine reads.
    shutil.copyfile(source / "preprocessor_config.json", target / "preprocessor_config.json")
    (target / "chat_template.jinja").write_text(_chat_template(source, tokenizer), encoding="utf-8")
    _complete_generation_config(target, tokenizer)


def _chat_template(source: Path, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the template from chat_template.jinja, chat_template.json (older transformers) or the tokenizer.

    Raise FileNotFoundError if there is none.
    """
    if (source / "chat_template.jinja").exists():
        return (source / "chat_template.jinja").read_text(encoding="utf-8")
    if (source / "chat_template.json").exists():
        template: str = json.loads((source / "chat_template.json").read_text(encoding="utf-8"))["chat_template"]
        return template
    if not isinstance(tokenizer.chat_template, str):
        raise FileNotFoundError(2, "no chat template", str(source / "chat_template.jinja"))
    return tokenizer.chat_template


def _complete_generation_config(target: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make `eos_token_id` a list, as the backend expects: the model's value, or else the tokenizer's."""
    path = target / "generation_config.json"
    generation = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    ends = generation.get("eos_token_id")
    ends = tokenizer.eos_token_id if ends is None else ends
    generation["eos_token_id"] = ends if isinstance(ends, list) else [ends]
    path.write_text(json.dumps(generation, indent=1), encoding="utf-8")


if __name__ == "__main__":
    logging.getLogger("optimum").setLevel(logging.ERROR)
    export_vision_language(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])

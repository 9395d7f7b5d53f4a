"""Run as `python -m tests.support.tiny_kokoro TARGET [SEED]`.

Writes a tiny network with the inputs and outputs of Kokoro-82M and random weights to TARGET, in the layout of
onnx-community/Kokoro-82M-v1.0-ONNX: onnx/model.onnx, tokenizer.json, config.json and voices/NAME.bin.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# The symbols of Kokoro's vocabulary, in the order of their numbers, which are not consecutive.
_SYMBOLS = {
    1: ";:,.!?", 9: '—…"()“” \u0303ʣʥʦʨᵝꭧAI', 31: "O", 33: "Q", 35: "ST", 39: "W", 41: "Yᵊabcdef",
    50: "hijklmnopqrstuvwxyz", 69: "ɑɐɒæ", 75: "βɔɕç", 80: "ɖðʤə", 85: "ɚɛɜ", 90: "ɟ", 92: "ɡ", 99: "ɥ",
    101: "ɨɪʝ", 110: "ɯɰŋɳɲɴø", 118: "ɸθœ", 123: "ɹ", 125: "ɾɻ", 128: "ʁɽʂʃʈʧ", 135: "ʊʋ",
    138: "ʌɣɤ", 142: "χʎ", 147: "ʒʔ", 156: "ˈˌː", 162: "ʰ", 164: "ʲ",
    169: "↓", 171: "→↗↘", 177: "ᵻ",
}  # fmt: skip

_TOKENS, _STYLE, _MAX_PHONEMES, _HOP, _HIDDEN = 178, 256, 510, 600, 8

# The first letters of the names are all languages and both genders.
VOICES = (
    "af_heart",
    "af_alloy",
    "am_echo",
    "bf_emma",
    "bm_fable",
    "ef_dora",
    "ff_siwis",
    "hm_omega",
    "if_sara",
    "jf_alpha",
)
VOICES += ("pm_alex", "zf_xiaobei")


def vocabulary() -> dict[str, int]:
    """Return the number of each symbol; 0 is the padding at both ends."""
    symbols = {symbol: first + index for first, row in _SYMBOLS.items() for index, symbol in enumerate(row)}
    return {"$": 0} | symbols


def make_network(seed: int = 0, tokens: str = "input_ids", output: str = "waveform") -> onnx.ModelProto:
    """Return a network that says each phoneme for about 600 / speed samples, with a sound that depends on the style.

    The packages on PyPI name the input `tokens` and the output `audio`.
    """
    random = np.random.default_rng(seed)
    arrays = {
        "embeddings": random.normal(0, 0.5, (_TOKENS, _HIDDEN)),
        "projection": random.normal(0, 0.1, (_STYLE, _HIDDEN)),
        "sounds": random.normal(0, 0.5, (_HIDDEN, _HOP)),
    }
    weights = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    weights += [
        numpy_helper.from_array(np.array([1, 1, -1], np.int64), "signal"),
        numpy_helper.from_array(np.array([1, -1], np.int64), "row"),
        numpy_helper.from_array(np.array([1, 1], np.float32), "unscaled"),
    ]
    nodes = [
        helper.make_node("Gather", ["embeddings", tokens], ["embedded"]),
        helper.make_node("MatMul", ["style", "projection"], ["projected"]),
        helper.make_node("Add", ["embedded", "projected"], ["mixed"]),
        helper.make_node("MatMul", ["mixed", "sounds"], ["framed"]),
        helper.make_node("Tanh", ["framed"], ["bounded"]),
        # Stretch the samples by 1 / speed.
        helper.make_node("Reshape", ["bounded", "signal"], ["long"]),
        helper.make_node("Reciprocal", ["speed"], ["stretch"]),
        helper.make_node("Concat", ["unscaled", "stretch"], ["scales"], axis=0),
        helper.make_node("Resize", ["long", "", "scales"], ["stretched"], mode="linear"),
        helper.make_node("Reshape", ["stretched", "row"], [output]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny_kokoro",
        [
            helper.make_tensor_value_info(tokens, TensorProto.INT64, [1, "sequence_length"]),
            helper.make_tensor_value_info("style", TensorProto.FLOAT, [1, _STYLE]),
            helper.make_tensor_value_info("speed", TensorProto.FLOAT, [1]),
        ],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, "num_samples"])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def make_voice(seed: int) -> np.ndarray:
    """Return the styles of a voice [maximum phonemes, 1, 256], which hardly depend on the number of phonemes."""
    random = np.random.default_rng(seed)
    styles = random.normal(0, 1, _STYLE) + random.normal(0, 0.05, (_MAX_PHONEMES, 1, _STYLE))
    return styles.astype("<f4")


def write(target: Path, seed: int = 0) -> None:
    """Write the files of the hub's repository."""
    (target / "onnx").mkdir(parents=True, exist_ok=True)
    (target / "voices").mkdir(exist_ok=True)
    onnx.save(make_network(seed), target / "onnx" / "model.onnx")
    tokenizer = {"version": "1.0", "model": {"vocab": vocabulary()}}
    (target / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    (target / "config.json").write_text('{"model_type": "style_text_to_speech_2"}', encoding="utf-8")
    for index, name in enumerate(VOICES):
        make_voice(seed + 1 + index).tofile(target / "voices" / f"{name}.bin")


if __name__ == "__main__":
    write(Path(sys.argv[1]), *map(int, sys.argv[2:]))

"""Writes a small Pocket TTS model with random weights to a folder, in the layout of the published model.

Run it in .venv-voice: `python -m tests.support.tiny_pocket_tts FOLDER`. The model never emits end-of-speech, so the
audio of each sentence is as long as the pocket-tts package allows for the sentence's number of tokens.
"""

import io
import sys
import tempfile
from pathlib import Path

import pocket_tts
import safetensors.torch
import sentencepiece
import tokenizers
import torch
import yaml
from pocket_tts import TTSModel
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

TEXT = [
    "It was the best of times, it was the worst of times; it was the age of wisdom.",
    "Call me back tomorrow: the meeting starts at 9.30, not at ten!",
    "Is this your voice? The quick brown fox jumps over the lazy dog...",
    "Sphinx of black quartz, judge my vow! Pack my box with five dozen liquor jugs, please.",
]


def make_tokenizer() -> Tokenizer:
    """Return a tokenizer with a token for each punctuation mark. pocket-tts ends sentences at these tokens."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT * 20),
        model_writer=model,
        vocab_size=160,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        required_chars="abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789'-",
        user_defined_symbols=[".", "!", "?", ",", ";", ":"],
        num_threads=1,
        minloglevel=2,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = [(processor.id_to_piece(i), processor.get_score(i)) for i in range(processor.get_piece_size())]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=processor.unk_id(), byte_fallback=False))
    tokenizer.normalizer = normalizers.Replace(tokenizers.Regex(" {2,}"), " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    return tokenizer


def make_config(vocabulary_size: int) -> dict:
    config = yaml.safe_load((Path(pocket_tts.__file__).parent / "config" / "english.yaml").read_text(encoding="utf-8"))
    flow, mimi = config["flow_lm"], config["mimi"]
    flow["flow"].update(depth=2, dim=32)
    flow["transformer"].update(d_model=64, num_heads=4, num_layers=2, hidden_scale=2)
    flow["lookup_table"].update(dim=64, n_bins=vocabulary_size)
    mimi.update(inner_dim=32, outer_dim=32)
    mimi["seanet"].update(dimension=32, n_filters=4)
    mimi["transformer"].update(
        d_model=32, num_heads=2, num_layers=1, dim_feedforward=64, input_dimension=32, output_dimensions=[32]
    )
    mimi["quantizer"].update(dimension=32, output_dimension=32)
    return config


def make_model(config: dict, tokenizer: Path) -> TTSModel:
    bare = {key: value for key, value in config.items() if not key.startswith("weights_path")}
    table = config["flow_lm"]["lookup_table"] | {"tokenizer_path": str(tokenizer)}
    bare["flow_lm"] = config["flow_lm"] | {"lookup_table": table}
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bare.yaml"
        path.write_text(yaml.safe_dump(bare), encoding="utf-8")
        return TTSModel.load_model(config=path)


@torch.no_grad()
def randomize(model: TTSModel) -> None:
    """Set random weights that preserve the signal's strength.

    With torch's default weights, the voice would have no effect on the audio. This function also makes end-of-speech
    practically impossible, and scales the audio to an RMS level of about 0.1.
    """
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        if "layer_scale" in name:
            weight.fill_(1.0)
        elif weight.dim() > 1 and "embed.weight" not in name and "bos" not in name:
            inputs = weight.shape[0] * 2 if "convtr" in name else weight[0].numel()
            weight.copy_(torch.randn(weight.shape, generator=generator) * 1.4 / inputs**0.5)
        elif name.startswith("mimi.") and name.endswith(".bias") and "norm" not in name:
            weight.zero_()
    model.flow_lm.out_eos.weight.mul_(0.1)
    model.flow_lm.out_eos.bias.fill_(-10.0)
    state = model.get_state_for_audio_prompt(torch.randn(1, 48000, generator=generator) * 0.1)
    loudness = model.generate_audio(state, "Hello world.").pow(2).mean().sqrt()
    model.mimi.decoder.model[-1].conv.weight.mul_(0.1 / loudness)


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    tokenizer = make_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = make_config(tokenizer.get_vocab_size())
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    model = make_model(config, folder / "tokenizer.json")
    randomize(model)
    weights = {name: value.contiguous().clone() for name, value in model.state_dict().items()}
    safetensors.torch.save_file(weights, folder / "model.safetensors")


if __name__ == "__main__":
    main()

"""Copies a published VoxCPM model to a folder, with the weights in .safetensors files instead of pickles.

`python -m export.isolated.voxcpm_weights SOURCE TARGET`, in .venv-voice.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file


def copy_model(source: Path, target: Path) -> None:
    """Copy what backends/speech/voxcpm_process.py needs from `source` to `target`."""
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    # Each step of the model takes time in proportion to this length, and the published 4,096 or 8,192 are never needed:
    # a reference of 30 s has 375 patches in VoxCPM-0.5B, whose patch_size is 2, and 188 in the others.
    config["max_length"] = min(config["max_length"], 4096 // config["patch_size"])
    (target / "config.json").write_text(json.dumps(config), encoding="utf-8")
    shutil.copyfile(source / "tokenizer.json", target / "tokenizer.json")
    copy_weights([source / "model.safetensors", source / "pytorch_model.bin"], target / "model.safetensors")
    copy_weights([source / "audiovae.safetensors", source / "audiovae.pth"], target / "audiovae.safetensors")


def copy_weights(sources: list[Path], target: Path) -> None:
    """Copy the first file of `sources` that exists to `target`, a .safetensors file.

    Raises UnpicklingError, before anything runs, if a pickle has anything but tensors and plain values.
    """
    source = next(path for path in sources if path.exists())
    if source.suffix == ".safetensors":
        shutil.copyfile(source, target)
        return
    content = torch.load(source, map_location="cpu", weights_only=True)
    weights = content.get("state_dict", content)
    # save_file rejects tensors that share memory.
    save_file({name: weight.contiguous().clone() for name, weight in weights.items()}, target)


if __name__ == "__main__":
    copy_model(Path(sys.argv[1]), Path(sys.argv[2]))

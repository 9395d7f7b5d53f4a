"""Images of diffusers with given noise: `python -m tests.support.diffusion_reference FOLDER CASES.npz OUTPUT.npz`.

It runs in .venv-openvino. CASES has `cases`, a list in JSON of prompts with width, height, steps and guidance, and
`noise0`, `noise1` and so on, what the engine draws in turn for each image of that size. OUTPUT receives the images.
"""

import json
import sys
from typing import Any

import diffusers.schedulers.scheduling_lcm as lcm
import numpy as np
import torch
from diffusers import DiffusionPipeline, FluxPipeline


def generate(folder: str, cases: str, output: str) -> None:
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    file, images = np.load(cases), {}
    for index, case in enumerate(json.loads(str(file["cases"]))):
        draws = iter([torch.from_numpy(file[name]) for name in sorted(file.files) if name.startswith("noise")])
        width, height, latents = case["width"], case["height"], next(draws)
        if isinstance(pipeline, FluxPipeline):
            latents = FluxPipeline._pack_latents(latents, 1, 16, height // 8, width // 8)
        lcm.randn_tensor = lambda *_, draws=draws, **__: next(draws)
        options: dict[str, Any] = {"num_inference_steps": case["steps"], "guidance_scale": case["guidance"]}
        image = pipeline(case["prompt"], latents=latents, width=width, height=height, output_type="np", **options)
        images[f"image{index}"] = np.floor(image.images[0] * 255).astype(np.uint8)  # the engine rounds down
    np.savez(output, **images)


if __name__ == "__main__":
    generate(*sys.argv[1:])

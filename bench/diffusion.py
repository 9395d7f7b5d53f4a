"""Benchmark of image generation: Trident against OpenVINO GenAI's pipeline in its own process.

Run it with `make bench BENCH=diffusion`. The model is Stable Diffusion 1.5 with tiny random weights, at 384 × 384
pixels and 20 steps. The benchmark measures the overhead around the engine, which is a larger share of the time because
the steps of a tiny model are fast. In each round, the contenders run one after another. Each printed ratio is the
median of the ratios of the rounds.
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

import orjson

from bench.clients import Rate, run_clients
from bench.contest import Rival, Work, print_ratios, timed
from contract.paths import default_cache, latest_version
from export.environments import run
from tests.support.stack import running_stack

MODEL = "stable-diffusion-1.5"
_STEPS, _SIDE, _IMAGES = 20, 384, 3


def _exported() -> Path:
    """Export the tiny model, and return the model repository that contains it."""
    folder = default_cache() / "bench" / "diffusion"
    if not (folder / "w").exists():
        run(".venv-openvino", "tests.support.tiny_stable_diffusion", str(folder / "w"))
    command = [sys.executable, "-m", "trident", "export", MODEL, "--weights", str(folder / "w")]
    repository = folder / "repository"
    subprocess.run([*command, "--model-repository", str(repository)], check=True)
    return repository


def _genai(folder: Path) -> Work:
    import openvino_genai

    pipeline = openvino_genai.Text2ImagePipeline(folder, "CPU", INFERENCE_PRECISION_HINT="f32")
    size = {"width": _SIDE, "height": _SIDE}
    return timed(lambda prompt: pipeline.generate(prompt, num_inference_steps=_STEPS, guidance_scale=7.5, **size))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    repository = _exported()
    fields = {
        "prompt": "a red cat",
        "size": f"{_SIDE}x{_SIDE}",
        "num_inference_steps": _STEPS,
        "response_format": "b64_json",
    }
    bodies = {
        "stack, 1 client": orjson.dumps(fields),
        "stack, previews": orjson.dumps(fields | {"stream": True, "partial_images": 3}),
    }
    speeds: dict[str, list[float]] = {"pipeline": []}
    latencies: list[Rate] = []
    with (
        running_stack([MODEL], "--model-repository", str(repository)) as stack,
        Rival(_genai, latest_version(repository / MODEL)) as rival,
    ):
        for _ in range(rounds + 1):
            speeds["pipeline"].append(_STEPS * _IMAGES / rival.call([fields["prompt"]] * _IMAGES))
            for name, body in bodies.items():
                rate = run_clients(stack.port, "/v1/images/generations", [body] * _IMAGES, 1)
                speeds.setdefault(name, []).append(_STEPS * rate.requests_per_second)
                latencies += [rate] if body is bodies["stack, 1 client"] else []
    print_ratios(speeds, ["pipeline"], "steps/s")
    print(f"p50 of an image: {statistics.median(rate.p50_ms for rate in latencies[1:]):.0f} ms")


if __name__ == "__main__":
    main()

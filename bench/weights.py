"""Benchmark of the exporter's weights. Run it with `python -m bench.weights`.

It measures the speed of the bare engine (without Triton and the frontend) with two forms of the same weights, in turn.
The exporter's form, printed as `as served`, is int8 with one scale per channel, and matrices with the same input are
merged into one matrix. The form `Q8_0`, which the engine reads from a Q8_0 GGUF file, is int8 with one scale per group
of 32 values.
"""

import shutil
import tempfile
from pathlib import Path

from bench.chat import MODEL, PromptSource
from bench.contest import Rival, print_ratios
from bench.precision import make_weights
from bench.rivals import bare_pipeline
from contract.paths import default_cache, default_model_repository, latest_version

_ROUNDS = 9


def main() -> None:
    """Print the speeds and their ratio at 1, 8 and 32 concurrent streams."""
    served = default_model_repository() / MODEL
    prompts = PromptSource()
    (default_cache() / "bench").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=default_cache() / "bench") as folder:
        grouped = Path(folder) / "grouped"
        shutil.copytree(served, grouped, ignore=shutil.ignore_patterns("openvino_model.*"))
        made = make_weights(Path(folder), latest_version(served), "Q8_0")
        for name in ("openvino_model.xml", "openvino_model.bin"):
            (made / name).rename(latest_version(grouped) / name)
        with Rival(bare_pipeline, served) as ours, Rival(bare_pipeline, grouped) as theirs:
            for streams in (1, 8, 32):
                speeds: dict[str, list[float]] = {"as served": [], "Q8_0": []}
                for _ in range(_ROUNDS + 1):
                    for pipeline, measured in zip((ours, theirs), speeds.values(), strict=True):
                        measured.append(pipeline.call((prompts.next_prompts(streams), 60)).tokens_per_second)
                print(f"{streams} streams")
                print_ratios(speeds, ["Q8_0"], "tokens/s")


if __name__ == "__main__":
    main()

"""What the exporter's weights are worth: `python -m bench.weights`.

Prints the bare engine's speed with the weights as served (int8 per channel, merged) against the same ones as the engine
reads them from a Q8_0 file (int8 in groups of 32), taking turns.
"""

import shutil
import statistics
import tempfile
from pathlib import Path

from bench.chat import MODEL, Texts
from bench.precision import make_weights
from bench.rivals import bare_pipeline
from contract.paths import default_cache, default_model_repository

_ROUNDS = 9


def main() -> None:
    """Print a line a number of streams."""
    served = default_model_repository() / MODEL
    texts = Texts()
    (default_cache() / "bench").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=default_cache() / "bench") as folder:
        grouped = Path(folder) / "grouped"
        shutil.copytree(served, grouped, ignore=shutil.ignore_patterns("openvino_model.*"))
        made = make_weights(Path(folder), served / "1", "Q8_0")
        for name in ("openvino_model.xml", "openvino_model.bin"):
            (made / name).rename(grouped / "1" / name)
        with bare_pipeline(served) as ours, bare_pipeline(grouped) as theirs:
            for streams in (1, 8, 32):
                ratios = []
                for _ in range(_ROUNDS):
                    speeds = []
                    for pipeline in (ours, theirs):
                        pipeline.send((texts.take(streams), 60))
                        speeds.append(pipeline.recv().tokens_per_second)
                    ratios.append(speeds[0] / speeds[1])
                print(f"{streams:3d} streams: as served / Q8_0 = {statistics.median(ratios):.2f}", flush=True)


if __name__ == "__main__":
    main()

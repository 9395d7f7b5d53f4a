"""Compares an exported model with the original, before it can replace the previous version."""

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contract.paths import CHECKOUT
from export.catalog import load_defaults
from export.fetch import ExportError

Reference = dict[str, list[Any]]
"""A text's `tokens`, and the `losses` of the original: the negative log-likelihood of each token after the first."""

_MAX_PERPLEXITY = {"int8": 1.02, "int4": 1.08, "f16": 1.01}
"""Precision → how many times the original's perplexity an exported model may have."""

_MIN_CORRELATION = 0.9

# The first tokens have next to no context, and models disagree about them.
_SKIPPED = 8


def check_chat(
    version: Path, parameters: Mapping[str, str], reference: Reference | None, options: Mapping[str, str]
) -> None:
    """Compare the likelihood of a text under an exported chat model with the original's, and print the result.

    `reference` has the text's `tokens` and the original's `losses`; without it, the model only has to compute the text.
    Raises ExportError if the model differs too much, unless `options` have `force`.
    """
    tokens = reference["tokens"] if reference else list(range(1, 65))
    losses = measure_losses(version, parameters, tokens)
    if not np.isfinite(losses).all():
        raise ExportError("the exported model computes no valid probabilities")
    if reference is None:
        return
    ours, theirs = np.array(losses[_SKIPPED:]), np.array(reference["losses"][_SKIPPED:])
    ratio, precision = math.exp(ours.mean() - theirs.mean()), options.get("precision", "int8")
    limit, same = _MAX_PERPLEXITY[precision], float(np.corrcoef(ours, theirs)[0, 1])
    measured = f"perplexity {math.exp(ours.mean()):.2f}, {ratio:.3f} of the original's"
    print(f"  self-check: {measured} (limit for {precision}: {limit}), correlation {same:.3f}", flush=True)
    if same < _MIN_CORRELATION:
        raise ExportError(
            f"the exported model does not compute what the original does: correlation {same:.3f}, at least "
            f"{_MIN_CORRELATION} is expected"
        )
    if ratio > limit and "force" not in options:
        raise ExportError(
            f"{precision} weights lose too much quality: {measured}, and {limit} is the limit. Use a higher "
            "--precision, or --force"
        )


def recorded_reference(options: Mapping[str, str]) -> Reference | None:
    """Return what the original of a catalog model said once: the option `check` names the file."""
    if "check" not in options:
        return None
    path = CHECKOUT / "export" / "catalog" / "checks" / options["check"]
    found: Reference = json.loads(path.read_text(encoding="utf-8"))
    return found


def measure_losses(version: Path, parameters: Mapping[str, str], tokens: Sequence[int]) -> list[float]:
    """Return the losses of an exported model for a text. Raises ExportError if the model does not run."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tokens.json"
        file.write_text(json.dumps(tokens), encoding="utf-8")
        command = [sys.executable, "-m", "backends.generation.engine.likelihood", str(version)]
        result = subprocess.run(
            [*command, json.dumps({**load_defaults("generation"), **parameters}), str(file)],
            cwd=CHECKOUT,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    if result.returncode:
        raise ExportError(f"the exported model does not run:\n{result.stderr[-1500:]}")
    losses: list[float] = json.loads(result.stdout)
    return losses

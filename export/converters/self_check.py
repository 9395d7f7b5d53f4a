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


CHECK_TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "What is the capital of Germany?",
    "ok",
    "How do I install Python on a Mac, and which version should I choose?",
    "如何安装 Python？",
    "北京是中国的首都。",
    "Sales rose 12% in the third quarter, the company said on Tuesday, beating what analysts had forecast.",
    "def add(x, y): return x + y",
    "Why does bread rise when yeast is added to the dough and it is left in a warm place for an hour or two?",
    "Der Zug nach Hamburg hat zwanzig Minuten Verspätung.",
]
CHECK_PAIRS = [[CHECK_TEXTS[i], CHECK_TEXTS[j]] for i in (1, 3, 4) for j in range(0, 10, 2)]
"""Texts, and pairs of a query and a document, for which an exported encoder is compared with the original."""

# Precision → the least mean and the least single cosine similarity to the original's vectors, and the greatest
# difference between scores, as a share of their range.
_ENCODER_LIMITS = {"int8": (0.99, 0.97, 0.15), "f32": (0.9999, 0.999, 0.01)}


class QualityLoss(ExportError):
    """An exported encoder differs too much from the original."""


def check_encoder(
    version: Path,
    parameters: Mapping[str, str],
    texts: Sequence[Any],
    reference: Sequence[Sequence[float]],
    precision: str,
) -> None:
    """Compare an exported encoder's vectors or scores with the original's, and print the result.

    Raises QualityLoss if they differ too much, and ExportError if the model does not run.
    """
    given = json.dumps({**load_defaults("encoder"), **parameters})
    ours = np.array(_run_module("backends.encoder.vectors", str(version), given, json.dumps(texts)))
    theirs = np.array(reference)
    mean_limit, single_limit, score_limit = _ENCODER_LIMITS[precision]
    if parameters["task"] == "rerank":
        difference = float(np.abs(ours - theirs).max() / max(float(np.ptp(theirs)), 1e-3))
        print(f"  self-check: scores differ by at most {difference:.1%} of their range ({precision})", flush=True)
        if not difference <= score_limit:
            raise QualityLoss(
                f"{precision} scores differ by {difference:.1%} of their range (limit: {score_limit:.0%})"
            )
        return
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    cosines = (ours * theirs).sum(1) / np.maximum(norms, 1e-9)
    measured = f"cosine similarity to the original {cosines.mean():.4f} on average, {cosines.min():.4f} at least"
    print(f"  self-check: {measured} ({precision})", flush=True)
    if not (cosines.mean() >= mean_limit and cosines.min() >= single_limit):
        raise QualityLoss(f"{precision} loses too much quality: {measured} (limits: {mean_limit}, {single_limit})")


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
        given = json.dumps({**load_defaults("generation"), **parameters})
        losses: list[float] = _run_module("backends.generation.engine.likelihood", str(version), given, str(file))
        return losses


def _run_module(module: str, *arguments: str) -> Any:
    """Return the JSON that a module of a backend prints. Raises ExportError if it fails."""
    result = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=CHECKOUT,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if result.returncode:
        raise ExportError(f"the exported model does not run:\n{result.stderr[-1500:]}")
    return json.loads(result.stdout)

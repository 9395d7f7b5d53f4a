"""Chooses the engine of a chat model by measuring both, for `trident export --tune`."""

import json
import subprocess
import sys
import tempfile
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import click

from frontend.settings import Settings

if TYPE_CHECKING:
    from export.catalog import Entry

# How many times as fast as the engine of the rule another one must be.
_SWITCH = 1.15

_NAMES = {"openvino": "OpenVINO", "llamacpp": "llama.cpp"}


def tuned_engine(entry: "Entry", source: Path | None, settings: Settings) -> str:
    """Return the faster engine of a chat model published as GGUF, after measuring both for half a minute.

    The engine of the rule (`with_engine`) is kept unless the other one is more than 15% faster, on average over 1 and 8
    streams. Raises ExportError if no engine can run the model, or if there is no choice.
    """
    from export.engines import with_engine
    from export.fetch import ExportError
    from export.repository import export_model
    from export.triton_config import read_model_parameters

    if entry.converter not in ("gguf", "llamacpp"):
        raise ExportError(f"--tune does not apply to {entry.name}, only to chat models published as GGUF")
    usual = with_engine(entry, "auto", {}).parameters["engine"]
    settings.cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.cache, prefix=".tune-") as folder:
        models = {}
        for engine in ("llamacpp", "openvino"):
            try:
                model = export_model(entry, settings.cache, Path(folder) / engine, source, engine)
            except ExportError as error:
                click.echo(f"{entry.name}: {_NAMES[engine]} cannot run it: {error}")
                continue
            models[engine] = [str(model / "1"), read_model_parameters(model / "config.pbtxt")]
        if len(models) < 2:
            return next(iter(models), usual)
        click.echo(f"{entry.name}: measuring both engines for half a minute")
        command = [sys.executable, "-m", "backends.generation.engine.speed", json.dumps(list(models.values()))]
        result = subprocess.run(command, capture_output=True, encoding="utf-8")
        if result.returncode:
            raise ExportError(f"{entry.name} could not be measured:\n{result.stderr.strip()[-1500:]}")
    speeds = dict(zip(models, json.loads(result.stdout), strict=True))
    for engine, (one, eight) in speeds.items():
        click.echo(f"{entry.name}: {_NAMES[engine]} {one:.0f} tokens/s at 1 stream, {eight:.0f} at 8 streams")
    other = next(engine for engine in models if engine != usual)
    ratio = prod(new / old for new, old in zip(speeds[other], speeds[usual], strict=True)) ** 0.5
    chosen = other if ratio > _SWITCH else usual
    click.echo(f"{entry.name}: {_NAMES[other]} has {ratio:.2f} of the speed of {_NAMES[usual]}; using {_NAMES[chosen]}")
    return chosen

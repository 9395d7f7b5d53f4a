"""The `trident size` command: how many replicas a load needs, by what `trident bench serve` has measured."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from frontend.settings import Settings
from trident.cli.options import GroupedCommand, fail, load_command_settings, setting_options


@dataclass(frozen=True)
class Measurement:
    """What one replica did with a number of requests at once: the result of `trident bench serve --json`."""

    model: str
    concurrency: int
    requests_per_s: float
    output_tokens: float
    """Of each response, on average; 0 if the responses are not text."""
    first_token_ms: float | None
    latency_ms: float

    def rate(self, output_tokens: int | None) -> float:
        """Return the requests per second if responses have this length: a replica makes as many tokens per second."""
        if not output_tokens or not self.output_tokens:
            return self.requests_per_s
        return self.requests_per_s * self.output_tokens / output_tokens


@dataclass(frozen=True)
class Sizing:
    """The replicas for a load. `memory` is that of one replica in bytes, if it is known."""

    measurement: Measurement
    rate: float
    output_tokens: int | None
    share: float
    memory: int | None

    @property
    def replicas(self) -> int:
        """The number of replicas, of each of which `share` is used."""
        return max(1, math.ceil(self.rate / (self.measurement.rate(self.output_tokens) * self.share) - 1e-9))

    def as_dict(self) -> dict[str, Any]:
        """Return the results for `--json`."""
        used = self.measurement
        return {
            "model": used.model,
            "replicas": self.replicas,
            "requests_per_s": self.rate,
            "requests_per_s_of_replica": round(used.rate(self.output_tokens), 2),
            "concurrency_of_replica": used.concurrency,
            "ttft_p90_ms": used.first_token_ms,
            "memory_bytes_of_replica": self.memory,
        }

    def lines(self) -> dict[str, str]:
        """Return the results as a table."""
        used, tokens = self.measurement, self.output_tokens or round(self.measurement.output_tokens)
        length = f" of {tokens} tokens" if tokens else ""
        first = f", the first token after {used.first_token_ms:.0f} ms (p90)" if used.first_token_ms else ""
        each = (self.memory or 0) / 1e9
        memory = f"{each:.1f} GB for each replica, {each * self.replicas:.1f} GB together"
        return {
            "model": used.model,
            "load": f"{self.rate:g} responses/s{length}",
            "one replica": f"{used.rate(self.output_tokens):.2f} responses/s with {used.concurrency} at once{first}",
            "replicas": f"{self.replicas}, each used to {100 * self.share:.0f}%",
        } | ({"memory": memory} if self.memory else {})


@click.command(cls=GroupedCommand)
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--rate", type=click.FloatRange(0.001), required=True, metavar="N", help="expected requests per second")
@click.option("--output-tokens", type=click.IntRange(1), metavar="N", help="length of the responses (as measured)")
@click.option("--ttft", type=click.FloatRange(1), metavar="MS", help="limit for the time to first token (p90)")
@click.option("--latency", type=click.FloatRange(1), metavar="MS", help="limit for the time of a response (p90)")
@click.option(
    "--share",
    type=click.FloatRange(0.05, 1),
    default=0.7,
    metavar="N",
    help="how much of a replica the load may use (default: 0.7)",
)
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@setting_options(("model_repository",))
def size(
    files: tuple[Path, ...],
    rate: float,
    output_tokens: int | None,
    ttft: float | None,
    latency: float | None,
    share: float,
    as_json: bool,
    **flags: Any,
) -> None:
    """Calculate how many replicas a load needs.

    FILES are results of `trident bench serve --json` on one replica, for several concurrencies. The fastest one within
    the limits counts.

    \b
    Examples:
      trident bench serve --concurrency 16 --json > 16.json
      trident size 4.json 8.json 16.json --rate 5 --output-tokens 200 --ttft 2000
    """
    if latency and output_tokens:
        raise click.UsageError("--latency is about responses of the measured length; measure the length you need")
    measurements = [_read(path) for path in files]
    if len(models := {each.model for each in measurements}) > 1:
        raise click.UsageError(f"The files are about several models: {', '.join(sorted(models))}")
    usable = [each for each in measurements if _is_within(each, ttft, latency)]
    if not usable:
        fail("None of the measurements is within the limits: measure smaller concurrencies, or use faster machines")
    best = max(usable, key=lambda each: each.requests_per_s * (each.output_tokens or 1))
    settings = load_command_settings(flags)
    found = Sizing(best, rate, output_tokens, share, _memory(best.model, settings))
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=1))
        return
    for name, text in found.lines().items():
        click.echo(f"{name:14} {text}")


def _is_within(measurement: Measurement, ttft: float | None, latency: float | None) -> bool:
    if ttft is not None and (measurement.first_token_ms is None or measurement.first_token_ms > ttft):
        return False
    return latency is None or measurement.latency_ms <= latency


def _read(path: Path) -> Measurement:
    """Return a result of `trident bench serve --json`. Raises UsageError if the file has none that can be used."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        measurement = Measurement(
            str(content["model"]),
            int(content["concurrency"]),
            float(content["requests_per_s"]),
            float(content["output_tokens_mean"] or 0),
            content["ttft_p90_ms"],
            float(content["latency_p90_ms"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise click.UsageError(f"{path} is not a result of `trident bench serve --concurrency N --json`") from error
    if content.get("failed") or not measurement.requests_per_s > 0:
        raise click.UsageError(f"{path}: requests failed, so that it says nothing about the speed")
    return measurement


def _memory(model: str, settings: Settings) -> int | None:
    """Return what a replica with a model of this ID needs, if it is in the model repository."""
    from export.triton_config import read_model_parameters
    from trident.launch.memory_plan import make_plan, networks_of
    from trident.launch.preflight import LaunchError

    for config in settings.model_repository.glob("*/config.pbtxt"):
        if read_model_parameters(config).get("id") == model:
            name = config.parent.name
            try:
                return make_plan(replace(settings, models=(name,)), [name, *networks_of(settings, [name])]).total
            except LaunchError:
                return None
    return None

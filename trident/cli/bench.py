"""The `trident bench` commands, which measure a running server."""

import csv
import io
import json
import mimetypes
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trident.cli.client import failures_reported
from trident.cli.options import GroupedCommand, fail, model_option
from trident.cli.session import session, session_options

if TYPE_CHECKING:
    from trident.cli.load import Report

_PERCENTILES = (50, 90, 99)
_PLOTS = (".png", ".svg", ".pdf", ".jpg")


@click.group()
def bench() -> None:
    """Measure the speed of a running server.

    \b
    Example:
      trident bench serve --concurrency 16
    """


@bench.command("serve", cls=GroupedCommand)
@model_option("chat model (default: the server's)")
@click.option("-c", "--concurrency", type=click.IntRange(1, 1024), metavar="N", help="requests at once (default: 8)")
@click.option("--rate", type=click.FloatRange(0.01), metavar="N", help="requests per second instead, at random times")
@click.option("-n", "--num-requests", type=click.IntRange(1), metavar="N", help="requests (default: 8 × concurrency)")
@click.option("--input-tokens", type=click.IntRange(1), default=128, metavar="N", help="prompt length (default: 128)")
@click.option("--output-tokens", type=click.IntRange(1), default=64, metavar="N", help="response length (default: 64)")
@click.option("--warmup", type=click.IntRange(0), metavar="N", help="warm-up requests (default: the concurrency)")
@click.option("--seed", type=int, default=0, metavar="N", help="seed of the prompts and the times (default: 0)")
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="send this instead: audio to transcribe, or a picture to cut out",
)
@click.option("--format", "format_", type=click.Choice(["table", "json", "csv"]), help="format (default: table)")
@click.option("--json", "as_json", is_flag=True, help="the same as --format json")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="draw the latencies into an image file")
@session_options
def bench_serve(
    model: str | None,
    concurrency: int | None,
    rate: float | None,
    num_requests: int | None,
    input_tokens: int,
    output_tokens: int,
    warmup: int | None,
    seed: int,
    file: Path | None,
    format_: str | None,
    as_json: bool,
    plot: Path | None,
    **flags: Any,
) -> None:
    """Send streamed chat requests with random prompts, and print the throughput and the latencies.

    The time to first token (TTFT) is counted from sending a request, the time between tokens (ITL) from one part of
    the response to the next. Exits with code 1 if a request failed. No server is started.

    \b
    Examples:
      trident bench serve --concurrency 16 --output-tokens 128
      trident bench serve --rate 2 --num-requests 100 --format csv > results.csv
      trident bench serve --url http://gpu-host:10100 --plot latencies.png
      trident bench serve --file speech.wav
    """
    from trident.cli.load import Load, run_load

    if concurrency and rate:
        raise click.UsageError("Use only one of --concurrency and --rate")
    if as_json and format_:
        raise click.UsageError("Use only one of --format and --json")
    if plot and file:
        raise click.UsageError("--plot draws the tokens of chats; use it without --file")
    if plot:
        _require_plot(plot)
    parallel = concurrency or 8
    with failures_reported(), session(flags, model, _task(file), starts=False) as opened:
        load = Load(
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            num_requests=num_requests or 8 * parallel,
            concurrency=None if rate else parallel,
            rate=rate,
            warmup=parallel if warmup is None else warmup,
            seed=seed,
            file=file,
        )
        report = run_load(opened, load)
    _print(report, "json" if as_json else format_ or "table")
    if plot:
        _draw(report, plot)
    if report.errors:
        fail(f"{sum(report.errors.values())} of {load.num_requests} requests failed")


def _task(file: Path | None) -> str:
    """Return the task of the models to which a file is sent. Raises UsageError if there is none."""
    kind = (mimetypes.guess_type(file)[0] or "").partition("/")[0] if file else ""
    tasks = {"": "chat", "audio": "transcription", "image": "background_removal"}
    if kind not in tasks or (file and not kind):
        raise click.UsageError(f"--file: '{file}' is neither audio nor a picture, by its name")
    return tasks[kind]


def _print(report: "Report", format_: str) -> None:
    summary = report.summary(_PERCENTILES)
    if format_ == "json":
        click.echo(json.dumps(summary, indent=1))
    elif format_ == "csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        row = {key: value for key, value in summary.items() if key != "errors"}
        writer.writerows([row.keys(), row.values()])
        click.echo(text.getvalue(), nl=False)
    else:
        for key, value in summary.items():
            if key != "errors":
                click.echo(f"{key.replace('_', ' '):28} {value}")
        for message, count in summary["errors"].items():
            click.echo(f"{'error':28} {count} × {message}")


def _require_plot(path: Path) -> None:
    """Raise ClickException if no plot can be drawn, or UsageError if it cannot be written to this file."""
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        fail("--plot needs matplotlib, which is not installed; run: make .venv/plot.stamp")
    if path.suffix.lower() not in _PLOTS:
        raise click.UsageError(f"--plot: '{path}' must end with one of {', '.join(_PLOTS)}")
    if not path.parent.is_dir():
        raise click.UsageError(f"--plot: '{path.parent}' is not a folder")


def _draw(report: "Report", path: Path) -> None:
    """Draw the time to first token and the time between tokens of the requests."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    first, between = figure.subplots(1, 2)
    for axes, values, title in (
        (first, report.first_tokens, "Time to first token"),
        (between, report.gaps, "Time between tokens"),
    ):
        axes.hist([1000 * value for value in values], bins=40)
        axes.set(title=title, xlabel="ms", ylabel="count")
    figure.suptitle(f"{report.model}, {report.output_rate:.0f} output tokens/s")
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        fail(f"{path} cannot be written: {error}")
    click.echo(f"Plot saved to {path}", err=True)

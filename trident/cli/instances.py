"""trident stop, status and ps: the instances that run on this machine."""

import json
import time
from collections.abc import Iterator
from typing import Any

import click

from frontend.settings import Settings, load_settings
from trident.cli.options import GroupedCommand, fail, setting_options, settings_of
from trident.launch.instance import Instance, running_instances

_PATIENCE_SECONDS = 20
_HTTP_SECONDS = 10

_WHICH = ("port", "cache")


@click.command(cls=GroupedCommand)
@setting_options(_WHICH)
def stop(**flags: Any) -> None:
    """Stop the instance on a port, and wait until it has ended."""
    import psutil

    settings = settings_of(flags)
    instance = Instance(settings)
    if not instance.is_running():
        click.echo(f"No Trident runs on port {settings.port}")
        return
    process = psutil.Process(instance.pid())
    click.echo(f"Stopping Trident on port {settings.port} (process {process.pid})")
    process.terminate()
    try:
        process.wait(_PATIENCE_SECONDS)
    except psutil.TimeoutExpired:
        fail(f"It still runs after {_PATIENCE_SECONDS} s: kill -9 {process.pid} ends it")
    except psutil.NoSuchProcess:
        pass
    click.echo("Stopped")


@click.command(cls=GroupedCommand)
@setting_options(_WHICH)
def status(**flags: Any) -> None:
    """Show whether an instance runs on a port, and whether its models answer. Exits with 1 unless all do."""
    settings = settings_of(flags)
    instance = Instance(settings)
    if not instance.is_running():
        fail(f"No Trident runs on port {settings.port}")
    url = instance.url()
    click.echo(f"Trident runs on {url} (process {instance.pid()})")
    health = _get(f"{url}/health")
    for model in _models(url):
        click.echo(f"  {model['id']} ({model['task']}): {model['state'].lower()}")
    if health.get("status") != "ok":
        fail(f"unhealthy: {health.get('error', 'the frontend does not answer')}")


@click.command(cls=GroupedCommand)
@setting_options(["cache"])
def ps(**flags: Any) -> None:
    """List the instances that run on this machine, with their models."""
    rows = [("PORT", "PID", "UPTIME", "MEMORY", "MODELS"), *map(_row, _running(settings_of(flags)))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _running(settings: Settings) -> Iterator[Instance]:
    for port in running_instances(settings.cache):
        yield Instance(load_settings({"port": port, "cache": settings.cache}))


def _row(instance: Instance) -> tuple[str, ...]:
    import psutil

    process = psutil.Process(instance.pid())
    memory = sum(child.memory_info().rss for child in (process, *process.children(recursive=True)))
    minutes = int(time.time() - process.create_time()) // 60
    models = " ".join(model["id"] for model in _models(instance.url())) or "-"
    uptime = f"{minutes // 60}:{minutes % 60:02}"
    return str(instance.settings.port), str(process.pid), uptime, f"{memory / 1e9:.1f} GB", models


def _models(url: str) -> list[dict[str, Any]]:
    models: list[dict[str, Any]] = _get(f"{url}/v1/models").get("data", [])
    return models


def _get(url: str) -> dict[str, Any]:
    import urllib.error  # slow to import, and not needed for --help
    import urllib.request

    try:
        with urllib.request.urlopen(url, timeout=_HTTP_SECONDS) as response:
            content = response.read()
    except urllib.error.HTTPError as error:
        content = error.read()
    except OSError:
        return {}
    body: dict[str, Any] = json.loads(content)
    return body

"""trident stop, status and ps: the instances that run on this machine."""

import contextlib
import json
import os
import signal
import time
from typing import Any

import click

from trident.cli.options import GroupedCommand, fail, setting_options, settings_of
from trident.launch.instance import Instance, running_instances

_PATIENCE_SECONDS = 20
_HTTP_SECONDS = 10

_WHICH = ("port", "cache")


@click.command(cls=GroupedCommand)
@setting_options(_WHICH)
def stop(**flags: Any) -> None:
    """Stop the instance on a port, and wait until it has ended."""
    settings = settings_of(flags)
    instance = Instance(settings.run_folder)
    if not instance.is_running():
        click.echo(f"No Trident runs on port {settings.port}")
        return
    try:
        pid = instance.pid()
        click.echo(f"Stopping Trident on port {settings.port} (process {pid})")
        os.kill(pid, signal.SIGTERM)
    except PermissionError:
        fail(f"Process {pid} is another user's: it can be stopped by them, or by root")
    except (FileNotFoundError, ProcessLookupError):
        click.echo("It has ended by itself")
        return
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while instance.is_running():
        if time.monotonic() > deadline:
            fail(f"It still runs after {_PATIENCE_SECONDS} s: kill -9 {pid} ends it")
        time.sleep(0.1)
    click.echo("Stopped")


@click.command(cls=GroupedCommand)
@setting_options(_WHICH)
def status(**flags: Any) -> None:
    """Show whether an instance runs on a port, and whether its models answer. Exits with 1 unless all do."""
    settings = settings_of(flags)
    instance = Instance(settings.run_folder)
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
    instances = running_instances(settings_of(flags).cache)
    rows = [("PORT", "PID", "UPTIME", "MEMORY", "MODELS"), *filter(None, map(_row, instances))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _row(instance: Instance) -> tuple[str, ...] | None:
    """Return what `ps` shows of an instance; None if it has just ended."""
    import psutil

    try:
        process = psutil.Process(instance.pid())
        started, memory = process.create_time(), 0
        for each in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                memory += each.memory_info().rss
    except (psutil.Error, FileNotFoundError):
        return None
    minutes = int(time.time() - started) // 60
    models = " ".join(model["id"] for model in _models(instance.url())) or "-"
    uptime = f"{minutes // 60}:{minutes % 60:02}"
    return str(instance.port), str(process.pid), uptime, f"{memory / 1e9:.1f} GB", models


def _models(url: str) -> list[dict[str, Any]]:
    models: list[dict[str, Any]] = _get(f"{url}/v1/models").get("data", [])
    return models


def _get(url: str) -> dict[str, Any]:
    import http.client  # slow to import, and not needed for --help
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(url, timeout=_HTTP_SECONDS) as response:
            content = response.read()
    except urllib.error.HTTPError as error:
        content = error.read()
    except (OSError, http.client.HTTPException):
        return {}
    try:
        body: dict[str, Any] = json.loads(content)
    except ValueError:
        return {}
    return body

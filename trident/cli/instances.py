"""The `trident stop`, `status` and `ps` commands, which manage the instances on this machine."""

import contextlib
import json
import os
import signal
import time
from typing import Any

import click

from trident.cli.options import GroupedCommand, fail, load_command_settings, setting_options
from trident.launch.instance import Instance, running_instances

_STOP_SECONDS = 20
_HTTP_SECONDS = 10

_INSTANCE_SETTINGS = ("port", "cache")


@click.command(cls=GroupedCommand)
@setting_options(_INSTANCE_SETTINGS)
def stop(**flags: Any) -> None:
    """Stop the instance on a port and wait until it has exited."""
    settings = load_command_settings(flags)
    instance = Instance(settings.run_folder)
    if not instance.is_running():
        click.echo(f"Trident is not running on port {settings.port}")
        return
    try:
        pid = instance.pid()
        click.echo(f"Stopping Trident on port {settings.port} (PID {pid})")
        os.kill(pid, signal.SIGTERM)
    except PermissionError:
        fail(f"Process {pid} belongs to another user; only that user or root can stop it")
    except (FileNotFoundError, ProcessLookupError):
        click.echo("Trident has already exited")
        return
    deadline = time.monotonic() + _STOP_SECONDS
    while instance.is_running():
        if time.monotonic() > deadline:
            fail(f"Trident is still running after {_STOP_SECONDS} s; to force it to exit, run: kill -9 {pid}")
        time.sleep(0.1)
    click.echo("Stopped")


@click.command(cls=GroupedCommand)
@setting_options(_INSTANCE_SETTINGS)
def status(**flags: Any) -> None:
    """Show whether an instance and its models are healthy.

    Exits with code 1 unless the instance and all its models are healthy.
    """
    settings = load_command_settings(flags)
    instance = Instance(settings.run_folder)
    if not instance.is_running():
        fail(f"Trident is not running on port {settings.port}")
    try:
        url, pid = instance.url(), instance.pid()
    except FileNotFoundError:
        fail("Trident has already exited")
    click.echo(f"Trident is running at {url} (PID {pid})")
    health = _get(f"{url}/health")
    for model in _models(url):
        click.echo(f"  {model['id']} ({model['task']}): {model['state'].lower()}")
    if health.get("status") != "ok":
        fail(f"Unhealthy: {health.get('error', 'the frontend does not respond')}")


@click.command(cls=GroupedCommand)
@setting_options(["cache"])
def ps(**flags: Any) -> None:
    """List the running instances that use this cache, with their models."""
    instances = running_instances(load_command_settings(flags).cache)
    rows = [("PORT", "PID", "UPTIME", "MEMORY", "MODELS"), *filter(None, map(_row, instances))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _row(instance: Instance) -> tuple[str, ...] | None:
    """Return the row of `trident ps` for an instance, or None if it has exited."""
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

"""The `trident stop`, `status`, `reload` and `ps` commands, which manage the instances on this machine."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Mapping
from typing import Any

import click

from trident.cli.api import send, table
from trident.cli.options import GroupedCommand, fail, load_command_settings, setting_options
from trident.launch.instance import Instance, running_instances

_STOP_SECONDS = 20
_HTTP_SECONDS = 10
_RELOAD_SECONDS = 1_000

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
    seconds = _STOP_SECONDS + settings.shutdown_delay + settings.drain_seconds
    deadline = time.monotonic() + seconds
    while instance.is_running():
        if time.monotonic() > deadline:
            fail(f"Trident is still running after {seconds:.0f} s; to force it to exit, run: kill -9 {pid}")
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
    health = _get(f"{url}/health", {})
    for model in _models(instance):
        click.echo(f"  {model['id']} ({model['task']}): {model['state'].lower()}")
    if health.get("status") != "ok":
        fail(f"Unhealthy: {health.get('error', 'the frontend does not respond')}")


@click.command(cls=GroupedCommand)
@click.argument("model")
@setting_options(_INSTANCE_SETTINGS)
def reload(model: str, **flags: Any) -> None:
    """Load a model again while the instance serves on, for example after a new export.

    MODEL is the ID or name of a model. With several Tritons, the model is loaded at one after another.
    """
    settings = load_command_settings(flags)
    instance = Instance(settings.run_folder)
    if not instance.is_running():
        fail(f"Trident is not running on port {settings.port}")
    url = f"{instance.url()}/api/models/reload"
    body = _request(url, {"model": model}, _RELOAD_SECONDS, instance.headers())
    if not body.get("success"):
        fail(body.get("message", "The frontend does not respond"))
    click.echo(f"{body['data']['model']} is loaded again at {len(body['data']['instances'])} Triton(s)")


@click.command(cls=GroupedCommand)
@setting_options(["cache"])
def ps(**flags: Any) -> None:
    """List the running instances that use this cache, with their models."""
    instances = running_instances(load_command_settings(flags).cache)
    click.echo(table(list(filter(None, map(_row, instances))), "PORT", "PID", "UPTIME", "MEMORY", "MODELS"))


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
    models = " ".join(model["id"] for model in _models(instance)) or "-"
    uptime = f"{minutes // 60}:{minutes % 60:02}"
    return str(instance.port), str(process.pid), uptime, f"{memory / 1e9:.1f} GB", models


def _models(instance: Instance) -> list[dict[str, Any]]:
    models: list[dict[str, Any]] = _get(f"{instance.url()}/v1/models", instance.headers()).get("data", [])
    return models


def _get(url: str, headers: Mapping[str, str]) -> dict[str, Any]:
    return _request(url, None, _HTTP_SECONDS, headers)


def _request(url: str, body: dict[str, Any] | None, seconds: float, headers: Mapping[str, str]) -> dict[str, Any]:
    """Return the response, also of a request that is rejected, or an empty one if the instance does not respond."""
    try:
        _, content = send("GET" if body is None else "POST", url, body, headers, seconds=seconds)
        parsed: dict[str, Any] = json.loads(content)
    except (OSError, ValueError):
        return {}
    return parsed

"""The `trident stop`, `status`, `reload`, `ps` and `logs` commands, which manage the servers on this machine."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Mapping
from typing import Any

import click

from trident.cli.api import table
from trident.cli.client import send
from trident.cli.options import GroupedCommand, complete_model, fail, load_command_settings, setting_options
from trident.cli.repository import RepositoryModel, repository_models, size_text
from trident.launch.instance import Instance, running_instances

_STOP_SECONDS = 20
_HTTP_SECONDS = 10
_RELOAD_SECONDS = 1_000

_INSTANCE_SETTINGS = ("port", "cache")


@click.command(cls=GroupedCommand)
@click.argument("model", required=False, shell_complete=complete_model)
@setting_options(_INSTANCE_SETTINGS)
def stop(model: str | None, **flags: Any) -> None:
    """Stop the server on a port, or unload only MODEL.

    Returns when the server has exited.

    \b
    Examples:
      trident stop
      trident stop --port 8080
      trident stop qwen3-0.6b      # requests in progress finish
    """
    settings = load_command_settings(flags)
    instance = Instance(settings.run_folder)
    if model:
        _unload(instance, model)
        return
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


def _unload(instance: Instance, model: str) -> None:
    body = _change_model(instance, "unload", model)
    click.echo(f"{body['data']['model']} is unloaded")


@click.command(cls=GroupedCommand)
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@setting_options(_INSTANCE_SETTINGS)
def status(as_json: bool, **flags: Any) -> None:
    """Show whether a server and its models are healthy.

    Exits with code 1 unless the server and all its models are healthy.

    \b
    Example:
      trident status --port 8080
    """
    settings = load_command_settings(flags)
    instance = Instance(settings.run_folder)
    if not instance.is_running():
        fail(f"Trident is not running on port {settings.port}")
    try:
        url, pid = instance.url(), instance.pid()
    except FileNotFoundError:
        fail("Trident has already exited")
    health, models = _get(f"{url}/health", {}), _models(instance)
    is_healthy = health.get("status") == "ok"
    problem = "" if is_healthy else health.get("error", "the frontend does not respond")
    if as_json:
        found = {"url": url, "pid": pid, "healthy": is_healthy, "problem": problem, "models": models}
        click.echo(json.dumps(found, indent=1))
    else:
        click.echo(f"Trident is running at {url} (PID {pid})")
        for model in models:
            click.echo(f"  {model['id']} ({model['task']}): {model['state'].lower()}")
    if not is_healthy:
        fail(f"Unhealthy: {problem}")


@click.command(cls=GroupedCommand)
@click.argument("model", shell_complete=complete_model)
@setting_options(_INSTANCE_SETTINGS)
def reload(model: str, **flags: Any) -> None:
    """Load a model again while the server runs.

    For example, after a new export.

    MODEL is the ID or name of a model. With several Tritons, the model is loaded at one after another.

    \b
    Example:
      trident reload qwen3-0.6b
    """
    body = _change_model(Instance(load_command_settings(flags).run_folder), "reload", model)
    click.echo(f"{body['data']['model']} is loaded again at {len(body['data']['instances'])} Triton(s)")


@click.command(cls=GroupedCommand)
@click.option("-c", "--compact", is_flag=True, help="print only the service IDs")
@click.option("-w", "--wide", is_flag=True, help="list the loaded models, with Ollama's columns")
@click.option("-j", "--json", "as_json", is_flag=True, help="print JSON")
@setting_options(["cache", "model_repository"])
def ps(compact: bool, wide: bool, as_json: bool, **flags: Any) -> None:
    """List the running servers that use this cache.

    A service ID is PID@PORT. The status is Running, Stopping or Unknown.

    \b
    Examples:
      trident ps
      trident ps --wide
    """
    services = [_service(instance) for instance in running_instances(load_command_settings(flags).cache)]
    found = [service for service in services if service]
    if as_json:
        click.echo(json.dumps(found, indent=1))
    elif wide:
        known = {each.id: each for each in repository_models(load_command_settings(flags).model_repository)}
        rows = [_wide_row(service, model, known) for service in found for model in service["models"]]
        click.echo(table(rows, "NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"))
    elif not found:
        click.echo("No Trident services found running.", err=compact)
    elif compact:
        click.echo("\n".join(service["service_id"] for service in found))
    else:
        columns = ("Service ID", "PID", "Model", "Port", "Address", "Status")
        click.echo(_PS_ROW.format(*columns).rstrip() + "\n" + "-" * 85)
        for service in found:
            models = _names(service["models"])
            fields = (service["service_id"], service["pid"], models, service["port"], service["address"])
            click.echo(_PS_ROW.format(*fields, service["status"]).rstrip())


def _change_model(instance: Instance, change: str, model: str) -> dict[str, Any]:
    """Load a model again or unload it, and return the response. Raise ClickException if that fails."""
    if not instance.is_running():
        fail(f"Trident is not running on port {instance.port}")
    url = f"{instance.url()}/api/models/{change}"
    body = _request(url, {"model": model}, _RELOAD_SECONDS, instance.headers())
    if not body.get("success"):
        error = body.get("error")
        message = error.get("message") if isinstance(error, dict) else None
        fail(body.get("message") or message or "The frontend does not respond")
    return body


def _names(models: list[dict[str, Any]]) -> str:
    """Return the first model, and how many others there are, as one word."""
    others = f"+{len(models) - 1}" if len(models) > 1 else ""
    return models[0]["id"] + others if models else "N/A"


_PS_ROW = "{:<20} {:<10} {:<20} {:<10} {:<15} {:<10}"


def _service(instance: Instance) -> dict[str, Any] | None:
    """Return what is known about a running instance, or None if it has exited."""
    import psutil

    try:
        process, address, url = psutil.Process(instance.pid()), instance.address(), instance.url()
        started, memory = process.create_time(), 0
        for each in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                memory += each.memory_info().rss
    except (psutil.Error, FileNotFoundError):
        return None
    is_stopping = instance.is_stopping()
    models = [] if is_stopping else _models(instance)
    return {
        "service_id": f"{process.pid}@{instance.port}",
        "pid": process.pid,
        "port": instance.port,
        "address": address,
        "url": url,
        "status": "Stopping" if is_stopping else "Running" if models else "Unknown",
        "models": models,
        "memory_bytes": memory,
        "uptime_seconds": int(time.time() - started),
    }


def _wide_row(service: dict[str, Any], model: dict[str, Any], known: Mapping[str, RepositoryModel]) -> tuple[str, ...]:
    """Return Ollama's columns for a model: its size on disk, and when it is unloaded."""
    found = known.get(model["id"])
    device = found.parameters.get("device", "CPU") if found else "-"
    context = found.parameters.get("context_length", "-") if found else "-"
    until = "Stopping..." if service["status"] == "Stopping" else "Forever" if model["state"] == "READY" else "-"
    size, digest = (size_text(found.size()), found.fingerprint[:12]) if found else ("-", "-")
    return model["id"], digest, size, f"100% {device}", context, until


@click.command(cls=GroupedCommand)
@click.option("-f", "--follow", is_flag=True, help="keep printing new lines")
@click.option("-n", "--lines", type=click.IntRange(0), default=100, metavar="N", help="last lines (default: 100)")
@click.option("--model", metavar="MODEL", help="only lines about this model")
@setting_options(_INSTANCE_SETTINGS)
def logs(follow: bool, lines: int, model: str | None, **flags: Any) -> None:
    """Show the logs of a server, also of one that has exited.

    They are the log of the API and that of Triton.

    \b
    Examples:
      trident logs -f
      trident logs --model whisper-base -n 20
    """
    from trident.cli.log_files import LogFiles

    settings = load_command_settings(flags)
    files = LogFiles([settings.run_folder / name for name in ("triton.log", "frontend.log")], model)
    if not files.exist():
        fail(f"There are no logs of a server on port {settings.port} in {settings.run_folder}")
    for line in files.last(lines):
        click.echo(line)
    for line in files.new() if follow else ():
        click.echo(line)


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

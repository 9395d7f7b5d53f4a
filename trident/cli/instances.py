"""The `trident stop`, `status`, `reload`, `ps` and `logs` commands, which manage the servers on this machine."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Mapping
from typing import Any

import click
from click.core import ParameterSource

from trident.cli.api import table
from trident.cli.client import send
from trident.cli.options import GroupedCommand, complete_model, fail, load_command_settings, setting_options
from trident.cli.repository import RepositoryModel, repository_models, size_text
from trident.cli.target import Target, find_instance, require_target, target_options
from trident.launch.instance import Instance, running_instances

_STOP_SECONDS = 20
_HTTP_SECONDS = 10
_RELOAD_SECONDS = 1_000


@click.command(cls=GroupedCommand)
@click.argument("model", required=False, shell_complete=complete_model)
@target_options("its admin key")
def stop(model: str | None, **flags: Any) -> None:
    """Stop the server on a port, or unload only MODEL.

    Returns when the server has exited. Without --port, this is the server on the default port, or the only other one.

    \b
    Examples:
      trident stop
      trident stop --port 8080
      trident stop qwen3-0.6b      # requests in progress finish
    """
    if model:
        body = _change_model(require_target(flags), "unload", model)
        click.echo(f"{body['data']['model']} is unloaded")
        return
    if flags.pop("url") and click.get_current_context().get_parameter_source("url") == ParameterSource.COMMANDLINE:
        raise click.UsageError("--url requires a MODEL: a server is stopped on its own machine")
    flags.pop("key")
    instance = _only_instance(flags)
    if instance is None:
        click.echo(f"Trident is not running on port {load_command_settings(flags).port}")
        return
    _stop(instance)


def _only_instance(flags: dict[str, Any]) -> Instance | None:
    """Return the instance to stop, if any. Raise UsageError if several run and none is on the default port."""
    instance, settings = find_instance(flags), load_command_settings(flags)
    running = [each for each in running_instances(settings.cache) if not each.is_temporary()]
    if instance and not flags.get("port") and instance.port != settings.port and len(running) > 1:
        ports = ", ".join(str(each.port) for each in running)
        raise click.UsageError(f"Several servers run, on the ports {ports}; choose one with --port")
    return instance


def _stop(instance: Instance) -> None:
    try:
        pid = instance.pid()
        click.echo(f"Stopping Trident on port {instance.port} (PID {pid})")
        os.kill(pid, signal.SIGTERM)
    except PermissionError:
        fail(f"Process {pid} belongs to another user; only that user or root can stop it")
    except (FileNotFoundError, ProcessLookupError):
        click.echo("Trident has already exited")
        return
    seconds = _STOP_SECONDS + instance.about().get("stop_seconds", 0)
    deadline = time.monotonic() + seconds
    while instance.is_running():
        if time.monotonic() > deadline:
            fail(f"Trident is still running after {seconds:.0f} s; to force it to exit, run: kill -9 {pid}")
        time.sleep(0.1)
    click.echo("Stopped")


@click.command(cls=GroupedCommand)
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@target_options("its API key")
def status(as_json: bool, **flags: Any) -> None:
    """Show whether a server and its models are healthy.

    Exits with code 1 unless the server and all its models are healthy.

    \b
    Example:
      trident status --port 8080
    """
    target = require_target(flags)
    try:
        pid = target.instance.pid() if target.instance else None
    except FileNotFoundError:
        fail("Trident has already exited")
    health = _request(target, "/health", None, _HTTP_SECONDS)
    models = _request(target, "/v1/models", None, _HTTP_SECONDS).get("data", [])
    is_healthy = health.get("status") == "ok"
    problem = "" if is_healthy else health.get("error", "the frontend does not respond")
    if as_json:
        found = {"url": target.url, "pid": pid, "healthy": is_healthy, "problem": problem, "models": models}
        click.echo(json.dumps(found, indent=1))
    else:
        click.echo(f"Trident is running at {target.url}" + (f" (PID {pid})" if pid else ""))
        for model in models:
            click.echo(f"  {model['id']} ({model.get('task', '-')}): {model.get('state', '-').lower()}")
    if not is_healthy:
        fail(f"Unhealthy: {problem}")


@click.command(cls=GroupedCommand)
@click.argument("model", shell_complete=complete_model)
@target_options("its admin key")
def reload(model: str, **flags: Any) -> None:
    """Load a model again while the server runs.

    For example, after a new export.

    MODEL is the ID or name of a model. With several Tritons, the model is loaded at one after another.

    \b
    Example:
      trident reload qwen3-0.6b
    """
    body = _change_model(require_target(flags), "reload", model)
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


def _change_model(target: Target, change: str, model: str) -> dict[str, Any]:
    """Load a model again or unload it, and return the response. Raise ClickException if that fails."""
    body = _request(target, f"/api/models/{change}", {"model": model}, _RELOAD_SECONDS)
    if not body.get("success"):
        error = body.get("error")
        message = error.get("message") if isinstance(error, dict) else None
        fail(body.get("message") or message or f"{target.url} does not respond")
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
        process, about, url = psutil.Process(instance.pid()), instance.about(), instance.url()
        started, memory = process.create_time(), 0
        for each in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                memory += each.memory_info().rss
    except (psutil.Error, FileNotFoundError):
        return None
    is_stopping = instance.is_stopping()
    target = Target(url, instance.headers(), is_local=True)
    models = [] if is_stopping else _request(target, "/v1/models", None, _HTTP_SECONDS).get("data", [])
    return {
        "service_id": f"{process.pid}@{instance.port}",
        "pid": process.pid,
        "port": instance.port,
        "address": about.get("address", "-"),
        "url": url,
        "status": "Stopping" if is_stopping else "Running" if models else "Unknown",
        "models": models,
        "on_demand": about.get("on_demand", False),
        "memory_bytes": memory,
        "uptime_seconds": int(time.time() - started),
    }


def _wide_row(service: dict[str, Any], model: dict[str, Any], known: Mapping[str, RepositoryModel]) -> tuple[str, ...]:
    """Return Ollama's columns for a model: its size on disk, and when it is unloaded."""
    found = known.get(model["id"])
    device = found.parameters.get("device", "CPU") if found else "-"
    context = found.parameters.get("context_length", "-") if found else "-"
    # A model that is loaded on demand is unloaded some time after its last request.
    until = "Forever" if model["state"] == "READY" and not service["on_demand"] else "-"
    size, digest = (size_text(found.size()), found.fingerprint[:12]) if found else ("-", "-")
    return model["id"], digest, size, f"100% {device}", context, until


@click.command(cls=GroupedCommand)
@click.option("-f", "--follow", is_flag=True, help="keep printing new lines")
@click.option("-n", "--lines", type=click.IntRange(0), default=100, metavar="N", help="last lines (default: 100)")
@click.option("--model", metavar="MODEL", help="only lines about this model")
@setting_options(("port", "cache"))
def logs(follow: bool, lines: int, model: str | None, **flags: Any) -> None:
    """Show the logs of a server, also of one that has exited.

    They are the log of the API and that of Triton.

    \b
    Examples:
      trident logs -f
      trident logs --model whisper-base -n 20
    """
    from trident.cli.log_files import LogFiles

    instance, settings = find_instance(flags), load_command_settings(flags)
    folder = settings.run_folder.with_name(str(instance.port if instance else settings.port))
    files = LogFiles([folder / name for name in ("triton.log", "frontend.log")], model)
    if not files.exist():
        fail(f"There are no logs of a server on port {folder.name} in {folder}")
    for line in files.last(lines):
        click.echo(line)
    for line in files.new() if follow else ():
        click.echo(line)


def _request(target: Target, path: str, body: dict[str, Any] | None, seconds: float) -> dict[str, Any]:
    """Return the response, also of a request that is rejected, or an empty one if the server does not respond."""
    method, url = "GET" if body is None else "POST", f"{target.url}{path}"
    try:
        _, content = send(method, url, body, target.headers, seconds=seconds, is_local=target.is_local)
        parsed = json.loads(content)
    except (OSError, ValueError):
        return {}
    return parsed if isinstance(parsed, dict) else {}

"""The server that a command sends its requests to: a running Trident, or one that runs only for this command."""

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from frontend.settings import Settings
from trident.cli.client import Server
from trident.cli.options import fail, is_terminal, load_command_settings, setting_options
from trident.cli.target import find_target, not_running, target_options

TASKS = {
    "chat": "run",
    "transcription": "transcribe",
    "speech": "speak",
    "embedding": "embed",
    "rerank": "rerank",
    "background_removal": "cutout",
    "image_generation": "image",
    "ocr": "run",
}
"""The command for the models of each task."""

CHAT_TASKS = ("chat", "ocr")
"""The tasks of the models that respond to conversations."""

# Settings that apply only when a server is started.
_START_SETTINGS = ("engine", "precision", "hub", "context_length", "kv_cache_gb")


@dataclass
class Session:
    """A server, and the model to use there, as /v1/models describes it."""

    server: Server
    model: dict[str, Any]
    load_seconds: float
    """The time that it took to find or to start the server."""

    @property
    def model_id(self) -> str:
        """The model's ID in requests."""
        return str(self.model["id"])

    @property
    def media(self) -> list[str]:
        """The kinds of media that the model accepts in a conversation."""
        capabilities = self.model.get("capabilities", ["vision", "audio"])
        sees = "vision" in capabilities or self.model.get("task") == "ocr"
        return ["image"] * sees + ["audio"] * ("audio" in capabilities)


def session_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that choose the server to a command."""
    with_settings = setting_options((*_START_SETTINGS, "model_repository"))(function)
    decorated: Callable[..., Any] = target_options("its API key")(with_settings)
    return decorated


@contextlib.contextmanager
def session(
    flags: dict[str, Any], name: str | None, *tasks: str, options: Sequence[str] = (), starts: bool = True
) -> Iterator[Session]:
    """Yield a session with the model `name`, or the default one of the first task. Its task must be one of `tasks`.

    If no server runs, or the one on this machine does not have the model, the model is exported, and a server for it
    runs until the block ends. `options` are options of `trident export`, with which a server is always started. If not
    `starts`, none is started.
    """
    started = time.monotonic()
    target, settings = find_target(flags), load_command_settings(flags)
    if target is None and flags.get("port"):
        fail(not_running(flags))
    if target is not None and target.instance is None and options:
        raise click.UsageError(f"{options[0]} does not apply to a server that is named by its URL")
    if target is not None and not options:
        server = Server(target.url, target.headers, target.is_local)
        is_named = target.instance is None
        if model := _find(server, name if is_named else _served_name(name, settings), tasks, is_named=is_named):
            _reject_start_settings(flags, server)
            yield Session(server, _of_task(model, tasks), time.monotonic() - started)
            return
        if is_named or not starts:
            fail(f"{server.url} has no model '{name or tasks[0]}'")
        click.echo(f"{server.url} does not serve {name or tasks[0]}; starting a server for this command", err=True)
    elif not starts:
        fail(not_running(flags))
    name = _known(name or _starter(tasks[0]), settings)
    with _started_server(settings, name, list(options)) as own:
        model = _chosen(own.models(), has_adapter="--lora" in options)
        yield Session(own, _of_task(model, tasks), time.monotonic() - started)


def _find(server: Server, name: str | None, tasks: tuple[str, ...], *, is_named: bool) -> dict[str, Any] | None:
    """Return the model of this name, or the default one of the first task. An empty name stands for no model.

    Other servers than Trident do not say which task a model has. If they have only one, it is the default.
    """
    if name is not None:
        return server.find(name) if name else None
    if found := server.find(tasks[0]):
        return found
    models = server.models() if is_named else []
    return models[0] if len(models) == 1 and "task" not in models[0] else None


def _reject_start_settings(flags: Mapping[str, Any], server: Server) -> None:
    """Raise UsageError if a flag is about how a model is started, and the model runs already."""
    for name in _START_SETTINGS:
        if flags.get(name) is not None:
            flag = "--" + name.replace("_", "-")
            raise click.UsageError(f"{flag} does not apply: {server.url} serves the model already")


def _served_name(name: str | None, settings: Settings) -> str | None:
    """Return the name by which a server on this machine has a model, or an empty text if it cannot have it."""
    from trident.cli.repository import exported_name, is_path_or_url

    if name is None:
        return None
    found = exported_name(name, settings.model_repository)
    return found or ("" if is_path_or_url(name) else name)


@contextlib.contextmanager
def _started_server(settings: Settings, name: str, options: list[str]) -> Iterator[Server]:
    """Export a model if needed, and yield a server that has only this model and ends with the block."""
    from trident.cli.serve import export_for_serving
    from trident.launch.preflight import LaunchError
    from trident.launch.temporary import temporary_instance

    with _exit_on_signals():
        models = export_for_serving(settings, [name], options, quiet=True)
        status = Status(f"Starting {name}")
        try:
            with temporary_instance(settings, models, status.update) as instance:
                status.clear()
                yield Server(instance.url(), instance.headers(), is_local=True)
        except LaunchError as error:
            status.clear()
            fail(str(error))


@contextlib.contextmanager
def _exit_on_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into an orderly exit while the block runs, so that a started server is stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(each, lambda signum, _: sys.exit(128 + signum)) for each in signals]
    try:
        yield
    finally:
        for each, handler in zip(signals, before, strict=True):
            signal.signal(each, handler)


class Status:
    """A line on the terminal that shows what a command waits for. In a pipe, one line without animation."""

    def __init__(self, text: str):
        self._text, self._started = text, time.monotonic()
        self._shown: int | None = None
        self._is_terminal = is_terminal(sys.stderr)

    def update(self) -> None:
        """Show how long the command has waited."""
        seconds = int(time.monotonic() - self._started)
        if seconds == self._shown:
            return
        if self._is_terminal:
            click.echo(f"\r{self._text} … {seconds} s", nl=False, err=True)
        elif self._shown is None:
            click.echo(self._text, err=True)
        self._shown = seconds

    def clear(self) -> None:
        """Remove the line from the terminal."""
        if self._shown is not None and self._is_terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def _chosen(models: list[dict[str, Any]], *, has_adapter: bool) -> dict[str, Any]:
    """Return the only model, or its first adapter (BASE:ADAPTER). Raise ClickException if there is none."""
    found = [model for model in models if not has_adapter or ":" in str(model["id"])]
    return found[0] if found else fail("The server has started without the model; see `trident logs`")


def _of_task(model: dict[str, Any], tasks: tuple[str, ...]) -> dict[str, Any]:
    """Return the model if it has one of these tasks. Raise UsageError with the command that fits it otherwise.

    Other servers than Trident do not say which task a model has.
    """
    task = model.get("task")
    if tasks and task and task not in tasks:
        raise click.UsageError(
            f"{model['id']} is a model for {task.replace('_', ' ')}; use: trident {TASKS.get(task, 'run')}"
        )
    return model


def _starter(task: str) -> str:
    """Return the starter model of a task. Raise UsageError if there is none."""
    from export.catalog import load_catalog

    names = [entry.name for entry in load_catalog().values() if entry.starter and entry.task == task]
    if not names:
        raise click.UsageError(f"Name a model for {task.replace('_', ' ')} with --model (see `trident list`)")
    return names[0]


def _known(name: str, settings: Settings) -> str:
    """Return a name that can be exported or served. Raise UsageError with similar names if there is no such model."""
    import difflib

    from export.catalog import load_catalog
    from export.fetch import ExportError
    from export.sources.reference import parse_reference
    from trident.cli.repository import exported_name, repository_models

    try:
        if parse_reference(name) is not None:
            return name
    except ExportError as error:
        raise click.UsageError(str(error)) from None
    if found := exported_name(name, settings.model_repository):
        return found
    names = {*load_catalog(), *(model.name for model in repository_models(settings.model_repository))}
    similar = difflib.get_close_matches(name.lower(), sorted(names), 3, 0.5)
    hint = f"Did you mean {' or '.join(similar)}?" if similar else "See `trident list` and `trident search`"
    raise click.UsageError(f"Unknown model '{name}'. {hint}")

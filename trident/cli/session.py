"""The server that a command sends its requests to: a running Trident, or one that runs only for this command."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import click

from frontend.settings import Settings
from trident.cli.client import Server
from trident.cli.options import fail, load_command_settings, setting_options
from trident.launch.instance import Instance, running_instances

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

_MODEL_SETTINGS = ("engine", "precision", "hub", "context_length", "kv_cache_gb", "model_repository")


@dataclass
class Session:
    """A server, and the model to use there, as /v1/models describes it."""

    server: Server
    model: dict[str, Any]
    load_seconds: float
    """The time that it took to find or to start the server."""
    is_temporary: bool = False
    """Whether the server was started for this command."""

    @property
    def model_id(self) -> str:
        """The model's ID in requests."""
        return str(self.model["id"])


def session_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that choose the server to a command."""
    options = [
        click.option("--url", envvar="TRIDENT_URL", metavar="URL", help="server to use: http://HOST:PORT"),
        click.option("--key", envvar="TRIDENT_API_KEY", metavar="KEY", help="its API key (better: TRIDENT_API_KEY)"),
        setting_options(("port", "cache", *_MODEL_SETTINGS)),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def server_at(flags: dict[str, Any]) -> Server | None:
    """Return the server that a command's flags name, or the instance that runs on this machine, if any.

    `--url` and `--key` are removed from the flags. Without `--port`, the instance on the default port is used, or else
    any other. Raises UsageError if the URL or the key is malformed.
    """
    url, key = flags.pop("url"), flags.pop("key")
    headers = _key_headers(key)
    if url:
        if not url.startswith(("http://", "https://")):
            raise click.UsageError("--url must be http://HOST:PORT or https://HOST")
        return Server(url.rstrip("/").removesuffix("/v1"), headers, is_local=False)
    settings = load_command_settings(flags)
    instance = Instance(settings.run_folder)
    if not instance.is_running():
        others = [] if flags.get("port") else running_instances(settings.cache)
        instance = next((each for each in others if not each.is_temporary()), instance)
    if not instance.is_running():
        return None
    return Server(instance.url(), headers or instance.headers(), is_local=True)


def require_server(flags: dict[str, Any]) -> Server:
    """Return the server that a command's flags name, or a running instance. Raise ClickException if there is none."""
    server = server_at(flags)
    if server is None:
        fail("Trident is not running on this machine; start it with `trident serve`, or name a server with --url")
    return server


@contextlib.contextmanager
def session(
    flags: dict[str, Any], name: str | None, *tasks: str, options: list[str] | None = None
) -> Iterator[Session]:
    """Yield a session with the model `name`, or the default one of the first task. Its task must be one of `tasks`.

    If no server runs, or the one on this machine does not have the model, the model is exported, and a server for it
    runs until the block ends. `options` are options of `trident export`, with which a server is always started.
    """
    started = time.monotonic()
    key = flags.get("key")
    server = None if options else server_at(flags)
    if options:
        flags.pop("url"), flags.pop("key")
    if server is not None:
        if model := server.find(name or tasks[0]):
            yield Session(server, _of_task(model, tasks), time.monotonic() - started)
            return
        if not server.is_local:
            fail(f"{server.url} has no model '{name or tasks[0]}'")
        _note(f"{server.url} does not serve {name or f'a model for {tasks[0]}'}; starting a server for this command")
    name = name or _starter(tasks[0])
    with started_server(load_command_settings(flags), name, options or [], _key_headers(key)) as own:
        model = own.models()[0]
        yield Session(own, _of_task(model, tasks), time.monotonic() - started, is_temporary=True)


@contextlib.contextmanager
def started_server(settings: Settings, name: str, options: list[str], headers: Mapping[str, str]) -> Iterator[Server]:
    """Export a model if needed, and yield a server that has only this model and ends with the block."""
    from trident.cli.serve import export_for_serving
    from trident.launch.preflight import LaunchError
    from trident.launch.temporary import temporary_instance

    models = export_for_serving(settings, [_known(name, settings)], options, quiet=True)
    status = Status(f"Starting {name}")
    try:
        with temporary_instance(settings, models, status.update) as instance:
            status.clear()
            yield Server(instance.url(), headers or instance.headers(), is_local=True)
    except LaunchError as error:
        status.clear()
        fail(str(error))


class Status:
    """A line on the terminal that shows what a command waits for. In a pipe, one line without animation."""

    def __init__(self, text: str):
        self._text, self._started = text, time.monotonic()
        self._shown: int | None = None

    def update(self) -> None:
        """Show how long the command has waited."""
        seconds = int(time.monotonic() - self._started)
        if seconds == self._shown:
            return
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{self._text} … {seconds} s")
            sys.stderr.flush()
        elif self._shown is None:
            click.echo(self._text, err=True)
        self._shown = seconds

    def clear(self) -> None:
        """Remove the line from the terminal."""
        if self._shown is not None and sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def _known(name: str, settings: Settings) -> str:
    """Return a name that can be exported or served. Raise UsageError with similar names if there is no such model."""
    import difflib

    from export.catalog import load_catalog
    from export.fetch import ExportError
    from export.sources.reference import parse_reference
    from trident.cli.repository import repository_models, repository_name

    try:
        is_reference = parse_reference(name) is not None
    except ExportError as error:
        raise click.UsageError(str(error)) from None
    if found := repository_name(name, settings.model_repository) if not is_reference else name:
        return found
    names = {*load_catalog(), *(model.name for model in repository_models(settings.model_repository))}
    similar = difflib.get_close_matches(name.lower(), sorted(names), 3, 0.5)
    hint = f"Did you mean {' or '.join(similar)}?" if similar else "See `trident list` and `trident search`"
    raise click.UsageError(f"Unknown model '{name}'. {hint}")


def _key_headers(key: str | None) -> dict[str, str]:
    if key and not (key.isascii() and key.isprintable()):
        raise click.UsageError("The key has characters that no key has")
    return {"Authorization": f"Bearer {key}"} if key else {}


def _of_task(model: dict[str, Any], tasks: tuple[str, ...]) -> dict[str, Any]:
    """Return the model if it has one of these tasks. Raise UsageError with the command that fits it otherwise."""
    if tasks and model["task"] not in tasks:
        task = model["task"]
        raise click.UsageError(
            f"{model['id']} is a model for {task.replace('_', ' ')}; use: trident {TASKS.get(task, 'run')}"
        )
    return model


def _starter(task: str) -> str:
    """Return the starter model of a task."""
    from export.catalog import load_catalog

    names = [entry.name for entry in load_catalog().values() if entry.starter and entry.task == task]
    if not names:
        raise click.UsageError(f"Name a model for {task.replace('_', ' ')} with --model (see `trident list`)")
    return names[0]


def _note(text: str) -> None:
    click.echo(text, err=True)

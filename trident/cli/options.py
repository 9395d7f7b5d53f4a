"""Defines command options from the settings. `--help` groups the options, and does not show Python type names."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any, NoReturn, get_origin, get_type_hints

import click

from frontend.settings import GROUPS, Settings, SettingsError, load_settings

_HINTS = get_type_hints(Settings)
_FIELDS = {field.name: field for field in dataclasses.fields(Settings)}


class SettingOption(click.Option):
    """A command option that sets a field of `Settings`."""

    def __init__(self, name: str):
        field, kind = _FIELDS[name], _HINTS[name]
        about, flag = field.metadata, "--" + name.replace("_", "-")
        self.group = about["group"]
        shared = {"help": about["help"] + _default(field), "default": None}
        if kind is bool:
            super().__init__([f"{flag}/--no-{flag[2:]}", name], **shared)
        elif about["choices"]:
            super().__init__([flag, name], type=click.Choice(about["choices"]), **shared)
        else:
            several = get_origin(kind) is tuple
            super().__init__([flag, name], metavar=about["metavar"], multiple=several, **shared)


class GroupedCommand(click.Command):
    """A command whose `--help` lists the options by settings group."""

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        rows: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(context):
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(context)):
                rows.setdefault(getattr(parameter, "group", "options"), []).append(record)
        for group in ("options", *GROUPS):
            if group in rows:
                with formatter.section(group.capitalize()):
                    formatter.write_dl(rows[group])


def setting_options(names: Iterable[str] = tuple(_FIELDS)) -> Callable[[Any], Any]:
    """Return a decorator that adds an option for each of these settings to a command."""

    def decorate(function: Any) -> Any:
        # click reads this list in reverse.
        options = [SettingOption(name) for name in names][::-1]
        function.__click_params__ = options + getattr(function, "__click_params__", [])
        return function

    return decorate


def complete_model(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Return the models that a word in a shell may become: names of the catalog and of the model repository."""
    from export.catalog import load_catalog
    from trident.cli.repository import repository_models

    names = {*load_catalog(), *(id for entry in load_catalog().values() for id in entry.ids)}
    with contextlib.suppress(click.UsageError):  # of the settings file
        names |= {model.name for model in repository_models(load_command_settings({}).model_repository)}
    return sorted(name for name in names if name.startswith(incomplete))


def model_option(help: str, *names: str, **more: Any) -> Callable[[Any], Any]:
    """Return the option `-m`, which names a model."""
    return click.option("-m", "--model", *names, metavar="MODEL", shell_complete=complete_model, help=help, **more)


def model_options(function: Any) -> Any:
    """Add the options of the commands that export a model to a command."""
    path = click.Path(path_type=Path)
    projector = click.option(
        "--mmproj",
        metavar="FILE",
        type=path,
        help="projector with which a model on llama.cpp accepts images or audio; requires exactly one MODEL",
    )
    adapters = click.option(
        "--lora",
        metavar="FILE",
        type=path,
        multiple=True,
        help="LoRA adapter of a model on llama.cpp, as a model of its own; can be repeated; requires exactly one MODEL",
    )
    trust = click.option(
        "--trust-remote-code", is_flag=True, help="run Python code from the model's repository during the conversion"
    )
    force = click.option(
        "--force", is_flag=True, help="export a model even if it loses more quality than the limit, or was rolled back"
    )
    return projector(adapters(trust(force(function))))


def export_options(
    mmproj: Path | None, lora: Iterable[Path], trust_remote_code: bool = False, force: bool = False
) -> list[str]:
    """Return the values of `model_options` as arguments of `trident export`."""
    files = [*([("--mmproj", mmproj)] if mmproj else []), *(("--lora", adapter) for adapter in lora)]
    arguments = [word for flag, path in files for word in (flag, str(path))]
    return arguments + ["--trust-remote-code"] * trust_remote_code + ["--force"] * force


def is_terminal(stream: IO[Any] | None) -> bool:
    """Return whether a stream is a terminal. A closed one is None."""
    return stream is not None and stream.isatty()


def load_command_settings(flags: Mapping[str, Any]) -> Settings:
    """Return the settings, overridden by a command's flags. Raise UsageError (exit code 2) if a setting is invalid."""
    try:
        return load_settings({name: value for name, value in flags.items() if value not in (None, ())})
    except SettingsError as error:
        raise click.UsageError(str(error)) from error


def fail(message: str) -> NoReturn:
    """Raise ClickException, which prints the message and exits with code 1."""
    raise click.ClickException(message)


def _default(field: "dataclasses.Field[Any]") -> str:
    default = field.default
    if default in (dataclasses.MISSING, None, (), False):
        return ""
    shown = f"{default:g}" if isinstance(default, float) else default
    return f" (default: {shown:,})" if isinstance(shown, int) and shown > 65535 else f" (default: {shown})"

"""Options of commands, made of the settings they are: grouped in `--help`, without Python's names of types."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn, get_origin, get_type_hints

import click

from frontend.settings import GROUPS, Settings, SettingsError, load_settings

_HINTS = get_type_hints(Settings)
_FIELDS = {field.name: field for field in dataclasses.fields(Settings)}


class SettingOption(click.Option):
    """An option that sets a field of Settings."""

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
    """Lists its options under the names of the settings' groups."""

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        rows: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(context):
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(context)):
                rows.setdefault(getattr(parameter, "group", "other"), []).append(record)
        for group in (*GROUPS, "other"):
            if group in rows:
                with formatter.section(group.capitalize()):
                    formatter.write_dl(rows[group])


def setting_options(names: Iterable[str] = tuple(_FIELDS)) -> Callable[[Any], Any]:
    """Return a decorator that gives a command the options of these settings."""

    def decorate(function: Any) -> Any:
        # click reads them from the last to the first.
        options = [SettingOption(name) for name in names][::-1]
        function.__click_params__ = options + getattr(function, "__click_params__", [])
        return function

    return decorate


def settings_of(flags: Mapping[str, Any]) -> Settings:
    """Return the settings that the options of a command give. Exits with 2, naming what is wrong."""
    try:
        return load_settings({name: value for name, value in flags.items() if value not in (None, ())})
    except SettingsError as error:
        raise click.UsageError(str(error)) from error


def fail(message: str) -> NoReturn:
    """Exit with 1 after a message."""
    raise click.ClickException(message)


def _default(field: "dataclasses.Field[Any]") -> str:
    default = field.default
    if default in (dataclasses.MISSING, None, (), False):
        return ""
    shown = f"{default:g}" if isinstance(default, float) else default
    return f" (default: {shown:,})" if isinstance(shown, int) and shown > 65535 else f" (default: {shown})"

"""The server that a command is about: the URL and the key that are given, or an instance on this machine."""

from collections.abc import Callable
from typing import Any, NamedTuple

import click
from click.core import ParameterSource

from trident.cli.client import is_this_machine, key_headers, require_url
from trident.cli.options import fail, load_command_settings, setting_options
from trident.launch.instance import Instance, running_instances


class Target(NamedTuple):
    """A server: its URL, and the headers with the key."""

    url: str
    headers: dict[str, str]
    is_local: bool
    """Whether it is on this machine, so that no proxy gets the requests."""
    instance: Instance | None = None
    """The instance on this machine that was chosen, unless the URL was given."""


def target_options(key_help: str) -> Callable[[Any], Any]:
    """Return a decorator that adds the options that name a server to a command."""

    def decorate(function: Any) -> Any:
        options = [
            click.option("--url", envvar="TRIDENT_URL", metavar="URL", help="server to use: http://HOST:PORT"),
            click.option(
                "--key", envvar="TRIDENT_API_KEY", metavar="KEY", help=f"{key_help} (better: TRIDENT_API_KEY)"
            ),
            setting_options(("port", "cache")),
        ]
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def find_target(flags: dict[str, Any]) -> Target | None:
    """Return the server that a command's flags name, or an instance that runs on this machine, if any.

    Removes `--url` and `--key` from the flags. `--port` takes precedence over TRIDENT_URL. Without `--port`, the
    instance on the default port is chosen, or another one that is not temporary. Raises UsageError if the URL or the
    key is malformed, or if `--url` and `--port` are both given.
    """
    url, key = flags.pop("url"), flags.pop("key")
    headers = key_headers(key)
    if url and flags.get("port"):
        if not _is_from_environment("url"):
            raise click.UsageError("Use only one of --url and --port")
        url = None
    if url:
        return Target(require_url(url), headers, is_this_machine(url))
    instance = find_instance(flags)
    if instance is None:
        return None
    # A key in the environment may be that of another server.
    is_meant = headers and not _is_from_environment("key")
    headers = headers if is_meant else instance.headers() or headers
    return Target(instance.url(), headers, is_local=True, instance=instance)


def require_target(flags: dict[str, Any]) -> Target:
    """Return the server that a command's flags name. Raise ClickException if none runs."""
    target = find_target(flags)
    return target or fail(not_running(flags))


def find_instance(flags: dict[str, Any]) -> Instance | None:
    """Return the instance on the port that the flags name or, without `--port`, the default one or another one."""
    settings = load_command_settings(flags)
    instance = Instance(settings.run_folder)
    if instance.is_running():
        return instance
    others = [] if flags.get("port") else running_instances(settings.cache)
    return next((each for each in others if not each.is_temporary()), None)


def not_running(flags: dict[str, Any]) -> str:
    """Return the message that no server runs."""
    port = load_command_settings(flags).port
    hint = "" if flags.get("port") else ", nor on another one"
    return f"Trident is not running on port {port}{hint}; start it with `trident serve`, or name a server with --url"


def _is_from_environment(option: str) -> bool:
    return click.get_current_context().get_parameter_source(option) == ParameterSource.ENVIRONMENT

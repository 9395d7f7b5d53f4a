"""The `trident config` commands, which show and change the versions of the configuration."""

import json
from typing import Any

import click

from trident.cli.api import api_options, require_api, show, table
from trident.cli.options import fail

_PATH = "/api/config/version"


@click.group()
def config() -> None:
    """Show the configuration that can be changed while Trident runs, and return to earlier versions.

    \b
    Examples:
      trident config versions
      trident config rollback
    """


@config.command("show")
@click.argument("version", type=int, required=False)
@api_options
def show_configuration(version: int | None, as_json: bool, **flags: Any) -> None:
    """Print the configuration, or that of an earlier VERSION (0: that of the settings), as JSON.

    \b
    Examples:
      trident config show
      trident config show 3
    """
    api = require_api(flags)
    data = api.get("/api/config/type" if version is None else f"{_PATH}/{version}")
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))


@config.command()
@api_options
def versions(as_json: bool, **flags: Any) -> None:
    """List the versions.

    \b
    Example:
      trident config versions
    """
    data = require_api(flags).get(f"{_PATH}/info")
    rows = [
        (f"{row['version']}{' *' if row['current'] else ''}", row["createdAt"], row["actor"], row["comment"])
        for row in data
    ]
    empty = "There are no versions: the configuration is that of the settings"
    show(data, as_json, table(rows, "VERSION", "CREATED", "BY", "COMMENT") if rows else empty)


@config.command()
@click.argument("first", type=int)
@click.argument("second", type=int)
@api_options
def compare(first: int, second: int, as_json: bool, **flags: Any) -> None:
    """Show what differs between the versions FIRST and SECOND.

    \b
    Example:
      trident config compare 3 4
    """
    data = require_api(flags).get(f"{_PATH}/compare/{first}/{second}")
    rows = [(each["path"], json.dumps(each["old"]), json.dumps(each["new"])) for each in data["changes"]]
    show(data, as_json, table(rows, "FIELD", "OLD", "NEW") if rows else "The versions are equal")


@config.command()
@click.argument("version", type=int)
@api_options
def apply(version: int, as_json: bool, **flags: Any) -> None:
    """Make a new version with the content of VERSION (0: that of the settings).

    \b
    Example:
      trident config apply 3
    """
    _apply("apply", version, as_json, flags)


@config.command()
@click.argument("version", type=int, required=False)
@api_options
def rollback(version: int | None, as_json: bool, **flags: Any) -> None:
    """Return to VERSION, or to the version before the current one.

    \b
    Examples:
      trident config rollback
      trident config rollback 3
    """
    _apply("rollback", version, as_json, flags)


def _apply(action: str, version: int | None, as_json: bool, flags: dict[str, Any]) -> None:
    api = require_api(flags)
    query = ""
    if version is None:
        current = api.get(f"{_PATH}/current")
        if current == 0:
            fail("There is no earlier version: the configuration is that of the settings")
        version = max((number for number in api.get(_PATH) if number < current), default=0)
        query = f"?expectedVersion={current}"
    response = api.request("POST", f"{_PATH}/{action}/{version}{query}")
    show(response["data"], as_json, response["message"])

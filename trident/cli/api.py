"""Requests of commands to the management API of a running instance."""

import json
from collections.abc import Callable
from typing import Any

import click

from trident.cli.client import error_message, key_hint, send
from trident.cli.options import fail
from trident.cli.target import find_target, not_running, target_options

_SECONDS = 60


class Api:
    """The management API at `url`. `headers` has the key."""

    def __init__(self, url: str, headers: dict[str, str], is_local: bool = False):
        self._url, self._headers, self._is_local = url.rstrip("/"), headers, is_local

    def get(self, path: str) -> Any:
        """Return the data of a GET request. Raise ClickException if it fails."""
        return self.request("GET", path)["data"]

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the response of a request. Raise ClickException with the server's message if it fails."""
        try:
            status, content = send(
                method, f"{self._url}{path}", body, self._headers, seconds=_SECONDS, is_local=self._is_local
            )
            if status >= 300:
                fail(error_message(content, status) + key_hint(status, "an admin key"))
            found: dict[str, Any] = json.loads(content)
        except (OSError, ValueError) as error:
            fail(f"{self._url} does not respond: {getattr(error, 'reason', error)}")
        return found


def running_api(flags: dict[str, Any]) -> Api | None:
    """Return the API of the server that a command's flags name, or None if none runs (see `find_target`)."""
    target = find_target(flags)
    return target and Api(target.url, target.headers, target.is_local)


def require_api(flags: dict[str, Any]) -> Api:
    """Return the API of the server that a command's flags name. Raise ClickException if none runs."""
    return running_api(flags) or fail(not_running(flags))


def api_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that name an instance to a command, and `--json`."""
    with_json = click.option("--json", "as_json", is_flag=True, help="print JSON")(function)
    decorated: Callable[..., Any] = target_options("its admin key")(with_json)
    return decorated


def show(data: Any, as_json: bool, text: str) -> None:
    """Print data as JSON or as text."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False) if as_json else text)


def table(rows: list[tuple[Any, ...]], *header: str) -> str:
    """Return rows as a table."""
    lines = [tuple(header), *(tuple(map(str, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )

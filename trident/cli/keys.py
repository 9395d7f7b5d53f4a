"""The `trident keys` commands, which manage API keys."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from trident.cli.api import api_options, require_api, running_api, show, table
from trident.cli.attachments import read_stdin, read_text
from trident.cli.options import fail, load_command_settings, setting_options

_PATH = "/api/auth/api-keys"


@click.group()
def keys() -> None:
    """Manage API keys.

    As soon as there is a key, requests to the API need one. User keys are for inference, admin keys for management.

    \b
    Examples:
      trident keys create --id alice
      trident keys list
    """


@keys.command()
@click.option("--id", "identifier", metavar="ID", help="ID of the key (default: random)")
@click.option("--admin", is_flag=True, help="create an admin key; works while Trident is stopped, too")
@click.option("--readonly", is_flag=True, help="create a key that may only read the management API")
@click.option("--description", metavar="TEXT", help="what the key is for")
@click.option("--service", "services", multiple=True, metavar="NAME", help="service that it may use; repeatable (all)")
@click.option("--model", "models", multiple=True, metavar="NAME", help="model that it may use; repeatable (all)")
@click.option("--address", "addresses", multiple=True, metavar="NETWORK", help="where it may be used from; repeatable")
@click.option("--expires", metavar="TIME", help='end of its validity in UTC: "2030-12-31 23:59:59"')
@click.option("--requests-per-minute", type=int, metavar="N", help="maximum requests per minute")
@click.option("--requests-per-day", type=int, metavar="N", help="maximum requests per day")
@click.option("--tokens-per-minute", type=int, metavar="N", help="maximum tokens per minute, in and out")
@click.option("--tokens-per-day", type=int, metavar="N", help="maximum tokens per day, in and out")
@click.option("--parallel-requests", type=int, metavar="N", help="maximum requests in progress")
@setting_options(("data", "database_url", "pepper_file"))
@api_options
def create(
    identifier: str | None,
    admin: bool,
    readonly: bool,
    description: str | None,
    services: tuple[str, ...],
    models: tuple[str, ...],
    addresses: tuple[str, ...],
    expires: str | None,
    requests_per_minute: int | None,
    requests_per_day: int | None,
    tokens_per_minute: int | None,
    tokens_per_day: int | None,
    parallel_requests: int | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Create a key, and print it. It is not shown again.

    \b
    Example:
      trident keys create --id alice --model qwen2.5-coder-0.5b --requests-per-minute 60
    """
    if admin and readonly:
        raise click.UsageError("--admin and --readonly exclude each other")
    fields = {
        "keyId": identifier,
        "role": "admin" if admin else "readonly" if readonly else None,
        "description": description,
        "permissions": list(services) or None,
        "models": list(models) or None,
        "allowedIpAddresses": list(addresses) or None,
        "expiresAt": expires,
        "rateLimitPerMinute": requests_per_minute,
        "dailyRequestLimit": requests_per_day,
        "tokensPerMinute": tokens_per_minute,
        "dailyTokenLimit": tokens_per_day,
        "parallelRequests": parallel_requests,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    settings_flags = dict(flags)
    api = running_api(flags)
    if api:
        created = api.request("POST", _PATH, given)["data"]
    elif admin:
        created = _create_in_store(settings_flags, given)
    else:
        fail("Trident is not running; only `trident keys create --admin` works without it")
    show(created, as_json, created["keyValue"])
    if not as_json:
        click.echo(f"Keep this {created['role']} key ({created['keyId']}): it is not shown again.", err=True)


@keys.command("list")
@api_options
def list_keys(as_json: bool, **flags: Any) -> None:
    """List the keys.

    \b
    Example:
      trident keys list
    """
    data = require_api(flags).get(_PATH)
    rows = [
        (key["keyId"], key["role"], _status(key), key["suffix"], key["expiresAt"] or "-", key["description"])
        for key in data["items"]
    ]
    show(data, as_json, table(rows, "ID", "ROLE", "STATUS", "KEY", "EXPIRES", "DESCRIPTION"))


@keys.command("show")
@click.argument("identifier", metavar="ID")
@api_options
def show_key(identifier: str, as_json: bool, **flags: Any) -> None:
    """Show a key, and what it has used of its limits.

    \b
    Example:
      trident keys show alice
    """
    api = require_api(flags)
    data = api.get(_path(identifier)) | {"quota": api.get(f"{_path(identifier)}/quota")["limits"]}
    lines = [f"{name}: {value}" for name, value in data.items() if value not in (None, [], "", {})]
    show(data, as_json, "\n".join(lines))


@keys.command()
@click.argument("identifier", metavar="ID")
@click.option("--overlap", type=float, default=0, metavar="SECONDS", help="time for which the old value stays valid")
@api_options
def rotate(identifier: str, overlap: float, as_json: bool, **flags: Any) -> None:
    """Give a key a new value, and print it.

    \b
    Example:
      trident keys rotate alice --overlap 3600
    """
    body = {"overlapSeconds": overlap}
    data = require_api(flags).request("POST", f"{_path(identifier)}/rotate", body)["data"]
    show(data, as_json, data["keyValue"])


@keys.command()
@click.argument("identifier", metavar="ID")
@api_options
def enable(identifier: str, as_json: bool, **flags: Any) -> None:
    """Make a disabled key valid again.

    \b
    Example:
      trident keys enable alice
    """
    _act("PATCH", identifier, "/enable", as_json, flags)


@keys.command()
@click.argument("identifier", metavar="ID")
@api_options
def disable(identifier: str, as_json: bool, **flags: Any) -> None:
    """Make a key invalid, within a second.

    \b
    Example:
      trident keys disable alice
    """
    _act("PATCH", identifier, "/disable", as_json, flags)


@keys.command()
@click.argument("identifier", metavar="ID")
@api_options
def delete(identifier: str, as_json: bool, **flags: Any) -> None:
    """Delete a key.

    \b
    Example:
      trident keys delete alice
    """
    _act("DELETE", identifier, "", as_json, flags)


@keys.command("export")
@api_options
def export_keys(as_json: bool, **flags: Any) -> None:
    """Print all keys without their values, as JSON.

    \b
    Example:
      trident keys export > keys.json
    """
    click.echo(json.dumps(require_api(flags).get(f"{_PATH}/export"), indent=2, ensure_ascii=False))


@keys.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True))
@click.option("--replace", is_flag=True, help="delete all other keys, except admin keys")
@api_options
def import_keys(file: Path, replace: bool, as_json: bool, **flags: Any) -> None:
    """Import exported keys from FILE (- for standard input), and print the values of new ones.

    \b
    Example:
      trident keys import keys.json
    """
    try:
        content = json.loads(read_stdin() if str(file) == "-" else read_text(file))
    except ValueError as error:
        fail(f"{file} is not valid JSON: {error}")
    records = content.get("keys") if isinstance(content, dict) else content
    if not isinstance(records, list):
        fail(f"{file} has no list of keys")
    body = {"mode": "REPLACE" if replace else "MERGE", "keys": records}
    data = require_api(flags).request("POST", f"{_PATH}/import", body)["data"]
    rows = [(key["keyId"], key["keyValue"]) for key in data["created"]]
    show(data, as_json, table(rows, "ID", "KEY") if rows else f"{data['imported']} keys imported, none of them new")


def _act(method: str, identifier: str, action: str, as_json: bool, flags: dict[str, Any]) -> None:
    response = require_api(flags).request(method, f"{_path(identifier)}{action}")
    show(response["data"], as_json, response["message"])


def _path(identifier: str) -> str:
    return f"{_PATH}/{quote(identifier, safe='')}"


def _status(key: dict[str, Any]) -> str:
    if key["expired"]:
        return "expired"
    return ("rotate" if key["rotationDue"] else "enabled") if key["enabled"] else "disabled"


def _create_in_store(flags: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """Create a key while Trident is stopped."""
    from pydantic import ValidationError

    from frontend.errors import APIError
    from frontend.gateway.key_records import KeyRecords, NewKey
    from frontend.gateway.keys import Pepper
    from frontend.gateway.store.database import Store

    settings = load_command_settings({name: value for name, value in flags.items() if name not in ("url", "key")})
    try:
        records = KeyRecords(Store(settings.store_url, in_threads=False), Pepper(settings.pepper_path))
        return records.create(NewKey.model_validate(fields), "command line")
    except ValidationError as error:
        first = error.errors()[0]
        fail(f"{first['loc'][0]}: {first['msg']}")
    except (APIError, ValueError) as error:
        fail(str(error))

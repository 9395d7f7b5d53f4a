"""Reads what has changed in the store."""

from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from frontend.gateway.keys import changed_keys, has_keys
from frontend.gateway.store.tables import COMMANDS, STATE
from frontend.gateway.versions import Content, content_of, current_version


class Changes(NamedTuple):
    """What has changed after a revision."""

    revision: int
    """The revision now."""
    keys: list[Any]
    """The rows of changed keys."""
    commands: list[Any]
    """The rows of new commands."""
    version: int
    """The current version of the configuration."""
    content: Content
    """Its content, if it is another version than before."""
    pepper_check: bytes | None
    """The hash that shows whether a process has the pepper of the keys, if there are keys."""


def read_changes(connection: Connection, since: int, version: int) -> Changes:
    """Return what has changed after the revision `since`; `version` is the version that is known."""
    state = connection.execute(sa.select(STATE.c.revision, STATE.c.pepper_check)).one()
    revision = int(state.revision)
    if revision == since:
        return Changes(revision, [], [], version, {}, None)
    check = bytes(state.pepper_check) if state.pepper_check and has_keys(connection) else None
    current = current_version(connection)
    commands = connection.execute(sa.select(COMMANDS).where(COMMANDS.c.revision > since).order_by(COMMANDS.c.id))
    content = content_of(connection, current) if current and current != version else {}
    return Changes(revision, changed_keys(connection, since), list(commands), current, content, check)

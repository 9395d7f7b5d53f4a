"""The versions of the configuration in the store."""

import time
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from frontend.errors import Conflict, InvalidRequest, NotFound
from frontend.gateway.store.database import Store, as_dict
from frontend.gateway.store.tables import CONFIG_VERSIONS

_MAX_VERSIONS = 1000
_MAX_CONTENT = 5_000_000

Content = dict[str, Any]


class Versions:
    """The versions, from 1. Version 0 is that of the settings, which is not stored.

    Methods raise StoreUnavailable if the store does not respond.
    """

    def __init__(self, store: Store):
        self._store = store

    def numbers(self) -> list[int]:
        """Return the numbers of all versions."""
        if not self._store.exists:
            return []
        query = sa.select(CONFIG_VERSIONS.c.version).order_by(CONFIG_VERSIONS.c.version)
        return self._store.read(lambda connection: list(connection.execute(query).scalars()))

    def all(self) -> list[dict[str, Any]]:
        """Return the number, time, actor and comment of all versions."""
        if not self._store.exists:
            return []
        c = CONFIG_VERSIONS.c
        query = sa.select(c.version, c.created_at, c.actor, c.comment).order_by(c.version)
        return [as_dict(row) for row in self._store.read(lambda connection: list(connection.execute(query)))]

    def get(self, version: int) -> Content:
        """Return the content of a version. Raises NotFound."""
        found = None
        if self._store.exists and 0 < version < 2**31:
            query = sa.select(CONFIG_VERSIONS.c.content).where(CONFIG_VERSIONS.c.version == version)
            found = self._store.read(lambda connection: connection.execute(query).scalar())
        if found is None:
            raise NotFound(f"There is no version {version}", code="config_not_found")
        content: Content = orjson.loads(found)
        return content

    def add(self, base: int, content: Content, actor: str, action: str, comment: str = "") -> int:
        """Add a version that was made from version `base`, and return its number.

        Raises Conflict if `base` is no longer the current version: somebody else has changed the configuration.
        """
        text = orjson.dumps(content).decode()
        if len(text) > _MAX_CONTENT:
            raise InvalidRequest(f"The configuration exceeds the limit of {_MAX_CONTENT:,} bytes")

        def add(connection: Connection, revision: int) -> int:
            current = current_version(connection)
            if current != base:
                raise Conflict(
                    f"The configuration was changed meanwhile: the current version is {current}, not {base}",
                    param="expectedVersion",
                    code="version_conflict",
                )
            values = {"version": current + 1, "created_at": time.time(), "actor": actor[:100]}
            connection.execute(CONFIG_VERSIONS.insert().values(values | {"comment": comment[:500], "content": text}))
            oldest = current + 1 - _MAX_VERSIONS
            connection.execute(CONFIG_VERSIONS.delete().where(CONFIG_VERSIONS.c.version <= oldest))
            return current + 1

        return self._store.write(add, actor=actor, action=action, target=f"version {base + 1}", detail=comment)

    def delete(self, version: int, actor: str) -> None:
        """Delete a version. Raises InvalidRequest if it is the current one, or NotFound."""

        def delete(connection: Connection, revision: int) -> None:
            if version == current_version(connection):
                raise InvalidRequest("The current version cannot be deleted", code="invalid_parameter")
            gone = connection.execute(CONFIG_VERSIONS.delete().where(CONFIG_VERSIONS.c.version == version))
            if not gone.rowcount:
                raise NotFound(f"There is no version {version}", code="config_not_found")

        if not self._store.exists or version >= 2**31:
            raise NotFound(f"There is no version {version}", code="config_not_found")
        self._store.write(delete, actor=actor, action="version.delete", target=f"version {version}")


def current_version(connection: Connection) -> int:
    """Return the number of the current version; 0 if none is stored."""
    return int(connection.execute(sa.select(sa.func.max(CONFIG_VERSIONS.c.version))).scalar() or 0)


def content_of(connection: Connection, version: int) -> Content:
    """Return the content of a version that exists."""
    query = sa.select(CONFIG_VERSIONS.c.content).where(CONFIG_VERSIONS.c.version == version)
    content: Content = orjson.loads(connection.execute(query).scalar_one())
    return content

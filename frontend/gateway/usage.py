"""Counts the usage of keys and models, and collects errors. Both are written to the store once a second."""

import logging
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from frontend.errors import StoreUnavailable
from frontend.gateway.store.database import Store, as_dict
from frontend.gateway.store.tables import ERRORS, USAGE
from frontend.request_usage import RequestUsage

log = logging.getLogger(__name__)

MAX_ROWS = 100_000
_CHUNK = 1000
_MAX_PENDING_ERRORS = 1000
_MAX_ERRORS = 10_000
_KEPT_DAYS = 400
KEYS = ("day", "key_id", "model", "service")
"""The columns that identify a row."""

_COUNTS = ("requests", "errors", "input_tokens", "output_tokens", "audio_seconds", "images")

Row = tuple[str, str, str, str]
"""Day, key ID, model and service."""
Rows = dict[Row, list[float]]
"""What was counted for each."""


class UsageCounter:
    """The usage and the errors of this process that are not written yet. `add` may be called from any greenlet."""

    def __init__(self, store: Store):
        self._store = store
        self._rows: dict[Row, list[float]] = {}
        self._errors: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._pruned_day = ""

    def add(self, key_id: str, model: str, service: str, status: int, usage: RequestUsage) -> None:
        """Count a finished request."""
        row = (today(), key_id, model[:200], service)
        if row not in self._rows and len(self._rows) >= MAX_ROWS:
            return  # only while the store does not respond
        counts = self._rows.setdefault(row, [0] * len(_COUNTS))
        added = (1, status >= 400, usage.input_tokens, usage.output_tokens, usage.audio_seconds, usage.images)
        for index, value in enumerate(added):
            counts[index] += value

    def add_error(self, error: dict[str, Any]) -> None:
        """Record a failed request: columns of the table of errors. It must not contain a prompt."""
        if len(self._errors) < _MAX_PENDING_ERRORS:
            self._errors.append(error | {"at": time.time()})

    def flush(self) -> None:
        """Write what was counted. If the store does not respond, it is kept for the next time."""
        with self._lock:
            rows, self._rows = self._rows, {}
            errors, self._errors = self._errors, []
            try:
                names = list(rows)
                for first in range(0, len(names), _CHUNK):
                    chunk = {name: rows.pop(name) for name in names[first : first + _CHUNK]}
                    self._write_chunk(chunk, [], rows)
                if errors:
                    self._write_chunk({}, errors, rows)
            except StoreUnavailable:
                for row, counts in self._rows.items():
                    rows[row] = [old + new for old, new in zip(rows.get(row, [0] * len(_COUNTS)), counts, strict=True)]
                self._rows = rows
                self._errors = (errors + self._errors)[:_MAX_PENDING_ERRORS]

    def _write_chunk(
        self, chunk: dict[Row, list[float]], errors: list[dict[str, Any]], rows: dict[Row, list[float]]
    ) -> None:
        """Write some rows and errors. If the store does not respond, the rows are put back, otherwise dropped."""
        try:
            self._store.add_silently(partial(self._write, rows=chunk, errors=errors))
        except StoreUnavailable:
            rows |= chunk
            raise
        except Exception:
            log.exception("a part of the usage could not be written")

    def _write(self, connection: Connection, rows: dict[Row, list[float]], errors: list[dict[str, Any]]) -> None:
        dialect = sqlite if self._store.is_sqlite else postgresql
        values = [
            dict(zip(KEYS, row, strict=True)) | dict(zip(_COUNTS, counts, strict=True)) for row, counts in rows.items()
        ]
        # Sorted, so that processes that write at the same time lock the rows in the same order.
        values.sort(key=lambda value: [value[key] for key in KEYS])
        if values:
            statement = dialect.insert(USAGE)
            added = {name: USAGE.c[name] + statement.excluded[name] for name in _COUNTS}
            connection.execute(statement.on_conflict_do_update(index_elements=KEYS, set_=added), values)
        if errors:
            connection.execute(ERRORS.insert(), errors)
            newest = connection.execute(sa.select(sa.func.max(ERRORS.c.id))).scalar_one()
            connection.execute(ERRORS.delete().where(ERRORS.c.id <= newest - _MAX_ERRORS))
        if self._pruned_day != today():
            self._pruned_day = today()
            oldest = _day(time.time() - _KEPT_DAYS * 86_400)
            connection.execute(USAGE.delete().where(USAGE.c.day < oldest))


def read_usage(
    store: Store,
    first: str,
    last: str,
    key_id: str | None = None,
    model: str | None = None,
    group: Sequence[str] = KEYS,
    service: str | None = None,
) -> list[dict[str, Any]]:
    """Return the usage from one UTC day to another (YYYY-MM-DD), summed by the columns of `group`.

    Returns at most MAX_ROWS rows.
    """
    if not store.exists:
        return []
    columns = [USAGE.c[name] for name in KEYS if name in group]
    query = sa.select(*columns, *(sa.func.sum(USAGE.c[name]).label(name) for name in _COUNTS))
    query = query.where(USAGE.c.day >= first, USAGE.c.day <= last).group_by(*columns).order_by(*columns).limit(MAX_ROWS)
    for column, value in (("key_id", key_id), ("model", model), ("service", service)):
        if value is not None:
            query = query.where(USAGE.c[column] == value)
    rows = [as_dict(row) for row in store.read(lambda connection: list(connection.execute(query)))]
    # PostgreSQL's sums of integers are decimals.
    return [row | {name: _number(row[name], name) for name in _COUNTS} for row in rows]


def _number(value: Any, name: str) -> float:
    return float(value) if name == "audio_seconds" else int(value)


def read_errors(store: Store, limit: int) -> list[dict[str, Any]]:
    """Return the newest errors, the newest first."""
    if not store.exists:
        return []
    query = sa.select(ERRORS).order_by(ERRORS.c.id.desc()).limit(limit)
    return [as_dict(row) for row in store.read(lambda connection: list(connection.execute(query)))]


def today() -> str:
    """Return the UTC day."""
    return _day(time.time())


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")

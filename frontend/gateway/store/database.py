"""The connection to the store: SQLite or PostgreSQL. Migrates the store when it is first used."""

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import gevent
import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DataError, IntegrityError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from frontend.errors import InvalidRequest, StoreUnavailable
from frontend.gateway.store.tables import AUDIT_LOG, STATE

log = logging.getLogger(__name__)

Result = TypeVar("Result")

_HEAD = "0001"
"""The newest migration."""

_BUSY_SECONDS, _CONNECT_SECONDS, _TOTAL_SECONDS = 5, 3, 10
_MAX_AUDIT_ROWS = 100_000
_MIGRATION_LOCK = 7_305_804  # the number of PostgreSQL's advisory lock


class Store:
    """The database. All methods may be called from any greenlet; none delays other greenlets.

    An SQLite file is created by the first call of `write`; until then, `read` must not be called (see `exists`).
    Methods raise StoreUnavailable if the database does not respond.
    """

    def __init__(self, url: str, in_threads: bool = True):
        """`in_threads`: an SQLite database is used in gevent's native threads, as it waits without yielding."""
        self._in_threads = in_threads
        try:
            self._url = make_url(url)
            self._engine = _create_engine(self._url)
        except (ArgumentError, ValueError):
            raise ValueError("the database URL is not valid") from None
        except ImportError:
            raise ValueError("PostgreSQL needs a driver; to install it, run: make .venv/gateway.stamp") from None
        self._is_prepared = False

    @property
    def is_sqlite(self) -> bool:
        """Whether the store is a file."""
        return self._url.get_backend_name() == "sqlite"

    @property
    def exists(self) -> bool:
        """Whether the store may have content: it is a server, or its file exists."""
        return not self.is_sqlite or self._path.exists()

    def read(self, work: Callable[[Connection], Result]) -> Result:
        """Return the result of `work`, which must not change anything."""
        return self._run(work, writes=False)

    def write(
        self,
        work: Callable[[Connection, int], Result],
        *,
        actor: str = "",
        action: str = "",
        target: str = "",
        detail: str = "",
    ) -> Result:
        """Call `work` in a transaction, with the revision of the change. With `action`, add it to the audit log.

        If `work` raises an exception, nothing is changed.
        """

        def change(connection: Connection) -> Result:
            connection.execute(STATE.update().values(revision=STATE.c.revision + 1))
            result = work(connection, connection.execute(sa.select(STATE.c.revision)).scalar_one())
            if action:
                _add_audit(connection, actor, action, target, detail)
            return result

        return self._run(change, writes=True)

    def add_silently(self, work: Callable[[Connection], Result]) -> Result:
        """Call `work` in a transaction that other processes need not notice, such as the usage."""
        return self._run(work, writes=True)

    def revision(self) -> int:
        """Return the number of the last change."""
        return self.read(lambda connection: int(connection.execute(sa.select(STATE.c.revision)).scalar_one()))

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    @property
    def _path(self) -> Path:
        return Path(self._url.database or "")

    def _run(self, work: Callable[[Connection], Result], writes: bool) -> Result:
        def connected() -> Result:
            if not self._is_prepared:
                self._prepare()
            elif not self.exists:
                raise FileNotFoundError(f"{self._path} has vanished")
            connection = self._engine.connect().execution_options(writes=writes)
            with connection, connection.begin():
                return work(connection)

        try:
            if self.is_sqlite and self._in_threads:
                return _in_native_thread(connected)
            if self.is_sqlite:
                return connected()
            with gevent.Timeout(_TOTAL_SECONDS, TimeoutError("timed out")):
                return connected()
        except DataError as error:
            raise InvalidRequest(
                "A value contains characters, or is a number, that the database does not accept"
            ) from error
        except IntegrityError:
            raise
        except (SQLAlchemyError, OSError) as error:
            log.warning("the store does not respond: %s", _reason(error))
            raise StoreUnavailable("The store of keys and configuration does not respond; retry later") from error

    def _prepare(self) -> None:
        """Create or update the tables, unless they are up to date."""
        if self.is_sqlite:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._path.with_suffix(".lock").open("w", encoding="utf-8") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                with contextlib.suppress(FileExistsError):
                    os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
                self._migrate()
        else:
            self._migrate()
        self._is_prepared = True

    def _migrate(self) -> None:
        connection = self._engine.connect().execution_options(writes=True)
        with connection, connection.begin():
            if not self.is_sqlite:
                connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
            if sa.inspect(connection).has_table("alembic_version") and _applied(connection) == _HEAD:
                return
            logging.getLogger("alembic").setLevel(logging.WARNING)
            from alembic import command
            from alembic.config import Config
            from alembic.util import CommandError

            config = Config()
            config.set_main_option("script_location", "frontend.gateway.store:migrations")
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                raise OSError(f"it was probably made by a newer Trident: {error}") from None


def _in_native_thread(work: Callable[[], Result]) -> Result:
    """Return the result of `work`, called in one of gevent's native threads.

    Exceptions are returned as values, because gevent prints the traceback of each one that leaves a thread.
    """

    def call() -> tuple[Any, BaseException | None]:
        try:
            return work(), None
        except Exception as error:
            return None, error

    result, error = gevent.get_hub().threadpool.apply(call)
    if error is not None:
        raise error
    found: Result = result
    return found


def as_dict(row: Any) -> dict[str, Any]:
    """Return a row by column. SQLAlchemy's own keys are no plain strings."""
    return {str(name): value for name, value in row._mapping.items()}


def _applied(connection: Connection) -> Any:
    """Return the newest migration that was applied."""
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def _create_engine(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        engine = sa.create_engine(url, poolclass=NullPool, hide_parameters=True)
        sa.event.listen(engine, "connect", _set_up_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine
    url = url.set(drivername="postgresql+psycopg")
    timeout = f"-c statement_timeout={_BUSY_SECONDS * 1000} -c lock_timeout={_BUSY_SECONDS * 1000}"
    arguments = {"connect_timeout": _CONNECT_SECONDS, "options": timeout, "tcp_user_timeout": _BUSY_SECONDS * 1000}
    arguments["client_encoding"] = "utf8"  # otherwise, a database in SQL_ASCII returns bytes instead of texts
    return sa.create_engine(
        url,
        hide_parameters=True,
        pool_size=2,
        max_overflow=2,
        pool_timeout=_BUSY_SECONDS,
        pool_pre_ping=True,
        connect_args=arguments,
    )


def _set_up_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy's `begin` event starts transactions instead of the driver
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


def _begin_sqlite(connection: Connection) -> None:
    # IMMEDIATE: a transaction that began to read could not become one that writes after another process has written.
    mode = "IMMEDIATE" if connection.get_execution_options().get("writes") else "DEFERRED"
    connection.exec_driver_sql(f"BEGIN {mode}")


def _add_audit(connection: Connection, actor: str, action: str, target: str, detail: str) -> None:
    row = {"at": time.time(), "actor": actor[:100], "action": action, "target": target[:500], "detail": detail[:10_000]}
    number = connection.execute(AUDIT_LOG.insert().values(row)).inserted_primary_key[0]  # type: ignore[index]
    if number % 1000 == 0:
        connection.execute(AUDIT_LOG.delete().where(AUDIT_LOG.c.id <= number - _MAX_AUDIT_ROWS))


def _reason(error: BaseException) -> str:
    """Return the reason of a database error, without the statement, in one line."""
    return str(getattr(error, "orig", None) or error).strip().split("\n")[0]

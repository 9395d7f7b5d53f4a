"""The stored records of API keys: creates, changes, rotates, deletes, imports and exports them."""

import ipaddress
import re
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

import orjson
import sqlalchemy as sa
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
)
from sqlalchemy.engine import Connection

from frontend.errors import Conflict, InvalidRequest, NotFound, StoreUnavailable
from frontend.gateway.keys import Pepper, PepperError, check_pepper, has_keys, key_suffix, new_key
from frontend.gateway.service_names import service_name
from frontend.gateway.store.database import Store
from frontend.gateway.store.tables import API_KEYS

MAX_KEYS = 1_000_000
_MAX_NAMES = 1000
_TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")
_LAST_TIME = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()
_TOMBSTONE_SECONDS = 30 * 86_400.0
COMPUTED = frozenset({"suffix", "createdAt", "rotatedAt", "expired", "rotationDue", "previousValidUntil"})
"""The fields of a key that only the server sets."""
_RESERVED_IDS = ("local", "admin-key-file", "export", "import", "quota", "anonymous")

Record = dict[str, Any]
Result = TypeVar("Result")

Count = Annotated[int, Field(ge=1, le=10**12)]


def _time(value: Any, info: ValidationInfo) -> Any:
    """Return the Unix time of `YYYY-MM-DD HH:MM:SS` (UTC) or of a time in ISO 8601.

    It must be in the future, except in an import.
    """
    if value is None:
        return None
    message = "must be a time such as '2030-12-31 23:59:59' (UTC)"
    if not isinstance(value, str):
        raise ValueError(message)
    try:
        parsed = datetime.fromisoformat(value)
        seconds = (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise ValueError(message) from None
    if not 0 <= seconds <= _LAST_TIME:
        raise ValueError(message)
    if seconds <= time.time() and not (info.context or {}).get("is_import"):
        raise ValueError("is in the past")
    return seconds


Time = Annotated[float | None, BeforeValidator(_time), WithJsonSchema({"type": "string"})]


def _network(text: str) -> str:
    try:
        network = ipaddress.ip_network(text)
        mapped = getattr(network.network_address, "ipv4_mapped", None)
        return str(network if mapped is None else ipaddress.ip_network(f"{mapped}/{network.prefixlen - 96}"))
    except ValueError:
        raise ValueError(f"'{text[:100]}' is not an address or a network such as 10.0.0.0/8") from None


class KeyFields(BaseModel):
    """The fields of an API key that can be changed."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    description: str = Field("", max_length=500, description="What the key is for.")
    role: Literal["user", "readonly", "admin"] = Field(
        "user", description="`user`: inference; `readonly` and `admin`: management, but no inference."
    )
    permissions: list[Annotated[str, AfterValidator(service_name)]] = Field(
        [],
        max_length=_MAX_NAMES,
        description="Services that the key may use: `chat`, `embedding`, `rerank`, `tts`, `stt`, `imgGen`, `imgEdit`, "
        "`background`, `ocr`. All if empty.",
    )
    models: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(
        [], max_length=_MAX_NAMES, description="IDs, names or aliases of the models that the key may use. All if empty."
    )
    enabled: bool = Field(True, description="Whether the key is valid.")
    expiresAt: Time = Field(  # noqa: N815
        None, description="Time in UTC after which the key is not valid: `2030-12-31 23:59:59`."
    )
    allowedIpAddresses: list[Annotated[str, AfterValidator(_network)]] = Field(  # noqa: N815
        [],
        max_length=_MAX_NAMES,
        description="Addresses and networks that the key may be used from, such as `10.0.0.0/8`. All if empty.",
    )
    rateLimitPerMinute: Count | None = Field(None, description="Maximum requests per minute.")  # noqa: N815
    dailyRequestLimit: Count | None = Field(None, description="Maximum requests per UTC day.")  # noqa: N815
    tokensPerMinute: Count | None = Field(None, description="Maximum tokens per minute, in and out.")  # noqa: N815
    dailyTokenLimit: Count | None = Field(None, description="Maximum tokens per UTC day, in and out.")  # noqa: N815
    parallelRequests: Count | None = Field(None, description="Maximum requests in progress.")  # noqa: N815
    quotaAlertThreshold: float = Field(  # noqa: N815
        0.8, gt=0, le=1, description="Share of a daily limit from which the key is listed among the alerts."
    )
    rotationPeriodDays: int | None = Field(  # noqa: N815
        None, ge=1, le=36_500, description="Days after which the key should be rotated; it is then listed as due."
    )


class NewKey(KeyFields):
    """A key to create."""

    keyId: str | None = Field(  # noqa: N815
        None, pattern=rf"^{_ID.pattern}$", description="ID of the key; random if omitted."
    )


class ImportRequest(BaseModel):
    """Keys to import, as they were exported. Keys that do not exist yet get new values, which the response has."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    mode: Literal["MERGE", "REPLACE"] = Field("MERGE", description="REPLACE deletes all other keys except admin keys.")
    keys: list[Record] = Field(max_length=100_000, description="The keys, as exported.")


class KeyRecords:
    """The keys in the store. Methods raise StoreUnavailable if it does not respond."""

    def __init__(self, store: Store, pepper: Pepper):
        self._store, self._pepper = store, pepper

    def all(self) -> list[Record]:
        """Return all keys, sorted by ID."""
        if not self._store.exists:
            return []
        query = sa.select(API_KEYS).where(API_KEYS.c.digest.is_not(None)).order_by(API_KEYS.c.id)
        return self._store.read(lambda connection: [_shown(row) for row in connection.execute(query)])

    def get(self, identifier: str) -> Record:
        """Return a key. Raises NotFound."""
        if not self._store.exists:
            raise _unknown(identifier)
        return self._store.read(lambda connection: _shown(_row(connection, identifier)))

    def create(self, fields: NewKey, actor: str) -> Record:
        """Create a key, and return it with its value. Raises Conflict if the ID exists."""
        identifier = fields.keyId or f"key-{secrets.token_hex(6)}"
        content = fields.model_dump(exclude={"keyId"})
        return self._change(
            lambda connection, revision: self._insert(connection, revision, identifier, content),
            actor,
            "key.create",
            identifier,
        )

    def update(self, identifier: str, changes: Record, actor: str) -> Record:
        """Change fields of a key; null resets a field. Raises NotFound, or pydantic's ValidationError."""
        given = {name: value for name, value in changes.items() if value is not None}
        valid = KeyFields.model_validate(given).model_dump(include=set(given))
        valid |= {name: KeyFields.model_fields[name].default for name in changes.keys() - given.keys()}

        def change(connection: Connection, revision: int) -> Record:
            row = _row(connection, identifier)
            content = orjson.loads(row.content) | valid
            values = {"content": orjson.dumps(content).decode(), "revision": revision}
            connection.execute(API_KEYS.update().where(API_KEYS.c.id == identifier).values(values))
            return _shown(_row(connection, identifier))

        return self._change(change, actor, "key.update", identifier, ", ".join(sorted(changes)))

    def rotate(self, identifier: str, overlap: float, actor: str) -> Record:
        """Give a key a new value, and return it. The old value stays valid for `overlap` seconds. Raises NotFound."""

        def change(connection: Connection, revision: int) -> Record:
            row, key = _row(connection, identifier), new_key()
            content = orjson.loads(row.content) | {"suffix": key_suffix(key), "rotatedAt": time.time()}
            values = {
                "digest": self._pepper.digest(key),
                "previous_digest": row.digest if overlap > 0 else None,
                "previous_until": time.time() + overlap if overlap > 0 else None,
                "content": orjson.dumps(content).decode(),
                "revision": revision,
            }
            connection.execute(API_KEYS.update().where(API_KEYS.c.id == identifier).values(values))
            return _shown(_row(connection, identifier)) | {"keyValue": key}

        return self._change(change, actor, "key.rotate", identifier, f"overlap {overlap:g} s")

    def delete(self, identifier: str, actor: str) -> None:
        """Delete a key. Raises NotFound."""

        def change(connection: Connection, revision: int) -> None:
            _row(connection, identifier)
            _delete(connection, revision, API_KEYS.c.id == identifier)

        self._change(change, actor, "key.delete", identifier)

    def import_keys(self, records: list[NewKey], mode: str, actor: str) -> list[Record]:
        """Import keys, and return the created ones with their values. Raises InvalidRequest.

        Of a key that exists, only the given fields change.
        """
        if len({record.keyId for record in records}) < len(records):
            raise InvalidRequest("An ID occurs twice in 'keys'", param="keys")

        def change(connection: Connection, revision: int) -> list[Record]:
            present = {row.id: row for row in connection.execute(sa.select(API_KEYS)) if row.digest is not None}
            if mode == "REPLACE":
                wanted = {record.keyId for record in records}
                for row in present.values():
                    if row.id not in wanted and orjson.loads(row.content).get("role") != "admin":
                        _delete(connection, revision, API_KEYS.c.id == row.id)
            created = []
            for record in records:
                identifier, content = str(record.keyId), record.model_dump(exclude={"keyId"})
                if identifier in present:
                    content = record.model_dump(exclude={"keyId"}, exclude_unset=True)
                    values = {
                        "content": orjson.dumps(orjson.loads(present[identifier].content) | content).decode(),
                        "revision": revision,
                    }
                    connection.execute(API_KEYS.update().where(API_KEYS.c.id == identifier).values(values))
                else:
                    created.append(self._insert(connection, revision, identifier, content))
            return created

        return self._change(change, actor, "key.import", mode, f"{len(records)} keys")

    def _insert(self, connection: Connection, revision: int, identifier: str, content: Record) -> Record:
        if identifier in _RESERVED_IDS or identifier.startswith("tr-"):  # which looks like a key
            raise InvalidRequest(f"'keyId' must not be '{identifier}', which is reserved", param="keyId")
        old = connection.execute(sa.select(API_KEYS).where(API_KEYS.c.id == identifier)).first()
        if old is not None and old.digest is not None:
            raise Conflict(f"The key '{identifier}' exists already", param="keyId", code="duplicate_resource")
        count = sa.select(sa.func.count()).select_from(API_KEYS).where(API_KEYS.c.digest.is_not(None))
        if connection.execute(count).scalar_one() >= MAX_KEYS:
            raise Conflict(f"Too many keys (limit {MAX_KEYS:,})")
        key = new_key()
        content = content | {"suffix": key_suffix(key), "createdAt": time.time()}
        values = {
            "digest": self._pepper.digest(key),
            "previous_digest": None,
            "previous_until": None,
            "content": orjson.dumps(content).decode(),
            "revision": revision,
            "deleted_at": None,
        }
        if old is None:
            connection.execute(API_KEYS.insert().values(id=identifier, **values))
        else:
            connection.execute(API_KEYS.update().where(API_KEYS.c.id == identifier).values(values))
        return _shown(_row(connection, identifier)) | {"keyValue": key}

    def _change(
        self, work: Callable[[Connection, int], Result], actor: str, action: str, target: str, detail: str = ""
    ) -> Result:
        def checked(connection: Connection, revision: int) -> Result:
            if not self._pepper.exists:
                if has_keys(connection):
                    raise PepperError("the pepper is missing, without which the stored keys cannot be found")
                self._pepper.create()
            check_pepper(connection, self._pepper)
            # All processes have noticed keys that were deleted long ago.
            oldest = time.time() - _TOMBSTONE_SECONDS
            connection.execute(API_KEYS.delete().where(API_KEYS.c.digest.is_(None), API_KEYS.c.deleted_at < oldest))
            return work(connection, revision)

        try:
            return self._store.write(checked, actor=actor, action=action, target=target, detail=detail)
        except PepperError as error:
            raise StoreUnavailable(f"Keys cannot be changed: {error}") from error


def _delete(connection: Connection, revision: int, condition: Any) -> None:
    # The row stays, so that the other processes notice.
    values = {
        "digest": None,
        "previous_digest": None,
        "previous_until": None,
        "revision": revision,
        "deleted_at": time.time(),
        "content": "{}",
    }
    connection.execute(API_KEYS.update().where(condition).values(values))


def _row(connection: Connection, identifier: str) -> Any:
    # The pattern also keeps characters away that PostgreSQL does not accept.
    query = sa.select(API_KEYS).where(API_KEYS.c.id == identifier)
    row = connection.execute(query).first() if _ID.fullmatch(identifier) else None
    if row is None or row.digest is None:
        raise _unknown(identifier)
    return row


def _unknown(identifier: str) -> NotFound:
    return NotFound(f"There is no key '{identifier[:64]}'", param="keyId")


def shown_time(seconds: float) -> str:
    """Return a Unix time as the API shows it."""
    return datetime.fromtimestamp(seconds, UTC).strftime(_TIME_FORMAT)


def _shown(row: Any) -> Record:
    """Return a key as the API shows it: without its value, of which only the last four characters are known."""
    content: Record = orjson.loads(row.content)
    expires, now = content.get("expiresAt"), time.time()
    days = content.get("rotationPeriodDays")
    made = content.get("rotatedAt") or content["createdAt"]
    times = {"expiresAt": expires, "createdAt": content["createdAt"], "rotatedAt": content.get("rotatedAt")}
    until = row.previous_until if row.previous_until and row.previous_until > now else None
    return (
        {"keyId": row.id}
        | content
        | {name: None if value is None else shown_time(value) for name, value in times.items()}
        | {
            "expired": expires is not None and expires <= now,
            "rotationDue": days is not None and now > made + days * 86_400,
            "previousValidUntil": None if until is None else shown_time(until),
        }
    )

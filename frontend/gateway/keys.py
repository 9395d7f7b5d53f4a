"""API keys: what they allow, and how a request's key is found."""

import hashlib
import hmac
import ipaddress
import logging
import os
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from frontend.addresses import Networks, is_in
from frontend.errors import StoreUnavailable
from frontend.gateway.store.tables import API_KEYS, STATE

log = logging.getLogger(__name__)

Role = Literal["user", "readonly", "admin", "local"]
"""user: inference; readonly and admin: management; local: both, for Trident's own programs on this machine."""

_KEY_BYTES = 32
_PREFIX = "tr-"
_PEPPER_BYTES = 32
_MIN_LENGTH = 20
_MAX_LENGTH = 200


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A stored API key. It is kept without the key itself, of which only the last four characters are known."""

    id: str
    role: Role = "user"
    enabled: bool = True
    expires_at: float | None = None
    """The Unix time after which the key is not valid."""
    services: frozenset[str] = frozenset()
    """The services that the key may use; empty: all."""
    models: frozenset[str] = frozenset()
    """The IDs of the models that the key may use, in lower case; empty: all."""
    networks: Networks = ()
    """The addresses that the key may be used from; empty: all."""
    requests_per_minute: int | None = None
    requests_per_day: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    parallel_requests: int | None = None

    def is_valid(self, address: str) -> bool:
        """Return whether the key may be used now, from this address."""
        if not self.enabled or (self.expires_at is not None and time.time() >= self.expires_at):
            return False
        return not self.networks or is_in(address, self.networks)

    def allows(self, service: str, models: Iterable[str]) -> bool:
        """Return whether the key may use a service with a model, which has these names."""
        return (not self.services or service in self.services) and self.allows_model(models)

    def allows_model(self, names: Iterable[str]) -> bool:
        """Return whether the key may use a model with these names."""
        return not self.models or any(name.casefold() in self.models for name in names)


LOCAL = ApiKey("local", "local")
"""The key of Trident's own programs on this machine, which they read from a file."""


def new_key() -> str:
    """Return a new key: 256 random bits."""
    return _PREFIX + secrets.token_urlsafe(_KEY_BYTES)


def key_suffix(key: str) -> str:
    """Return the part of a key that is shown."""
    return f"{_PREFIX}…{key[-4:]}"


class PepperError(ValueError):
    """The secret that keys are hashed with is missing, or not the one that the stored keys were hashed with."""


class Pepper:
    """The secret that keys are hashed with. Without it, a stolen database does not help to guess keys."""

    def __init__(self, file: Path):
        self._file = file
        self._secret = self._read()

    def digest(self, key: str) -> bytes:
        """Return the keyed hash by which a key is found. Raises FileNotFoundError if there is no pepper."""
        if self._secret is None:
            self._secret = self._read()
            if self._secret is None:
                raise FileNotFoundError(self._file)
        return hmac.digest(self._secret, key.encode(), "sha256")

    @property
    def exists(self) -> bool:
        """Whether there is a pepper."""
        self._secret = self._secret or self._read()
        return self._secret is not None

    def create(self) -> None:
        """Make the file, unless it exists."""
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = self._file.with_name(f"{self._file.name}.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_PEPPER_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(new, self._file)  # fails if another process was faster
        except FileExistsError:
            log.info("another process has made the pepper")
        finally:
            new.unlink()

    def _read(self) -> bytes | None:
        try:
            return self._file.read_bytes().strip() or None
        except FileNotFoundError:
            return None


def has_keys(connection: Connection) -> bool:
    """Return whether the store has keys that are not deleted."""
    return (
        connection.execute(sa.select(API_KEYS.c.id).where(API_KEYS.c.digest.is_not(None)).limit(1)).first() is not None
    )


def check_pepper(connection: Connection, pepper: Pepper) -> None:
    """Record which pepper the store's keys are hashed with. Raises PepperError if it is another one."""
    check = pepper.digest("pepper")
    stored = connection.execute(sa.select(STATE.c.pepper_check)).scalar()
    if stored is None or (bytes(stored) != check and not has_keys(connection)):
        connection.execute(STATE.update().values(pepper_check=check))
    elif bytes(stored) != check:
        raise PepperError("the pepper is not the one that the stored keys were hashed with; set --pepper-file")


@dataclass(slots=True)
class KeyRing:
    """The keys by their hash, in memory. `apply` and `find` may be called from any greenlet."""

    pepper: Pepper
    _by_digest: dict[bytes, tuple[ApiKey, float | None]] = field(default_factory=dict)
    """Hash → key, and the Unix time until which this hash is valid."""
    _digests: dict[str, tuple[bytes, ...]] = field(default_factory=dict)
    """ID → hashes."""
    _fixed: dict[bytes, ApiKey] = field(default_factory=dict)
    """SHA-256 → key, for keys that are not in the store."""
    _admins: set[str] = field(default_factory=set)

    @property
    def is_empty(self) -> bool:
        """Whether no key is configured. Keys that are disabled or expired count."""
        return not self._digests and not any(key.role != "local" for key in self._fixed.values())

    @property
    def has_admin(self) -> bool:
        """Whether there is an admin key."""
        return bool(self._admins) or any(key.role == "admin" for key in self._fixed.values())

    def __len__(self) -> int:
        return len(self._digests)

    def add_fixed(self, text: str, key: ApiKey) -> None:
        """Add a key that is not in the store."""
        self._fixed[hashlib.sha256(text.encode()).digest()] = key

    def all(self) -> list[ApiKey]:
        """Return all keys of the store."""
        return list({digests[0]: self._by_digest[digests[0]][0] for digests in self._digests.values()}.values())

    def get(self, identifier: str) -> ApiKey | None:
        """Return the key of the store with this ID, or None."""
        digests = self._digests.get(identifier)
        return self._by_digest[digests[0]][0] if digests else None

    def find(self, text: str) -> ApiKey | None:
        """Return the key with this text, whether it is valid or not, or None."""
        if not _MIN_LENGTH <= len(text) <= _MAX_LENGTH or not text.isascii():
            return None
        if self._fixed and (fixed := self._fixed.get(hashlib.sha256(text.encode()).digest())):
            return fixed
        if not self._by_digest:
            return None
        try:
            digest = self.pepper.digest(text)
        except FileNotFoundError:
            raise StoreUnavailable("The secret of the API keys is missing") from None
        found, until = self._by_digest.get(digest, (None, None))
        return found if until is None or time.time() < until else None

    def check(self, pepper_check: bytes | None) -> None:
        """Raise PepperError if the pepper is not the one that the stored keys were hashed with."""
        if pepper_check is None:
            return
        if not self.pepper.exists:
            raise PepperError("the pepper of the API keys is missing")
        if self.pepper.digest("pepper") != pepper_check:
            raise PepperError("the pepper is not the one that the stored keys were hashed with; set --pepper-file")

    def replace(self, rows: Iterable[Any]) -> None:
        """Use these rows instead of all keys. No other greenlet runs meanwhile."""
        self._by_digest.clear()
        self._digests.clear()
        self._admins.clear()
        self.apply(rows)

    def apply(self, rows: Iterable[Any]) -> None:
        """Add, change and remove keys: the rows of the table that have changed."""
        for row in rows:
            for digest in self._digests.pop(row.id, ()):
                self._by_digest.pop(digest, None)
            self._admins.discard(row.id)
            if row.digest is None:
                continue
            key = read_key(row.id, orjson.loads(row.content))
            digests = [bytes(row.digest)]
            self._by_digest[digests[0]] = key, None
            if row.previous_digest is not None and row.previous_until > time.time():
                digests.append(bytes(row.previous_digest))
                self._by_digest[digests[1]] = key, row.previous_until
            self._digests[row.id] = tuple(digests)
            if key.role == "admin":
                self._admins.add(row.id)


def changed_keys(connection: Connection, since: int) -> list[Any]:
    """Return the rows of keys that have changed after a revision."""
    return list(connection.execute(sa.select(API_KEYS).where(API_KEYS.c.revision > since)))


def read_key(identifier: str, content: dict[str, Any]) -> ApiKey:
    """Return the key that a row describes."""
    return ApiKey(
        identifier,
        content.get("role", "user"),
        content.get("enabled", True),
        content.get("expiresAt"),
        frozenset(content.get("permissions") or ()),
        frozenset(model.casefold() for model in content.get("models") or ()),
        tuple(map(ipaddress.ip_network, content.get("allowedIpAddresses") or ())),
        content.get("rateLimitPerMinute"),
        content.get("dailyRequestLimit"),
        content.get("tokensPerMinute"),
        content.get("dailyTokenLimit"),
        content.get("parallelRequests"),
    )

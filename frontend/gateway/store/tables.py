"""The tables of the store. A change needs a new migration in migrations/versions."""

from sqlalchemy import BigInteger, Column, Float, Integer, LargeBinary, MetaData, String, Table, Text

METADATA = MetaData()

STATE = Table(
    "state",
    METADATA,
    Column("id", Integer, primary_key=True),
    # Grows with each change, so that all processes notice it.
    Column("revision", Integer, nullable=False),
    # The keyed hash of a constant, which shows whether a process has the right pepper.
    Column("pepper_check", LargeBinary(32)),
)
"""One row with the ID 1."""

API_KEYS = Table(
    "api_keys",
    METADATA,
    Column("id", String(64), primary_key=True),
    # The keyed hash of the key, and until `previous_until` that of the key before its rotation. None if deleted.
    Column("digest", LargeBinary(32), unique=True),
    Column("previous_digest", LargeBinary(32), unique=True),
    Column("previous_until", Float),
    Column("content", Text, nullable=False),
    Column("revision", Integer, nullable=False, index=True),
    Column("deleted_at", Float),
)

CONFIG_VERSIONS = Table(
    "config_versions",
    METADATA,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("created_at", Float, nullable=False),
    Column("actor", String(100), nullable=False),
    Column("comment", String(500), nullable=False),
    Column("content", Text, nullable=False),
)

COMMANDS = Table(
    "commands",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("kind", String(50), nullable=False),
    Column("target", String(500), nullable=False),
    Column("revision", Integer, nullable=False, index=True),
)
"""Commands that every process carries out, such as the reset of a circuit breaker."""

AUDIT_LOG = Table(
    "audit_log",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("actor", String(100), nullable=False),
    Column("action", String(50), nullable=False),
    Column("target", String(500), nullable=False),
    Column("detail", Text, nullable=False),
)

ERRORS = Table(
    "errors",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("service", String(20), nullable=False),
    Column("model", String(200), nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("status", Integer, nullable=False),
    Column("error", String(300), nullable=False),
)
"""The last failed requests, without what was in them."""

USAGE = Table(
    "usage",
    METADATA,
    Column("day", String(10), primary_key=True),
    Column("key_id", String(64), primary_key=True),
    Column("model", String(200), primary_key=True),
    Column("service", String(20), primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("audio_seconds", Float, nullable=False),
    Column("images", BigInteger, nullable=False),
)
"""The usage of each UTC day (YYYY-MM-DD)."""

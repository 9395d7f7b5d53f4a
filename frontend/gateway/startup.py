"""Checks the settings and the store before the frontend starts. `python -m frontend.gateway.startup` prints the result.

The launcher runs the command in a process of its own, as it needs many modules.
"""

import json
from importlib.util import find_spec
from typing import Any

from pydantic import ValidationError

from frontend.errors import StoreUnavailable
from frontend.gateway.changes import Changes, read_changes
from frontend.gateway.configuration import configuration_of, read_configuration
from frontend.gateway.keys import KeyRing, Pepper
from frontend.gateway.limits.policy import limits_of_key
from frontend.gateway.store.database import Store
from frontend.settings import Settings, load_settings

NEEDS_REDIS = (
    "Limits need Redis (--redis-url) if there are several frontend processes (--workers), which would otherwise each "
    "count only their own requests"
)


def check(settings: Settings) -> dict[str, Any]:
    """Return `problem`, why the frontend must not start (or an empty string), and `version`, that of the store."""
    try:
        configuration, version = configuration_of(settings), 0
        store, ring = Store(settings.store_url, in_threads=False), KeyRing(Pepper(settings.pepper_path))
        if settings.admin_key_file:
            key = settings.admin_key_file.read_text(encoding="utf-8").strip()
            if not 20 <= len(key) <= 200 or not key.isascii() or not key.isprintable():
                raise ValueError(f"{settings.admin_key_file} must have a key of 20 to 200 printable ASCII characters")
        if settings.otlp_endpoint and find_spec("opentelemetry") is None:
            raise ValueError("Tracing needs OpenTelemetry's packages; to install them, run: make .venv/gateway.stamp")
    except (ValueError, OSError) as error:
        return {"problem": _text(error), "version": 0}
    has_limits = configuration.has_limits
    if store.exists:
        try:
            changes = store.read(lambda connection: read_changes(connection, -1, 0))
            ring.check(changes.pepper_check)
            ring.apply(changes.keys)
            version = changes.version
            has_limits = _has_limits(changes, has_limits)
        except StoreUnavailable as error:
            return {"problem": _redis_problem(settings, has_limits), "version": 0, "warning": str(error)}
        except ValueError as error:
            return {"problem": f"The store cannot be used: {error}", "version": 0}
        finally:
            store.close()
    elif ring.pepper.exists and not settings.pepper_file:
        problem = (
            f"{settings.data_folder / 'trident.db'} is missing, although there were API keys: restore it, or delete "
        )
        return {"problem": f"{problem}{settings.pepper_path} to begin without keys", "version": 0}
    has_limits = has_limits or any(map(limits_of_key, ring.all()))
    return {"problem": _redis_problem(settings, has_limits), "version": version}


def _has_limits(changes: Changes, of_settings: bool) -> bool:
    try:
        return read_configuration(changes.content).has_limits if changes.version else of_settings
    except ValueError:
        return of_settings  # the frontend skips a version that is invalid here, and reports it


def _redis_problem(settings: Settings, has_limits: bool) -> str:
    return NEEDS_REDIS if has_limits and settings.workers > 1 and not settings.redis_url else ""


def _text(error: Exception) -> str:
    """Return the text of an error; of a pydantic error, the first field that is invalid."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False)[0]
    return f"rate_limits: {'.'.join(map(str, first['loc']))}: {first['msg']}"


if __name__ == "__main__":
    print(json.dumps(check(load_settings())))

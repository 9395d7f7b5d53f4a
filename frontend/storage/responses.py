"""Stores each response with its conversation, which later requests can continue until the response expires."""

import logging
import re
import secrets
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

from frontend.storage.expiring_files import ExpiringFiles

log = logging.getLogger(__name__)

_ID = re.compile(r"resp_[0-9a-f]{64}")
_ITEM_ID = re.compile(r"[a-z]+_([0-9a-f]{64})_[0-9]+")


def item_id(prefix: str, response_id: str, index: int) -> str:
    """Return the ID of an output item. It contains the response's ID, so that the store needs no index of items."""
    return f"{prefix}_{response_id.removeprefix('resp_')}_{index}"


class StoredResponse(NamedTuple):
    """A `response` as sent to the client, and `messages`: all earlier messages, the input and the output."""

    response: dict[str, Any]
    messages: list[dict[str, Any]]


class ResponseStore:
    """Responses by ID. IDs are unguessable, because anyone who has the ID of a response can read it."""

    def __init__(self, files: ExpiringFiles):
        self._files = files

    @staticmethod
    def new_id() -> str:
        """Return a new response ID."""
        return f"resp_{secrets.token_hex(32)}"

    def put(self, stored: StoredResponse) -> None:
        """Store a response under its ID, unless the response is larger than the size limit of the whole store.

        Storage errors are only logged, so that the client still gets its response.
        """
        try:
            self._files.put(stored.response["id"], orjson.dumps(stored._asdict()))
        except OSError:
            log.exception("failed to store a response")

    def get(self, identifier: str) -> StoredResponse | None:
        """Return the response with this ID, or None if it does not exist or has expired."""
        content = self._files.get(identifier) if _ID.fullmatch(identifier) else None
        return None if content is None else StoredResponse(**orjson.loads(content))

    def item_reader(self) -> Callable[[str], dict[str, Any] | None]:
        """Return a function from an ID to the output item with this ID, or to None if its response is not stored.

        The function reads each response only once.
        """
        items: dict[str, dict[str, dict[str, Any]]] = {}

        def read(identifier: str) -> dict[str, Any] | None:
            found = _ITEM_ID.fullmatch(identifier)
            if not found:
                return None
            if found[1] not in items:
                stored = self.get(f"resp_{found[1]}")
                items[found[1]] = {item["id"]: item for item in stored.response["output"]} if stored else {}
            return items[found[1]].get(identifier)

        return read

    def delete(self, identifier: str) -> bool:
        """Delete a response. Return whether it existed."""
        exists = self.get(identifier) is not None
        if exists:
            self._files.delete(identifier)
        return exists

"""Answered responses, each with its whole conversation, for as long as a next one may follow on them."""

import logging
import re
import secrets
from typing import Any, NamedTuple

import orjson

from frontend.storage.expiring_files import ExpiringFiles

log = logging.getLogger(__name__)

_ID = re.compile(r"resp_[0-9a-f]{64}")


class StoredResponse(NamedTuple):
    """A `response` as it was answered, and the messages so far: those before it, its input, its output."""

    response: dict[str, Any]
    messages: list[dict[str, Any]]


class ResponseStore:
    """Responses by their ids, which nobody can guess: an id is all that reading one needs."""

    def __init__(self, files: ExpiringFiles):
        self._files = files

    @staticmethod
    def new_id() -> str:
        """Return an id for a response."""
        return f"resp_{secrets.token_hex(32)}"

    def put(self, stored: StoredResponse) -> None:
        """Keep a response under its own id, if there is room: what was answered stays answered."""
        try:
            self._files.put(stored.response["id"], orjson.dumps(stored._asdict()))
        except OSError:
            log.exception("a response could not be kept")

    def get(self, identifier: str) -> StoredResponse | None:
        """Return the response of this id; None if there is none, or no more."""
        content = self._files.get(identifier) if _ID.fullmatch(identifier) else None
        return None if content is None else StoredResponse(**orjson.loads(content))

    def delete(self, identifier: str) -> bool:
        """Forget a response. Returns whether there was one."""
        there = self.get(identifier) is not None
        if there:
            self._files.delete(identifier)
        return there

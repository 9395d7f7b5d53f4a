"""The token usage in OpenAI's `response` object, and the events of a streamed response."""

from collections.abc import Mapping
from typing import Any

from frontend.http.respond import encode_event


def usage(last: Mapping[str, Any]) -> dict[str, Any]:
    """Return the usage, from the token counts in the model's last response."""
    tokens_in, tokens_out = last["num_input_tokens"], last["num_output_tokens"]
    return {
        "input_tokens": tokens_in,
        "input_tokens_details": {"cached_tokens": last.get("num_cached_tokens", 0), "cache_write_tokens": 0},
        "output_tokens": tokens_out,
        "output_tokens_details": {"reasoning_tokens": last.get("num_reasoning_tokens", 0)},
        "total_tokens": tokens_in + tokens_out,
    }


class ResponseEvents:
    """Encodes the events of one response, and numbers them in order of creation."""

    def __init__(self) -> None:
        self._sequence_number = 0

    def state(self, kind: str, response: Mapping[str, Any]) -> bytes:
        """Return an event with the complete response.

        `kind` is created, in_progress, completed, incomplete or failed.
        """
        return self._event(kind, {"response": response})

    def item(self, kind: str, index: int, item: Mapping[str, Any]) -> bytes:
        """Return an event with a complete output item. `kind` is added or done."""
        return self._event(f"output_item.{kind}", {"output_index": index, "item": item})

    def item_event(self, kind: str, index: int, item: Mapping[str, Any], fields: Mapping[str, Any]) -> bytes:
        """Return any other event about an item, with the item's ID and index, and `fields`."""
        return self._event(kind, {"item_id": item["id"], "output_index": index, **fields})

    def _event(self, kind: str, fields: Mapping[str, Any]) -> bytes:
        event = {"type": f"response.{kind}", "sequence_number": self._sequence_number, **fields}
        self._sequence_number += 1
        return encode_event(event, f"response.{kind}")

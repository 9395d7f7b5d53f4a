"""AHA's response with media: a `chat.completion` whose content has one part per file (see docs/compatibility.md)."""

import base64
import time
import uuid
from collections.abc import Iterable
from typing import Any


def media_completion(model: str, kind: str, mime: str, files: Iterable[bytes]) -> dict[str, Any]:
    """Return the completion, with each file as a data: URL, in order. `kind` is audio or image."""
    urls = [f"data:{mime};base64,{base64.b64encode(file).decode()}" for file in files]
    content = [{"type": kind, f"{kind}_url": {"url": url}} for url in urls]
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}],
    }

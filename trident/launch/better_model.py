"""Suggests a better chat model than the one of the starter set, if a hub with one can be reached."""

import http.client
import os
import threading
import urllib.error
import urllib.request

from export.memory import memory_limit

STARTER = "qwen2.5-coder-0.5b"
"""The chat model of the starter set, in whose place a better one is suggested."""

_SECONDS = 3.0

# The memory in GB with which a model runs, its repository and quantization, and the size of its file. They are GGUF
# files, whose export needs no PyTorch.
_MODELS = (
    (12, "Qwen/Qwen3-8B-GGUF:Q4_K_M", "5.0 GB"),
    (6, "Qwen/Qwen3-4B-GGUF:Q4_K_M", "2.5 GB"),
    (0, "Qwen/Qwen3-1.7B-GGUF:Q8_0", "1.8 GB"),
)
_MIN_CORES = {"Qwen/Qwen3-8B-GGUF:Q4_K_M": 8}


class Suggestion:
    """A command that serves a better model. It is found out in the background, because hubs may not answer."""

    def __init__(self) -> None:
        self._prefix = ""
        self._thread = threading.Thread(target=self._find_hub, name="find-hub", daemon=True)
        self._thread.start()

    def text(self) -> str:
        """Return the suggestion, or nothing if no hub has answered yet."""
        self._thread.join(0.1)
        if not self._prefix:
            return ""
        memory, cores = memory_limit() / 1e9, len(os.sched_getaffinity(0))
        name, size = next(
            (name, size) for least, name, size in _MODELS if memory >= least and cores >= _MIN_CORES.get(name, 0)
        )
        return f"For better answers, serve a larger chat model ({size}): make serve MODELS={self._prefix}:{name}"

    def _find_hub(self) -> None:
        domain = os.environ.get("MODELSCOPE_DOMAIN") or "www.modelscope.cn"
        hubs = {
            "hf": os.environ.get("HF_ENDPOINT") or "https://huggingface.co",
            "ms": domain if "://" in domain else f"https://{domain}",
        }
        self._prefix = next((prefix for prefix, url in hubs.items() if _answers(url)), "")


def _answers(url: str) -> bool:
    try:
        request = urllib.request.Request(url, method="HEAD")
        with urllib.request.urlopen(request, timeout=_SECONDS):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except (OSError, ValueError, http.client.HTTPException):
        return False

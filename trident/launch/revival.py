"""Loads a model again whose process has died: `python -m trident.launch.revival MODEL`.

It reads the settings from environment variables. It is a process of its own, so that the launcher does not keep the
gRPC library. Triton's HTTP server is not used for this, because one of its threads would respond to no other request
until the model is loaded.
"""

import fcntl
import sys

from frontend.errors import APIError
from frontend.settings import Settings, load_settings
from frontend.triton.client import TritonClient
from frontend.triton.revival import load_again

_UNLOAD_SECONDS, _LOAD_SECONDS = 2.0, 300.0


def revive(settings: Settings, model: str) -> None:
    """Give a model a new process. Raises APIError."""
    triton = TritonClient(settings.all_instances[0].address)
    lock = settings.on_demand_folder / "lock"  # under which the frontend loads models on demand
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        load_again(triton, model, _UNLOAD_SECONDS, _LOAD_SECONDS)


if __name__ == "__main__":
    try:
        revive(load_settings(), sys.argv[1])
    except APIError as error:
        sys.exit(f"{sys.argv[1]} could not be loaded again: {error}")

"""The path of the checkout, and the default paths of the cache and the model repository."""

import errno
import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]


def latest_version(model: Path) -> Path:
    """Return the newest version in a model's folder in the repository, which is the one that Triton loads.

    Raises FileNotFoundError if there is none.
    """
    versions = [folder for folder in model.iterdir() if folder.name.isdecimal()]
    if not versions:
        raise FileNotFoundError(errno.ENOENT, "no version", str(model))
    return max(versions, key=lambda folder: int(folder.name))


def default_cache() -> Path:
    """Return the folder for downloads, conversions and the files of running servers.

    It is $TRIDENT_CACHE or, if that is not set, the folder `trident` in the user's cache folder.
    """
    fallback = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trident"
    return Path(os.environ.get("TRIDENT_CACHE") or fallback).absolute()


def default_data() -> Path:
    """Return the folder for data that cannot be made again: API keys and versions of the configuration.

    It is $TRIDENT_DATA or, if that is not set, the folder `trident` in the user's data folder.
    """
    fallback = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "trident"
    return Path(os.environ.get("TRIDENT_DATA") or fallback).absolute()


def default_model_repository() -> Path:
    """Return the folder that Triton loads models from.

    It is $TRIDENT_MODEL_REPOSITORY or, if that is not set, the folder `model_repository` in the checkout.
    """
    return Path(os.environ.get("TRIDENT_MODEL_REPOSITORY") or CHECKOUT / "model_repository").absolute()

"""Lets hatchling build editable installs only."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CheckoutOnly(BuildHookInterface):  # type: ignore[type-arg,misc]
    """Rejects wheels that carry the code."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Raise RuntimeError unless this is an editable install."""
        if version != "editable":
            raise RuntimeError("Trident is installed from a checkout: git clone, then `make install`.")

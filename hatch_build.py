"""Prevents hatchling from building any wheel except the wheel of an editable install."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CheckoutOnly(BuildHookInterface):  # type: ignore[type-arg,misc]
    """Build hook that rejects all wheels except those of editable installs, which only link to the checkout."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Raise RuntimeError unless this is an editable install."""
        if version != "editable":
            raise RuntimeError("Trident can only be installed from a checkout: git clone, then `make install`.")

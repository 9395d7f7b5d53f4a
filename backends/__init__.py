"""Triton's Python backends. Imported before any library, so that libraries read and write text as UTF-8."""

import contextlib
import locale
import logging
import os
import sys

# Triton's stub ignores the environment and runs in the C locale, in which Python treats text as ASCII.
for _name in ("C.UTF-8", "en_US.UTF-8"):  # older systems lack C.UTF-8
    with contextlib.suppress(locale.Error):
        locale.setlocale(locale.LC_ALL, _name)
        break

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # it would report each start over the internet


def start_logging(name: str) -> None:
    """Log to stderr, which is Triton's log, with the prefix `name`.

    Libraries never log at debug level, which would expose the contents of requests.
    """
    level = logging.getLevelNamesMapping()[os.environ.get("TRIDENT_LOG_LEVEL", "info").upper()]
    logging.basicConfig(level=max(level, logging.INFO), format=f"{name}: %(message)s", stream=sys.stderr)
    logging.getLogger("backends").setLevel(level)

"""The Python backends that run in Triton. Importing this package sets a UTF-8 locale for all libraries."""

import contextlib
import locale
import logging
import os
import sys

# Triton runs a Python backend in a process that is called the stub and ignores LANG and LC_ALL. The stub's locale is C,
# in which Python reads and writes text as ASCII.
for _name in ("C.UTF-8", "en_US.UTF-8"):  # older systems lack C.UTF-8
    with contextlib.suppress(locale.Error):
        locale.setlocale(locale.LC_ALL, _name)
        break

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # the package would send telemetry at every start


def start_logging(name: str) -> None:
    """Set up logging to stderr, which is Triton's log, with the prefix `name`.

    The level is $TRIDENT_LOG_LEVEL. At `debug`, libraries still log at `info`, because their debug messages would
    expose the contents of requests.
    """
    level = logging.getLevelNamesMapping()[os.environ.get("TRIDENT_LOG_LEVEL", "info").upper()]
    logging.basicConfig(level=max(level, logging.INFO), format=f"{name}: %(message)s", stream=sys.stderr)
    logging.getLogger("backends").setLevel(level)

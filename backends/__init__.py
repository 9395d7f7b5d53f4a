"""Triton's Python backends. Imported before any library, so that libraries read and write text as UTF-8."""

import locale

# Triton's stub runs in the C locale whatever the environment says, and Python would take text for ASCII.
locale.setlocale(locale.LC_ALL, "C.UTF-8")

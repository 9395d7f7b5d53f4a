"""What is shown if a conversion in another environment fails."""

import pytest

from export.environments import _reason

TRACE = """INFO: loading
Traceback (most recent call last):
  File "a.py", line 1, in <module>
    main()
  File "b.py", line 2, in main
    raise ValueError("no such\\nweight")
ValueError: no such
weight
"""


@pytest.mark.parametrize(
    ("errors", "reason"), [("  it failed\n", "it failed"), (TRACE, "ValueError: no such\nweight"), ("", "")]
)
def test_the_reason_stands_below_the_last_stack_trace(errors, reason):
    assert _reason(errors) == reason

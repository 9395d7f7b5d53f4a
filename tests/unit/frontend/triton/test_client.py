"""The conversion of a backend's errors to API errors, which depends on the status and the code."""

import orjson
import pytest

from frontend.errors import EngineFailure, InvalidRequest, Overloaded, Unavailable
from frontend.triton.status import error_from_backend


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        ("INVALID_ARGUMENT", "context_length_exceeded", InvalidRequest),
        ("UNAVAILABLE", None, Unavailable),
        ("UNAVAILABLE", "overloaded", Overloaded),
        ("INTERNAL", None, EngineFailure),
        ("SOMETHING_NEW", None, EngineFailure),
    ],
)
def test_a_backend_error_is_converted_by_status_and_code(status, code, kind):
    failure = {"status": status, "message": "why", "param": "messages", "code": code, "row": 3}
    error = error_from_backend(orjson.dumps(failure).decode())
    assert type(error) is kind
    assert (str(error), error.param, error.code, error.row) == ("why", "messages", code or kind.code, 3)

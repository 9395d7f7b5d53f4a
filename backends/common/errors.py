"""Exceptions that backends raise to fail a request."""


class RequestFailure(Exception):
    """An error for the client: the gRPC status name, OpenAI's `param` and `code`, and the index of the row, if any."""

    status = "INTERNAL"
    code: str | None = None

    def __init__(self, message: str, param: str | None = None, code: str | None = None, row: int | None = None):
        super().__init__(message)
        self.param, self.row = param, row
        self.code = code or type(self).code


class InvalidRequest(RequestFailure):
    """The request is invalid."""

    status = "INVALID_ARGUMENT"


class EngineFailure(RequestFailure):
    """The engine failed on a valid request."""


class EngineDown(RequestFailure):
    """The engine is not running: it is restarting, or the model is being unloaded."""

    status = "UNAVAILABLE"


class QueueFull(RequestFailure):
    """The model has reached its maximum number of requests."""

    status, code = "UNAVAILABLE", "overloaded"

    def __init__(self, message: str = "The model's queue is full") -> None:
        super().__init__(message)

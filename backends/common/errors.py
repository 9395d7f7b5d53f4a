"""Exceptions that backends raise to fail a request."""


class RequestFailure(Exception):
    """An error that the client receives, with the name of a gRPC status and OpenAI's error fields `param` and `code`.

    `row` is the index of the faulty row in a request to a batched model.
    """

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
    """The engine is not running, for example because it is restarting or the model is being unloaded."""

    status = "UNAVAILABLE"


class QueueFull(RequestFailure):
    """A limit on the model's concurrent requests is reached: in total, per client, or for requests with images."""

    status, code = "UNAVAILABLE", "overloaded"

    def __init__(self, message: str = "The model's queue is full") -> None:
        super().__init__(message)

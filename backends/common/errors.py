"""How a request can fail, seen from a backend."""


class RequestFailure(Exception):
    """What the caller is told: gRPC's name for the status, OpenAI's `param` and `code`, and which row of a batch."""

    status = "INTERNAL"
    code: str | None = None

    def __init__(self, message: str, param: str | None = None, code: str | None = None, row: int | None = None):
        super().__init__(message)
        self.param, self.row = param, row
        self.code = code or type(self).code


class InvalidRequest(RequestFailure):
    """The caller is at fault."""

    status = "INVALID_ARGUMENT"


class EngineFailure(RequestFailure):
    """The engine could not go on with a request, through no fault of the caller's."""


class EngineDown(RequestFailure):
    """There is no engine at the moment; it is being started again."""

    status = "UNAVAILABLE"


class QueueFull(RequestFailure):
    """The model has as many requests as it takes."""

    status, code = "UNAVAILABLE", "overloaded"

    def __init__(self) -> None:
        super().__init__("The model's queue is full")

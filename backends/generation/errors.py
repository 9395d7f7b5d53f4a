"""How a request can fail, seen from the backend."""


class InvalidRequest(ValueError):
    """The caller is at fault. Carries what OpenAI's error object needs."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None):
        super().__init__(message)
        self.param, self.code = param, code


class EngineFailure(RuntimeError):
    """The engine could not go on with a request, through no fault of the caller's."""


class EngineDown(RuntimeError):
    """There is no engine at the moment; it is being started again."""

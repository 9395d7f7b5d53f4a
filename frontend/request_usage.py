"""What the current request has used: tokens, audio and images, and the instances that it was sent to."""

from dataclasses import dataclass, field

from flask import g, has_request_context


@dataclass
class RequestUsage:
    """The usage of one HTTP request so far, which may have sent several requests to models."""

    input_tokens: int = 0
    output_tokens: int = 0
    audio_seconds: float = 0.0
    images: int = 0
    lease: str = ""
    """Identifies the request in limits of parallel requests."""
    instances: dict[str, int] = field(default_factory=dict)
    """ID of an instance that the request was sent to → the tokens that it has used there."""

    @property
    def tokens(self) -> int:
        """All tokens, in and out."""
        return self.input_tokens + self.output_tokens

    def add_tokens(self, input_tokens: int, output_tokens: int, instance: str) -> None:
        """Add the tokens of a request to a model."""
        self.input_tokens += input_tokens
        self.output_tokens += output_tokens
        self.instances[instance] = self.instances.get(instance, 0) + input_tokens + output_tokens


def request_usage() -> RequestUsage:
    """Return the usage of the current request; outside a request, one that nobody reads."""
    if not has_request_context():
        return RequestUsage()
    if "usage" not in g:
        g.usage = RequestUsage()
    found: RequestUsage = g.usage
    return found

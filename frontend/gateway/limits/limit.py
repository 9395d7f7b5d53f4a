"""A limit, and the decision about a request that several limits apply to."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

Kind = Literal["bucket", "window", "day", "parallel"]
Unit = Literal["requests", "tokens", "parallel"]
Scope = Literal["global", "service", "model", "instance", "key", "client"]

LEASE_SECONDS = 60.0
"""After this time without a renewal, a parallel request no longer counts: its process has died."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit of a request. Limits with the same name share their counter.

    A request costs one of a limit of requests or parallel requests. A limit of tokens admits requests while it is not
    exceeded, and the tokens are charged when they are known.
    """

    name: str
    scope: Scope
    unit: Unit
    kind: Kind
    capacity: float
    """bucket: requests or tokens at once; window and day: maximum in that time; parallel: maximum at a time."""
    seconds: float = 0.0
    """bucket: time in which one request or token is given back; window: its length."""
    warm_up: float = 0.0
    """bucket: seconds in which the rate grows to its full value, after as many seconds without a request."""
    cold_factor: float = 1.0
    """bucket: what the rate and the capacity are divided by at the beginning."""

    encoded: str = field(init=False, repr=False, compare=False, default="")
    """The limit as limits.lua reads it."""

    def __post_init__(self) -> None:
        values = (self.kind, self.capacity, self.seconds, self.warm_up, self.cold_factor, self.cost)
        object.__setattr__(self, "encoded", " ".join(map(str, values)))

    @property
    def cost(self) -> int:
        """What a request costs when it is admitted."""
        return 0 if self.unit == "tokens" else 1


class Level(NamedTuple):
    """How much of a limit is left."""

    remaining: float
    """Below 0 if more was charged than there was."""
    reset: float
    """Seconds until all of it is."""


class Decision(NamedTuple):
    """Whether a request is admitted. If it is not, nothing was charged."""

    refused: Limit | None
    """The limit that does not admit the request."""
    retry_after: float
    """Seconds until that limit may admit it."""
    levels: Sequence[Level]
    """The remainder of each limit."""


class Limiter(Protocol):
    """Counts requests and tokens. The counters may be shared with other processes."""

    def admit(self, limits: Sequence[Limit], lease: str) -> Decision:
        """Charge all limits, or none if one of them does not admit the request. `lease` identifies the request."""
        ...

    def charge(self, limits: Sequence[Limit], amount: float) -> None:
        """Charge all limits, even if too little remains; a negative amount gives back."""
        ...

    def renew(self, limits: Sequence[Limit], leases: Sequence[str]) -> None:
        """Keep requests in progress in limits of parallel requests; `limits` has one for each lease."""
        ...

    def finish(self, limits: Sequence[Limit], tokens: float, lease: str) -> None:
        """Charge the limits of tokens among these, and remove the request from those of parallel requests."""
        ...

    def levels(self, limits: Sequence[Limit]) -> Sequence[Level]:
        """Return the remainder of each limit."""
        ...

    def check(self) -> None:
        """Find out whether shared counters can be reached again, without waiting for a request."""
        ...

    def reset(self, limits: Sequence[Limit]) -> None:
        """Forget what was charged."""
        ...

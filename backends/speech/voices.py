"""Names of voices: the model's own, and others that its configuration maps to them."""

from collections.abc import Iterable, Mapping

from backends.common.errors import InvalidRequest


class Voices:
    """Finds out which voice a name means."""

    def __init__(self, names: Iterable[str], default: str, aliases: Mapping[str, str]):
        self._names = tuple(names)
        self._aliases = aliases
        self._default = default

    def find(self, name: str | None) -> str:
        """Return a voice's own name; that of the default for None. Raises InvalidRequest with the names there are."""
        wanted = name or self._default
        found = wanted if wanted in self._names else self._aliases.get(wanted, "")
        if found not in self._names:
            known = ", ".join([*self._names, *self._aliases])
            raise InvalidRequest(f"There is no voice '{wanted}'; there are: {known}", "voice", "voice_not_found")
        return found


def cannot_clone() -> InvalidRequest:
    """Return the error for a reference that this model does not listen to."""
    message = "This model speaks with voices of its own and cannot take over the one of a reference audio"
    return InvalidRequest(message, "messages", "voice_cloning_unsupported")

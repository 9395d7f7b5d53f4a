"""The names of the services, in the spellings that clients use."""

from frontend.settings import SERVICES

_BY_NAME = {service.lower(): service for service in SERVICES} | {
    "img-gen": "imgGen",
    "img-edit": "imgEdit",
    "imggen": "imgGen",
    "imgedit": "imgEdit",
    "img_gen": "imgGen",
    "img_edit": "imgEdit",
}


def service_name(text: str) -> str:
    """Return the name of a service that is written in any case. Raises ValueError if there is no such service."""
    found = _BY_NAME.get(text.lower())
    if found is None:
        raise ValueError(f"'{text[:50]}' is not one of {', '.join(SERVICES)}")
    return found

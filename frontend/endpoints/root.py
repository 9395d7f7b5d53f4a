"""GET /: the addresses of the API and the names of its documents, as plain text."""

from flask import Blueprint, Response

from frontend.services import public_address

blueprint = Blueprint("root", __name__)

_TEXT = """Trident serves OpenAI's API.

API:     {address}/v1
Models:  {address}/v1/models
Health:  {address}/health
Docs:    README.md and ARCHITECTURE.md in the checkout
"""


@blueprint.get("/")
def get_root() -> Response:
    """Return the addresses of the API and the names of its documents as plain text."""
    return Response(_TEXT.format(address=public_address()), content_type="text/plain; charset=utf-8")

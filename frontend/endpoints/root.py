"""GET /: where things are, until there is a page."""

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
    """Answer with the addresses of the API and the documentation, as text."""
    return Response(_TEXT.format(address=public_address()), content_type="text/plain; charset=utf-8")

"""GET /: where things are, until there is a page."""

from flask import Blueprint, Response, request

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
    return Response(_TEXT.format(address=request.host_url.rstrip("/")), content_type="text/plain; charset=utf-8")

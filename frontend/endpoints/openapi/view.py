"""/openapi.json and /docs: the OpenAPI document, and Swagger UI, which shows it."""

import functools
from importlib.util import find_spec
from pathlib import Path

import orjson
from flask import Blueprint, Response, current_app

from frontend.endpoints.openapi.document import Document, generate
from frontend.errors import NotFound

blueprint = Blueprint("openapi", __name__)

# The page may load only files of this server.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'none'"
)
_FILES = {
    "swagger-ui.css": ("css/swagger-ui.css", "text/css"),
    "swagger-ui-bundle.js": ("js/swagger-ui-bundle.js", "text/javascript"),
}
_PAGE = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <title>Trident API</title>
  <link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
  <div id="swagger-ui"></div>
  <script src="/docs/swagger-ui-bundle.js"></script>
  <script src="/docs/start.js"></script>
</body>
</html>
"""
# Asks for a key only if the document needs one, and sends it with all requests until the page is closed.
_START = """let key = "";
const authorize = (request) => {
  if (key && !request.headers.Authorization) request.headers.Authorization = `Bearer ${key}`;
  return request;
};
const load = async () => {
  let response = await fetch("/openapi.json");
  while (response.status === 401 || response.status === 403) {
    key = window.prompt("Admin or read-only API key") || "";
    if (!key) return;
    response = await fetch("/openapi.json", { headers: { Authorization: `Bearer ${key}` } });
  }
  if (!response.ok) {
    document.body.textContent = await response.text();
    return;
  }
  window.ui = SwaggerUIBundle({
    spec: await response.json(),
    dom_id: "#swagger-ui",
    deepLinking: true,
    requestInterceptor: authorize,
  });
};
load();
"""
_MAX_AGE = "public, max-age=86400"


@blueprint.get("/openapi.json")
@blueprint.get("/v3/api-docs")
@blueprint.get("/v3/api-docs.yaml")
def get_document() -> Response:
    """Return the OpenAPI document. As YAML, it is the same text: each JSON text is also YAML."""
    return Response(orjson.dumps(_document(current_app._get_current_object())), content_type="application/json")  # type: ignore[attr-defined]


@blueprint.get("/docs")
@blueprint.get("/swagger-ui.html")
def get_page() -> Response:
    """Return the page that shows the document."""
    response = Response(_PAGE, content_type="text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = _POLICY
    return response


@blueprint.get("/docs/<name>")
def get_file(name: str) -> Response:
    """Return a file of the page."""
    if name == "start.js":
        return Response(_START, content_type="text/javascript; charset=utf-8")
    if name not in _FILES:
        raise NotFound(f"Unknown file: {name[:100]}")
    path, kind = _FILES[name]
    response = Response((_swagger_folder() / path).read_bytes(), content_type=f"{kind}; charset=utf-8")
    response.headers["Cache-Control"] = _MAX_AGE
    return response


@functools.cache
def _document(app: object) -> Document:
    return generate(app)  # type: ignore[arg-type]


def _swagger_folder() -> Path:
    spec = find_spec("flask_openapi3_swagger")
    if spec is None or spec.origin is None:
        raise NotFound("Swagger UI is not installed; run `make install`")
    return Path(spec.origin).parent / "templates" / "swagger"

"""Generates the OpenAPI 3.1 document from the routes, the docstrings of their views and the models."""

import inspect
import re
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from flask import Flask
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from werkzeug.routing import Rule

from frontend.endpoints.openapi.operations import OPERATIONS, UNDOCUMENTED, Operation
from frontend.endpoints.openapi.responses import ErrorResponse, ManagementError
from frontend.gateway.access import access_of
from frontend.settings import SERVICES

Document = dict[str, Any]

_REF = "#/components/schemas/{model}"
_CONVERTER = re.compile(r"<(?:(?P<kind>\w+)(?:\([^)]*\))?:)?(?P<name>\w+)>")
_DESCRIPTION = """Trident serves open models behind OpenAI's API.

Each path below `/v1` also answers without that prefix. See the documents in `docs/` for the fields in prose.
"""
_TAGS = {
    "chat": "Inference",
    "responses": "Inference",
    "completions": "Inference",
    "embeddings": "Inference",
    "rerank": "Inference",
    "rerank_v2": "Inference",
    "transcriptions": "Inference",
    "speech": "Inference",
    "background": "Inference",
    "images": "Inference",
    "models": "Inference",
    "management_keys": "API keys",
    "management_services": "Configuration",
    "management_instances": "Instances",
    "management_versions": "Versions",
    "management_models": "Models",
    "management_monitoring": "Monitoring",
    "management_balancing": "Load balancing",
    "management_limits": "Limits",
    "management_usage": "Usage",
    "management_audit": "Audit",
}
# Paths whose responses are bare objects, without the envelope.
_BARE = ("/api/monitoring/", "/api/rate-limiter/")


_TWINS = (
    "/api/services",
    "/api/config/instance/<service>",
    "/actuator/prometheus",
    "/actuator/health/detailed",
)
"""Second paths of views."""

_LITERAL = {(503, "/health"), (503, "/v1/health"), (503, "/v1/models"), (403, "/v1/shutdown")}


def generate(app: Flask) -> Document:
    """Return the document. Raises KeyError if a route has no entry in OPERATIONS."""
    names = _schema_names()
    paths: dict[str, dict[str, Any]] = {}
    for rule, method in _routes(app):
        operation = OPERATIONS[_name(rule)]
        view = app.view_functions[rule.endpoint]
        path = _CONVERTER.sub(lambda found: f"{{{found['name']}}}", rule.rule)
        paths.setdefault(path, {})[method.lower()] = _operation(rule, method, operation, view, names)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Trident", "version": version("trident-serve"), "description": _DESCRIPTION},
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys([*_TAGS.values(), "Operation"])],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": _schemas(names),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _routes(app: Flask) -> Iterator[tuple[Rule, str]]:
    """Yield the routes to document: of a path with and without `/v1`, the one with it."""
    paths = {rule.rule for rule in app.url_map.iter_rules()}
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: (rule.rule, sorted(rule.methods or ()))):
        if _name(rule).startswith(UNDOCUMENTED) or f"/v1{rule.rule}" in paths:
            continue
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield rule, method


def _name(rule: Rule) -> str:
    """Return the name of a view: that of its blueprint without the prefix of its second registration."""
    return str(rule.endpoint).removeprefix("v1_")


def _operation(rule: Rule, method: str, operation: Operation, view: Any, names: dict[Any, str]) -> Document:
    blueprint, _, function = _name(rule).partition(".")
    summary, _, rest = inspect.getdoc(view).partition("\n\n")  # type: ignore[union-attr]
    is_twin = rule.rule in (
        "/api/services",
        "/api/config/instance/<service>",
        "/actuator/prometheus",
        "/actuator/health/detailed",
    )
    document: Document = {
        "operationId": f"{blueprint}_{function}" + ("_alias" if is_twin else ""),
        "summary": " ".join(summary.split()),
        "tags": [_TAGS.get(blueprint, "Operation")],
        "parameters": [*_path_parameters(rule), *_query_parameters(operation)],
        "responses": _responses(rule, operation, names),
    }
    if rest:
        document["description"] = rest
    if body := _request_body(operation, names):
        document["requestBody"] = body
    if access_of(rule.rule) != "open":
        # The empty entry: without keys, or for programs on this machine, none is needed.
        document["security"] = [{"bearer": []}, {"apiKey": []}, {}]
    return document


def _path_parameters(rule: Rule) -> Iterator[Document]:
    for found in _CONVERTER.finditer(rule.rule):
        schema: Document = {"type": "integer", "minimum": 0} if found["kind"] == "int" else {"type": "string"}
        if found["name"] == "service":
            schema |= {"enum": list(SERVICES)}
        if found["name"] == "identifier" and "responses" in rule.rule:
            schema |= {"minLength": 8}
        yield {"name": found["name"], "in": "path", "required": True, "schema": schema}


def _query_parameters(operation: Operation) -> Iterator[Document]:
    for name, described in operation.query.items():
        about, schema = described if isinstance(described, tuple) else (described, {})
        yield {
            "name": name.rstrip("!"),
            "in": "query",
            "required": name.endswith("!"),
            "description": about,
            "schema": {"type": "string"} | schema,
        }


def _request_body(operation: Operation, names: dict[Any, str]) -> Document | None:
    content: Document = {}
    if operation.body or operation.schema:
        schema = _reference(operation.body, names) if operation.body else operation.schema
        content["application/json"] = {"schema": schema}
        if operation.example is not None:
            content["application/json"]["example"] = operation.example
    if operation.form:
        files = {
            name: {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
            for name in operation.files
        }
        fields: Document = {"properties": files, "required": [operation.files[0]]}
        content["multipart/form-data"] = {
            "schema": {"allOf": [_reference(operation.form, names), fields]},
            "example": {operation.files[0]: "(the file)"} | (operation.form_example or {}),
        }
    return {"required": operation.needs_body, "content": content} if content else None


def _responses(rule: Rule, operation: Operation, names: dict[Any, str]) -> Document:
    is_management = rule.rule.startswith("/api/")
    error = _reference(ManagementError if is_management else ErrorResponse, names)
    found: Document = {str(operation.status): {"description": "Success", "content": _content(rule, operation, names)}}
    statuses = {400, 401, 403, 404, 413, 415, 429, 500, 503} | ({409} if is_management else {504})
    for status in sorted({*statuses, *operation.errors}):
        # AHA's and Spring Boot's documents prescribe other bodies.
        is_literal = (status, rule.rule) in _LITERAL or (status == 503 and rule.rule.startswith("/actuator/health"))
        schema = {"type": "object"} if is_literal else error
        found[str(status)] = {"description": "Error", "content": {"application/json": {"schema": schema}}}
    return found


def _content(rule: Rule, operation: Operation, names: dict[Any, str]) -> Document:
    if isinstance(operation.response, str):
        return {operation.response: {"schema": {"type": "string"}}} | (
            {"application/json": {"schema": {"type": "object"}}} if operation.response == "audio/*" else {}
        )
    schema: Document = _reference(operation.response, names) if operation.response else {}
    if operation.is_list:
        schema = {"type": "array", "items": schema}
    content: Document = {"application/json": {"schema": schema}}
    if rule.rule.startswith("/api/") and not rule.rule.startswith(_BARE):
        content["application/json"]["schema"] = _envelope(schema)
    if operation.event_stream:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    if rule.rule == "/api/usage":
        content["text/csv"] = {"schema": {"type": "string"}}
    if operation.form and "transcript" in rule.endpoint:
        content |= {"text/plain": {"schema": {"type": "string"}}, "text/vtt": {"schema": {"type": "string"}}}
    if "background" in rule.endpoint:
        content["image/*"] = {"schema": {"type": "string"}}
    return content


def _envelope(data: Document) -> Document:
    return {
        "type": "object",
        "properties": {
            "success": {"const": True},
            "message": {"type": "string"},
            "data": data,
            "errorCode": {"type": "null"},
            "timestamp": {"type": "string", "format": "date-time"},
        },
        "required": ["success", "message", "data", "errorCode", "timestamp"],
    }


def _models() -> list[type[BaseModel]]:
    found: list[type[BaseModel]] = [ErrorResponse, ManagementError]
    for operation in OPERATIONS.values():
        for model in (operation.body, operation.form, operation.response):
            if isinstance(model, type) and model not in found:
                found.append(model)
    return found


def _definitions() -> tuple[dict[Any, Document], Document]:
    references, document = models_json_schema([(model, "validation") for model in _models()], ref_template=_REF)
    return references, document.get("$defs", {})


def _schema_names() -> dict[Any, str]:
    references, _ = _definitions()
    return {model: schema["$ref"].rpartition("/")[2] for (model, _), schema in references.items()}


def _schemas(names: dict[Any, str]) -> Document:
    _, definitions = _definitions()
    return dict(sorted(definitions.items()))


def _reference(model: Any, names: dict[Any, str]) -> Document:
    return {"$ref": _REF.format(model=names[model])}

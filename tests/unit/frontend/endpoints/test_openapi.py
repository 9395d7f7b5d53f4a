"""The OpenAPI document: complete, valid, true to the requests that views read, and to their responses."""

import inspect
import re

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from frontend.endpoints.openapi.document import _name
from frontend.endpoints.openapi.operations import OPERATIONS, UNDOCUMENTED
from tests.unit.conftest import last
from tests.unit.frontend.endpoints.management_support import bearer, create_key

# These would stop the server, or change what the other requests see.
EXCLUDED = "/v1/shutdown|/api/config/type/reset|/api/models/(load|unload|reload)"
LOCAL_KEY = "tr-local-0123456789abcdef"


@pytest.fixture
def document(client):
    return client.get("/openapi.json").get_json()


def operations(document):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_every_view_is_described_and_no_others(client):
    views = {
        _name(rule) for rule in client.application.url_map.iter_rules() if not _name(rule).startswith(UNDOCUMENTED)
    }
    assert views == set(OPERATIONS)


def test_descriptions_name_the_body_that_the_view_reads(client):
    views = client.application.view_functions
    for name, operation in OPERATIONS.items():
        source = inspect.getsource(inspect.getmodule(views[name]))
        function = inspect.getsource(views[name])
        for reader, model in (("read_body", operation.body), ("read_form", operation.form)):
            if model is None:
                continue
            assert any(each.__name__ in source for each in (model, *model.__bases__)), name
            if f"{reader}(" in function:
                assert f"{reader}({model.__name__}" in function, name
        if "read_object(" in function or "read_management_body(" in function:
            assert operation.body or operation.schema, name


def test_operation_ids_are_unique(document):
    identifiers = [operation["operationId"] for _, operation in operations(document)]
    assert len(identifiers) == len(set(identifiers))


def test_every_operation_has_a_summary_and_bodies_have_valid_examples(document):
    for name, operation in operations(document):
        assert operation["summary"].endswith((".", ":")), name
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if content:
            schema = content["schema"] | {"components": document["components"]}
            Draft202012Validator(schema).validate(content["example"])
        if form := operation.get("requestBody", {}).get("content", {}).get("multipart/form-data"):
            assert len(form["example"]) > 1, name
            Draft202012Validator(form["schema"] | {"components": document["components"]}).validate(form["example"])


def test_all_references_are_resolved(document):
    for reference in re.findall(r"'\$ref': '([^']+)'", str(document)):
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]


@pytest.mark.parametrize("path", ["/v3/api-docs", "/v3/api-docs.yaml"])
def test_other_paths_of_the_document(client, document, path):
    assert client.get(path).get_json() == document


def test_page_loads_nothing_from_other_servers(client):
    for path in ("/docs", "/swagger-ui.html"):
        page = client.get(path)
        assert page.status_code == 200
        assert "http" not in page.get_data(as_text=True)
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        for file in re.findall(r'(?:src|href)="(/docs/[^"]+)"', page.get_data(as_text=True)):
            assert client.get(file).status_code == 200
    assert client.get("/docs/secret.txt").status_code == 404


def test_document_needs_a_key_if_there_are_keys(client):
    _, admin = create_key(client, role="admin")
    _, user = create_key(client, admin)
    statuses = [client.get("/openapi.json", headers=headers).status_code for headers in ({}, user, admin)]
    assert statuses == [401, 403, 200]
    # A browser cannot send a key for the page, which asks for it.
    assert [client.get(path).status_code for path in ("/docs", "/docs/start.js")] == [200, 200]


EXAMPLES = {name: operation.example for name, operation in OPERATIONS.items() if operation.example is not None}
INFERENCE = [name for name in EXAMPLES if not name.startswith(("management_", "background"))]


@pytest.mark.parametrize("name", INFERENCE)
def test_examples_of_inference_work_and_match_the_document(client, triton, document, name, configure):
    answers = {
        "images": {"image_output": b"x", "num_input_tokens": 1, "index": 0},
        "speech": {"audio": b"x", "num_input_tokens": 1, "num_output_tokens": 1},
    }
    triton.queue_response(answers.get(name.partition(".")[0]) or last("Paris"))
    rule = next(rule for rule in client.application.url_map.iter_rules() if rule.endpoint in (f"v1_{name}", name))
    path = rule.rule if rule.rule.startswith("/v") else f"/v1{rule.rule}"
    response = client.post(path, json=EXAMPLES[name])
    assert response.status_code == 200, response.get_data()
    content = document["paths"][path]["post"]["responses"]["200"]["content"]
    if response.mimetype == "application/json":
        schema = content["application/json"]["schema"] | {"components": document["components"]}
        Draft202012Validator(schema).validate(response.get_json())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_management_api_conforms_to_the_document(make_client, tmp_path):
    """schemathesis sends valid and invalid requests to all of the management API, and checks the responses.

    That each request with a valid schema is accepted is not checked: expiry dates, networks and URLs have rules that a
    schema cannot express.
    """
    (tmp_path / "run" / "10100").mkdir(parents=True)
    (tmp_path / "run" / "10100" / "local_key").write_text(LOCAL_KEY, encoding="utf-8")
    client = make_client()
    schema = schemathesis.openapi.from_wsgi("/openapi.json", client.application)
    schema = schema.include(path_regex="^/(api|actuator|v1/organization)").exclude(path_regex=EXCLUDED)
    seen = set()
    for result in schema.get_all_operations():
        modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        strategies = [result.ok().as_strategy(generation_mode=mode) for mode in modes]

        @settings(
            max_examples=12, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
        )
        @given(case=strategies[0] | strategies[1])
        def check(case):
            response = case.call(headers=bearer(LOCAL_KEY))
            seen.add(response.status_code)
            case.validate_response(response, excluded_checks=[positive_data_acceptance])

        check()
    assert {200, 400, 404} <= seen

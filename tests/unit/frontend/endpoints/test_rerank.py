"""Tests of POST /rerank and /v2/rerank with a fake encoder, which scores short documents highest."""

import math

import pytest

from frontend.errors import InvalidRequest

DOCUMENTS = ["three", "a", "four", "bb"]


def rerank(client, path="/v1/rerank", **fields):
    return client.post(path, json={"model": "tiny-rerank", "query": "q", "documents": DOCUMENTS} | fields)


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
def test_documents_are_returned_in_order_of_relevance(client, triton, path):
    body = rerank(client, path).get_json()
    assert body.pop("id").startswith("rerank-")
    results = body.pop("results")
    assert body == {"object": "list", "model": "org/tiny-rerank", "usage": {"prompt_tokens": 8, "total_tokens": 8}}
    assert [result["index"] for result in results] == [1, 3, 2, 0]
    assert [result["document"] for result in results] == ["a", "bb", "four", "three"]
    assert all(result["score"] == result["relevance_score"] for result in results)
    assert results[0]["score"] == pytest.approx(1 / (1 + math.exp(1)))
    assert triton.requests[0]["inputs"] == {"query": [b"q"] * 4, "document": [b"a", b"bb", b"four", b"three"]}


def test_raw_scores_are_logits(client):
    assert [result["score"] for result in rerank(client, raw_scores=True).get_json()["results"]] == [-1, -2, -4, -5]


@pytest.mark.parametrize(("top_n", "count"), [(0, 0), (2, 2), (4, 4), (99, 4), (None, 4)])
def test_top_n_limits_the_results(client, top_n, count):
    results = rerank(client, top_n=top_n).get_json()["results"]
    assert [result["index"] for result in results] == [1, 3, 2, 0][:count]


def test_equal_scores_keep_document_order(client):
    results = rerank(client, documents=["xx", "y", "zz", "w"]).get_json()["results"]
    assert [result["index"] for result in results] == [1, 3, 0, 2]


def test_documents_may_be_objects_and_may_be_omitted_from_the_response(client):
    body = rerank(client, documents=[{"text": "bb"}, "a"], return_documents=False).get_json()
    assert [set(result) for result in body["results"]] == [{"index", "relevance_score", "score"}] * 2
    document = {"id": 7, "text": "bb"}
    for path in ("/v1/rerank", "/v2/rerank"):
        results = rerank(client, path, documents=[document], return_documents=True).get_json()["results"]
        assert results[0]["document"] == document


def test_v2_has_coheres_format_and_defaults(client, triton):
    body = rerank(client, "/v2/rerank", top_n=1).get_json()
    assert set(body) == {"id", "results", "meta"}
    assert body["results"] == [{"index": 1, "relevance_score": pytest.approx(1 / (1 + math.exp(1)))}]
    assert body["meta"]["api_version"] == {"version": "2"}
    assert triton.requests[0]["parameters"] == {"truncate": True}
    body = rerank(client, "/v2/rerank", return_documents=True).get_json()
    assert body["results"][0]["document"] == {"text": "a"}
    assert client.post("/v1/v2/rerank", json={}).status_code == 404


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"query": ""}, "query", "rerank query cannot be empty"),
        ({"query": " \n"}, "query", "rerank query cannot be empty"),
        ({"query": None}, "query", None),
        ({"query": ["q"]}, "query", None),
        ({"documents": []}, "documents", "rerank documents cannot be empty"),
        ({"documents": "text"}, "documents", None),
        ({"documents": None}, "documents", None),
        ({"documents": ["a", ""]}, "documents[1]", "rerank documents cannot contain empty strings"),
        ({"documents": [{"text": ""}]}, "documents[0]", "rerank documents cannot contain empty strings"),
        ({"documents": ["a", 3]}, "documents[1]", None),
        ({"documents": [{"title": "x"}]}, "documents[0]", None),
        ({"documents": [["a"]]}, "documents[0]", None),
        ({"documents": ["a"] * 3000}, "documents", "Too many documents: 3000 (limit 2048)"),
        ({"top_n": -1}, "top_n", None),
        ({"top_n": "2"}, "top_n", None),
        ({"top_n": 1.5}, "top_n", None),
        ({"return_documents": "no"}, "return_documents", None),
        ({"model": "tiny-embedding"}, "model", None),
    ],
)
@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
def test_error_for_invalid_input_names_the_field(client, triton, path, fields, param, message):
    response = rerank(client, path, **fields)
    error = response.get_json()["error"]
    assert (response.status_code, error["param"]) == (400, param)
    assert message in (None, error["message"])
    assert not triton.requests


def test_query_is_required(client):
    error = client.post("/rerank", json={"documents": ["a"]}).get_json()["error"]
    assert (error["param"], error["code"]) == ("query", "missing_parameter")


def test_document_error_names_the_document(client, triton):
    failure = InvalidRequest("too long")
    failure.row = 0  # rows are sent shortest first, so row 0 is documents[1]
    triton.infer_failures[0] = failure
    assert rerank(client).get_json()["error"]["param"] == "documents[1]"


def test_query_with_more_characters_than_the_context_can_hold_is_rejected_or_truncated(client, triton):
    error = rerank(client, query="x" * 64_001).get_json()["error"]
    assert (error["param"], error["code"]) == ("query", "context_length_exceeded")
    assert rerank(client, query="x" * 64_001, truncate=True).status_code == 200
    assert triton.requests[0]["inputs"]["query"][0] == b"x" * 64_000


def test_documents_are_ranked_by_rank_fields_in_their_order(client, triton):
    documents = [{"title": "T", "text": "x" * 9, "year": 1984}, {"text": "y"}, {"title": None, "year": 3}]
    assert rerank(client, documents=documents[:1], rank_fields=["year", "title"]).status_code == 200
    assert triton.requests[0]["inputs"]["document"] == [b"1984\nT"]
    assert rerank(client, documents=documents[::2], rank_fields=["title"]).status_code == 200
    assert triton.requests[1]["inputs"]["document"] == [b"T"]
    error = rerank(client, documents=documents, rank_fields=["title"]).get_json()["error"]
    assert (error["param"], "rank_fields" in error["message"]) == ("documents[1]", True)
    assert rerank(client, documents=["a"], rank_fields=["title"]).status_code == 400
    assert rerank(client, rank_fields=[]).status_code == 400


def test_deeply_nested_documents_are_rejected(client, triton):
    nested = 1
    for _ in range(300):
        nested = [nested]
    for fields in ({}, {"rank_fields": ["x"]}):
        response = rerank(client, documents=[{"text": "a", "x": nested}], **fields)
        assert (response.status_code, response.get_json()["error"]["param"]) == (400, "documents[0]")
    assert not triton.requests


@pytest.mark.parametrize("raw", [False, True])
def test_documents_of_white_space_are_last_and_the_model_does_not_see_them(client, triton, raw):
    documents = [" ", "x" * 50, "\n\t", "a"]
    results = rerank(client, documents=documents, raw_scores=raw).get_json()["results"]
    assert [result["index"] for result in results] == [3, 1, 0, 2]
    assert triton.requests[0]["inputs"]["document"] == [b"a", b"x" * 50]
    assert rerank(client, documents=[" "]).get_json()["results"][0]["relevance_score"] < 1e-9


def test_query_error_names_the_query(client, triton):
    failure = InvalidRequest("too long", param="query")
    failure.row = 0
    triton.infer_failures[0] = failure
    error = rerank(client).get_json()["error"]
    assert (error["param"], error["message"]) == ("query", "too long")

"""Rerank with the starter model through the real Triton: ranking, scores, truncation, rejected requests."""

import pytest
import requests

from tests.support.live import url

RANKINGS = {
    "How many people live in Berlin?": [
        "Berlin had a population of 3,520,031 registered inhabitants in an area of 891.82 square kilometers.",
        "Berlin is well known for its museums.",
        "New York City is famous for the Metropolitan Museum of Art.",
    ],
    "what is the capital of france": [
        "Paris is the capital and most populous city of France.",
        "France is a country in Western Europe.",
        "Bananas are yellow.",
    ],
    "how to stop a program in linux": [
        "Use the kill command with the process id, or press Ctrl-C in the terminal, to stop a running program.",
        "Linux is a family of open-source operating systems.",
        "The train to London leaves at nine.",
    ],
}


def rerank(stack, path="/v1/rerank", **body):
    response = requests.post(url(stack, path), json=body, timeout=60)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("query", RANKINGS)
def test_relevant_document_ranks_first_and_unrelated_document_last(stack, query):
    documents = RANKINGS[query]
    shuffled = [documents[1], documents[2], documents[0]]
    body = rerank(stack, query=query, documents=shuffled)
    assert [result["index"] for result in body["results"]] == [2, 0, 1]
    scores = [result["relevance_score"] for result in body["results"]]
    assert 0.9 < scores[0] < 1
    assert 0 < scores[2] < 0.01
    raw = rerank(stack, query=query, documents=shuffled, raw_scores=True)["results"]
    assert raw[0]["score"] > 2 > -2 > raw[2]["score"]


def test_relevant_document_is_found_among_a_thousand(stack):
    documents = [f"Sentence number {i} is about nothing at all." for i in range(1000)]
    documents[777] = "Paris is the capital of France."
    best = rerank(stack, query="what is the capital of france", documents=documents, top_n=3)["results"]
    assert len(best) == 3
    assert (best[0]["index"], best[0]["document"]) == (777, documents[777])


def test_long_documents_are_truncated_by_v2_and_rejected_by_v1(stack):
    documents = ["Bananas are yellow. " * 300, "Paris is the capital of France. " * 300]
    body = rerank(stack, "/v2/rerank", query="what is the capital of france", documents=documents)
    assert [result["index"] for result in body["results"]] == [1, 0]
    response = requests.post(url(stack, "/v1/rerank"), json={"query": "q", "documents": documents}, timeout=60)
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, "documents[0]", "context_length_exceeded")


@pytest.mark.parametrize("words", [600, 9000])
def test_query_that_fills_the_context_is_truncated_if_allowed(stack, words):
    body = {"query": "What is the capital of France? " + "word " * words, "documents": ["Bananas.", "Paris."]}
    for path, truncate in (("/v1/rerank", True), ("/v2/rerank", None)):
        response = requests.post(url(stack, path), json=body | {"truncate": truncate}, timeout=60)
        assert response.status_code == 200
        assert response.json()["results"][0]["index"] == 1
    response = requests.post(url(stack, "/v1/rerank"), json=body, timeout=60)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "context_length_exceeded")
    assert "Set 'truncate' to true" in error["message"]


def test_logit_does_not_depend_on_the_other_documents(stack):
    documents = ["Paris is the capital of France.", "Bananas are yellow.", "$1,234 " * 30, "東京", "x"]
    query = "what is the capital of france"
    results = rerank(stack, query=query, documents=documents, raw_scores=True)["results"]
    together = {result["index"]: result["score"] for result in results}
    for index, document in enumerate(documents):
        (alone,) = rerank(stack, query=query, documents=[document], raw_scores=True)["results"]
        assert alone["score"] == pytest.approx(together[index], abs=1e-3)

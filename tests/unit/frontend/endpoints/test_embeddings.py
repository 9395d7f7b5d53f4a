"""POST /embeddings with a fake encoder: request fields, response formats, and splitting inputs into batches."""

import base64
import random

import numpy as np
import pytest

from frontend.errors import EngineFailure, InvalidRequest, Overloaded
from frontend.inference.batching import split_rows
from tests.unit.conftest import encode


def embed(client, path="/v1/embeddings", **fields):
    return client.post(path, json={"model": "tiny-embedding"} | fields)


def vectors(response):
    assert response.status_code == 200, response.get_json()
    return [item["embedding"] for item in response.get_json()["data"]]


@pytest.mark.parametrize("path", ["/embeddings", "/v1/embeddings"])
def test_one_text_returns_one_vector(client, triton, path):
    body = embed(client, path, input="Hello").get_json()
    assert body == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": encode(b"Hello")}],
        "model": "org/tiny-embedding",
        "usage": {"prompt_tokens": 2, "total_tokens": 2},
    }
    assert triton.requests[0]["inputs"] == {"text": [b"Hello"]}
    assert triton.requests[0]["parameters"] == {"truncate": False, "input_type": "document"}


def test_model_is_optional_and_openai_names_are_aliases(client):
    assert client.post("/embeddings", json={"input": "x"}).get_json()["model"] == "org/tiny-embedding"
    assert embed(client, model="text-embedding-ada-002", input="x").get_json()["model"] == "org/tiny-embedding"
    assert embed(client, model="tiny-chat", input="x").get_json()["error"]["param"] == "model"


def test_many_texts_of_any_length_keep_their_order(client, triton):
    lengths = random.Random(1)
    texts = [f"{i} " + "x" * lengths.randrange(3000) for i in range(1500)]
    body = embed(client, input=texts).get_json()
    assert [item["index"] for item in body["data"]] == list(range(1500))
    assert [item["embedding"] for item in body["data"]] == [encode(text.encode()) for text in texts]
    assert body["usage"]["prompt_tokens"] == 3000
    sent = [request["inputs"]["text"] for request in triton.requests]
    assert max(map(len, sent)) <= 64
    assert max(sum(map(len, rows)) for rows in sent) <= 16_384


@pytest.mark.parametrize(
    ("sizes", "requests"),
    [([5] * 64, 1), ([5] * 65, 2), ([1 << 20, 1, 1 << 20], 3), ([16_384], 1), ([16_000, 384], 1), ([16_000, 385], 2)],
)
def test_rows_are_split_by_count_and_size(sizes, requests):
    parts = list(split_rows(sizes))
    assert len(parts) == requests
    assert sorted(row for part in parts for row in part) == list(range(len(sizes)))


def test_base64_contains_the_same_numbers_as_the_float_format(client):
    texts = ["one", "two words"]
    plain = vectors(embed(client, input=texts))
    encoded = vectors(embed(client, input=texts, encoding_format="base64"))
    assert [np.frombuffer(base64.b64decode(text), "<f4").tolist() for text in encoded] == plain


def test_shortened_vectors_are_normalized(client):
    (full,) = vectors(embed(client, input="Hello"))
    (short,) = vectors(embed(client, input="Hello", dimensions=2))
    np.testing.assert_allclose(short, np.array(full[:2]) / np.linalg.norm(full[:2]), rtol=1e-6)
    assert vectors(embed(client, input="Hello", dimensions=4)) == [full]


@pytest.mark.parametrize(("given", "param"), [("x" * 99_999, "input"), (["x", "x" * 99_999], "input[1]")])
def test_error_for_a_text_that_is_too_long_names_the_field(client, given, param):
    error = embed(client, input=given).get_json()["error"]
    assert (error["param"], error["code"]) == (param, "context_length_exceeded")
    assert error["message"].startswith(f"'{param}': ")


@pytest.mark.parametrize("ids", [[5, 6, 7], [[5, 6, 7], [8]]])
def test_token_ids_are_sent_as_little_endian_int32(client, triton, ids):
    assert embed(client, input=ids).status_code == 200
    sent = [np.frombuffer(row, "<i4").tolist() for row in triton.requests[0]["inputs"]["token_ids"]]
    assert sorted(sent) == sorted(ids if isinstance(ids[0], list) else [ids])


@pytest.mark.parametrize(("given", "sent"), [("search_query", "query"), ("passage", "document"), (None, "document")])
def test_input_type_and_truncate_reach_the_model(client, triton, given, sent):
    embed(client, input="x", input_type=given, truncate=True)
    assert triton.requests[0]["parameters"] == {"truncate": True, "input_type": sent}


WRONG_TYPE = "embedding input must be a string or an array of strings"
EMPTY = "embedding input cannot be empty"
EMPTY_ITEM = "embedding input cannot contain empty strings or arrays"
MIXED = "embedding input must contain only strings, or only arrays of token IDs"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (7, WRONG_TYPE),
        (None, "Invalid request: missing required parameter 'input'"),
        ({"text": "x"}, WRONG_TYPE),
        (True, WRONG_TYPE),
        ("", EMPTY),
        ([], EMPTY),
        (["x", ""], EMPTY_ITEM),
        ([[]], EMPTY_ITEM),
        ([[1], []], EMPTY_ITEM),
        (["x", 1], MIXED),
        ([None], MIXED),
        ([1.5], MIXED),
        ([[1, "x"]], MIXED),
        ([["x"]], MIXED),
        ([True], MIXED),
        ([2**31], MIXED),
        (["x"] * 3000, "Too many inputs: 3000 (limit 2048)"),
    ],
)
def test_invalid_input_is_rejected(client, triton, given, message):
    response = embed(client, input=given)
    error = response.get_json()["error"]
    assert (response.status_code, error["message"], error["param"]) == (400, message, "input")
    assert not triton.requests


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("encoding_format", "int8"),
        ("dimensions", 0),
        ("dimensions", 5),
        ("dimensions", "2"),
        ("truncate", "yes"),
        ("input_type", "x"),
        ("model", 3),
    ],
)
def test_error_for_invalid_input_names_the_field(client, triton, field, value):
    response = embed(client, **{"input": "x", field: value})
    assert response.status_code == 400
    assert response.get_json()["error"]["param"] == field
    assert not triton.requests


def test_input_is_required(client):
    error = client.post("/v1/embeddings", json={"model": "tiny-embedding"}).get_json()["error"]
    assert (error["param"], error["code"]) == ("input", "missing_parameter")


def test_error_in_a_row_of_a_batch_names_the_input_item(client, triton):
    failure = InvalidRequest("has 600 tokens", code="context_length_exceeded")
    failure.row = 0
    triton.infer_failures[1] = failure
    texts = ["x" * 9000, "y" * 7, "z" * 10_000, "w" * 16_000]  # sent in three batches: texts 1 and 0, text 2, text 3
    error = embed(client, input=texts).get_json()["error"]
    assert (error["param"], error["code"]) == ("input[2]", "context_length_exceeded")
    assert error["message"] == "'input[2]': has 600 tokens"


@pytest.mark.parametrize("truncate", [False, True])
def test_text_with_more_characters_than_the_context_can_hold_is_truncated_or_rejected(client, triton, truncate):
    response = embed(client, input=["fine", "x" * 64_001], truncate=truncate)
    if truncate:
        assert response.status_code == 200
        assert max(len(text) for request in triton.requests for text in request["inputs"]["text"]) == 64_000
    else:
        error = response.get_json()["error"]
        assert (error["param"], error["code"]) == ("input[1]", "context_length_exceeded")
        assert "1000 tokens" in error["message"]
        assert "64001 characters" in error["message"]


def test_requests_beyond_the_queue_size_are_rejected(client, triton):
    """The fake model's `queue_size` is 2. A third request is rejected if two requests are being processed."""
    statuses = []

    def nested(*arguments, **options):
        statuses.append(embed(client, input="inner").status_code)
        return infer(*arguments, **options)

    infer, triton.infer = triton.infer, nested
    assert embed(client, input="outer").status_code == 200
    assert statuses == [503, 200]
    triton.infer = infer
    assert embed(client, input="later").status_code == 200


def test_missing_queue_size_in_the_configuration_is_reported(client, triton):
    config = triton.config

    def without(model):
        found = config(model)
        del found.parameters["queue_size"]
        return found

    triton.config = without
    response = embed(client, input="x")
    assert response.status_code == 500
    assert "queue_size" in response.get_json()["error"]["message"]


@pytest.mark.parametrize(("failure", "status"), [(EngineFailure("no"), 500), (Overloaded("full"), 503)])
def test_failure_of_a_batch_keeps_its_status_and_cancels_the_next_batch(client, triton, failure, status):
    triton.infer_failures[0] = failure
    assert embed(client, input=["x" * 16_000] * 10).status_code == status
    assert len(triton.inferences) == 2
    assert triton.inferences[1].cancelled


def test_token_ids_for_another_models_tokenizer_are_rejected_with_advice(client, triton):
    for ids in ([15339, 1917], [[15339], [1917]]):
        fields = {"model": "text-embedding-3-small", "input": ids}
        error = client.post("/v1/embeddings", json=fields).get_json()["error"]
        assert (error["param"], "check_embedding_ctx_length=False" in error["message"]) == ("input", True)
    assert client.post("/v1/embeddings", json={"model": "tiny-embedding", "input": [1, 2]}).status_code == 200
    assert client.post("/v1/embeddings", json={"input": [1, 2]}).status_code == 200

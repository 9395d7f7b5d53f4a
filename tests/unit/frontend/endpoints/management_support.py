"""Helpers of the tests of API keys and of the management API."""


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def create_key(client, headers=None, **fields):
    """Create a key, and return its ID and the headers of requests with it."""
    response = client.post("/api/auth/api-keys", json=fields, headers=headers)
    assert response.status_code == 201, response.get_json()
    data = response.get_json()["data"]
    return data["keyId"], bearer(data["keyValue"])


def embed(client, headers=None, **options):
    return client.post("/v1/embeddings", json={"model": "tiny-embedding", "input": "x"}, headers=headers, **options)


def data_of(response, status=200):
    """Return the data of a response of the management API."""
    body = response.get_json()
    assert response.status_code == status, body
    assert body["success"] is (status < 400)
    assert set(body) == {"success", "message", "data", "errorCode", "timestamp"}
    return body["data"]


def error_code(response):
    body = response.get_json()
    assert body["success"] is False
    return response.status_code, body["errorCode"]

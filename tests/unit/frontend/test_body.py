"""JSON bodies: compression, byte order marks, and integers that are written with a fraction."""

import base64
import gzip
import io
import random
import zlib

import orjson
import pytest

from tests.unit.conftest import chat, last

COMPRESSORS = {"gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress, "GZIP": gzip.compress}


def send(client, body, encoding):
    return client.post("/v1/chat/completions", data=body, headers={"Content-Encoding": encoding})


def sampling(triton):
    return orjson.loads(triton.requests[0]["inputs"]["sampling_parameters"])


@pytest.mark.parametrize("encoding", [*COMPRESSORS, "identity", ""])
def test_compressed_body_is_decompressed(client, triton, encoding):
    triton.queue_response(last("Hi"))
    compress = COMPRESSORS.get(encoding, bytes)
    response = send(client, compress(orjson.dumps(chat(max_tokens=7))), encoding)
    assert response.status_code == 200
    assert sampling(triton)["max_tokens"] == 7


def test_size_limit_applies_to_the_decompressed_body(make_client, triton):
    client = make_client(max_body_bytes=1000, max_upload_bytes=900)
    for encoding in ("gzip", "deflate"):
        response = send(client, COMPRESSORS[encoding](orjson.dumps(chat(user="x" * 100_000))), encoding)
        assert (response.status_code, response.get_json()["error"]["code"]) == (413, "payload_too_large")
    triton.queue_response(last("Hi"))
    assert send(client, gzip.compress(orjson.dumps(chat(user="x" * 500))), "gzip").status_code == 200


@pytest.mark.parametrize(
    ("content", "status"), [(random.Random(1).randbytes(30_000), 400), (bytes(30_000), 413)], ids=["noise", "zeros"]
)
def test_body_with_files_may_be_at_most_four_times_as_large_as_its_compressed_form(make_client, content, status):
    """A body of allowed size is parsed, and gets a 400 because the model does not accept images."""
    client = make_client(max_body_bytes=1000, max_upload_bytes=1_000_000)
    url = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    messages = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]
    body = orjson.dumps(chat(messages=messages))
    assert client.post("/v1/chat/completions", data=body).status_code == 400
    assert send(client, gzip.compress(body), "gzip").status_code == status


def test_deflate_without_a_zlib_header_is_accepted(client, triton):
    compressor = zlib.compressobj(wbits=-15)
    triton.queue_response(last("Hi"))
    assert send(client, compressor.compress(orjson.dumps(chat())) + compressor.flush(), "deflate").status_code == 200


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress", "x" * 1000])
def test_other_encodings_are_rejected_with_415(client, encoding):
    error = send(client, b"{}", encoding).get_json()["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "unsupported_encoding")
    assert "gzip or deflate" in error["message"]
    assert send(client, b"{}", encoding).status_code == 415


@pytest.mark.parametrize("body", [b"{}", gzip.compress(b"{}")[:-4], gzip.compress(b"{}") + b"x", b""])
def test_damaged_compression_is_rejected(client, body):
    response = send(client, body, "gzip")
    assert (response.status_code, response.get_json()["error"]["code"]) == (400, "invalid_encoding")


def test_compressed_forms_are_rejected_with_415(client):
    form = {"file": (io.BytesIO(b"RIFF"), "a.wav")}
    response = client.post("/v1/audio/transcriptions", data=form, headers={"Content-Encoding": "gzip"})
    assert (response.status_code, response.get_json()["error"]["code"]) == (415, "unsupported_encoding")


def test_byte_order_mark_is_skipped(client, triton):
    triton.queue_response(last("Hi"))
    body = b"\xef\xbb\xbf" + orjson.dumps(chat())
    assert client.post("/v1/chat/completions", data=body).status_code == 200


def test_integer_with_a_fraction_of_zero_is_accepted(client, triton):
    triton.queue_response(last("Hi"))
    response = client.post("/v1/chat/completions", json=chat(max_tokens=10.0, seed=1.0, temperature=1.0))
    assert response.status_code == 200
    assert [sampling(triton)[name] for name in ("max_tokens", "seed")] == [10, 1]


@pytest.mark.parametrize("value", [10.5, "10", True, 1e300])
def test_other_values_are_no_integers(client, value):
    response = client.post("/v1/chat/completions", json=chat(max_tokens=value))
    assert (response.status_code, response.get_json()["error"]["param"]) == (400, "max_tokens")

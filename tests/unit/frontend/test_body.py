"""JSON bodies: compression, byte order marks, and integers that are written with a fraction."""

import base64
import gzip
import io
import random
import zlib

import orjson
import pytest
import zstandard

from tests.unit.conftest import chat, last

COMPRESSORS = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "GZIP": gzip.compress,
    "zstd": zstandard.compress,
}


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
    for encoding in ("gzip", "deflate", "zstd"):
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


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "compress", "x" * 1000])
def test_other_encodings_are_rejected_with_415(client, encoding):
    error = send(client, b"{}", encoding).get_json()["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "unsupported_encoding")
    assert "gzip, deflate or zstd" in error["message"]
    assert send(client, b"{}", encoding).status_code == 415


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
@pytest.mark.parametrize("damage", [lambda _: b"{}", lambda b: b[:-4], lambda b: b + b"xxxxx", lambda _: b""])
def test_damaged_compression_is_rejected(client, encoding, damage):
    response = send(client, damage(COMPRESSORS[encoding](b'{"model": "a", "messages": []}')), encoding)
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


def test_zstd_that_needs_much_memory_is_rejected(client):
    parameters = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    body = compressor.compress(b"{}") + compressor.flush()
    assert send(client, body, "zstd").status_code == 400
    bomb = zstandard.compress(bytes(1 << 30))
    assert send(client, bomb, "zstd").status_code == 413


def test_transfer_encoding_other_than_chunked_is_501(client):
    response = client.post("/v1/chat/completions", data=b"{}", headers={"Transfer-Encoding": "gzip, chunked"})
    assert (response.status_code, response.get_json()["error"]["code"]) == (501, "invalid_http")


WAV = b"RIFF\xff\xfe\r\n--x\r\ndata"


def send_form(client, *parts, end=b"--B--\r\n", path="audio/transcriptions"):
    body = b"".join(b"--B\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts) + end
    return client.post(f"/v1/{path}", data=body, content_type="multipart/form-data; boundary=B")


@pytest.mark.parametrize(
    "name",
    [b'"Ofsl\xfatdyk.wav"', '"録音.wav"'.encode("shift_jis"), '"録音.wav"'.encode(), '"录音"'.encode("gb18030"), b'""'],
)
def test_file_name_may_have_any_encoding(client, triton, name):
    triton.queue_response({"text_output": "", "segments": "[]", "language": "en", "duration": 1.0})
    part = b'name="file"; filename=' + name + b"\r\nContent-Type: audio/wav\r\n\r\n" + WAV
    assert send_form(client, part).status_code == 200
    assert triton.requests[0]["inputs"]["audio"] == WAV


def test_file_without_a_file_name_is_accepted(client, triton):
    triton.queue_response({"text_output": "", "segments": "[]", "language": "en", "duration": 1.0})
    assert send_form(client, b'name="file"\r\nContent-Type: audio/wav\r\n\r\n' + WAV).status_code == 200
    assert triton.requests[0]["inputs"]["audio"] == WAV


@pytest.mark.parametrize("path", ["audio/transcriptions", "images/remove_background", "images/edits"])
@pytest.mark.parametrize(
    ("part", "end"),
    [
        (b'name="file"; filename="a"\r\n\r\nRIFF', b""),
        (b'name="file"; filename="a"\r\n\r\nRIFF', b"--B"),
        (b'filename="a"\r\n\r\nRIFF', b"--B--\r\n"),
    ],
)
def test_malformed_form_is_called_malformed(client, path, part, end):
    error = send_form(client, part, end=end, path=path).get_json()["error"]
    assert (error["code"], "malformed or incomplete" in error["message"]) == ("invalid_form", True)


def test_form_without_a_boundary_is_called_malformed(client):
    response = client.post("/v1/audio/transcriptions", data=b"x", content_type="multipart/form-data")
    assert response.get_json()["error"]["code"] == "invalid_form"

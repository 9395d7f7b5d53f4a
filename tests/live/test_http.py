"""Requests that are not valid HTTP, and clients that shut down their sending side, with the real gunicorn."""

import contextlib
import json
import socket

import pytest

from tests.support.live import MODEL, user

HOST = b"Host: localhost\r\n"
POST = b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST


def _has_end(received):
    """Return whether the body of a response has ended. A head can end like a body, if its last value ends with 0."""
    return _final(received).partition(b"\r\n\r\n")[2].endswith((b"}", b"0\r\n\r\n"))


def _final(received):
    """Return what has been received, without interim responses."""
    while received.startswith(b"HTTP/1.1 100 "):
        received = received.partition(b"\r\n\r\n")[2]
    return received


def exchange(settings, data, half_close=False, closes=False):
    """Send bytes to the frontend, and return the status, the headers and the body of its response."""
    with socket.create_connection(("127.0.0.1", settings.port), timeout=60) as connection:
        connection.sendall(data)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        while not _has_end(received) and (more := connection.recv(65_536)):
            received += more
        if closes:
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(1) == b""
    head, _, body = _final(received).partition(b"\r\n\r\n")
    return int(head.split()[1]), head.lower(), body


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (b"GET /v1/models HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (b"GET /v1/models HTTP/1.1\r\n" + HOST + b"X: a\r\n" * 200 + b"\r\n", 431),
        (b"GET /" + b"a" * 4200 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
        (POST + b"Content-Length: x\r\n\r\n{}", 400),
        (POST + b"Content-Length: -1\r\n\r\n{}", 400),
        (POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 501),
        (POST + b"Transfer-Encoding: foo\r\n\r\n{}", 501),
        (POST + b"Expect: foo\r\nContent-Length: 2\r\n\r\n{}", 417),
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET /v1/models HTTP/1.1\r\n" + HOST + b"Authorization Bearer key\r\n\r\n", 400),
    ],
)
def test_invalid_http_gets_an_error_in_the_format_of_the_api(stack, request_text, status):
    found, head, body = exchange(stack, request_text, closes=True)
    assert (found, b"application/json" in head) == (status, True)
    error = json.loads(body)["error"]
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "invalid_http", None)


@pytest.mark.parametrize("stream", [False, True])
def test_client_that_shuts_down_its_sending_side_gets_the_response(stack, stream):
    fields = {"model": MODEL, "messages": user("Count to 50."), "max_tokens": 40, "stream": stream}
    body = json.dumps(fields).encode()
    status, _, received = exchange(stack, POST + b"Content-Length: %d\r\n\r\n" % len(body) + body, half_close=True)
    assert status == 200
    assert (b"[DONE]" if stream else b'"completion_tokens":40') in received
    assert b"100 Continue" not in received

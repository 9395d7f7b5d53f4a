"""Requests of commands to a running Trident, or to another server with OpenAI's API."""

import contextlib
import json
import mimetypes
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from trident.cli.attachments import read_file
from trident.cli.options import fail

_SECONDS = 600.0
_LIST_SECONDS = 30.0


class ServerError(Exception):
    """A request failed. `status` is the HTTP status, or 0 if the server did not respond."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class Server:
    """The server at `url`. `headers` has the key, if any. `is_local` is whether the server is on this machine.

    All methods raise ServerError.
    """

    def __init__(self, url: str, headers: Mapping[str, str], is_local: bool):
        self.url, self._headers, self.is_local = url.rstrip("/"), dict(headers), is_local

    def models(self) -> list[dict[str, Any]]:
        """Return the models that the server lists."""
        with self._opened("GET", "/v1/models", seconds=_LIST_SECONDS) as response:
            found: list[dict[str, Any]] = json.loads(response.read())["data"]
        return found

    def find(self, name: str) -> dict[str, Any] | None:
        """Return the model with this ID, name, task or alias, or None if the server does not have it."""
        from urllib.parse import quote

        path = f"/v1/models/{quote(name.encode(errors='replace'))}"
        try:
            with self._opened("GET", path, seconds=_LIST_SECONDS) as response:
                found: dict[str, Any] = json.loads(response.read())
        except ServerError as error:
            if error.status not in (404, 405):
                raise
            # Some servers have only the list.
            return next((model for model in self.models() if model["id"] == name), None)
        return found

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the response to a JSON request."""
        with self._opened("POST", path, _encode(body), _JSON | {"Accept": "application/json"}) as response:
            found: dict[str, Any] = json.loads(response.read())
        return found

    def chunks(self, path: str, body: Mapping[str, Any]) -> Iterator[bytes]:
        """Yield the parts of a streamed response to a JSON request as they arrive."""
        with self._opened("POST", path, _encode(body), _JSON) as response:
            while chunk := response.read1(1 << 16):
                yield chunk

    def events(self, path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the data of the server-sent events of a response. Raises ServerError if one of them is an error."""
        with self._opened("POST", path, _encode(body), _JSON) as response:
            is_complete = False
            for line in response:
                if not line.startswith(b"data:"):
                    continue
                data = line[5:].strip()
                if data == b"[DONE]":
                    is_complete = True
                    continue  # read to the end, so that the connection closes in good order
                event = json.loads(data)
                if error := event.get("error"):
                    raise ServerError(500, str(error.get("message") if isinstance(error, dict) else error))
                yield event
        if not is_complete:
            raise ServerError(0, f"{self.url} ended the response early")

    def upload(self, path: str, fields: Mapping[str, str], name: str, file: Path) -> bytes:
        """Return the response to a form with one file in the field `name`."""
        import secrets

        boundary = secrets.token_hex(16)
        parts = []
        for field, value in fields.items():
            parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n')
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        name_text = file.name.encode(errors="replace").decode()
        quoted = name_text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
        parts.append(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{quoted}"\r\n'
            f"Content-Type: {kind}\r\n\r\n"
        )
        body = "".join(parts).encode() + read_file(file) + f"\r\n--{boundary}--\r\n".encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        with self._opened("POST", path, body, headers) as response:
            content: bytes = response.read()
        return content

    @contextlib.contextmanager
    def _opened(
        self,
        method: str,
        path: str,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = _SECONDS,
    ) -> Iterator[Any]:
        """Open a response. Errors of the connection and of the server are raised as ServerError, also while reading."""
        import http.client
        import urllib.error

        all_headers = {**self._headers, **(headers or {})}
        try:
            with open_url(method, f"{self.url}{path}", data, all_headers, seconds, self.is_local) as response:
                yield response
        except urllib.error.HTTPError as error:
            with error:
                raise ServerError(error.code, error_message(error.read(), error.code)) from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or str(error) or type(error).__name__
            raise ServerError(0, f"{self.url} does not respond: {reason}") from error


_JSON = {"Content-Type": "application/json"}


def _encode(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body).encode()


def key_headers(key: str | None) -> dict[str, str]:
    """Return the header with an API key, if there is one. Raise UsageError if it cannot be a key."""
    if key and not (key.isascii() and key.isprintable()):
        raise click.UsageError("The API key contains invalid characters")
    return {"Authorization": f"Bearer {key}"} if key else {}


def require_url(url: str) -> str:
    """Return the URL of a server without the path of the API. Raise UsageError if it is malformed."""
    if not url.startswith(("http://", "https://")):
        raise click.UsageError("--url must be http://HOST:PORT or https://HOST")
    return url.rstrip("/").removesuffix("/v1")


def is_this_machine(url: str) -> bool:
    """Return whether a URL names this machine, so that no proxy may get the request."""
    from ipaddress import ip_address
    from urllib.parse import urlsplit

    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def open_url(
    method: str, url: str, data: bytes | None, headers: Mapping[str, str], seconds: float, is_local: bool
) -> Any:
    """Send a request and return the response, to be closed by the caller.

    Neither a redirect nor, on this machine, a proxy gets the key. Raises HTTPError for an error response, OSError or
    HTTPException if there is no response, and ValueError if the URL is not valid.
    """
    import urllib.request

    handlers: list[Any] = [_no_redirect()] + ([urllib.request.ProxyHandler({})] if is_local else [])
    request = urllib.request.Request(url, data, dict(headers), method=method)
    return urllib.request.build_opener(*handlers).open(request, timeout=seconds)


def send(
    method: str,
    url: str,
    body: dict[str, Any] | None,
    headers: Mapping[str, str],
    *,
    seconds: float,
    is_local: bool = True,
) -> tuple[int, bytes]:
    """Send a request to an instance, and return the status and the body of the response, also of an error response.

    Raises OSError if there is none, and ValueError if the URL is not valid.
    """
    import http.client  # slow to import, and not needed for --help
    import urllib.error

    data = None if body is None else json.dumps(body).encode()
    try:
        with open_url(
            method, url, data, headers if body is None else {**_JSON, **headers}, seconds, is_local
        ) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error


def error_message(content: bytes, status: int) -> str:
    """Return the message of an error response, in the shape of OpenAI's API or of the management API."""
    try:
        body = json.loads(content)
        return str(body.get("message") or body["error"]["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"The server responded with status {status}"


@contextlib.contextmanager
def failures_reported() -> Iterator[None]:
    """Exit with the server's message if a request fails."""
    try:
        yield
    except ServerError as error:
        fail(f"{error}{key_hint(error.status, 'an API key')}")


def key_hint(status: int, kind: str) -> str:
    """Return how to send a key of this kind, if a request was denied and the environment has none."""
    is_denied = status in (401, 403) and not os.environ.get("TRIDENT_API_KEY")
    return f"; set TRIDENT_API_KEY to {kind}" if is_denied else ""


def _no_redirect() -> Any:
    import urllib.request

    class NoRedirect(urllib.request.HTTPRedirectHandler):
        """Follows no redirects."""

        def redirect_request(self, *_: Any, **__: Any) -> None:
            return None

    return NoRedirect()

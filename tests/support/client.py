"""A blocking HTTP/1.1 client that keeps bytes as they are: raw header values, chunk timing, a hang-up at will."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

TIMEOUT_SECONDS = 20.0
Headers = dict[str, str]


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer; header names in lower case, the last of equal ones. `cut` when it ended early."""

    status: int
    headers: dict[str, str]
    body: bytes
    cut: bool = False

    def json(self) -> Any:
        return json.loads(self.body)


def call_body(model: str | None, stream: bool, include_usage: bool, extra: dict[str, Any]) -> bytes:
    """A chat completion request."""
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}
    if model is not None:
        body = {"model": model, **body}
    if stream:
        body["stream"] = True
        if include_usage:
            body["stream_options"] = {"include_usage": True}
    return json.dumps(body | extra).encode()


class Client:
    """Calls one port of 127.0.0.1, a connection a call unless `connection` is used."""

    def __init__(self, port: int) -> None:
        self.port = port

    @property
    def url(self) -> str:
        """Base URL without a trailing slash."""
        return f"http://127.0.0.1:{self.port}"

    def chat(
        self, model: str | None = "gpt-4o", *, stream: bool = False, include_usage: bool = True,
        headers: Headers | None = None, path: str = "/v1/chat/completions", **extra: Any,
    ) -> Reply:
        """A chat completion; further keywords go into the body. Header values are Latin-1, so "\\xff" is one byte."""
        return self.send("POST", path, call_body(model, stream, include_usage, extra), headers)

    def send(
        self, method: str, path: str, body: bytes | Iterator[bytes] | None = None, headers: Headers | None = None
    ) -> Reply:
        """Any request; an iterator is sent chunked. Raises ConnectionError when there is no answer at all."""
        with self.open(method, path, body, headers) as response:
            found = {k.lower(): v for k, v in response.getheaders()}
            try:
                return Reply(response.status, found, response.read())
            except http.client.IncompleteRead as error:
                return Reply(response.status, found, error.partial, cut=True)
            except ConnectionError:
                return Reply(response.status, found, b"", cut=True)

    @contextmanager
    def open(
        self, method: str, path: str, body: bytes | Iterator[bytes] | None = None, headers: Headers | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """The answer as it begins; leaving the block hangs up, whatever is unread."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_SECONDS)
        sent = {"content-type": "application/json", **(headers or {})}
        try:
            chunked = body is not None and not isinstance(body, bytes)
            connection.request(method, path, body, sent, encode_chunked=chunked)
            yield connection.getresponse()
        finally:
            connection.close()

    def hang_up(self, after_bytes: int, model: str = "gpt-4o", headers: Headers | None = None) -> Reply:
        """Stream, read at least `after_bytes` of the body, and leave."""
        body = call_body(model, True, True, {})
        with self.open("POST", "/v1/chat/completions", body, headers) as response:
            read = b""
            while len(read) < after_bytes and (part := response.read1(after_bytes)):
                read += part
            found = {k.lower(): v for k, v in response.getheaders()}
            return Reply(response.status, found, read, cut=True)


def slowly(parts: list[bytes], delay_seconds: float) -> Iterator[bytes]:
    """A body that is sent a part at a time."""
    for part in parts:
        yield part
        time.sleep(delay_seconds)

"""A raw HTTP/1.1 connection, for requests that no client library sends: half of one, one with bytes that are not text,
one that goes on after its answer."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Sequence

from support.client import TIMEOUT_SECONDS

READ_BYTES = 1 << 16
CHAT = b"/v1/chat/completions"


def request_head(
    path: bytes = CHAT, headers: Sequence[tuple[bytes, bytes]] = (), *, method: bytes = b"POST",
    length: int | None = None,
) -> bytes:
    """A request's first line and headers; chunked unless there is a length."""
    framing = (b"transfer-encoding", b"chunked") if length is None else (b"content-length", b"%d" % length)
    lines = [(b"host", b"gateway.test"), (b"content-type", b"application/json"), framing, *headers]
    return b"%b %b HTTP/1.1\r\n%b\r\n" % (method, path, b"".join(b"%b: %b\r\n" % line for line in lines))


class Wire:
    """One connection to a port of 127.0.0.1; everything read is kept in `seen`."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.seen = b""

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> Wire:
        self.socket.sendall(data)
        return self

    def readable(self, seconds: float) -> bool:
        """Whether something has arrived, or does within `seconds`."""
        return bool(select.select([self.socket], [], [], seconds)[0])

    def _read(self) -> bool:
        try:
            part = self.socket.recv(READ_BYTES)
        except ConnectionResetError:
            return False
        self.seen += part
        return bool(part)

    def read_until(self, end: bytes) -> bytes:
        """What has arrived, once it holds `end`."""
        while end not in self.seen:
            assert self._read(), f"closed before {end!r}: {self.seen!r}"
        return self.seen

    def read_to_end(self) -> bytes:
        """What has arrived when the peer closes."""
        while self._read():
            pass
        return self.seen

    def reset(self) -> None:
        """Leave with RST instead of FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def header(answer: bytes, name: bytes) -> bytes | None:
    """A header of a raw answer."""
    lines = answer.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    pairs = (line.partition(b":") for line in lines)
    return next((value.strip() for own, _, value in pairs if own.lower() == name), None)

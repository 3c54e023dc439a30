"""A small HTTP/1.1 server on raw asyncio streams, for upstreams whose every byte a test decides.

Server frameworks mend what they are given: they merge writes, fix lengths, drop invalid bytes and finish what a
handler left open. A test of a proxy needs the opposite, so this file only parses requests and gives the handler the
connection. Headers are decoded as Latin-1, which keeps every byte. The server runs in a thread of its own, so that
blocking tests can talk to it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import ssl
import struct
import threading
from dataclasses import dataclass, field
from typing import TypeVar

HEAD_LIMIT_BYTES = 1 << 20
READ_BYTES = 1 << 16
S = TypeVar("S", bound="Server")
REASONS = {
    100: "Continue", 101: "Switching Protocols", 200: "OK", 202: "Accepted", 204: "No Content", 302: "Found", 307: "Temporary Redirect",
    400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 413: "Payload Too Large", 429: "Too Many Requests",
    500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Unavailable", 529: "Overloaded",
}


@dataclass(slots=True)
class Head:
    """A request's first line and headers, in the order and spelling received."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    lookup: dict[str, str] = field(repr=False)

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    def header(self, name: str, default: str = "") -> str:
        """The last value of a header; `name` in lower case."""
        return self.lookup.get(name, default)


@dataclass(slots=True)
class Body:
    """A request's body as it arrived; `trailers` only when it was chunked."""

    data: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)

    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def parse_headers(lines: list[bytes]) -> list[tuple[str, str]]:
    """Header lines as pairs; a line without a colon is kept as a name with an empty value."""
    pairs = []
    for line in lines:
        name, _, value = line.decode("latin-1").partition(":")
        pairs.append((name, value.strip(" \t")))
    return pairs


def response_head(status: int, headers: list[tuple[str, str]]) -> bytes:
    """A status line and headers, ready to write."""
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}", *(f"{k}: {v}" for k, v in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Connection:
    """One accepted connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def read_head(self) -> Head | None:
        """The next request's head, or None when the peer is done."""
        try:
            raw = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = raw[:-4].split(b"\r\n")
        method, target, _version = first.decode("latin-1").split(" ", 2)
        headers = parse_headers(lines)
        return Head(method, target, headers, {k.lower(): v for k, v in headers})

    async def read_body(self, head: Head) -> Body:
        """The whole body of the request that `head` began."""
        if head.header("expect").lower() == "100-continue":
            self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" in head.header("transfer-encoding").lower():
            parts = []
            while size := int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16):
                parts.append(await self.reader.readexactly(size))
                await self.reader.readexactly(2)
            trailers = []
            while (line := await self.reader.readuntil(b"\r\n")) != b"\r\n":
                trailers.append(line[:-2])
            return Body(b"".join(parts), parse_headers(trailers))
        length = int(head.header("content-length", "0"))
        return Body(await self.reader.readexactly(length) if length else b"")

    async def send(self, data: bytes) -> None:
        """Write and wait for room; raises ConnectionError when the peer is gone."""
        if self.writer.transport.is_closing():
            raise ConnectionResetError("peer closed")
        self.writer.write(data)
        await self.writer.drain()

    async def wait_closed_by_peer(self) -> None:
        """Swallow whatever arrives until the peer closes."""
        while await self.reader.read(READ_BYTES):
            pass

    def reset(self) -> None:
        """Close with RST instead of FIN: what is unsent is lost."""
        sock = self.writer.get_extra_info("socket")
        if sock is not None and sock.fileno() >= 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def send_json(self, status: int, value: object) -> None:
        """A small JSON answer, for control endpoints."""
        data = json.dumps(value).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(data)))]
        await self.send(response_head(status, headers) + data)


class Server:
    """A server on 127.0.0.1 in a background thread; subclasses implement `exchange`. With `tls` it speaks TLS."""

    def __init__(self, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.port = port
        self.tls = tls
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._failed: BaseException | None = None
        self._stop: asyncio.Event | None = None

    async def exchange(self, conn: Connection, head: Head) -> bool:
        """Answer one request; True keeps the connection for the next."""
        raise NotImplementedError

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        conn = Connection(reader, writer)
        try:
            while (head := await conn.read_head()) is not None:
                if not await self.exchange(conn, head):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _main(self, ready: threading.Event) -> None:
        self._stop = asyncio.Event()
        tasks: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._serve(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        try:
            server = await asyncio.start_server(
                accept, "127.0.0.1", self.port, limit=HEAD_LIMIT_BYTES, backlog=1024, ssl=self.tls
            )
        except OSError as error:
            self._failed = error
            ready.set()
            return
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._stop.wait()
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def start(self: S) -> S:
        """Listen; raises OSError when the port is taken."""
        ready = threading.Event()
        self._failed = None

        def run() -> None:
            self._loop = asyncio.new_event_loop()
            try:
                self._loop.run_until_complete(self._main(ready))
            finally:
                self._loop.close()

        self._thread = threading.Thread(target=run, name=type(self).__name__, daemon=True)
        self._thread.start()
        ready.wait()
        if self._failed is not None:
            self._thread.join()
            raise self._failed
        return self

    def stop(self) -> None:
        """Close the listener and every connection; a stopped server may be started again on its port."""
        if self._thread is None or self._loop is None or self._stop is None:
            return
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)
        self._thread = None

    def __enter__(self: S) -> S:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self.stop()

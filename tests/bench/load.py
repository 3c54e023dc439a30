"""Calls to measure with, and both ends of them: a client and an upstream on one event loop.

The CPU time of Envoy is what is measured, so this side need not be fast. It only has to keep the worker busy and to be
the same for every Envoy: bytes prepared beforehand, connections kept alive, nothing parsed that need not be.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

CONNECTIONS = 16
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding: chunked", re.IGNORECASE)
END_OF_CHUNKS = b"\r\n0\r\n\r\n"
END_OF_HEAD = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Call:
    """One kind of call: what is sent, and the pieces of the answer, each written `pause_ms` after the one before."""

    name: str
    request: bytes
    reply: list[bytes] = field(repr=False)
    body: bytes = field(repr=False)
    calls_per_round: int
    pause_ms: float = 0


def request(path: str, body: bytes, headers: dict[str, str], method: str = "POST") -> bytes:
    """A request, its body JSON."""
    head = {"host": "llm.test", "content-type": "application/json", "content-length": str(len(body)), **headers}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items())]
    return "\r\n".join(lines).encode() + END_OF_HEAD + body


def sized(body: bytes, headers: dict[str, str]) -> list[bytes]:
    """An answer in one write, with its length."""
    return [_head({**headers, "content-length": str(len(body))}) + body]


def chunked(pieces: list[bytes], headers: dict[str, str]) -> list[bytes]:
    """An answer in a write per piece, each a chunk."""
    parts = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
    parts[0] = _head({**headers, "transfer-encoding": "chunked"}) + parts[0]
    parts[-1] += b"0\r\n\r\n"
    return parts


def _head(headers: dict[str, str]) -> bytes:
    return b"HTTP/1.1 200 OK\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items()).encode() + b"\r\n"


def _take_request(buffer: bytearray) -> bool:
    """Removes the first request from `buffer`; false while it is incomplete."""
    end = buffer.find(END_OF_HEAD)
    if end < 0:
        return False
    found = LENGTH.search(buffer, 0, end)
    body = end + len(END_OF_HEAD)
    size = body + (int(found[1]) if found else 0)
    if CHUNKED.search(buffer, 0, end):
        # The filter may make a request longer, so it goes on in chunks.
        last = buffer.find(END_OF_CHUNKS, body)
        if last < 0:
            return False
        size = last + len(END_OF_CHUNKS)
    if len(buffer) < size:
        return False
    del buffer[:size]
    return True


class Upstream:
    """The provider: every request on it is answered with the `reply` of the moment."""

    def __init__(self) -> None:
        self.call: Call | None = None
        self.port = 0
        self._server: asyncio.Server | None = None
        self._streams: list[tuple[asyncio.Transport, list[bytes]]] = []
        self._pacer: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen on a port of the kernel's choice."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Answering(self), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def answer(self, transport: asyncio.Transport) -> None:
        """Begin the answer to one request."""
        assert self.call is not None
        if len(self.call.reply) == 1:
            transport.write(self.call.reply[0])
            return
        self._streams.append((transport, self.call.reply[::-1]))
        if self._pacer is None or self._pacer.done():
            self._pacer = asyncio.ensure_future(self._pace(self.call.pause_ms / 1000))

    async def _pace(self, pause_seconds: float) -> None:
        """One piece of each stream, then a pause: Envoy has forwarded it when the next one comes."""
        while self._streams:
            streams, self._streams = self._streams, []
            for transport, pieces in streams:
                if not transport.is_closing():
                    transport.write(pieces.pop())
            self._streams += [stream for stream in streams if stream[1] and not stream[0].is_closing()]
            await asyncio.sleep(pause_seconds)


class _Answering(asyncio.Protocol):
    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while _take_request(self._buffer):
            self._upstream.answer(self._transport)


class LoadError(Exception):
    """An answer was not what the upstream had sent."""


class Client:
    """Keeps `CONNECTIONS` calls in flight to one port. `chunks` counts the pieces in which bodies of the last round
    came: Envoy writes one per piece that went through its filters."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.chunks = 0
        self._calling: list[_Calling] = []

    async def connect(self) -> None:
        """Open every connection; they stay open between rounds."""
        loop = asyncio.get_running_loop()
        for _ in range(CONNECTIONS):
            _, protocol = await loop.create_connection(_Calling, "127.0.0.1", self.port)
            self._calling.append(protocol)

    async def round(self, call: Call, calls: int) -> None:
        """Make `calls` calls and check every answer."""
        self.chunks = 0
        budget = iter(range(calls))
        await asyncio.gather(*(calling.run(call, budget, self) for calling in self._calling))

    def close(self) -> None:
        """Hang up."""
        for calling in self._calling:
            calling.transport.close()


class _Calling(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._answered: asyncio.Future[None] | None = None
        self._wanted = b""
        self._chunks = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    async def run(self, call: Call, budget: Iterator[int], client: Client) -> None:
        loop = asyncio.get_running_loop()
        for _ in budget:
            self._wanted, self._answered = call.body, loop.create_future()
            self.transport.write(call.request)
            await self._answered
            client.chunks += self._chunks

    def connection_lost(self, _error: Exception | None) -> None:
        self._settle(LoadError("Envoy closed the connection"))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(END_OF_HEAD)
        if end < 0:
            return
        found = LENGTH.search(self._buffer, 0, end)
        body = memoryview(self._buffer)[end + len(END_OF_HEAD) :].tobytes()
        if found:
            if len(body) < int(found[1]):
                return
            self._chunks = 1
        else:
            if not body.endswith(b"0\r\n\r\n"):
                return
            pieces = list(_dechunk(body))
            body, self._chunks = b"".join(pieces), len(pieces)
        intact = self._buffer.startswith(b"HTTP/1.1 200 ") and body == self._wanted
        self._buffer.clear()
        self._settle(None if intact else LoadError("an answer is not what the upstream sent"))

    def _settle(self, error: LoadError | None) -> None:
        answered, self._answered = self._answered, None
        if answered is None or answered.done():
            return
        if error is None:
            answered.set_result(None)
        else:
            answered.set_exception(error)


def _dechunk(body: bytes) -> Iterator[bytes]:
    """The pieces of a chunked body."""
    at = 0
    while size := int(body[at : (line := body.index(b"\r\n", at))], 16):
        yield body[line + 2 : line + 2 + size]
        at = line + 4 + size

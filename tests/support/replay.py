"""A replay provider: answers LLM calls with the bodies in tests/fixtures, byte for byte, and fails on command.

Why not a mock library: what a meter gets wrong lives in the bytes (where a write ends, what a gzip block holds, which
chunk says `usage`), so the bodies keep the real providers' shape and each request chooses its own fault. By default
the fixture is picked by path, query, request model (in the body, a form field or the path) and whether a stream is
asked for. An OpenAI chat echoes the model in its dated form and has a unique id, as the real API does, and without
`stream_options.include_usage` its stream carries no usage. Other APIs' fixtures, and any asked for by name, are served
verbatim. A WebSocket is opened and sends back what it gets. What arrived is kept in `Replay.requests` and at `GET
/_replay/requests` (`DELETE` forgets it).

Request headers that steer an answer (all optional):

    x-replay-fixture         file name in tests/fixtures, served verbatim
    x-replay-body            JSON to serve in place of a fixture
    x-replay-status          status; with 4xx or 5xx and no fixture, an OpenAI error body
    x-replay-usage           input,cached,output,reasoning: put these numbers into the usage
    x-replay-chunk           bytes per write (1, 5, 7, ...) or `whole`; default: an event, or a whole JSON body
    x-replay-delay-ms        pause between writes            x-replay-wait-ms    pause before the answer
    x-replay-gzip            1: compressed, a flush per event; auto: if the request accepts it
    x-replay-content-type    another content-type, or `none`
    x-replay-claims          a content-encoding to name, whatever the body is
    x-replay-content-length  1: content-length, 0: chunked; default: chunked for streams and gzip
    x-replay-fault           reset-before-headers, reset-after-headers, reset-mid-body (RST), close-mid-body (FIN),
                             early-answer (before the request body is read), no-body (204, or content-length 0 with
                             x-replay-status), hang, hang-mid-body, trailers (chunked, `x-replay-trailer: end`),
                             short-body (ends properly in the middle)
    x-replay-fault-after     body bytes sent before a mid-body fault, or of a short body; default: half. With trailers:
                             the body's; default: all

Run alone: python3 tests/support/replay.py --port 10001 --event-delay-ms 30
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import re
import sys
import time
import zlib
from collections import deque
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import unquote

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support import eventstream
from support.http1 import READ_BYTES, Body, Connection, Head, Server, chunk, response_head

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
KEPT_BODY_BYTES = 1 << 16
KEPT_REQUESTS = 20_000
# Long enough for Envoy to have read what was written before a reset discards the rest.
SETTLE_SECONDS = 0.05
WEBSOCKET_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# Their answers are streams whatever the body says; Ollama's unless it says no.
STREAM_PATHS = (":streamGenerateContent", ":streamRawPredict", "/converse-stream", "/invoke-with-response-stream")
STREAM_UNLESS_REFUSED = ("/api/chat", "/api/generate")
USAGE_KEYS = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")


@dataclass(slots=True, frozen=True)
class Fixture:
    """One file of tests/fixtures with its line in index.json."""

    name: str
    data: bytes
    meta: dict[str, Any] = field(repr=False)

    @property
    def own(self) -> bool:
        """Whether it is the answer to one request, given in the index, and never changed to fit another."""
        return "method" in self.meta

    def pieces(self, include_usage: bool = True) -> list[bytes]:
        """The body as a provider writes it: an event, line, frame or array element at a time."""
        kind = self.meta["content_type"] or ""
        if not self.meta["stream"]:
            return [self.data]
        if kind == eventstream.CONTENT_TYPE:
            return list(eventstream.split(self.data))
        if "json" in kind:
            return re.findall(rb".*?\r\n,|.+" if self.data[:1] == b"[" else rb".*?\n", self.data, re.DOTALL)
        if b"\r\n\r\n" in self.data:
            return [e + b"\r\n\r\n" for e in self.data.split(b"\r\n\r\n") if e]
        return events(self.data, include_usage or (self.own and not self.meta.get("include_usage")))

    def matches(self, path: str, query: str, model: str, stream: bool) -> tuple[int, bool] | None:
        """How closely the fixture fits a call: longer path pattern first, then a named model."""
        serve = self.meta.get("serve")
        if serve is None or self.meta["stream"] != stream or serve.get("query", "") not in query:
            return None
        paths = [p for p in serve["path"].split("|") if fnmatchcase(path, p)]
        models = [m for m in serve["model"].split("|") if fnmatchcase(model, m)]
        return (max(map(len, paths)), models[0] != "*") if paths and models else None


@lru_cache(maxsize=1)
def fixtures() -> dict[str, Fixture]:
    """Every fixture by file name."""
    index = json.loads((FIXTURES / "index.json").read_text(encoding="utf-8"))["fixtures"]
    return {e["file"]: Fixture(e["file"], (FIXTURES / e["file"]).read_bytes(), e) for e in index}


@lru_cache(maxsize=1024)
def pick(target: str, model: str, stream: bool) -> Fixture | None:
    """The fixture that fits a call best, if any."""
    path, _, query = target.partition("?")
    found = ((f.matches(path, query, model, stream), f) for f in fixtures().values())
    scored = [(score, f) for score, f in found if score is not None]
    return max(scored, key=lambda pair: pair[0])[1] if scored else None


@lru_cache(maxsize=1)
def dated_models() -> dict[str, str]:
    """The model name a provider answers with, by the name asked for."""
    metas = [f.meta for f in fixtures().values() if not f.own]
    return {m["request_model"]: m["response_model"] for m in metas if "response_model" in m}


def asked(head: Head, body: Body | None) -> tuple[str, bool, bool]:
    """What a request wants: its model, whether a stream, and whether usage in it."""
    call: dict[str, Any] = {}
    data = body.data if body is not None else b""
    if data[:1] == b"{":
        try:
            call = json.loads(data)
        except ValueError:
            pass
    elif head.header("content-type").startswith("multipart/form-data"):
        form = re.findall(rb'name="?(model|stream)"?\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]*)', data)
        call = {name.decode(): value.decode("utf-8", "replace") for name, value in form}
        call["stream"] = call.get("stream") == "true"
    named = re.search(r"/models?/([^/:]+)", head.path)
    model = str(call.get("model") or (unquote(named[1]) if named else ""))
    default = head.path in STREAM_UNLESS_REFUSED
    stream = head.path.endswith(STREAM_PATHS) or call.get("stream", default) is True
    options = call.get("stream_options")
    return model, stream, isinstance(options, dict) and options.get("include_usage") is True


def events(data: bytes, include_usage: bool) -> list[bytes]:
    """A stream's events, as sent with or without `include_usage`."""
    whole = [e + b"\n\n" for e in data.split(b"\n\n") if e]
    if include_usage:
        return whole
    silent = [e for e in whole if not (b'"choices":[]' in e and b'"usage":{' in e)]
    return [e.replace(b',"usage":null', b"") for e in silent]


def with_usage(data: bytes, spec: str) -> bytes:
    """The body with other numbers in its usage; keys that it lacks stay absent."""
    numbers = [int(n) for n in spec.split(",")]
    for key, number in zip(USAGE_KEYS, numbers):
        data = re.sub(rb'("%b": ?)\d+' % key.encode(), rb"\g<1>%d" % number, data)
    return re.sub(rb'("total_tokens": ?)\d+', rb"\g<1>%d" % (numbers[0] + numbers[2]), data)


@dataclass(slots=True)
class Plan:
    """An answer, decided before its first byte is written."""

    status: int
    headers: list[tuple[str, str]]
    pieces: list[bytes]
    stream: bool
    fixture: str | None


def cut(data: bytes, size: int) -> list[bytes]:
    """`data` in pieces of `size` bytes."""
    return [data[i : i + size] for i in range(0, len(data), size)]


def gzip_pieces(pieces: list[bytes]) -> list[bytes]:
    """The pieces compressed as one gzip body, flushed after each so that a stream stays one."""
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    packed = [packer.compress(p) + packer.flush(zlib.Z_SYNC_FLUSH) for p in pieces[:-1]]
    last = packer.compress(pieces[-1]) if pieces else b""
    return [*packed, last + packer.flush()]


class Replay(Server):
    """The replay provider; `event_delay_ms` is the pause after each event of a stream that asks for none itself."""

    def __init__(self, port: int = 0, event_delay_ms: float = 0) -> None:
        super().__init__(port)
        self.event_delay_ms = event_delay_ms
        self.requests: deque[dict[str, Any]] = deque(maxlen=KEPT_REQUESTS)
        self._ids = count(1)

    def wait_for(self, number: int, timeout: float = 10) -> list[dict[str, Any]]:
        """The requests so far, once there are at least `number` and each has its outcome; else TimeoutError."""
        deadline = time.monotonic() + timeout
        while True:
            seen = list(self.requests)
            if len(seen) >= number and all(r["outcome"] for r in seen):
                return seen
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(seen)} requests, expected {number}: {[r['outcome'] for r in seen][-5:]}")
            time.sleep(0.01)

    def _plan(self, head: Head, body: Body | None) -> Plan:
        model, stream, include_usage = asked(head, body)
        name = head.header("x-replay-fixture") or None
        status = int(head.header("x-replay-status", "0"))
        usage = head.header("x-replay-usage")
        if own := head.header("x-replay-body"):
            return Plan(status or 200, [("content-type", "application/json")], [own.encode("latin-1")], False, None)
        if name is None and status >= 400:
            name = {429: "openai-error-429.json"}.get(status, f"openai-error-{'500' if status >= 500 else '400'}.json")
        fixture = fixtures()[name] if name else pick(head.target, model, stream)
        if fixture is None:
            data = json.dumps({"object": "replay", "path": head.path}).encode()
            return Plan(status or 200, [("content-type", "application/json")], [data], False, None)
        data, meta = fixture.data, fixture.meta
        if name is None and not fixture.own:
            data = self._echo(data, meta, dated_models().get(model, model))
        if usage:
            data = with_usage(data, usage)
        pieces = replace(fixture, data=data).pieces(include_usage or name is not None)
        headers = [("content-type", meta["content_type"])] if meta["content_type"] else []
        headers += meta.get("headers", {}).items()
        return Plan(status or meta["status"], headers, pieces, meta["stream"], fixture.name)

    def _echo(self, data: bytes, meta: dict[str, Any], model: str) -> bytes:
        found = re.search(rb'"id": ?"(chatcmpl-[^"]+)"', data)
        if found:
            fresh = b"chatcmpl-Replay%0*d" % (len(found[1]) - 15, next(self._ids))
            data = data.replace(found[1], fresh)
        if not model:
            return data
        old = re.escape(meta["response_model"].encode())
        return re.sub(rb'("model": ?)"%b"' % old, lambda m: m[1] + json.dumps(model).encode(), data)

    async def exchange(self, conn: Connection, head: Head) -> bool:
        if head.path.startswith("/_replay/"):
            return await self._control(conn, head)
        entry: dict[str, Any] = {
            "method": head.method, "path": head.target, "headers": [list(h) for h in head.headers],
            "body_len": None, "body_sha256": None, "body": None, "fixture": None, "outcome": None,
        }
        self.requests.append(entry)
        fault = head.header("x-replay-fault")
        try:
            if head.header("upgrade").lower() == "websocket":
                await self._echo_websocket(conn, head)
                entry["outcome"] = "websocket"
                return False
            body = None
            if fault != "early-answer":
                body = await self._receive(conn, head, entry)
            entry["outcome"] = await self._answer(conn, head, body, fault, entry)
            if fault == "early-answer":
                await self._receive(conn, head, entry)
        except (ConnectionError, asyncio.IncompleteReadError):
            entry["outcome"] = entry["outcome"] or "aborted"
            raise
        except asyncio.CancelledError:
            entry["outcome"] = entry["outcome"] or "stopped"
            raise
        keep = entry["outcome"] in ("complete", "early-answer", "no-body", "short-body", "trailers")
        return keep and head.header("connection").lower() != "close"

    async def _receive(self, conn: Connection, head: Head, entry: dict[str, Any]) -> Body:
        body = await conn.read_body(head)
        entry["body_len"] = len(body.data)
        entry["body_sha256"] = body.sha256()
        if len(body.data) <= KEPT_BODY_BYTES:
            entry["body"] = body.data.decode("utf-8", "replace")
        return body

    async def _answer(self, conn: Connection, head: Head, body: Body | None, fault: str, entry: dict[str, Any]) -> str:
        if wait := float(head.header("x-replay-wait-ms", "0")):
            await asyncio.sleep(wait / 1000)
        if fault == "reset-before-headers":
            conn.reset()
            return fault
        if fault == "hang":
            await conn.wait_closed_by_peer()
            return fault
        if fault == "no-body":
            status = int(head.header("x-replay-status", "204"))
            await conn.send(response_head(status, [] if status == 204 else [("content-length", "0")]))
            return fault
        plan = self._plan(head, body)
        entry["fixture"] = plan.fixture
        mode = head.header("x-replay-gzip")
        gzipped = mode == "1" or (mode == "auto" and "gzip" in head.header("accept-encoding"))
        pieces = gzip_pieces(plan.pieces) if gzipped else plan.pieces
        if size := head.header("x-replay-chunk"):
            whole = b"".join(pieces)
            pieces = [whole] if size == "whole" else cut(whole, int(size))
        total = sum(map(len, pieces))
        after = min(int(head.header("x-replay-fault-after", str(total // 2))), total)
        if fault == "short-body" or (fault == "trailers" and head.header("x-replay-fault-after")):
            pieces, total = self._until(pieces, after), after
        sized = head.header("x-replay-content-length", "0" if plan.stream or gzipped else "1") == "1"
        if fault == "trailers":
            sized = False
        if kind := head.header("x-replay-content-type"):
            plan.headers[:] = [h for h in plan.headers if h[0] != "content-type"]
            plan.headers += [] if kind == "none" else [("content-type", kind)]
        headers = [*plan.headers, ("x-request-id", f"req_replay_{next(self._ids)}")]
        if encoding := head.header("x-replay-claims", "gzip" if gzipped else ""):
            headers.append(("content-encoding", encoding))
        if fault == "trailers":
            headers.append(("trailer", "x-replay-trailer"))
        headers.append(("content-length", str(total)) if sized else ("transfer-encoding", "chunked"))
        first = response_head(plan.status, headers)
        if head.method == "HEAD":
            await conn.send(first)
            return "complete"
        if fault == "reset-after-headers":
            await conn.send(first)
            await asyncio.sleep(SETTLE_SECONDS)
            conn.reset()
            return fault
        end = b"" if sized else b"0\r\nx-replay-trailer: end\r\n\r\n" if fault == "trailers" else b"0\r\n\r\n"
        if fault.endswith("-mid-body"):
            pieces = self._until(pieces, after)
            end = b""
        own = self.event_delay_ms if plan.stream else 0.0
        await self._write(conn, first, pieces, end, sized, float(head.header("x-replay-delay-ms", str(own))) / 1000)
        if fault == "reset-mid-body":
            await asyncio.sleep(SETTLE_SECONDS)
            conn.reset()
        elif fault == "hang-mid-body":
            await conn.wait_closed_by_peer()
        return fault or "complete"

    @staticmethod
    async def _echo_websocket(conn: Connection, head: Head) -> None:
        """Agrees to a WebSocket (RFC 6455) and sends every byte back; frames are not looked into."""
        key = hashlib.sha1((head.header("sec-websocket-key") + WEBSOCKET_GUID).encode()).digest()
        accept = ("sec-websocket-accept", base64.b64encode(key).decode())
        await conn.send(response_head(101, [("upgrade", "websocket"), ("connection", "Upgrade"), accept]))
        while data := await conn.reader.read(READ_BYTES):
            await conn.send(data)

    @staticmethod
    def _until(pieces: list[bytes], size: int) -> list[bytes]:
        kept = []
        for piece in pieces:
            if size <= 0:
                break
            kept.append(piece[:size])
            size -= len(piece)
        return kept

    @staticmethod
    async def _write(
        conn: Connection, first: bytes, pieces: list[bytes], end: bytes, sized: bool, delay: float
    ) -> None:
        framed = pieces if sized else [chunk(p) for p in pieces]
        if len(framed) <= 1 and not delay:
            await conn.send(first + b"".join(framed) + end)
            return
        await conn.send(first)
        for piece in framed:
            await conn.send(piece)
            # Even without a delay each piece is its own write, and the loop serves others in between.
            await asyncio.sleep(delay)
        if end:
            await conn.send(end)

    async def _control(self, conn: Connection, head: Head) -> bool:
        await conn.read_body(head)
        if head.method == "DELETE":
            self.requests.clear()
        await conn.send_json(200, list(self.requests))
        return True


def main() -> int:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="replay provider on 127.0.0.1")
    parser.add_argument("--port", type=int, default=10001)
    parser.add_argument("--event-delay-ms", type=float, default=0)
    options = parser.parse_args()
    server = Replay(options.port, options.event_delay_ms)
    with server:
        print(f"replay provider on http://127.0.0.1:{server.port}", flush=True)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            return 0


if __name__ == "__main__":
    sys.exit(main())

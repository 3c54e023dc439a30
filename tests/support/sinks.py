"""Sinks as strict as their documentation says they are: one model for each folder of examples/sinks.

A model takes what the real one takes and answers as it answers; what it would refuse it refuses, and says why. What it
has stored is in `records`, with exact numbers.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections import deque
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar

import msgpack

from support.http1 import Connection, Head, Server, response_head

Record = dict[str, Any]
MEGABYTE = 1_000_000
MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """What a sink says."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


class RefusedError(Exception):
    """A sink does not take this request."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(f"{status}: {why}")
        self.status = status


def need(met: bool, status: int, why: str) -> None:
    if not met:
        raise RefusedError(status, why)


def parse(text: bytes, status: int = 400) -> Any:
    """A JSON value with exact numbers."""
    try:
        return json.loads(text, parse_float=Decimal)
    except ValueError as error:
        raise RefusedError(status, f"no JSON: {error}") from error


def objects(value: Any, status: int = 400) -> list[Record]:
    """A list of objects, or one."""
    values = value if isinstance(value, list) else [value]
    need(all(isinstance(one, dict) for one in values), status, "not an object")
    return values


def lines(body: bytes) -> list[Record]:
    """One object a line."""
    return [record for line in body.split(b"\n") if line.strip() for record in objects(parse(line))]


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came, and what it was answered."""

    head: Head
    body: bytes
    status: int


class Model(Server):
    """A sink. `faults` are answered first, one a request, without anything being stored."""

    success: ClassVar[Answer] = Answer(200)
    busy: ClassVar[Answer] = Answer(503)
    # What a request may hold, and how many bytes it may have.
    most_records: ClassVar[int | None] = None
    most_bytes: ClassVar[int] = 64 * MEBIBYTE
    # The header with the key, and its value; the example's cluster adds it from a file.
    secret: ClassVar[tuple[str, str] | None] = None

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls=tls)
        self.requests: list[Request] = []
        self.records: list[Record] = []
        self.refusals: list[str] = []
        self.faults: deque[Answer] = deque()

    def read(self, head: Head, body: bytes) -> list[Record]:
        """The records of a request that is taken."""
        raise NotImplementedError

    def store(self, records: list[Record]) -> None:
        self.records += records

    async def exchange(self, conn: Connection, head: Head) -> bool:
        body = (await conn.read_body(head)).data
        answer = self.success
        try:
            need(head.method == "POST", 405, head.method)
            need(len(body) <= self.most_bytes, 413, f"{len(body)} bytes")
            if self.secret:
                name, value = self.secret
                need(head.header(name) == value, 401, f"{name}: {head.header(name)!r}")
            records = self.read(head, body)
            need(self.most_records is None or len(records) <= self.most_records, 413, f"{len(records)} records")
            if self.faults:
                answer = self.faults.popleft()
            else:
                self.store(records)
        except RefusedError as refusal:
            self.refusals.append(str(refusal))
            answer = Answer(refusal.status, body=str(refusal).encode())
        self.requests.append(Request(head, body, answer.status))
        length = () if answer.status == 204 else (("content-length", str(len(answer.body))),)
        await conn.send(response_head(answer.status, [*answer.headers, *length]) + answer.body)
        return True


class ClickHouse(Model):
    """Its HTTP handler: the statement in the URL, the data in the body, settings it knows and none else. Real ones are
    in support/clickhouse.py."""

    secret = ("x-clickhouse-key", "swordfish")
    busy = Answer(503, body=b"Code: 202. DB::Exception: Too many simultaneous queries")

    def read(self, head: Head, body: bytes) -> list[Record]:
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(head.target).query, strict_parsing=True))
        need(query.pop("query", "").startswith("INSERT INTO tollgate.all_records FORMAT JSONEachRow"), 400, "statement")
        known = {"date_time_input_format": "best_effort", "input_format_skip_unknown_fields": "1"}
        need(query == known, 400, f"settings {query}")
        need(bool(head.header("x-clickhouse-user")), 403, "no user")
        return lines(body)


class Vector(Model):
    """Source `http_server` with `framing: newline_delimited` and `decoding: json`: the content type does not matter,
    the path does."""

    busy = Answer(503, body=b'{"code":503,"message":"unable to enqueue"}')

    def read(self, head: Head, body: bytes) -> list[Record]:
        need(head.target == "/", 404, head.target)
        return lines(body)


class FluentBit(Model):
    """Input `http`: exactly `application/json`, maps one after the other or an array of them, up to `buffer_max_size`.
    The path is the tag."""

    success = Answer(201)
    most_bytes = 4 * MEBIBYTE

    def read(self, head: Head, body: bytes) -> list[Record]:
        need(head.header("content-type") == "application/json", 400, head.header("content-type"))
        need(head.target == "/tollgate.records", 400, "tag")
        return lines(body) if body.lstrip().startswith(b"{") else objects(parse(body))


class Fluentd(Model):
    """Input `http`: MessagePack under its content type, a map or an array of maps. The path is the tag."""

    busy = Answer(503, body=b"503 Service Unavailable\n")
    most_bytes = 32 * MEBIBYTE

    def read(self, head: Head, body: bytes) -> list[Record]:
        need(head.target == "/tollgate.records", 400, "tag")
        need(head.header("content-type") == "application/msgpack", 400, head.header("content-type"))
        try:
            return objects(msgpack.unpackb(body))
        except ValueError as error:
            raise RefusedError(400, f"no MessagePack: {error}") from error


class OpenTelemetry(Model):
    """OTLP/HTTP in JSON. rotel reads the whole of it; here is what a log record must have."""

    success = Answer(200, (("content-type", "application/json"),), b'{"partialSuccess":{}}')
    path: ClassVar[str] = "/v1/logs"

    def read(self, head: Head, body: bytes) -> list[Record]:
        need(head.target == self.path, 404, head.target)
        need(head.header("content-type") == "application/json", 415, head.header("content-type"))
        found = []
        for resource in parse(body)["resourceLogs"]:
            labels = self.attributes(resource["resource"])
            records = [record for scope in resource["scopeLogs"] for record in scope["logRecords"]]
            found += [{"resource": labels, **record, "attributes": self.attributes(record)} for record in records]
        for record in found:
            time = record["timeUnixNano"]
            need(isinstance(time, str) and time.isdigit(), 400, "64 bits are strings")
        return found

    @staticmethod
    def attributes(owner: Record) -> dict[str, Any]:
        """Names and values, without the types around them."""
        found = {entry["key"]: entry["value"] for entry in owner["attributes"]}
        need(len(found) == len(owner["attributes"]), 400, "a name twice")
        need(all(len(value) == 1 for value in found.values()), 400, "a value of two types")
        return {name: next(iter(value.values())) for name, value in found.items()}


class Loki(OpenTelemetry):
    """Loki's OTLP endpoint. Releases before 2026 take two entries of a stream for one where time and line are the same,
    whatever else they say."""

    success = Answer(204)
    busy = Answer(429, (("retry-after", "1"),), b"ingestion rate limit exceeded")
    path = "/otlp/v1/logs"

    def store(self, records: list[Record]) -> None:
        def entry(record: Record) -> tuple[str, str]:
            return record["timeUnixNano"], record["body"]["stringValue"]

        known = {entry(record) for record in self.records}
        self.records += [record for record in records if entry(record) not in known]


class Datadog(Model):
    """Log intake v2: an array, its limits, and those of a log's attributes."""

    success = Answer(202, body=b"{}")
    busy = Answer(429, body=b'{"errors":[{"status":"429","title":"Too Many Requests"}]}')
    most_records = 1000
    most_bytes = 5 * MEGABYTE
    secret = ("dd-api-key", "0123456789abcdef0123456789abcdef")

    def read(self, head: Head, body: bytes) -> list[Record]:
        need(head.path == "/api/v2/logs", 404, head.target)
        need(head.header("content-type") == "application/json", 415, head.header("content-type"))
        records = parse(body)
        need(isinstance(records, list), 400, "no array")
        for record in objects(records):
            need(len(json.dumps(record, default=str)) <= MEGABYTE, 413, "a log is too long")
            need(len(record) < 256 and all(len(name) < 50 for name in record), 400, "attributes")
        return records


class Splunk(Model):
    """HEC's raw endpoint, behind which props.conf breaks lines."""

    success = Answer(200, (("content-type", "application/json"),), b'{"text":"Success","code":0}')
    busy = Answer(503, body=b'{"text":"Server is busy","code":9}')
    most_bytes = MEGABYTE
    secret = ("authorization", "Splunk 12345678-1234-1234-1234-1234567890ab")

    def read(self, head: Head, body: bytes) -> list[Record]:
        need(head.path == "/services/collector/raw", 404, head.target)
        need(bool(body), 400, '{"text":"No data","code":5}')
        need(len(head.header("x-splunk-request-channel")) == 36, 400, '{"text":"Data channel is missing","code":10}')
        return lines(body)


class OpenMeter(Model):
    """CloudEvents in a batch; what has been seen by source and id is not counted again."""

    success = Answer(204)
    busy = Answer(500)
    secret = ("authorization", "Bearer om_0123456789")

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls)
        self.events: dict[tuple[str, str], Record] = {}

    def read(self, head: Head, body: bytes) -> list[Record]:
        need(head.target == "/api/v1/events", 404, head.target)
        need(head.header("content-type") == "application/cloudevents-batch+json", 415, head.header("content-type"))
        events = parse(body)
        need(isinstance(events, list), 400, "no array")
        for event in objects(events):
            for name in ("id", "source", "type", "subject", "time"):
                need(isinstance(event.get(name), str) and bool(event[name]), 400, name)
            need(event["specversion"] == "1.0" and event["datacontenttype"] == "application/json", 400, "version")
        return events

    def store(self, records: list[Record]) -> None:
        self.events |= {(event["source"], event["id"]): event for event in records}
        self.records = [event["data"] for event in self.events.values()]


class Logstash(Model):
    """Input `http` with the codec `json`: each element of an array is an event; the document's id is the record's."""

    success = Answer(200, (("content-type", "text/plain"),), b"ok")
    busy = Answer(429, body=b"Logstash is busy")

    def read(self, head: Head, body: bytes) -> list[Record]:
        need(head.target == "/", 404, head.target)
        return objects(parse(body))

    def store(self, records: list[Record]) -> None:
        documents = {record["id"]: record for record in [*self.records, *records]}
        self.records = list(documents.values())


# By the folder under examples/sinks.
MODELS: dict[str, type[Model]] = {
    "clickhouse": ClickHouse,
    "datadog": Datadog,
    "elastic": Logstash,
    "fluent-bit": FluentBit,
    "fluentd": Fluentd,
    "loki": Loki,
    "openmeter": OpenMeter,
    "otel-collector": OpenTelemetry,
    "splunk": Splunk,
    "vector": Vector,
}


class LosesAnswers(Server):
    """Hands each request on to `port`; the first `lose` answers are kept back and the connection is reset, so that what
    has been stored is sent again."""

    def __init__(self, port: int, lose: int) -> None:
        super().__init__()
        self.behind, self.lose = port, lose
        self.refusals: list[str] = []
        self.stored: list[bytes] = []

    async def exchange(self, conn: Connection, head: Head) -> bool:
        body = (await conn.read_body(head)).data
        status, text = await asyncio.to_thread(self.hand_on, head.target, body, self.credentials(head))
        if status == 200:
            self.stored.append(body)
        else:
            self.refusals.append(text)
        if self.lose > 0:
            self.lose -= 1
            conn.reset()
            return False
        await conn.send(response_head(status, [("content-length", "0")]))
        return True

    @staticmethod
    def credentials(head: Head) -> dict[str, str]:
        """The headers by which ClickHouse knows who asks."""
        return {name: value for name, value in head.headers if name.startswith("x-clickhouse-")}

    def hand_on(self, target: str, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
        """What the sink says: a status and, unless all is well, why."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.behind}{target}", body, headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, ""
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")

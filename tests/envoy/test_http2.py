"""HTTP/2 on either side is metered as HTTP/1.1 is."""

from __future__ import annotations

import gzip
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from conftest import Start
from support import variants
from support.audit import assert_estimated, assert_nothing_lost, assert_says, expected, fresh, one_record, text_bytes
from support.client import Headers, call_body
from support.replay import fixtures
from support.stack import Stack

JSON, SSE = "openai-chat-json.json", "openai-chat-sse-usage.sse"
TIMED_OUT = 28


@pytest.fixture(scope="module")
def hop(envoy: str) -> Iterator[Stack]:
    """A gateway whose provider speaks HTTP/2."""
    with Stack(variants.http2_upstream, envoy=envoy) as stack:
        yield stack
        assert_nothing_lost(stack)


@dataclass(frozen=True, slots=True)
class Answer:
    """What curl got: exit status, headers and trailers in lower case, and the body."""

    code: int
    head: str
    body: bytes


def curl(
    stack: Stack, version: str, headers: Headers, *, stream: bool = False, asks: bool = True, seconds: float = 20
) -> Answer:
    command = ["curl", "-sS", f"--{version}", "-m", str(seconds), "-N", "-D", "/dev/stderr"]
    command += ["-d", call_body("gpt-4o", stream, asks, {}).decode()]
    for name, value in {"content-type": "application/json", **headers}.items():
        command += ["-H", f"{name}: {value}"]
    command.append(f"{stack.client.url}/v1/chat/completions")
    done = subprocess.run(command, capture_output=True, timeout=60)
    return Answer(done.returncode, done.stderr.decode("latin-1").lower(), done.stdout)


DOWNSTREAM = pytest.mark.parametrize("version", ["http1.1", "http2-prior-knowledge"])


@DOWNSTREAM
@pytest.mark.parametrize(
    ("stream", "headers"),
    [
        (False, {}), (True, {}), (True, {"x-replay-gzip": "1"}), (True, {"x-replay-chunk": "7"}),
        (False, {"x-replay-fault": "trailers"}), (True, {"x-replay-fault": "trailers"}),
    ],
    ids=["plain", "streamed", "gzip", "chunks of 7", "trailers", "streamed, trailers"],
)
@pytest.mark.parametrize("upstream", ["http1.1", "http2"])
def test_a_call_is_metered_alike_over_either_version_on_either_side(
    edges: Stack, hop: Stack, upstream: str, version: str, stream: bool, headers: Headers
) -> None:
    stack = edges if upstream == "http1.1" else hop
    session = fresh()
    answer = curl(stack, version, {"x-cost-session": session, "x-mark": session, **headers}, stream=stream)
    record = one_record(stack, session)
    assert_says(record, expected(SSE if stream else JSON, "gpt-4o"))
    assert answer.code == 0
    assert answer.head.startswith("http/2 200" if "2" in version else "http/1.1 200")
    assert f"x-tollgate-id: {record['id']}" in answer.head
    assert ("x-replay-trailer: end" in answer.head) == (headers.get("x-replay-fault") == "trailers")
    body = gzip.decompress(answer.body) if "x-replay-gzip" in headers else answer.body
    assert record["response_id"].encode() in body and body.endswith(b"[DONE]\n\n" if stream else b"}\n")
    (arrived,) = [r for r in stack.replay.requests if ["x-mark", session] in r["headers"]]
    assert not [name for name, _ in arrived["headers"] if name.lower().startswith("x-cost-")]


@DOWNSTREAM
@pytest.mark.parametrize("fault", ["", "trailers"])
@pytest.mark.parametrize("upstream", ["http1.1", "http2"])
def test_a_stream_is_asked_for_its_usage_over_either_version(
    edges: Stack, hop: Stack, upstream: str, fault: str, version: str
) -> None:
    stack = edges if upstream == "http1.1" else hop
    session = fresh()
    headers = {"x-cost-session": session, "x-mark": session, "x-replay-fixture": SSE, "x-replay-fault": fault}
    answer = curl(stack, version, headers, stream=True, asks=False)
    data = fixtures()[SSE].data
    (event,) = [e + b"\n\n" for e in data.split(b"\n\n") if b'"choices":[]' in e]
    assert answer.body == data.replace(event, b"")
    assert_says(one_record(stack, session), expected(SSE, "gpt-4o") | {"stream": True, "notes": None})
    (arrived,) = [r for r in stack.replay.requests if ["x-mark", session] in r["headers"]]
    assert arrived["body"].endswith('"stream": true,"stream_options":{"include_usage":true}}')


@DOWNSTREAM
def test_a_stream_that_an_http2_provider_resets_is_an_upstream_reset(hop: Stack, version: str) -> None:
    session = fresh()
    answer = curl(hop, version, {"x-cost-session": session, "x-replay-fault": "reset-mid-body"}, stream=True)
    # How curl takes a reset depends on its version and Envoy's; it never gets the end.
    assert answer.body and b"[DONE]" not in answer.body
    record = one_record(hop, session)
    assert_says(record, {"end_reason": "upstream_reset", "status": 200})
    assert_estimated(record, "gpt-4o", len(call_body("gpt-4o", True, True, {})), 1, text_bytes(fixtures()[SSE].data))


@pytest.mark.parametrize(("fault", "status"), [("hang", None), ("hang-mid-body", 200)])
def test_a_client_that_cancels_its_http2_stream_is_a_client_abort(
    hop: Stack, fault: str, status: int | None
) -> None:
    session = fresh()
    headers = {"x-cost-session": session, "x-replay-fault": fault}
    answer = curl(hop, "http2-prior-knowledge", headers, stream=True, seconds=0.3)
    assert answer.code == TIMED_OUT
    record = one_record(hop, session)
    assert_says(record, {"end_reason": "client_abort", "status": status})
    text = text_bytes(fixtures()[SSE].data) if status else 0
    assert_estimated(record, "gpt-4o", len(call_body("gpt-4o", True, True, {})), min(text, 1), text)


def test_many_calls_on_one_http2_connection_have_a_record_each(start: Start, envoy: str) -> None:
    stack = start(variants.http2_downstream, envoy=envoy)
    calls = 60

    def call(number: int) -> str:
        stream = number % 2 == 0
        reply = stack.client.chat(stream=stream, headers={"x-cost-tag-call": str(number), "x-replay-delay-ms": "1"})
        return reply.headers["x-tollgate-id"]

    with ThreadPoolExecutor(20) as pool:
        ids = list(pool.map(call, range(calls)))
    by_id = {r["id"]: r for r in assert_nothing_lost(stack, calls)}
    for number, id in enumerate(ids):
        wanted = expected(SSE if number % 2 == 0 else JSON, "gpt-4o")
        assert_says(by_id[id], wanted | {"tags": {"call": str(number)}})
    assert stack.counter("http.hop.downstream_rq_http2_total") == calls
    assert stack.counter("http.hop.downstream_cx_http2_total") <= 2, "a connection a worker"

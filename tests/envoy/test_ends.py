"""However a call ends, it has one record that says how: the same status and attempts as Envoy's own log, and a cost
only for what the provider did."""

from __future__ import annotations

import http.client
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
from support.audit import (
    Record, assert_estimated, assert_says, estimate, expected, fresh, llm_calls, one_record, text_bytes,
)
from support.client import Headers, Reply, call_body
from support.replay import fixtures
from support.stack import Stack
from support.wire import Wire, header, request_head

JSON, SSE = "openai-chat-json.json", "openai-chat-sse-usage.sse"
LARGE = "x" * 3000
NONE: Record = {"usage_source": "none", "input_tokens": None}
FREE: Record = NONE | {"cost_picousd": 0, "price_status": "free"}
# Calls that broke off are in doubt: the provider may bill them.
ASKED, ASKED_STREAM = (len(call_body("gpt-4o", stream, True, {})) for stream in (False, True))
COMPLETE: Record = {"end_reason": "complete", "status": 200}


@dataclass(frozen=True, slots=True)
class End:
    """A call and what its record must say of its end."""

    name: str
    wanted: Record
    fault: str = ""
    headers: Headers = field(default_factory=dict)
    path: str = "/v1/chat/completions"
    stream: bool = False
    extra: dict[str, Any] = field(default_factory=dict)
    cut: bool = False


def half(fixture: str) -> int:
    """The text in the half that a fault lets pass, in bytes."""
    data = fixtures()[fixture].data
    return text_bytes(data[: len(data) // 2])


NOTHING = estimate("gpt-4o", ASKED)
HALF, HALF_SSE = estimate("gpt-4o", ASKED, half(JSON)), estimate("gpt-4o", ASKED_STREAM, half(SSE))


def under(prefix: str) -> str:
    return f"/{prefix}/v1/chat/completions"


ENDS = [
    End("end of body", expected(JSON, "gpt-4o")),
    End("end of stream", expected(SSE, "gpt-4o"), stream=True),
    End("trailers", expected(JSON, "gpt-4o"), "trailers"),
    End("trailers after a stream", expected(SSE, "gpt-4o"), "trailers", stream=True),
    End("trailers, gzip", expected(SSE, "gpt-4o"), "trailers", {"x-replay-gzip": "1"}, stream=True),
    End("204", {"end_reason": "complete", "status": 204} | NOTHING, "no-body"),
    End("content-length 0", COMPLETE | NOTHING, "no-body", {"x-replay-status": "200"}),
    End("429 without a body", {"end_reason": "complete", "status": 429} | FREE, "no-body", {"x-replay-status": "429"}),
    End("provider says 400", expected("openai-error-400.json", "gpt-4o"), headers={"x-replay-status": "400"}),
    End("provider says 500", expected("openai-error-500.json", "gpt-4o"), headers={"x-replay-status": "500"}),
    End("reset before headers", {"end_reason": "upstream_reset", "status": 503} | NOTHING, "reset-before-headers"),
    End("reset after headers", {"end_reason": "upstream_reset", "status": 200} | NOTHING, "reset-after-headers",
        cut=True),
    End("reset mid-body", {"end_reason": "upstream_reset", "status": 200} | HALF, "reset-mid-body", cut=True),
    End("reset mid-stream", {"end_reason": "upstream_reset", "status": 200} | HALF_SSE, "reset-mid-body", stream=True,
        cut=True),
    End("closed mid-body", {"end_reason": "upstream_reset", "status": 200} | HALF, "close-mid-body", cut=True),
    End("closed mid-stream", {"end_reason": "upstream_reset", "status": 200} | HALF_SSE, "close-mid-body", stream=True,
        cut=True),
    End("no route", {"end_reason": "local_reply", "status": 404, "error": "route_not_found"} | FREE,
        headers={"host": "nowhere.test"}),
    End("413 behind the filter",
        {"end_reason": "local_reply", "status": 413, "error": "request_payload_too_large"} | FREE,
        path=under("after"), extra={"padding": LARGE}),
    End("413 in front of the filter",
        {"end_reason": "local_reply", "status": 413, "error": "request_payload_too_large"} | FREE,
        path=under("before"), extra={"padding": LARGE}),
    End("denied in front of the filter",
        {"end_reason": "local_reply", "status": 403, "error": "rbac_access_denied_matched_policy[test]"} | FREE,
        headers={"x-test-deny": "1"}),
    End("timeout before headers", {"end_reason": "timeout", "status": 504} | NOTHING, "hang", path=under("slow")),
    End("timeout mid-stream", {"end_reason": "timeout", "status": 200} | HALF_SSE, "hang-mid-body", path=under("slow"),
        stream=True, cut=True),
    End("silence before headers", {"end_reason": "timeout", "status": 504} | NOTHING, "hang", path=under("idle")),
    End("silence mid-stream", {"end_reason": "timeout", "status": 200} | HALF_SSE, "hang-mid-body", path=under("idle"),
        stream=True, cut=True),
    End("refused, tried again", {"end_reason": "upstream_reset", "status": 503, "attempts": 2} | FREE,
        path=under("dead")),
    End("failed, tried again twice", expected("openai-error-500.json", "gpt-4o") | {"attempts": 3}, path=under("again"),
        headers={"x-replay-status": "500"}),
    End("no host", {"end_reason": "local_reply", "status": 503, "error": "no_healthy_upstream"} | FREE,
        path=under("empty")),
    End("no cluster", {"end_reason": "local_reply", "status": 503, "error": "cluster_not_found"} | FREE,
        path=under("missing")),
    End("answered by Envoy", {"end_reason": "local_reply", "status": 200, "error": "direct_response"} | FREE,
        path=under("direct")),
]


def send(stack: Stack, end: End, session: str) -> Reply:
    headers = {"x-cost-session": session, "x-replay-fault": end.fault, **end.headers}
    return stack.client.chat(stream=end.stream, path=end.path, headers=headers, **end.extra)


def wait_arrived(stack: Stack, mark: str, body_bytes: int | None) -> None:
    """Until the provider has the request with this x-mark, and that much of its body."""
    def arrived() -> bool:
        seen = (r for r in list(stack.replay.requests) if ["x-mark", mark] in r["headers"])
        return any(r["body_len"] == body_bytes for r in seen)

    stack.wait(arrived, 10, "the request never arrived")


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.name)
def test_every_end_of_a_call_is_one_record_that_says_how(edges: Stack, end: End) -> None:
    session = fresh()
    reply = send(edges, end, session)
    record = one_record(edges, session)
    assert_says(record, end.wanted)
    assert reply.cut == end.cut
    # What another filter answers in front of this one, this one sees only in the log.
    assert reply.headers.get("x-tollgate-id") == (None if "in front" in end.name else record["id"])
    assert reply.status == record["status"]
    def mine() -> list[dict[str, object]]:
        return [line for line in llm_calls(edges) if line["request_id"] == record["request_id"]]

    # The two access logs are written one after the other.
    edges.wait(lambda: bool(mine()), 10, "no line in Envoy's own log")
    (envoys,) = mine()
    assert (envoys["status"], envoys["attempts"] or 0) == (record["status"], record.get("attempts", 0))
    if end.wanted["end_reason"] not in ("complete", "local_reply"):
        assert record["error"] == envoys["details"]


def test_trailers_reach_the_client(edges: Stack) -> None:
    body = call_body("gpt-4o", False, False, {})
    with Wire(edges.client.port) as wire:
        wire.send(request_head(headers=[(b"x-replay-fault", b"trailers")], length=len(body)) + body)
        wire.read_until(b"\r\nx-replay-trailer: end\r\n\r\n")


def test_a_request_with_trailers_is_metered(edges: Stack) -> None:
    session = fresh()
    with Wire(edges.client.port) as wire:
        wire.send(request_head(headers=[(b"x-cost-session", session.encode()), (b"trailer", b"x-end")]))
        wire.send(b'13\r\n{"model": "gpt-4o"}\r\n0\r\nx-end: 1\r\n\r\n')
        wire.read_until(b"fp_fc3f053a75")
    assert_says(one_record(edges, session), expected(JSON, "gpt-4o"))


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
def test_a_client_that_leaves_before_the_answer_has_a_record_without_a_status(edges: Stack, reset: bool) -> None:
    session, body = fresh(), call_body("gpt-4o", False, False, {})
    extra = [(b"x-cost-session", session.encode()), (b"x-replay-fault", b"hang"), (b"x-mark", session.encode())]
    with Wire(edges.client.port) as wire:
        wire.send(request_head(headers=extra, length=len(body)) + body)
        wait_arrived(edges, session, len(body))
        if reset:
            wire.reset()
    record = one_record(edges, session)
    assert_says(record, {"end_reason": "client_abort", "status": None, "request_model": "gpt-4o"} | NOTHING)


def test_a_client_that_leaves_in_the_middle_of_its_request_has_a_record(edges: Stack) -> None:
    session, part = fresh(), b'{"model": "gpt-4o", '
    extra = [(b"x-cost-session", session.encode()), (b"x-mark", session.encode())]
    with Wire(edges.client.port) as wire:
        wire.send(request_head(headers=extra, length=1000) + part)
        wait_arrived(edges, session, None)
    # No provider bills what it never had whole.
    assert_says(one_record(edges, session), {"end_reason": "client_abort", "status": None, "request_model": "gpt-4o",
                                             "usage_source": "none", "price_status": "free", "cost_picousd": 0})


def test_a_client_that_leaves_mid_stream_has_a_record_of_what_came(edges: Stack) -> None:
    session = fresh()
    reply = edges.client.hang_up(500, headers={"x-cost-session": session, "x-replay-fault": "hang-mid-body"})
    record = one_record(edges, session)
    assert_says(record, {"end_reason": "client_abort", "status": 200, "stream": True,
                         "response_model": "gpt-4o-2024-08-06"})
    assert_estimated(record, "gpt-4o", ASKED_STREAM, text_bytes(reply.body), half(SSE))


def test_a_client_that_leaves_once_it_has_read_all_events_has_aborted_nothing(edges: Stack) -> None:
    session = fresh()
    size = len(fixtures()[SSE].data)
    # Everything but the last chunk's end: the provider hangs with the stream's [DONE] sent.
    headers = {"x-cost-session": session, "x-replay-fault": "hang-mid-body", "x-replay-fault-after": str(size)}
    edges.client.hang_up(size, headers=headers)
    assert_says(one_record(edges, session), expected(SSE, "gpt-4o"))


@pytest.mark.parametrize("fixture", [JSON, SSE])
def test_an_answer_that_comes_before_the_request_is_read_is_recorded_whole(edges: Stack, fixture: str) -> None:
    session = fresh()
    last = fixtures()[fixture].data[-12:]
    extra = [
        (b"x-cost-session", session.encode()), (b"x-replay-fault", b"early-answer"),
        (b"x-replay-fixture", fixture.encode()),
    ]
    with Wire(edges.client.port) as wire:
        wire.send(request_head(headers=extra, length=1_000_000) + b'{"model": "gpt-4o", "messages": ["')
        # The client goes on sending, a little at a time, until it has its answer.
        for sent in count():
            if wire.readable(0.005) or sent > 1000:
                break
            wire.send(b"more")
        wire.read_until(last)
    id = header(wire.seen, b"x-tollgate-id") or b""
    assert_says(one_record(edges, session), expected(fixture, "gpt-4o") | {"id": id.decode()})


def test_a_request_without_a_body_is_a_call_all_the_same(edges: Stack) -> None:
    session = fresh()
    edges.client.send("POST", "/v1/chat/completions", b"", {"x-cost-session": session})
    assert_says(one_record(edges, session), COMPLETE | {"request_model": None, "usage_source": "reported"})


def test_a_request_without_a_body_that_reports_nothing_has_nothing_to_estimate_from(edges: Stack) -> None:
    session = fresh()
    headers = {"x-cost-session": session, "x-replay-fault": "no-body"}
    edges.client.send("POST", "/v1/chat/completions", b"", headers)
    record = one_record(edges, session)
    assert_says(record, NONE | {"status": 204, "end_reason": "complete", "cost_picousd": None, "price_status": None})


def test_calls_on_one_connection_have_a_record_each(edges: Stack) -> None:
    sessions = [fresh() for _ in range(5)]
    connection = http.client.HTTPConnection("127.0.0.1", edges.client.port, timeout=10)
    ids = []
    for session in sessions:
        body = call_body("gpt-4o", False, False, {})
        connection.request("POST", "/v1/chat/completions", body, {"x-cost-session": session})
        with connection.getresponse() as response:
            response.read()
            ids.append(response.getheader("x-tollgate-id"))
    connection.close()
    assert [one_record(edges, session)["id"] for session in sessions] == ids

"""Paths that no format is known for: an LLM call that its answer gives away is recorded, what policy forbids is
refused, and everything else passes as if the filter were not there."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import Start
from support import envoy_config
from support.audit import Record, assert_consistent, assert_says, exact_records, fresh, one_record
from support.client import Reply
from support.envoy_config import Bootstrap
from support.replay import fixtures
from support.stack import Stack

LLM_HOST, TOLD_HOST, OTHER_HOST = "api.openai.com", "llm.internal", "shop.internal"
BINARY = {"content-type": "application/octet-stream"}


def with_policy(policy: str | None) -> Callable[[Bootstrap], None]:
    """The shipped gateway with an upstream that is said to be an LLM's, WebSockets, and a policy."""

    def edit(bootstrap: Bootstrap) -> None:
        envoy_config.flush_soon(bootstrap)
        envoy_config.connection_manager(bootstrap)["upgrade_configs"] = [{"upgrade_type": "websocket"}]
        config = envoy_config.filter_config(bootstrap)
        config["upstreams"] = [{"match": {"host": TOLD_HOST}, "provider": "openai"}]
        if policy is not None:
            config["metering"] = {"on_unmetered": policy}

    return edit


@pytest.fixture(scope="module")
def recording(envoy: str) -> Iterator[Stack]:
    """The default: recorded."""
    with Stack(with_policy(None), envoy=envoy) as stack:
        yield stack
        assert_consistent(exact_records(stack))


def post(stack: Stack, path: str, body: bytes, **headers: str) -> tuple[Reply, str, list[dict[str, Any]]]:
    """The reply to a POST, the session to find its record by, and what the provider got."""
    session = fresh()
    sent = {"x-cost-session": session, "x-mark": session}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    reply = stack.client.send("POST", path, body, sent)
    return reply, session, [r for r in stack.replay.requests if ["x-mark", session] in r["headers"]]


def assert_no_record(stack: Stack, sessions: list[str]) -> None:
    """None of these calls has a record, once a later one has."""
    reply, last, _ = post(stack, "/v1/chat/completions", b'{"model": "gpt-4o"}')
    assert reply.status == 200
    one_record(stack, last)
    seen = {r.get("session") for r in [*stack.sink.records, *stack.access_log()]}
    assert not seen & set(sessions)


# What its answer gives away


@pytest.mark.parametrize(
    "fixture",
    [
        "openai-chat-json-cached-reasoning.json", "openai-responses-json.json", "anthropic-messages-json-cache.json",
        "gemini-generate.json", "bedrock-converse.json", "ollama-chat.json",
        "openai-chat-sse-usage.sse", "anthropic-messages-sse-cache.sse", "openai-responses-sse.sse",
        "gemini-stream-sse-crlf.sse", "ollama-chat-ndjson.ndjson",
    ],
)
@pytest.mark.parametrize("chunk", ["whole", "7"])
def test_an_answer_with_usage_makes_a_call_of_any_path(recording: Stack, fixture: str, chunk: str) -> None:
    reply, session, _ = post(
        recording, "/ask", b'{"question": "when is low tide?"}', x_replay_fixture=fixture, x_replay_chunk=chunk,
        host=OTHER_HOST,
    )
    assert reply.body == fixtures()[fixture].data
    usage = fixtures()[fixture].meta["usage"]
    record = one_record(recording, session)
    assert record["id"], record
    names = ("input_tokens", "output_tokens", "cached_input_tokens", "cache_creation_input_tokens")
    assert_says(record, {"api": "unrecognised", "usage_source": "reported", "end_reason": "complete"})
    assert {n: record.get(n, 0) for n in names} == {n: usage.get(n, 0) for n in names}


def test_what_is_no_llm_call_passes_unchanged_and_leaves_no_record(recording: Stack) -> None:
    sessions = []
    for kind, answer in [
        ("application/json", '{"usage": {"cpu": 4}, "model": "T-800", "id": "job-1"}'),
        ("application/json", '[{"total": 3}]'),
        ("application/json; charset=utf-8", '"done"'),
    ]:
        body = b'{"model": "T-800", "messages": [1], "stream": true}'
        reply, session, (entry,) = post(
            recording, "/orders?page=2", body, host=OTHER_HOST, content_type=kind, accept_encoding="br, zstd;q=0.5",
            x_replay_body=answer,
        )
        sent = dict(entry["headers"])
        assert entry["body"].encode() == body, "nobody asks for usage on a guess"
        assert (sent["accept-encoding"], sent["content-length"]) == ("br, zstd;q=0.5", str(len(body)))
        assert (reply.status, reply.body) == (200, answer.encode())
        assert "x-tollgate-id" not in reply.headers
        sessions.append(session)
    _, session, _ = post(recording, "/upload", b"\0\1", **BINARY, host=OTHER_HOST)
    assert_no_record(recording, [*sessions, session])


def test_an_answer_that_claims_brotli_passes_and_leaves_no_record(recording: Stack) -> None:
    reply, session, _ = post(
        recording, "/orders", b"{}", host=OTHER_HOST, accept_encoding="br", x_replay_claims="br",
        x_replay_body='{"usage": {"prompt_tokens": 1, "completion_tokens": 1}}',
    )
    assert reply.headers["content-encoding"] == "br" and reply.body.startswith(b'{"usage"')
    assert_no_record(recording, [session])


# By policy


@pytest.mark.parametrize("host", [LLM_HOST, TOLD_HOST])
def test_an_llm_hosts_call_that_cannot_be_metered_is_recorded(recording: Stack, host: str) -> None:
    reply, session, (entry,) = post(recording, "/v1/files", b"\0\1\2", **BINARY, host=host)
    assert (reply.status, entry["body_len"]) == (200, 3)
    assert_says(one_record(recording, session), {
        "api": "unrecognised", "provider": "openai", "usage_source": "none", "cost_picousd": None,
        "notes": ["unmetered"], "decision": "allowed",
    })
    counted = recording.metrics("tollgate_unmetered_calls_total")
    assert any(sample.labels.get("api") == "unrecognised" and sample.value >= 1 for sample in counted), counted


def test_what_cannot_be_metered_passes_unseen_where_policy_allows_it(start: Start) -> None:
    stack = start(with_policy("allow"))
    sessions = []
    for host in (LLM_HOST, TOLD_HOST, OTHER_HOST):
        for path, headers in (("/v1/files", BINARY), ("/ask", {"x-replay-fixture": "openai-chat-json.json"})):
            reply, session, _ = post(stack, path, b"{}", host=host, **headers)
            assert reply.status == 200
            sessions.append(session)
    assert_no_record(stack, sessions)


def test_what_cannot_be_metered_is_refused_where_policy_says_so(start: Start, envoy: str) -> None:
    stack = start(with_policy("reject"), envoy=envoy)
    for host, headers in ((LLM_HOST, BINARY), (TOLD_HOST, BINARY), (LLM_HOST, {})):
        reply, session, entries = post(stack, "/v1/new-thing", b'{"model": "gpt-4o"}', host=host, **headers)
        assert (reply.status, reply.json()["error"]["code"]) == (403, "unmetered_path")
        assert not entries
        assert_says(one_record(stack, session), {
            "decision": "refused", "cost_picousd": 0, "status": 403, "error": "unmetered_path", "provider": "openai",
        })
    # Paths that are known, and hosts that are nobody's, are not concerned.
    reply, session, _ = post(stack, "/v1/chat/completions", b'{"model": "gpt-4o"}', host=LLM_HOST)
    assert reply.status == 200
    assert_says(one_record(stack, session), {"decision": "allowed", "price_status": "priced"})
    reply, session, _ = post(stack, "/orders", b"{}", host=OTHER_HOST)
    assert reply.status == 200
    assert stack.client.send("GET", "/v1/models", None, {"host": LLM_HOST}).status == 200
    assert_no_record(stack, [session])


# WebSockets


def open_websocket(stack: Stack, host: str, session: str) -> tuple[socket.socket, bytes]:
    """A socket on which a WebSocket was asked for, and the head of the answer."""
    sock = socket.create_connection(("127.0.0.1", stack.client.port), timeout=10)
    lines = [
        "GET /v1/realtime?model=gpt-realtime HTTP/1.1", f"host: {host}", "connection: Upgrade", "upgrade: websocket",
        "sec-websocket-version: 13", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==", f"x-cost-session: {session}",
    ]
    sock.sendall("\r\n".join([*lines, "", ""]).encode())
    head = b""
    while b"\r\n\r\n" not in head:
        piece = sock.recv(4096)
        assert piece, head
        head += piece
    return sock, head


def echoed(sock: socket.socket, data: bytes) -> bytes:
    sock.sendall(data)
    got = b""
    while len(got) < len(data) and (piece := sock.recv(65_536)):
        got += piece
    return got


@pytest.mark.parametrize(("host", "records"), [(LLM_HOST, 1), (TOLD_HOST, 1), (OTHER_HOST, 0)])
def test_a_websocket_passes_and_one_to_an_llm_host_is_recorded(recording: Stack, host: str, records: int) -> None:
    session = fresh()
    sock, head = open_websocket(recording, host, session)
    with sock:
        assert head.startswith(b"HTTP/1.1 101 ") and b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
        for size in (6, 100_000):
            data = os.urandom(size)
            assert echoed(sock, data) == data
    if not records:
        assert_no_record(recording, [session])
        return
    record: Record = one_record(recording, session)
    assert_says(record, {"api": "unrecognised", "provider": "openai", "status": 101, "usage_source": "none",
                         "cost_picousd": None, "notes": ["unmetered"]})


def test_a_websocket_to_an_llm_host_is_refused_where_policy_says_so(start: Start) -> None:
    stack = start(with_policy("reject"))
    session = fresh()
    sock, head = open_websocket(stack, LLM_HOST, session)
    sock.close()
    assert head.startswith(b"HTTP/1.1 403 ")
    assert_says(one_record(stack, session), {"decision": "refused", "status": 403, "error": "unmetered_path"})
    assert not stack.replay.requests

"""A call through the shipped gateway: one exact record in both places, its id on the answer, no cost header at the
provider."""

from __future__ import annotations

import asyncio
import gzip
import re
from typing import Any

import openai
import pytest
from support.audit import assert_estimated, assert_says, expected, fresh, one_record, text_bytes
from support.client import call_body
from support.replay import fixtures
from support.stack import Stack

UUID_V7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
HELLO: list[Any] = [{"role": "user", "content": "hello"}]
JSON, SSE = "openai-chat-json.json", "openai-chat-sse-usage.sse"
USAGE: Any = {"include_usage": True}


@pytest.mark.parametrize("gzipped", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    ("model", "stream", "fixture"),
    [
        ("gpt-4o", False, JSON),
        ("gpt-4o-mini", False, JSON),
        ("gpt-5", False, "openai-chat-json-cached-reasoning.json"),
        ("acme-chat-9b", False, "openai-chat-json-unknown-model.json"),
        ("gpt-4o", True, SSE),
        ("gpt-5", True, "openai-chat-sse-usage-reasoning.sse"),
    ],
)
def test_a_call_has_one_exact_record_in_both_places(
    shipped: Stack, model: str, stream: bool, fixture: str, gzipped: bool
) -> None:
    session = fresh()
    headers = {"x-cost-session": session, "x-cost-department": "r.and.d", "x-cost-tag-customer": "Zürich"}
    headers["x-cost-tag-customer"] = "Zürich".encode().decode("latin-1")
    if gzipped:
        headers |= {"accept-encoding": "gzip", "x-replay-gzip": "1"}
    reply = shipped.client.chat(model, stream=stream, headers=headers)
    record = one_record(shipped, session)

    assert reply.status == 200 and not reply.cut
    assert reply.headers["x-tollgate-id"] == record["id"]
    assert UUID_V7.fullmatch(record["id"])
    wanted = expected(fixture, model)
    if model == "gpt-4o-mini":
        # The same usage at another price: the provider echoes the model asked for.
        wanted |= {"response_model": "gpt-4o-mini-2024-07-18", "cost_picousd": 412 * 150_000 + 31 * 600_000}
    assert_says(record, wanted)
    assert_says(record, {
        "schema_version": 1, "type": "usage", "decision": "allowed", "api": "openai_chat", "operation": "chat",
        "gateway": "tollgate-gateway", "route": "llm", "cluster": "llm_upstream", "attempts": 1,
        "department": "r.and.d", "tags": {"customer": "Zürich"}, "message_count": 1, "error": None, "notes": None,
        "stream": True if stream else None,
        "attribution_source": {
            "session": "header", "department": "header", "tags.customer": "header", "workload": "inferred",
        },
    })
    body = gzip.decompress(reply.body) if gzipped else reply.body
    assert record["response_id"].encode() in body
    assert ("ttft_ms" in record) == stream


def test_every_cost_header_reaches_the_record_and_none_the_provider(shipped: Stack) -> None:
    session = fresh()
    named = {
        "feature": "f", "department": "d", "team": "t", "user": "u", "run-id": "r", "parent-run-id": "p",
        "mcp-server": "m", "agent-handoff": "a", "workload": "w", "project": "pr", "outcome": "o",
        "gl-account": "6420", "cost-center": "c", "business-unit": "b", "environment": "e",
    }
    headers = {f"X-Cost-{name}": value for name, value in named.items()}
    shipped.client.chat(headers=headers | {"x-cost-session": session, "X-Cost-Tag-Anything": "x"})
    record = one_record(shipped, session)
    fields = {name.replace("-", "_").replace("center", "centre"): value for name, value in named.items()}
    assert_says(record, fields | {"tags": {"anything": "x"}, "notes": None})
    (arrived,) = [r for r in shipped.replay.requests if ["x-request-id", record["request_id"]] in r["headers"]]
    assert not [name for name, _ in arrived["headers"] if name.lower().startswith("x-cost-")]


def test_trace_and_retry_headers_of_the_caller_are_in_the_record(shipped: Stack) -> None:
    session, trace, span = fresh(), "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    headers = {"x-cost-session": session, "traceparent": f"00-{trace}-{span}-01", "x-stainless-retry-count": "2"}
    shipped.client.chat(headers=headers)
    assert_says(one_record(shipped, session), {"trace_id": trace, "span_id": span, "client_retry": 2})


def sdk(stack: Stack, session: str, kind: Any = openai.OpenAI) -> Any:
    # No retries: one call, one record.
    headers = {"x-cost-session": session}
    return kind(base_url=f"{stack.client.url}/v1", api_key="sk-test", max_retries=0, default_headers=headers)


async def ask(stack: Stack, session: str, stream: bool) -> tuple[str, int]:
    """By AsyncOpenAI: the id on the answer and the total tokens the SDK understood."""
    async with sdk(stack, session, openai.AsyncOpenAI) as client:
        create = client.chat.completions.with_raw_response.create
        if not stream:
            raw = await create(model="gpt-4o", messages=HELLO)
            return raw.headers["x-tollgate-id"], raw.parse().usage.total_tokens
        raw = await create(model="gpt-4o", messages=HELLO, stream=True, stream_options=USAGE)
        last = [chunk async for chunk in raw.parse()][-1]
        return raw.headers["x-tollgate-id"], last.usage.total_tokens


def ask_blocking(stack: Stack, session: str, stream: bool) -> tuple[str, int]:
    """The same by OpenAI."""
    with sdk(stack, session) as client:
        create = client.chat.completions.with_raw_response.create
        if not stream:
            raw = create(model="gpt-4o", messages=HELLO)
            return raw.headers["x-tollgate-id"], raw.parse().usage.total_tokens
        raw = create(model="gpt-4o", messages=HELLO, stream=True, stream_options=USAGE)
        last = list(raw.parse())[-1]
        return raw.headers["x-tollgate-id"], last.usage.total_tokens


@pytest.mark.parametrize("asynchronous", [False, True], ids=["OpenAI", "AsyncOpenAI"])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_the_openai_sdk_reads_the_same_usage_as_the_record(
    shipped: Stack, stream: bool, asynchronous: bool
) -> None:
    session = fresh()
    if asynchronous:
        id, total = asyncio.run(ask(shipped, session, stream))
    else:
        id, total = ask_blocking(shipped, session, stream)
    record = one_record(shipped, session)
    assert_says(record, expected(SSE if stream else JSON, "gpt-4o") | {"id": id, "total_tokens": total})


def test_an_sdk_stream_left_half_read_is_a_client_abort(shipped: Stack) -> None:
    session = fresh()
    with sdk(shipped, session) as client:
        headers = {"x-replay-delay-ms": "20"}
        stream = client.chat.completions.create(
            model="gpt-4o", messages=HELLO, stream=True, stream_options=USAGE, extra_headers=headers
        )
        next(stream)
        stream.close()
    record = one_record(shipped, session)
    assert_says(record, {"end_reason": "client_abort", "status": 200, "stream": True})
    (arrived,) = [r for r in shipped.replay.requests if ["x-request-id", record["request_id"]] in r["headers"]]
    assert_estimated(record, "gpt-4o", arrived["body_len"], 0, text_bytes(fixtures()[SSE].data))


def test_a_stream_that_reports_no_usage_all_the_same_is_estimated(shipped: Stack) -> None:
    session, silent = fresh(), "openai-chat-sse-no-usage.sse"
    headers = {"x-cost-session": session, "x-replay-fixture": silent}
    shipped.client.chat("gpt-4o-mini", stream=True, headers=headers)
    sent = len(call_body("gpt-4o-mini", True, True, {}))
    assert_says(one_record(shipped, session), expected(silent, "gpt-4o-mini", sent))


@pytest.mark.parametrize("status", [400, 429, 500])
def test_a_failure_of_the_provider_is_recorded_with_its_code_and_costs_nothing(shipped: Stack, status: int) -> None:
    session = fresh()
    reply = shipped.client.chat(headers={"x-cost-session": session, "x-replay-status": str(status)})
    assert reply.status == status
    error = reply.json()["error"]
    record = one_record(shipped, session)
    assert_says(record, {
        "status": status, "end_reason": "complete", "cost_picousd": 0, "price_status": "free",
        "error": error["code"] or error["type"], "usage_source": "none", "request_model": "gpt-4o",
    })


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"), ("GET", "/healthz"), ("GET", "/v1/chat/completions"), ("HEAD", "/v1/chat/completions"),
        ("POST", "/v1/files"), ("DELETE", "/v1/files/1"),
    ],
)
def test_what_is_no_llm_call_passes_without_a_record_and_without_cost_headers(
    shipped: Stack, method: str, path: str
) -> None:
    mark = fresh()
    headers = {"x-cost-team": "t", "x-cost-session": mark, "x-mark": mark, "accept-encoding": "br"}
    reply = shipped.client.send(method, path, b"{}" if method == "POST" else None, headers)
    assert reply.status == 200
    assert "x-tollgate-id" not in reply.headers
    (arrived,) = [r for r in shipped.replay.requests if ["x-mark", mark] in r["headers"]]
    sent = dict(arrived["headers"])
    assert not [name for name in sent if name.startswith("x-cost-")]
    assert sent["accept-encoding"] == "br", "only LLM calls' answers are read"
    # A call after it, on the same log: had the first one a record, it would be there by now.
    after = fresh()
    shipped.client.chat(headers={"x-cost-session": after})
    one_record(shipped, after)
    assert not [r for r in shipped.access_log() + list(shipped.sink.records) if r.get("session") == mark]

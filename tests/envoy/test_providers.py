"""Every provider's wire format through the gateway: the official SDKs read their answers to the end, and each call's
one record says what the provider billed."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from support import envoy_config
from support.audit import Record, assert_consistent, assert_says, cost_picousd, exact_records, fresh, one_record
from support.client import Reply
from support.envoy_config import Bootstrap
from support.replay import Fixture, fixtures
from support.sdks import CALLS, SdkCall
from support.stack import Stack

OWN = {name: f for name, f in fixtures().items() if f.own}
TOTALS = ("input_tokens", "output_tokens", "total_tokens")
PARTS = (
    "cached_input_tokens", "cache_creation_input_tokens", "cache_creation_1h_input_tokens", "input_audio_tokens",
    "input_image_tokens", "reasoning_tokens", "output_audio_tokens", "output_image_tokens",
)
BOUNDARY = "tollgate-form-boundary"
# Chunk size and compression; the sizes cut every frame, line and event.
WAYS = [("whole", False), ("7", False), ("whole", True), ("7", True)]


def told(bootstrap: Bootstrap) -> None:
    """As shipped, and told what no answer shows: whose reasoning is on top, and who refuses `stream_options`."""
    envoy_config.flush_soon(bootstrap)
    quirks = sorted({(f.meta["host"], f.meta["quirk"]) for f in OWN.values() if "quirk" in f.meta})
    refusing = sorted({f.meta["host"] for f in OWN.values() if f.meta.get("never_inject")})
    config = envoy_config.filter_config(bootstrap)
    config["upstreams"] = [
        *({"match": {"host": host}, "quirks": [quirk]} for host, quirk in quirks),
        *({"match": {"host": host}, "inject_include_usage": False} for host in refusing),
    ]


@pytest.fixture(scope="module")
def providers(envoy: str) -> Iterator[Stack]:
    with Stack(told, envoy=envoy) as stack:
        yield stack

        def settled() -> bool:
            return sorted(line["id"] for line in stack.plain_log()) == sorted(r["id"] for r in stack.access_log())

        stack.wait(settled, 10, "not every call has its one record")
        assert_consistent(exact_records(stack))


def exact(value: Any) -> Decimal | None:
    return None if value is None else Decimal(str(value))


def assert_billed(record: Record, fixture: Fixture) -> None:
    """The record's api and usage are those of the index. A part that is zero may be left out, a total may not."""
    meta, usage = fixture.meta, fixture.meta["usage"]
    assert_says(record, {"api": meta["api"], "status": meta["status"]})
    # A deployment in the path is not in the index.
    if meta.get("request_model"):
        assert_says(record, {"request_model": meta["request_model"]})
    if usage.get("free"):
        assert_says(record, {"price_status": "free", "cost_picousd": 0})
        return
    assert_says(record, {"response_model": meta.get("response_model")})
    source = meta.get("usage_source", "reported")
    if source is not None:
        assert_says(record, {"usage_source": source})
    known = {name: usage.get(name) for name in TOTALS} if source == "reported" else usage
    assert_says(record, {name: known[name] for name in TOTALS if name in known})
    if source is None:
        assert record["usage_source"] != "reported", record
        return
    for name in PARTS:
        assert (record.get(name) or 0) == usage.get(name, 0), (name, record)
    units = {name: exact(value) for name, value in record.get("units", {}).items()}
    assert units == {name: exact(value) for name, value in usage.get("units", {}).items()}, record
    assert exact(record.get("provider_cost_usd")) == exact(usage.get("provider_cost_usd")), record


def arrived(stack: Stack, record: Record) -> dict[str, Any]:
    """A call as the provider got it."""
    (entry,) = [r for r in stack.replay.requests if ["x-request-id", record["request_id"]] in r["headers"]]
    return entry


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
def test_an_official_sdk_reads_its_answer_and_the_record_says_the_same(providers: Stack, call: SdkCall) -> None:
    session, fixture = fresh(), fixtures()[call.fixture]
    heard = call.call(providers.client.url, {"x-cost-session": session})
    assert heard.text == call.text
    record = one_record(providers, session)
    assert_says(record, {"end_reason": "complete", "status": 200, "attempts": 1})
    # The shipped price table has no prices for pages, images and the like.
    assert {*record.get("notes", [])} <= {"units_unpriced", "service_tier_unknown"}, record
    if fixture.own:
        assert_billed(record, fixture)
    for name, count in (("input_tokens", heard.input), ("output_tokens", heard.output)):
        if count is not None:
            assert_says(record, {name: count})
    assert arrived(providers, record)["fixture"] == call.fixture


def form(fields: dict[str, str]) -> bytes:
    """A multipart form; a value with @ is a file of that name."""
    parts = []
    for name, value in fields.items():
        file = f'; filename="{value[1:]}"\r\nContent-Type: application/octet-stream' if value[:1] == "@" else ""
        parts.append(f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode())
        parts.append(b"\x00\xff\r\n--not it\r\n" * 50 if file else value.encode())
        parts.append(b"\r\n")
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def send(stack: Stack, fixture: Fixture, session: str, chunk: str, gzipped: bool) -> Reply:
    """The request of a fixture, as its provider's clients send it."""
    meta = fixture.meta
    headers = {"host": meta["host"], "x-cost-session": session}
    headers |= {"x-replay-fixture": fixture.name, "x-replay-chunk": chunk}
    headers |= {"x-replay-gzip": "1", "accept-encoding": "gzip"} if gzipped else {}
    body = None
    if "form" in meta:
        headers["content-type"] = f"multipart/form-data; boundary={BOUNDARY}"
        body = form(meta["form"])
    elif "request" in meta:
        headers["content-type"] = "application/json"
        body = json.dumps(meta["request"], ensure_ascii=False).encode()
    return stack.client.send(meta["method"], meta["path"], body, headers)


@pytest.mark.parametrize("name", sorted(OWN))
def test_what_was_billed_is_recorded_for_every_answer_in_any_chunks_plain_and_compressed(
    providers: Stack, name: str
) -> None:
    fixture = OWN[name]
    # Once only: the second of two answers with the same id is not charged again.
    ways = WAYS[:1] if fixture.meta.get("once_per_id") else WAYS
    sessions = [fresh() for _ in ways]
    with ThreadPoolExecutor(len(ways)) as pool:
        replies = list(pool.map(lambda way: send(providers, fixture, way[0], *way[1]), zip(sessions, ways)))
    for session, (chunk, gzipped), reply in zip(sessions, ways, replies):
        data = gzip.decompress(reply.body) if gzipped else reply.body
        # A usage-only event that the filter asked for is taken out again; none of these streams has one.
        assert (reply.status, data == fixture.data) == (fixture.meta["status"], True), (chunk, gzipped)
        record = one_record(providers, session)
        assert_says(record, {"id": reply.headers["x-tollgate-id"], "end_reason": "complete"})
        assert_billed(record, fixture)
        if fixture.meta.get("never_inject"):
            assert json.loads(arrived(providers, record)["body"]) == fixture.meta["request"]


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("anthropic-messages-json-cache.json", "claude-sonnet-4-6"),
        ("anthropic-messages-sse-cache.sse", "claude-sonnet-4-6"),
        ("anthropic-messages-sse-compaction.sse", "claude-sonnet-4-6"),
        ("anthropic-messages-json-advisor.json", "claude-haiku-4-5"),
    ],
)
def test_cache_writes_cost_by_their_lifetime_and_iterations_at_their_own_models(
    providers: Stack, name: str, model: str
) -> None:
    session, fixture = fresh(), OWN[name]
    send(providers, fixture, session, "whole", False)
    parts = fixture.meta.get("iterations", [fixture.meta["usage"]])
    cost = sum(cost_picousd(part.get("model", model), part) or 0 for part in parts)
    record = one_record(providers, session)
    assert_says(record, {"price_status": "priced", "cost_picousd": cost, "priced_model": model})
    assert {charge["model"] for charge in record["charges"]} == {part.get("model", model) for part in parts}


def test_the_fixtures_add_up() -> None:
    """The index against itself: parts fit in their totals, and every planned format has a fixture."""
    for name, fixture in OWN.items():
        usage = fixture.meta["usage"]
        for part in PARTS:
            whole = usage.get("output_tokens" if part.startswith(("output", "reasoning")) else "input_tokens", 0)
            assert usage.get(part, 0) <= whole, (name, part)
        assert set(usage) <= {*TOTALS, *PARTS, "units", "provider_cost_usd", "free"}, name
        assert b"".join(fixture.pieces()) == fixture.data, name
    assert {f.meta["api"] for f in OWN.values()} == {
        "openai_chat", "openai_responses", "openai_completions", "openai_embeddings", "openai_images",
        "openai_audio_transcription", "openai_audio_speech", "openai_moderations", "anthropic_messages",
        "anthropic_count_tokens", "gemini_generate_content", "gemini_interactions", "gemini_count_tokens", "gemini_embed",
        "vertex_predict", "bedrock_converse", "bedrock_invoke", "bedrock_count_tokens", "cohere_chat", "cohere_embed",
        "cohere_rerank", "mistral_ocr", "ollama_chat", "ollama_embed",
    }

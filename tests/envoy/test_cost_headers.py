"""Callers are told what their calls cost, where the configuration wants it: in the headers of an answer, in a comment
behind a stream's last event, or in its trailers. However the provider sends its answer, the caller gets it unchanged."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import openai
import pytest
from bench import load
from conftest import Start
from support import envoy_config
from support.audit import fresh, one_record
from support.client import Headers, Reply, call_body
from support.envoy_config import Bootstrap
from support.replay import fixtures
from support.stack import Stack
from support.upstream import Upstream
from support.wire import Wire, request_head

JSON = "openai-chat-json.json"
COSTS = ("x-cost-usd", "x-cost-status", "x-cost-input-tokens", "x-cost-output-tokens")


def telling(**metering: Any) -> Callable[[Bootstrap], None]:
    def edit(bootstrap: Bootstrap) -> None:
        envoy_config.flush_soon(bootstrap)
        envoy_config.enable_trailers(bootstrap)
        envoy_config.filter_config(bootstrap).setdefault("metering", {}).update(metering)

    return edit


@pytest.fixture(scope="module")
def gate(envoy: str) -> Iterator[Stack]:
    with Stack(telling(cost_headers=True, streamed_cost="comment"), envoy=envoy) as stack:
        yield stack


def told(reply: Reply) -> dict[str, str]:
    return {name: reply.headers[name] for name in COSTS if name in reply.headers}


def recorded(stack: Stack, session: str) -> dict[str, str]:
    """What the record says of the same."""
    record = one_record(stack, session)
    told = {"x-cost-status": record.get("price_status"), "x-cost-input-tokens": record.get("input_tokens"),
            "x-cost-output-tokens": record.get("output_tokens")}
    if "cost_picousd" in record:
        told["x-cost-usd"] = format(Decimal(record["cost_picousd"]).scaleb(-12).normalize(), "f")
    return {name: str(value) for name, value in told.items() if value is not None}


WAYS: dict[str, Headers] = {
    "sized": {},
    "chunked": {"x-replay-content-length": "0"},
    "byte by byte": {"x-replay-chunk": "1"},
    "slowly": {"x-replay-chunk": "100", "x-replay-delay-ms": "20"},
    "gzip": {"x-replay-gzip": "1", "accept-encoding": "gzip"},
    "trailers": {"x-replay-fault": "trailers"},
    "an error": {"x-replay-status": "400"},
    "a model without a price": {"x-replay-fixture": "mistral-chat-audio.json"},
}


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_an_answer_has_its_cost_in_its_headers_and_is_otherwise_unchanged(gate: Stack, way: str) -> None:
    session = fresh()
    reply = gate.client.chat(headers={**WAYS[way], "x-cost-session": session})
    assert told(reply) == recorded(gate, session)
    assert "x-cost-usd" in reply.headers or way == "a model without a price"
    assert not reply.cut
    body = gzip.decompress(reply.body) if way == "gzip" else reply.body
    json.loads(body)
    if way not in ("an error", "a model without a price"):
        assert Decimal(reply.headers["x-cost-usd"]) > 0
        assert len(body) == len(fixtures()[JSON].data)
    if way == "sized":
        assert reply.headers["content-length"] == str(len(reply.body))


@pytest.mark.parametrize("framed", ["sized", "chunked"])
def test_a_long_answer_does_not_wait(start: Start, framed: str) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    body = json.dumps({"model": "gpt-4o", "padding": "x" * 3_000_000, "usage": usage}).encode()
    kind = {"content-type": "application/json"}
    pieces = [body[at : at + 60_000] for at in range(0, len(body), 60_000)]
    with Upstream(load.sized(body, kind) if framed == "sized" else load.chunked(pieces, kind)) as upstream:

        def edit(bootstrap: Bootstrap) -> None:
            telling(cost_headers=True)(bootstrap)
            envoy_config.socket_address(bootstrap, "llm_upstream")["port_value"] = upstream.port

        stack = start(edit, concurrency=1)
        session = fresh()
        reply = stack.client.chat(headers={"x-cost-session": session})
        assert reply.status == 200 and reply.body == body and not told(reply)
        assert one_record(stack, session)["output_tokens"] == 4


def test_the_sdk_reads_the_cost(gate: Stack) -> None:
    client = openai.OpenAI(base_url=f"{gate.client.url}/v1", api_key="sk-test")
    raw = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=[{"role": "user", "content": "hello"}])
    assert Decimal(raw.headers["x-cost-usd"]) > 0
    assert raw.parse().choices


def test_a_stream_has_its_cost_in_a_comment_that_the_sdk_passes_over(gate: Stack) -> None:
    session = fresh()
    reply = gate.client.chat(stream=True, headers={"x-cost-session": session})
    events, _, comment = reply.body.partition(b"data: [DONE]\n\n")
    lines = [line.removeprefix(": ").partition(": ") for line in comment.decode().splitlines() if line]
    assert {name: text for name, _, text in lines} == recorded(gate, session)
    assert comment.startswith(b": ") and comment.endswith(b"\n\n")
    client = openai.OpenAI(base_url=f"{gate.client.url}/v1", api_key="sk-test")
    stream = client.chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": "hello"}], stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert chunks and chunks[-1].usage


def test_a_stream_has_its_cost_in_trailers(start: Start) -> None:
    stack = start(telling(streamed_cost="trailers"), concurrency=1)
    session = fresh()
    body = call_body("gpt-4o", True, True, {})
    with Wire(stack.client.port) as wire:
        head = [(b"x-cost-session", session.encode()), (b"connection", b"close")]
        seen = wire.send(request_head(headers=head, length=len(body)) + body).read_to_end()
    trailers = seen.rpartition(b"\r\n0\r\n")[2].decode().split("\r\n")
    lines = [line.partition(": ") for line in trailers if line]
    assert {name: text for name, _, text in lines} == recorded(stack, session)


def test_without_envoys_option_three_answers_come_late_and_none_has_its_cost(start: Start) -> None:
    def edit(bootstrap: Bootstrap) -> None:
        telling(cost_headers=True)(bootstrap)
        del envoy_config.plugin(bootstrap)["allow_on_headers_stop_iteration"]

    stack = start(edit, concurrency=1)
    late = []
    for _ in range(5):
        began = time.monotonic()
        reply = stack.client.chat()
        assert reply.status == 200 and not told(reply) and reply.json()["choices"]
        late.append(time.monotonic() - began)
    assert all(1.5 < seconds < 5 for seconds in late[:3]) and all(seconds < 1.5 for seconds in late[3:]), late
    assert stack.metric("tollgate_released_holds_total") == 5
    lines = [line for line in stack.log().splitlines() if "allow_on_headers_stop_iteration" in line]
    assert len(lines) == 1 and "metering.cost_headers" in lines[0], lines


def test_a_stream_that_is_cut_gets_no_comment(gate: Stack) -> None:
    headers = {"x-replay-fault": "close-mid-body", "x-replay-content-length": "0"}
    reply = gate.client.chat(stream=True, headers=headers)
    assert b"x-cost-" not in reply.body

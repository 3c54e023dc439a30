"""With `metering.hold_request_headers`, a request waits in Envoy until its body has come: a refused call shows the
provider nothing, and what the body says decides path, route and length. Without Envoy's option nothing hangs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from conftest import Start
from support import budgets, envoy_config, sdks
from support.audit import assert_says, expected, fresh, one_record
from support.budgets import at_rest, budget, send, with_budgets
from support.client import call_body, slowly
from support.envoy_config import Bootstrap
from support.stack import Stack
from support.wire import Wire, request_head

MIB = 1 << 20
MAX_REQUEST_BYTES = 4 * MIB
SPENT = {"limit_usd": "0.01", "hard_limit_usd": "0.02"}
BUDGETS = [
    budget("down", **SPENT, on_exceeded="downgrade"),
    budget("block", limit_usd="0.01"),
    budget("wide", limit_usd="1000"),
]
DOWNGRADES = [{"from": "gpt-4o", "to": "gpt-4o-mini"}]
METERING = {"hold_request_headers": True, "max_request_bytes": MAX_REQUEST_BYTES}
CHEAPER = "x-cost-model"


def held(bootstrap: Bootstrap) -> None:
    with_budgets(*BUDGETS, downgrades=DOWNGRADES, metering=METERING)(bootstrap)
    envoy_config.enable_trailers(bootstrap)


def without_option(bootstrap: Bootstrap) -> None:
    held(bootstrap)
    del envoy_config.plugin(bootstrap)["allow_on_headers_stop_iteration"]


@pytest.fixture(scope="module")
def gate(envoy: str) -> Iterator[Stack]:
    def edit(bootstrap: Bootstrap) -> None:
        held(bootstrap)
        if envoy == os.environ.get("TOLLGATE_ENVOY_OLDEST"):
            # There, the route's limit counts only for requests that have reached the router.
            envoy_config.listener(bootstrap)["per_connection_buffer_limit_bytes"] = 16 * MIB

    with Stack(edit, envoy=envoy) as stack:
        yield stack


def spender(gate: Stack, *features: str) -> str:
    """A team that has spent all but a hundredth of its cent in these budgets: only the body tells that a call is too much."""
    team = fresh()
    for feature in features:
        assert send(gate, feature, team, used=(0, 990)).code is None
        at_rest(gate, feature, team=team)
    return team


def arrived(gate: Stack, session: str) -> list[dict[str, Any]]:
    """What the provider got that carries this mark."""
    return [entry for entry in list(gate.replay.requests) if ["x-mark", session] in entry["headers"]]


def values(entry: dict[str, Any], name: str) -> list[str]:
    """The values of a header of a request that arrived."""
    return [value for own, value in entry["headers"] if own.lower() == name]


def wire_headers(feature: str, team: str, session: str, **more: str) -> list[tuple[bytes, bytes]]:
    pairs = {"x-cost-feature": feature, "x-cost-team": team, "x-cost-session": session, "x-mark": session, **more}
    return [(name.encode(), value.encode()) for name, value in pairs.items()]


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
def test_a_refused_call_shows_the_provider_nothing(gate: Stack, chunked: bool) -> None:
    team = spender(gate, "block")
    data = call_body("gpt-4o", True, True, {"max_tokens": 100})
    body: Any = slowly([data[at : at + 7] for at in range(0, len(data), 7)], 0.002) if chunked else data
    refused = send(gate, "block", team, body=body)
    assert (refused.reply.status, refused.code) == (429, "budget_exceeded")
    assert refused.provider == [], "not even headers"
    assert_says(one_record(gate, refused.session), {"decision": "refused", "cost_picousd": 0})


def test_what_the_headers_alone_forbid_is_refused_at_once(gate: Stack) -> None:
    team = fresh()
    assert send(gate, "block", team, used=(0, 1000)).code is None
    at_rest(gate, "block", team=team)
    headers = wire_headers("block", team, fresh())
    with Wire(gate.client.port) as wire:
        wire.send(request_head(headers=headers, length=500))
        wire.read_until(b"HTTP/1.1 429")


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
def test_a_held_call_goes_to_the_cheaper_model_with_its_exact_length(gate: Stack, chunked: bool) -> None:
    team = spender(gate, "down")
    data = call_body("gpt-4o", False, True, {"max_tokens": 100})
    body: Any = slowly([data[at : at + 7] for at in range(0, len(data), 7)], 0.002) if chunked else data
    sent = send(gate, "down", team, body=body, used=(50, 20))
    assert (sent.code, sent.reply.headers[CHEAPER]) == (None, "gpt-4o-mini")
    (entry,) = sent.provider
    assert entry["body"] == data.decode().replace('"gpt-4o"', '"gpt-4o-mini"')
    assert values(entry, "content-length") == [str(len(entry["body"]))]
    assert values(entry, "transfer-encoding") == []
    assert_says(one_record(gate, sent.session), {"decision": "downgraded", "downgraded_from": "gpt-4o"})


@pytest.mark.parametrize(("stream", "asks"), [(True, False), (True, True), (False, False)])
@pytest.mark.parametrize("feature", ["wide", "free"])
def test_only_a_stream_that_does_not_ask_for_its_usage_is_changed(
    gate: Stack, feature: str, stream: bool, asks: bool
) -> None:
    data = call_body("gpt-4o", stream, asks, {"max_tokens": 100})
    sent = send(gate, feature, fresh(), body=data, headers={"accept-encoding": "gzip"})
    (entry,) = sent.provider
    injected = stream and not asks
    assert values(entry, "content-length") == [str(entry["body_len"])]
    assert values(entry, "accept-encoding") == ["identity" if injected else "gzip"]
    assert (entry["body"] == data.decode()) == (not injected)
    assert (json.loads(entry["body"]).get("stream_options") == {"include_usage": True}) == stream
    if stream:
        assert (b'"choices":[]' in sent.reply.body) == asks
    record = one_record(gate, sent.session)
    assert (record["usage_source"], record["end_reason"]) == ("reported", "complete")


def test_the_sdk_streams_through_it(gate: Stack) -> None:
    headers = {"x-cost-feature": "wide", "x-cost-team": fresh()}
    with openai.OpenAI(base_url=f"{gate.client.url}/v1", api_key="sk-test", default_headers=headers) as client:
        chunks = list(client.chat.completions.create(model="gpt-4o", messages=sdks.HELLO, max_tokens=9, stream=True))
    assert any(chunk.choices and chunk.choices[0].delta.content for chunk in chunks)


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize("stream", [False, True], ids=["as it is", "asked for usage"])
def test_a_body_just_below_the_limit_passes_whole(gate: Stack, chunked: bool, stream: bool) -> None:
    head = call_body("gpt-4o", stream, False, {"max_tokens": 10, "padding": ""})
    data = head.replace(b'"padding": ""', b'"padding": "%b"' % (b"x " * ((MAX_REQUEST_BYTES - 200) // 2)))
    body: Any = iter([data[at : at + 65_536] for at in range(0, len(data), 65_536)]) if chunked else data
    sent = send(gate, "wide", fresh(), body=body)
    (entry,) = sent.provider
    more = len(b',"stream_options":{"include_usage":true}') if stream else 0
    assert (sent.reply.status, entry["body_len"]) == (200, len(data) + more)
    # What is not changed stays as it came, which is in chunks where nobody said how long it is.
    length = [] if chunked and not stream else [str(entry["body_len"])]
    assert values(entry, "content-length") == length


@pytest.mark.parametrize("feature", ["wide", "free"])
@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
def test_a_longer_one_is_refused_where_a_budget_must_see_it_and_else_let_go(
    gate: Stack, feature: str, chunked: bool
) -> None:
    head = call_body("gpt-4o", True, False, {"max_tokens": 10, "padding": ""})
    data = head.replace(b'"padding": ""', b'"padding": "%b"' % (b"x " * (MAX_REQUEST_BYTES // 2)))
    body: Any = iter([data[at : at + 65_536] for at in range(0, len(data), 65_536)]) if chunked else data
    session = fresh()
    try:
        sent = send(gate, feature, fresh(), body=body, headers={"x-cost-session": session, "x-mark": session})
    except (BrokenPipeError, ConnectionResetError):
        # The answer came while the body was still being sent.
        assert feature == "wide"
    else:
        assert sent.reply.status == (413 if feature == "wide" else 200)
    if feature == "wide":
        assert_says(one_record(gate, session), {"error": "request_too_large", "status": 413, "decision": "refused"})
        assert arrived(gate, session) == []
    else:
        (entry,) = arrived(gate, session)
        assert entry["body_len"] == len(data) + len(b',"stream_options":{"include_usage":true}')
        assert_says(one_record(gate, session), {"usage_source": "reported", "decision": "allowed"})


def test_a_route_that_takes_less_than_the_filter_answers_413_itself(start: Start, envoy: str) -> None:
    def small(bootstrap: Bootstrap) -> None:
        held(bootstrap)
        del envoy_config.route(bootstrap)["request_body_buffer_limit"]

    gate = start(small, envoy=envoy)
    session = fresh()
    marks = {"x-cost-session": session, "x-mark": session}
    # Envoy's own limit is 1 MiB. A route's counts where it is more.
    data = call_body("gpt-4o", False, True, {"padding": "x" * MIB})
    reply = gate.client.send("POST", budgets.CHAT, iter([data[:100_000], data[100_000:]]), marks)
    assert (reply.status, arrived(gate, session)) == (413, [])
    assert_says(one_record(gate, session), {"status": 413, "end_reason": "local_reply", "cost_picousd": 0})


@pytest.mark.parametrize("feature", ["wide", "down", "block"])
def test_http2_clients_are_held_too(gate: Stack, feature: str) -> None:
    team = spender(gate, feature) if feature != "wide" else fresh()
    session = fresh()
    data = call_body("gpt-4o", True, False, {"max_tokens": 100}).decode()
    command = ["curl", "-sS", "--http2-prior-knowledge", "-m", "20", "-d", data, "-w", "%{http_code}"]
    command += ["-o", "/dev/null"]
    for name, value in wire_headers(feature, team, session):
        command += ["-H", f"{name.decode()}: {value.decode()}"]
    done = subprocess.run([*command, f"{gate.client.url}{budgets.CHAT}"], capture_output=True, timeout=60, text=True)
    seen = arrived(gate, session)
    assert (done.stdout, done.stderr, len(seen)) == (("429", "", 0) if feature == "block" else ("200", "", 1))
    for entry in seen:
        body = json.loads(entry["body"])
        assert body["model"] == ("gpt-4o-mini" if feature == "down" else "gpt-4o")
        assert body["stream_options"] == {"include_usage": True}
        assert values(entry, "content-length") == [str(entry["body_len"])]


@pytest.mark.parametrize("feature", ["wide", "block"])
def test_a_client_that_waits_to_be_told_to_continue_is(gate: Stack, feature: str) -> None:
    team = spender(gate, feature) if feature != "wide" else fresh()
    session = fresh()
    data = call_body("gpt-4o", False, True, {"max_tokens": 100})
    headers = wire_headers(feature, team, session, expect="100-continue")
    with Wire(gate.client.port) as wire:
        wire.send(request_head(headers=headers, length=len(data)))
        wire.read_until(b"100 Continue\r\n\r\n")
        wire.send(data)
        wire.read_until(b"HTTP/1.1 429" if feature == "block" else b"HTTP/1.1 200")
    assert len(arrived(gate, session)) == (feature == "wide")


@pytest.mark.parametrize("feature", ["wide", "down", "block"])
def test_a_held_request_may_end_in_trailers(gate: Stack, feature: str) -> None:
    team = spender(gate, feature) if feature != "wide" else fresh()
    session = fresh()
    data = call_body("gpt-4o", False, True, {"max_tokens": 100})
    head = request_head(headers=wire_headers(feature, team, session))
    with Wire(gate.client.port) as wire:
        wire.send(head)
        for part in (data[:9], data[9:]):
            wire.send(b"%x\r\n%b\r\n" % (len(part), part))
        wire.send(b"0\r\nx-end: of request\r\n\r\n")
        answer = wire.read_until(b"\r\n\r\n")
    status = answer.split(b" ")[1]
    if feature == "block":
        assert (status, arrived(gate, session)) == (b"429", [])
        return
    (entry,) = arrived(gate, session)
    model = "gpt-4o-mini" if feature == "down" else "gpt-4o"
    assert (status, json.loads(entry["body"])["model"]) == (b"200", model)
    assert (values(entry, "content-length"), values(entry, "transfer-encoding")) == ([], ["chunked"])


def test_a_client_that_leaves_while_it_is_held_leaves_a_record_and_no_trace(gate: Stack) -> None:
    session = fresh()
    headers = wire_headers("wide", fresh(), session)
    with Wire(gate.client.port) as wire:
        wire.send(request_head(headers=headers, length=500) + b'{"model":"gpt-4o"')
        time.sleep(0.2)
        wire.reset()
    record = one_record(gate, session)
    assert_says(record, {"end_reason": "client_abort", "cost_picousd": 0, "request_model": "gpt-4o"})
    assert arrived(gate, session) == []


def test_a_slow_client_is_waited_for(gate: Stack) -> None:
    # The worker has proved that it can hold by now, however many calls it takes.
    for _ in range(8):
        send(gate, "wide", fresh())
    data = call_body("gpt-4o", False, True, {"max_tokens": 100})
    session = fresh()
    with Wire(gate.client.port) as wire:
        wire.send(request_head(headers=wire_headers("wide", fresh(), session), length=len(data)))
        time.sleep(3.5)
        assert arrived(gate, session) == []
        wire.send(data)
        wire.read_until(b"HTTP/1.1 200")
    assert "allow_on_headers_stop_iteration" not in gate.log()


def test_many_held_calls_at_once_are_never_over_admitted(gate: Stack) -> None:
    team = fresh()

    def client(_number: int) -> list[str | None]:
        return [send(gate, "block", team, max_tokens=100, used=(20, 100)).code for _ in range(6)]

    with ThreadPoolExecutor(16) as pool:
        codes = [code for part in pool.map(client, range(16)) for code in part]
    assert set(codes) <= {None, "budget_busy", "budget_exceeded"} and None in codes
    assert at_rest(gate, "block", team=team).spent <= budgets.pico("0.01")


def test_without_the_option_a_call_is_let_go_after_two_seconds_and_still_governed(start: Start, envoy: str) -> None:
    gate = start(without_option, envoy=envoy)
    began = time.monotonic()
    first = send(gate, "down", (team := fresh()), used=(0, 1000))
    assert first.code is None and 1.9 < time.monotonic() - began < 5
    at_rest(gate, "down", team=team)
    sent = send(gate, "down", team, used=(50, 20))
    assert (sent.code, sent.reply.headers[CHEAPER], json.loads(sent.bodies[0])["model"]) == (
        None, "gpt-4o-mini", "gpt-4o-mini"
    )
    stream = send(gate, "wide", fresh(), stream=True, body=call_body("gpt-4o", True, False, {}))
    assert json.loads(stream.bodies[0])["stream_options"] == {"include_usage": True}
    assert_says(one_record(gate, stream.session), expected("openai-chat-sse-usage.sse", "gpt-4o"))
    assert send(gate, "block", team, used=(0, 1000)).code is None
    at_rest(gate, "block", team=team)
    refused = send(gate, "block", team)
    assert (refused.code, refused.bodies) == ("budget_exceeded", [])
    log = [line for line in gate.log().splitlines() if "allow_on_headers_stop_iteration" in line]
    assert 1 <= len(log) <= 2, "once a worker"
    assert gate.counter("wasmcustom.tollgate_released_holds_total") >= 4


def test_what_a_worker_withholds_is_bounded(start: Start, envoy: str) -> None:
    def bounded(bootstrap: Bootstrap) -> None:
        held(bootstrap)
        metering = {**METERING, "max_request_bytes": 100_000, "max_withheld_bytes": 150_000}
        envoy_config.filter_config(bootstrap)["metering"] = metering

    gate = start(bounded, envoy=envoy, concurrency=1)
    waiting = []
    for _ in range(2):
        sock = socket.create_connection(("127.0.0.1", gate.client.port))
        headers = wire_headers("wide", fresh(), fresh())
        sock.sendall(request_head(headers=headers, length=75_000) + b" " * 70_000)
        waiting.append(sock)
    time.sleep(0.3)
    body = call_body("gpt-4o", False, True, {"padding": "x" * 20_000})
    refused = send(gate, "wide", fresh(), body=body)
    assert (refused.reply.status, refused.code, refused.provider) == (503, "gateway_busy", [])
    assert (refused.reply.headers["x-should-retry"], refused.reply.headers["retry-after"]) == ("true", "1")
    assert gate.counter("wasmcustom.tollgate_busy_refusals_total") == 1
    for sock in waiting:
        sock.close()
    gate.wait(lambda: send(gate, "wide", fresh(), body=body).reply.status == 200, 5, "nothing is given back")

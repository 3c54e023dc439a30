"""Budgets on two workers: no crowd of callers gets past a limit, every end settles what was held, and a refusal is
understood by the caller's SDK and leaves no way around it."""

from __future__ import annotations

import gzip
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import anthropic
import botocore.exceptions
import google.genai.errors
import openai
import pytest
from conftest import Start
from support import budgets, envoy_config, sdks
from support.audit import assert_says, cost_picousd, fresh, one_record
from support.budgets import CHAT, at_rest, bound, budget, pico, send, standing, usage_records, with_budgets
from support.client import call_body, slowly
from support.envoy_config import Bootstrap
from support.replay import fixtures
from support.stack import WASM, Stack
from support.wire import Wire, request_head

TEST_WASM = WASM.with_name("tollgate-test.wasm")
CLIENTS, CALLS_OF_A_CLIENT = 64, 15
# A hundred calls of 24 input and 40 output tokens.
USED = (24, 40)
CALL = cost_picousd("gpt-4o", {"input_tokens": USED[0], "output_tokens": USED[1]}) or 0
CROWD_USD = "0.046"
MAX_REQUEST_BYTES = 100_000
LEASE_SECONDS = 5
SNAPSHOT_SECONDS = 125

BUDGETS = [
    budget("crowd", limit_usd=CROWD_USD),
    budget("leavers", limit_usd="1000"),
    budget("cents", limit_usd="0.01"),
    budget("month", limit_usd="0.01", window="month"),
    budget("tiny", limit_usd="0.000001", window="month"),
    budget("slot", limit_usd="0.06"),
    budget("twice", limit_calls=2),
    budget("share", limit_calls=1, when_missing="share"),
    budget("skip", limit_calls=1, when_missing="skip"),
    budget("refuse", limit_calls=100, when_missing="refuse"),
    budget("run-cap", per=["run_id"], when_missing="skip", limit_calls=2, idle_ttl_secs=3600),
    budget("runs", match={"feature": "run-cap"}, per=[], limit_calls=1000),
    budget("watch", limit_usd="0.000001", mode="observe"),
    budget("pass", limit_usd="0.01", on_exceeded="allow"),
    budget("alert", limit_usd="0.01", alert_at=[50, 80, 100]),
]


@pytest.fixture(scope="module")
def gate(envoy: str) -> Iterator[Stack]:
    """All of `BUDGETS`; each test has teams of its own."""
    metering = {"max_request_bytes": MAX_REQUEST_BYTES, "on_unmetered": "reject"}
    with Stack(with_budgets(*BUDGETS, metering=metering), envoy=envoy) as stack:
        yield stack


def spend_all(stack: Stack, feature: str, team: str) -> None:
    """One call that costs a cent."""
    assert send(stack, feature, team, used=(0, 1000)).reply.status == 200
    assert at_rest(stack, feature, team=team).spent == pico("0.01")


# Limits under load


def max_tokens_for(factor: int) -> int:
    """The limit on output with which a call's bound is `factor` times its cost, or just more."""
    return next(n for n in range(USED[1], 10_000) if bound(call_body("gpt-4o", False, False, {"max_tokens": n}), n)
                >= factor * CALL)


@pytest.mark.parametrize("factor", [1, 5, 50])
def test_a_crowd_never_spends_more_than_the_limit(gate: Stack, factor: int) -> None:
    team, limit, max_tokens = fresh(), pico(CROWD_USD), max_tokens_for(factor)
    most = bound(call_body("gpt-4o", False, False, {"max_tokens": max_tokens}), max_tokens)
    assert factor * CALL <= most < (factor + 1) * CALL
    over: list[Any] = []
    codes: list[str | None] = []
    done = threading.Event()

    def client(_number: int) -> None:
        for _ in range(CALLS_OF_A_CLIENT):
            code = send(gate, "crowd", team, max_tokens=max_tokens, used=USED).code
            codes.append(code)
            if code == "budget_exceeded":
                return

    def watch() -> None:
        while not done.wait(0.02):
            seen = standing(gate, "crowd", team=team)
            if seen.spent + seen.reserved > limit:
                over.append(seen)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(client, range(CLIENTS)))
    done.set()
    watcher.join()
    assert not over
    assert set(codes) <= {None, "budget_busy", "budget_exceeded"}
    passed = codes.count(None)
    assert at_rest(gate, "crowd", team=team) == budgets.Standing(
        spent=passed * CALL, tokens=passed * sum(USED), calls=passed
    )

    # With nothing in flight, what fits passes and what is refused did not fit.
    for _ in range(150):
        left = limit - standing(gate, "crowd", team=team).spent
        sent = send(gate, "crowd", team, max_tokens=max_tokens, used=USED)
        if sent.code is not None:
            assert (sent.code, left < most) == ("budget_exceeded", True)
            break
        passed += 1
        assert left >= most
        at_rest(gate, "crowd", team=team)
    else:
        raise AssertionError("never refused")

    def records() -> list[dict[str, Any]]:
        return [r for r in list(gate.sink.records) if r.get("team") == team and r["type"] == "usage"]

    gate.wait(lambda: len(records()) == len(codes) + passed - codes.count(None) + 1, 10, "records are missing")
    cost = sum(r["cost_picousd"] for r in records())
    assert cost == passed * CALL == standing(gate, "crowd", team=team).spent <= limit


def test_the_ledger_is_the_sum_of_the_records_however_calls_end(start: Start) -> None:
    stack = start(with_budgets(*BUDGETS), event_delay_ms=3)
    team, chance, number = fresh(), random.Random(30), 200
    mine = {"x-cost-feature": "leavers", "x-cost-team": team}

    def leave_early() -> None:
        with Wire(stack.client.port) as wire:
            head = [(b"x-replay-wait-ms", b"300"), *((k.encode(), v.encode()) for k, v in mine.items())]
            body = call_body("gpt-4o", False, False, {"max_tokens": 50})
            wire.send(request_head(CHAT.encode(), head, length=len(body)) + body)
            time.sleep(0.05)

    def leave_before_the_end_of_the_request() -> None:
        with Wire(stack.client.port) as wire:
            head = [(k.encode(), v.encode()) for k, v in mine.items()]
            wire.send(request_head(CHAT.encode(), head, length=1000) + b'{"model": "gpt-4o", "messages": [')
            time.sleep(0.05)

    def run(way: float) -> None:
        if way < 0.3:
            stack.client.hang_up(1 + int(way * 10_000), headers=mine)
        elif way < 0.35:
            leave_early()
        elif way < 0.4:
            leave_before_the_end_of_the_request()
        else:
            fault = "reset-mid-body" if way < 0.45 else "reset-before-headers" if way < 0.5 else ""
            status = {"x-replay-status": "500"} if 0.5 <= way < 0.55 else {}
            headers = {**mine, "x-replay-fault": fault, **status}
            stack.client.chat(stream=int(way * 1000) % 2 == 0, headers=headers, max_tokens=300)

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(run, [chance.random() for _ in range(number)]))
    records = usage_records(stack, number)
    ends = {r["end_reason"] for r in records}
    assert {"complete", "client_abort", "upstream_reset"} <= ends, ends
    assert sum(r["end_reason"] == "client_abort" for r in records) >= number // 4
    now = at_rest(stack, "leavers", team=team)
    assert now.spent == sum(r["cost_picousd"] for r in records) and now.reserved == 0
    assert now.tokens == sum(r.get("input_tokens", 0) + r.get("output_tokens", 0) for r in records)


# Refusals


def by_openai(base: str, headers: sdks.Headers) -> Any:
    with openai.OpenAI(base_url=f"{base}/v1", api_key="sk-test", default_headers=headers) as client:
        return client.chat.completions.create(model="gpt-5", messages=sdks.HELLO)


def by_anthropic(base: str, headers: sdks.Headers) -> Any:
    client = anthropic.Anthropic(base_url=base, api_key="sk-test", default_headers=headers)
    return client.messages.create(model="claude-sonnet-4-6", max_tokens=1024, messages=sdks.HELLO)


def by_bedrock(base: str, headers: sdks.Headers) -> Any:
    return sdks.bedrock_client(base, headers, retries=None).converse(modelId=sdks.HAIKU, messages=sdks.BLOCKS)


# What each SDK raises, and where it keeps the status and the code; each with its own defaults for trying again.
SDKS: list[Any] = [
    pytest.param(
        by_openai, openai.RateLimitError, lambda e: (e.status_code, e.type, e.code),
        (429, "insufficient_quota", "budget_exceeded"), id="openai",
    ),
    pytest.param(
        by_anthropic, anthropic.RateLimitError, lambda e: (e.status_code, e.body["error"]["type"]),
        (429, "rate_limit_error"), id="anthropic",
    ),
    pytest.param(
        sdks.gemini_generate, google.genai.errors.ClientError, lambda e: (e.code, e.status),
        (429, "RESOURCE_EXHAUSTED"), id="google-genai",
    ),
    pytest.param(
        by_bedrock, botocore.exceptions.ClientError,
        lambda e: (e.response["ResponseMetadata"]["HTTPStatusCode"], e.response["Error"]["Code"]),
        (400, "ServiceQuotaExceededException"), id="boto3",
    ),
]


def attempts(stack: Stack, team: str) -> list[dict[str, Any]]:
    """Envoy's own lines of a team's calls that have a record, in order."""
    ids = {r["id"] for r in list(stack.sink.records) if r.get("team") == team}
    return [line for line in stack.plain_log() if line["id"] in ids]


@pytest.mark.parametrize(("call", "error", "shows", "wanted"), SDKS)
def test_an_exceeded_budget_is_the_sdks_own_error_and_is_not_tried_again(
    gate: Stack, call: Callable[..., Any], error: type[Exception], shows: Callable[[Any], Any], wanted: Any
) -> None:
    team = fresh()
    headers = {"x-cost-feature": "tiny", "x-cost-team": team, "x-cost-session": team, "x-mark": team}
    with pytest.raises(error, match='Budget "tiny" leaves too little for what this call may cost: 0 of 0.0') as raised:
        call(gate.client.url, headers)
    assert shows(raised.value) == wanted
    record = one_record(gate, team)
    assert_says(record, {
        "decision": "refused", "budget": "tiny", "error": "budget_exceeded", "status": wanted[0], "cost_picousd": 0,
        "end_reason": "local_reply",
    })
    assert pico(record["estimated_cost_usd"]) > 1_000_000
    (line,) = attempts(gate, team)
    assert (line["details"], line["status"]) == ("tollgate_budget_exceeded", wanted[0])
    assert not [r for r in gate.replay.requests if ["x-mark", team] in r["headers"] and r["body"] is not None]
    assert standing(gate, "tiny", team=team) == budgets.Standing()


@pytest.mark.parametrize("call", [by_openai, by_anthropic, by_bedrock])
def test_a_busy_budget_is_tried_again_and_then_lets_the_call_pass(gate: Stack, call: Callable[..., Any]) -> None:
    team = fresh()
    mine = {"x-cost-feature": "slot", "x-cost-team": team}
    body = call_body("gpt-4o", True, True, {"max_tokens": 5900})
    with gate.client.open("POST", CHAT, body, {**mine, "x-replay-fault": "hang-mid-body"}) as held:
        assert held.read1(10)
        answer: list[Any] = []
        caller = threading.Thread(target=lambda: answer.append(call(gate.client.url, mine)))
        caller.start()
        gate.wait(lambda: bool(attempts(gate, team)), 5, "nothing was refused")
    caller.join(20)
    assert answer
    # However often it was refused: the one that held the budget, and the one that passed in the end.
    ends = {"downstream_remote_disconnect", "via_upstream"}
    gate.wait(lambda: ends <= {line["details"] for line in attempts(gate, team)}, 5, "records are missing")
    seen = [line["details"] for line in attempts(gate, team)]
    assert seen[0] == "tollgate_budget_busy" and seen.count("via_upstream") == 1
    assert {*seen} == {"tollgate_budget_busy", *ends}


def test_a_refusal_says_which_budget_and_when_it_resets(gate: Stack) -> None:
    team = fresh()
    spend_all(gate, "month", team)
    refused = send(gate, "month", team)
    now = datetime.now(timezone.utc)
    resets = datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=timezone.utc)
    headers = refused.reply.headers
    assert refused.code == "budget_exceeded" and not refused.provider, "known from its headers"
    assert (headers["x-cost-budget"], headers["x-should-retry"]) == ("month", "false")
    assert headers["x-cost-budget-resets-at"] == resets.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert abs(int(headers["retry-after"]) - (resets - now).total_seconds()) < 10
    record = one_record(gate, refused.session)
    assert headers["x-tollgate-id"] == record["id"]
    assert_says(record, {"decision": "refused", "budget": "month", "error": "budget_exceeded", "cost_picousd": 0})
    counted = gate.counter("wasmcustom.tollgate_budget_refusals_total.reason.budget_exceeded.budget.month")
    assert counted >= 1

    lasting = fresh()
    spend_all(gate, "cents", lasting)
    headers = send(gate, "cents", lasting).reply.headers
    assert "retry-after" not in headers and "x-cost-budget-resets-at" not in headers, "it never resets"


def test_a_busy_refusal_asks_to_come_again_in_a_second(gate: Stack) -> None:
    team = fresh()
    mine = {"x-cost-feature": "slot", "x-cost-team": team, "x-replay-fault": "hang-mid-body"}
    with gate.client.open("POST", CHAT, call_body("gpt-4o", True, True, {"max_tokens": 5900}), mine) as held:
        assert held.read1(10)
        refused = send(gate, "slot", team)
    assert refused.code == "budget_busy" and not refused.bodies
    assert (refused.reply.headers["retry-after"], refused.reply.headers["x-should-retry"]) == ("1", "true")
    assert_says(one_record(gate, refused.session), {"decision": "refused", "budget": "slot", "error": "budget_busy"})


# Ways around


def test_a_call_without_its_dimension_shares_a_counter_or_is_not_counted_or_is_refused(gate: Stack) -> None:
    assert standing(gate, "share", team="").calls <= 1
    codes = {name: [send(gate, name).code for _ in range(3)] for name in ("share", "skip", "refuse")}
    assert codes["share"][1:] == ["budget_exceeded"] * 2
    assert codes["skip"] == [None] * 3
    assert codes["refuse"] == ["budget_dimension_missing"] * 3
    refused = send(gate, "refuse")
    assert (refused.reply.status, refused.bodies) == (400, [])
    assert 'kept by \\"team\\"' in refused.reply.body.decode()
    assert send(gate, "refuse", fresh()).code is None
    # An empty value is none, and so is one that is too long.
    for team in ("", "x" * 300):
        assert send(gate, "refuse", team).code == "budget_dimension_missing"


def test_a_model_without_a_price_is_held_and_charged_at_the_highest_price(gate: Stack) -> None:
    team = fresh()
    passed = send(gate, "cents", team, model="acme-9", max_tokens=250, used=(100, 250))
    assert passed.code is None
    record = one_record(gate, passed.session)
    # That of the table's dearest model, whoever sells it.
    assert_says(record, {
        "priced_by": "assumed_highest", "priced_model": "claude-opus-4-8",
        "cost_picousd": cost_picousd("claude-opus-4-8", {"input_tokens": 100, "output_tokens": 250}),
    })
    assert record["cost_picousd"] == at_rest(gate, "cents", team=team).spent
    assert pico(record["estimated_cost_usd"]) > 250 * 25_000_000
    assert send(gate, "cents", team, model="acme-9", max_tokens=250).code == "budget_exceeded"
    assert send(gate, "cents", fresh(), model=None, max_tokens=1000).code == "budget_exceeded", "and with no model"


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
def test_a_body_too_long_to_be_judged_is_refused_where_a_budget_may_count_it(gate: Stack, chunked: bool) -> None:
    body = call_body("gpt-4o", False, False, {"x": "y" * MAX_REQUEST_BYTES})

    def sent(feature: str) -> budgets.Sent:
        pieces = [body[at : at + 8192] for at in range(0, len(body), 8192)]
        return send(gate, feature, fresh(), body=slowly(pieces, 0) if chunked else body)

    refused = sent("cents")
    assert (refused.reply.status, refused.code, refused.bodies) == (413, "request_too_large", [])
    assert_says(one_record(gate, refused.session), {"decision": "refused", "error": "request_too_large", "status": 413})
    for feature in ("watch", "none"):
        passed = sent(feature)
        assert (passed.reply.status, passed.provider[0]["body_len"]) == (200, len(body)), feature


def test_a_path_that_cannot_be_metered_is_refused_where_policy_says_so(gate: Stack) -> None:
    refused = send(gate, "cents", fresh(), path="/v1/new-thing", headers={"host": "api.openai.com"})
    assert (refused.reply.status, refused.code, refused.provider) == (403, "unmetered_path", [])


def test_the_spelling_of_a_header_makes_no_other_team(gate: Stack) -> None:
    team = fresh()
    names = ["x-cost-team", "X-Cost-Team", "X-COST-TEAM"]
    codes = [send(gate, "twice", headers={name: team}).code for name in names]
    assert codes == [None, None, "budget_exceeded"]
    # Of two values one counts; a second one is no way to a fresh counter.
    wire_codes = []
    for other in (fresh(), fresh()):
        head = [(b"x-cost-feature", b"twice"), (b"x-cost-team", team.encode()), (b"x-cost-team", other.encode())]
        body = call_body("gpt-4o", False, False, {})
        with Wire(gate.client.port) as wire:
            wire.send(request_head(CHAT.encode(), head, length=len(body)) + body)
            wire_codes.append(wire.read_until(b"}}").split(b" ")[1])
    assert wire_codes == [b"429", b"429"]


def test_a_capped_run_stops_alone_and_calls_without_a_run_go_on(gate: Stack) -> None:
    run, other = {"x-cost-run-id": fresh()}, {"x-cost-run-id": fresh()}
    codes = [send(gate, "run-cap", headers=run).code for _ in range(4)]
    assert codes == [None, None, "budget_exceeded", "budget_exceeded"]
    assert [send(gate, "run-cap", headers=other).code for _ in range(2)] == [None, None]
    before = at_rest(gate, "runs").calls
    assert [send(gate, "run-cap").code for _ in range(3)] == [None] * 3
    assert at_rest(gate, "runs").calls == before + 3, "what wants a run may be told from the whole"
    refused = send(gate, "run-cap", headers=run)
    assert refused.reply.headers["x-cost-budget"] == "run-cap"


def test_http2_clients_are_refused_alike(gate: Stack) -> None:
    def post(feature: str, team: str, session: str, stream: bool) -> bytes:
        command = ["curl", "-sS", "--http2-prior-knowledge", "-m", "20", "-i", "-H", "content-type: application/json"]
        for name, value in (("feature", feature), ("team", team), ("session", session)):
            command += ["-H", f"x-cost-{name}: {value}"]
        command += ["-d", call_body("gpt-4o", stream, True, {}).decode(), gate.client.url + CHAT]
        return subprocess.run(command, capture_output=True, timeout=30).stdout.lower()

    spent = fresh()
    spend_all(gate, "cents", spent)
    for stream in (False, True):
        answer = post("tiny", fresh(), fresh(), stream)
        assert answer.startswith(b"http/2 429") and b'"code":"budget_exceeded"' in answer
        assert b"\nx-should-retry: false" in answer and b"\nx-cost-budget: tiny" in answer
        # Refused at its headers; curl up to 7.88 loses one in ten of such answers, so the record has to do.
        session = fresh()
        post("cents", spent, session, stream)
        assert_says(one_record(gate, session), {"decision": "refused", "budget": "cents", "status": 429})


def test_a_request_in_many_small_pieces_is_judged_whole(gate: Stack) -> None:
    body = call_body("gpt-4o", False, False, {"max_tokens": 900})
    refused = send(gate, "cents", fresh(), body=slowly([bytes([b]) for b in body.replace(b"900", b"9000")], 0.0005))
    assert (refused.code, refused.bodies) == ("budget_exceeded", [])
    passed = send(gate, "cents", fresh(), body=slowly([bytes([b]) for b in body], 0.0005))
    assert (passed.code, passed.bodies) == (None, [body.decode()])
    assert pico(one_record(gate, passed.session)["estimated_cost_usd"]) == bound(body, 900)


def test_a_compressed_request_that_a_budget_has_to_read_is_refused(gate: Stack) -> None:
    packed = gzip.compress(call_body("gpt-4o", False, False, {"max_tokens": 1}), mtime=0)
    refused = send(gate, "leavers", fresh(), body=packed, headers={"content-encoding": "gzip"})
    assert (refused.code, refused.reply.status, refused.bodies) == ("request_unreadable", 415, [])


# What is told and not refused


def test_a_budget_that_observes_refuses_nothing(gate: Stack) -> None:
    team = fresh()
    for _ in range(3):
        passed = send(gate, "watch", team, used=(100, 100))
        assert passed.code is None
        assert_says(one_record(gate, passed.session), {
            "decision": "allowed", "would_decide": "refused", "budget": "watch",
        })
    assert at_rest(gate, "watch", team=team).calls == 3


def test_a_budget_that_allows_counts_on_beyond_its_limit(gate: Stack) -> None:
    team = fresh()
    for number in range(1, 4):
        passed = send(gate, "pass", team, used=(0, 1000))
        assert passed.code is None
        assert_says(one_record(gate, passed.session), {"decision": "allowed"})
        assert at_rest(gate, "pass", team=team).spent == number * pico("0.01")


def test_an_alert_is_given_once_for_each_threshold_on_all_workers_together(gate: Stack) -> None:
    team = fresh()

    def counted() -> float:
        return sum(gate.metric("tollgate_budget_alerts_total", budget="alert", threshold=at) for at in ("50", "80", "100"))

    before = counted()
    with ThreadPoolExecutor(32) as pool:
        # Nearly two cents' worth of calls; each costs a little more than its bound, so that the cent is reached.
        codes = list(pool.map(lambda _: send(gate, "alert", team, max_tokens=10, used=(0, 20)).code, range(96)))
    assert codes.count(None) >= 25
    at_rest(gate, "alert", team=team)
    while send(gate, "alert", team, max_tokens=10, used=(0, 20)).code is None:
        at_rest(gate, "alert", team=team)

    def alerts() -> list[dict[str, Any]]:
        return [r for r in list(gate.sink.records) if r["type"] == "budget_alert" and r["scope"] == {"team": team}]

    gate.wait(lambda: len(alerts()) >= 3, 10, "alerts are missing")
    assert sorted(a["threshold_percent"] for a in alerts()) == [50, 80, 100]
    for alert in alerts():
        assert pico(alert["spent_usd"]) * 100 >= alert["threshold_percent"] * pico("0.01")
        assert (alert["budget"], pico(alert["limit_usd"])) == ("alert", pico("0.01"))
    assert counted() - before == 3
    assert f"budget alert: alert team={team} has spent 50 %" in gate.log()


# Workers that die, streams that last, settings that change, and what is told once a minute


def short_leases() -> Callable[[Bootstrap], None]:
    """Leases as short as can be configured."""
    return with_budgets(*BUDGETS, reservation={"lease_secs": LEASE_SECONDS})


def fills(stack: Stack, team: str, **headers: str) -> AbstractContextManager[Any]:
    """A stream that holds nearly all of the budget "slot"."""
    body = call_body("gpt-4o", True, True, {"max_tokens": 5900})
    return stack.client.open("POST", CHAT, body, {"x-cost-feature": "slot", "x-cost-team": team, **headers})


def test_a_worker_that_dies_leaves_no_hold_after_its_lease(start: Start) -> None:
    stack = start(short_leases(), wasm=TEST_WASM, concurrency=1)
    team = fresh()
    assert send(stack, "slot", fresh(), max_tokens=10).code is None
    with fills(stack, team, **{"x-tollgate-test-trap": "response_headers"}) as died:
        assert died.status == 503
    began = time.monotonic()
    codes: list[str] = []

    def passes() -> bool:
        sent = send(stack, "slot", team, max_tokens=1000, used=(10, 10))
        codes.append("passed" if sent.reply.status == 200 else sent.reply.body.decode())
        return codes[-1] == "passed"

    stack.wait(passes, LEASE_SECONDS + 4, "the hold stays")
    assert time.monotonic() - began > LEASE_SECONDS - 2, "it was void before its lease was over"
    assert [code for code in codes if "budget_busy" in code]
    assert not [code for code in codes if "budget_exceeded" in code]
    spent = at_rest(stack, "slot", team=team)
    assert (spent.calls, spent.reserved) == (1, 0)


def test_a_stream_that_outlives_many_leases_keeps_its_hold(start: Start) -> None:
    stack = start(short_leases())
    team = fresh()
    events = len(fixtures()["openai-chat-sse-usage.sse"].pieces())
    delay = {"x-replay-delay-ms": str(4 * LEASE_SECONDS * 1000 // events)}
    with fills(stack, team, **delay) as stream:
        began = time.monotonic()
        while time.monotonic() - began < 3.5 * LEASE_SECONDS:
            # Connections go to the workers in turn: the one that has the stream, and the other.
            for _ in range(2):
                assert send(stack, "slot", team, max_tokens=1000).code == "budget_busy"
            held = standing(stack, "slot", team=team)
            assert (held.reserved_calls, held.spent) == (1, 0)
            time.sleep(0.5)
        assert stream.read().endswith(b"data: [DONE]\n\n")
    assert send(stack, "slot", team, max_tokens=1000).code is None


def test_an_edited_limit_keeps_what_was_spent_and_calls_under_way_settle(start: Start) -> None:
    def cents(limit_usd: str) -> Callable[[Bootstrap], None]:
        def edit(bootstrap: Bootstrap) -> None:
            for one in envoy_config.filter_config(bootstrap)["budgets"]:
                if one["name"] == "cents":
                    one["limit_usd"] = limit_usd

        return edit

    stack = start(with_budgets(*BUDGETS), dynamic=True)
    team = fresh()
    mine = {"x-cost-feature": "cents", "x-cost-team": team, "x-replay-usage": "0,0,200,0"}
    body = call_body("gpt-4o", True, True, {"max_tokens": 300})
    assert send(stack, "cents", team, max_tokens=500, used=(0, 500)).code is None
    with stack.client.open("POST", CHAT, body, {**mine, "x-replay-delay-ms": "40"}) as stream:
        assert stream.read1(10)
        assert standing(stack, "cents", team=team).reserved == bound(body, 300)
        assert stack.update(cents("0.0085")) is True
        under_way = standing(stack, "cents", team=team)
        assert (under_way.spent, under_way.reserved) == (pico("0.005"), bound(body, 300))
        assert send(stack, "cents", team, max_tokens=100).code == "budget_busy"
        stream.read()
    assert at_rest(stack, "cents", team=team).spent == pico("0.007")
    assert send(stack, "cents", team, max_tokens=200).code == "budget_exceeded"
    assert stack.update(cents("0.02")) is True
    assert standing(stack, "cents", team=team).spent == pico("0.007")
    assert send(stack, "cents", team, max_tokens=1000, used=(0, 1000)).code is None
    assert at_rest(stack, "cents", team=team).spent == pico("0.017")
    assert stack.update(cents("0.001")) is True
    assert send(stack, "cents", team, max_tokens=1).code == "budget_exceeded"


def test_what_is_counted_stays_with_another_module_of_the_same_vm_id(start: Start, tmp_path: Path) -> None:
    """The other module is this one with a section that means nothing, so that Envoy takes it for new code."""
    other = tmp_path / "tollgate-next.wasm"
    other.write_bytes(WASM.read_bytes() + b"\0\x05\x04next")
    stack = start(with_budgets(*BUDGETS), dynamic=True)
    team = fresh()
    assert send(stack, "cents", team, max_tokens=500, used=(0, 500)).code is None
    created = stack.counter("wasm.envoy.wasm.runtime.v8.created")
    assert stack.update(lambda bootstrap: envoy_config.set_wasm(bootstrap, other)) is True
    assert stack.counter("wasm.envoy.wasm.runtime.v8.created") > created + 1, "new code has VMs of its own"
    assert at_rest(stack, "cents", team=team).spent == pico("0.005")
    assert send(stack, "cents", team, max_tokens=1000).code == "budget_exceeded"


def test_every_scope_is_told_once_a_minute_by_one_worker(start: Start) -> None:
    """Waits for the next minute to begin, seldom for the one after."""
    stack = start(with_budgets(*BUDGETS))
    team, other = fresh(), fresh()
    assert send(stack, "cents", team, used=(0, 400)).code is None
    with fills(stack, other, **{"x-replay-fault": "hang-mid-body"}) as held:
        assert held.read1(10)

        def snapshots() -> list[dict[str, Any]]:
            """Those of the last minute that has any."""
            found = [r for r in list(stack.sink.records) if r["type"] == "budget_snapshot"]
            return [r for r in found if r["ts"][:16] == found[-1]["ts"][:16]]

        stack.wait(lambda: len(snapshots()) >= 2, SNAPSHOT_SECONDS, "no snapshot")
        # Another worker's would come within its next tick.
        time.sleep(1.5)
    by_team = {r["scope"]["team"]: r for r in snapshots()}
    assert len(snapshots()) == 2 and by_team.keys() == {team, other}, snapshots()
    assert (pico(by_team[team]["spent_usd"]), by_team[team]["spent_calls"]) == (pico("0.004"), 1)
    assert (by_team[other]["reserved_calls"], by_team[other]["spent_calls"]) == (1, 0)
    assert len({r["instance"] for r in snapshots()}) == 1

"""What becomes of records under every fault of a collector, in numbers: delivered, dropped by reason, in the access log."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from bench import load
from conftest import Start
from support import envoy_config
from support.audit import fresh
from support.envoy_config import Bootstrap, with_collector
from support.replay import FIXTURES
from support.sink import GARBAGE, Sink
from support.upstream import Upstream

CALLS = 12
POISON = fresh()


def statuses(*wanted: int) -> Callable[[Sink], None]:
    return lambda sink: sink.statuses.extend(wanted)


def judge(rule: Callable[[bytes], int]) -> Callable[[Sink], None]:
    return lambda sink: setattr(sink, "judge", rule)


def first(number: int, status: int) -> Callable[[Sink], None]:
    """The first so many batches are answered so, and all later ones are taken."""
    return statuses(*[status] * number)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault, what of the calls' records reaches the collector in the end, and what is counted as dropped."""

    name: str
    arrange: Callable[[Sink], None] = lambda _sink: None
    mend: Callable[[Sink], None] = lambda _sink: None
    settings: dict[str, Any] = field(default_factory=dict)
    delivered: int = CALLS
    dropped: dict[str, int] = field(default_factory=dict)
    retried: bool = False
    said: str = "did not take a batch"


FAULTS = [
    Fault("none", said=""),
    Fault("down at start, then up", Sink.stop, Sink.start, retried=True),
    Fault("down for good", Sink.stop, delivered=0, dropped={"dropped_attempts": CALLS}, settings={"max_attempts": 2},
          retried=True),
    Fault("slower than its timeout, then fast", lambda sink: setattr(sink, "delay_ms", 400),
          lambda sink: setattr(sink, "delay_ms", 0), {"timeout_ms": 200}, retried=True),
    Fault("resets two connections", lambda sink: setattr(sink, "resets", 2), retried=True),
    Fault("503 twice", first(2, 503), retried=True),
    Fault("429 once", first(1, 429), retried=True),
    Fault("307 once", first(1, 307), retried=True),
    Fault("no HTTP once", first(1, GARBAGE), retried=True),
    Fault("400 for one record", judge(lambda body: 400 if POISON.encode() in body else 200),
          delivered=CALLS - 1, dropped={"dropped_rejected": 1}, said="refuses records for good: 1 dropped after status 400"),
    Fault("500 for one record", judge(lambda body: 500 if POISON.encode() in body else 200), settings={"max_attempts": 1},
          delivered=CALLS - 1, dropped={"dropped_rejected": 1}, said="refuses records for good: 1 dropped after status 500"),
    Fault("413 for more than 4000 bytes", judge(lambda body: 413 if len(body) > 4000 else 200), said="it answered 413"),
    Fault("413 for anything", judge(lambda _body: 413), delivered=0, dropped={"dropped_too_large": CALLS},
          said="dropped after status 413"),
    Fault("401 for anything", judge(lambda _body: 401), delivered=0, dropped={"dropped_rejected": CALLS},
          said="dropped after status 401"),
    Fault("302 for anything", judge(lambda _body: 302), delivered=0, dropped={"dropped_attempts": CALLS},
          settings={"max_attempts": 2}, retried=True),
    Fault("no such cluster", settings={"cluster": "nowhere", "max_attempts": 2}, delivered=0,
          dropped={"dropped_attempts": CALLS}, retried=True, said="is the cluster configured,"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_under_a_fault_every_record_is_delivered_or_counted_and_all_are_in_the_access_log(
    start: Start, fault: Fault
) -> None:
    # Records leave 0.3 s after the first one, so that one batch has most of them.
    stack = start(with_collector(**{"flush_ms": 300, **fault.settings}), concurrency=1)
    fault.arrange(stack.sink)
    for number in range(CALLS):
        session = POISON if number == 5 else fresh()
        assert stack.client.chat(headers={"x-cost-session": session}).status == 200
    if fault.retried:
        stack.wait(lambda: stack.metric("tollgate_records_total", result="retried") > 0, 10, "nothing was tried again")
    fault.mend(stack.sink)

    def counted() -> dict[str, int]:
        samples = stack.metrics("tollgate_records_total")
        return {s.labels["result"]: int(s.value) for s in samples if s.labels["result"] != "retried" and s.value}

    stack.wait(lambda: sum(counted().values()) == CALLS, 20, f"not every record was counted: {counted()}")
    wanted = {"sent": fault.delivered} | fault.dropped
    assert counted() == {result: number for result, number in wanted.items() if number}
    delivered = Counter(record["id"] for record in stack.sink.records)
    assert len(delivered) == fault.delivered
    logged = Counter(record["id"] for record in stack.wait_access_log(CALLS))
    assert len(logged) == CALLS and set(logged.values()) == {1} and set(delivered) <= set(logged)
    lines = [line for line in stack.log().splitlines() if "collector cluster" in line]
    assert any(fault.said in line for line in lines) if fault.said else not lines, lines


# A collector that stalls


MANY, QUEUE_BYTES, MAX_BATCH, STALL_SECONDS, WORKERS = 20_000, 2 << 20, 500, 10.0, 2


def test_20000_calls_beside_a_stalled_collector_all_pass_and_every_record_is_accounted_for(start: Start) -> None:
    reply = (FIXTURES / "openai-chat-json.json").read_bytes()
    body = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}).encode()
    answer = load.sized(reply, {"content-type": "application/json"})
    call = load.Call("JSON", load.request("/v1/chat/completions", body, {}), answer, reply, MANY)
    with Upstream(answer) as upstream:

        def edit(bootstrap: Bootstrap) -> None:
            envoy_config.socket_address(bootstrap, "llm_upstream")["port_value"] = upstream.port
            with_collector(max_queue_bytes=QUEUE_BYTES, max_batch=MAX_BATCH, timeout_ms=2000)(bootstrap)

        stack = start(edit, concurrency=WORKERS)
        stack.sink.stalled = True
        began = time.monotonic()
        upstream.load(stack.client.port, call, MANY)
        took = time.monotonic() - began
        while time.monotonic() < began + STALL_SECONDS:
            time.sleep(0.1)
        stack.sink.stalled = False

    def counted(result: str) -> int:
        return int(stack.metric("tollgate_records_total", result=result))

    def ended() -> bool:
        return counted("sent") + counted("dropped_queue_full") == MANY

    stack.wait(ended, 60, f"{counted('sent')} sent, {counted('dropped_queue_full')} dropped")
    logged = Counter(record["id"] for record in stack.wait_access_log(MANY, 30))
    assert len(logged) == MANY and set(logged.values()) == {1}
    delivered = {record["id"] for record in stack.sink.records}
    assert len(delivered) == counted("sent") and delivered <= set(logged)
    # Nothing else was dropped, and a queue held no more than it may: that, and one batch under way for each worker.
    assert {s.labels["result"] for s in stack.metrics("tollgate_records_total")} <= {"sent", "retried", "dropped_queue_full"}
    assert counted("dropped_queue_full") > 0, f"{MANY} records in {took:.1f} s fitted: the bound was not tried"
    shortest = min(len(json.dumps(record, separators=(",", ":"))) for record in stack.sink.records)
    assert len(delivered) <= WORKERS * (QUEUE_BYTES // shortest + MAX_BATCH)

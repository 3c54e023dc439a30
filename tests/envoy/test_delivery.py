"""Records reach a collector that fails, once per id as far as it has answered, and a call never waits for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from conftest import Start
from support import envoy_config
from support.audit import assert_nothing_lost, fresh, one_logged
from support.envoy_config import Bootstrap, with_collector
from support.stack import Stack


def call(stack: Stack, number: int = 1) -> list[str]:
    ids = []
    for _ in range(number):
        reply = stack.client.chat()
        assert reply.status == 200
        ids.append(reply.headers["x-tollgate-id"])
    return ids


def said(stack: Stack, text: str) -> list[str]:
    return [line for line in stack.log().splitlines() if text in line]


def keys(stack: Stack) -> list[str]:
    return [dict(batch.headers)["idempotency-key"] for batch in stack.sink.batches]


def test_a_batch_carries_what_is_configured(start: Start) -> None:
    stack = start(with_collector(path="/in?x=1", authority="records.test", content_type="application/json-lines",
                            headers={"authorization": "Bearer t", "X-Team": "costs"}, max_batch=3))
    call(stack, 7)
    assert_nothing_lost(stack, 7)
    assert not stack.sink.invalid
    for batch in stack.sink.batches:
        sent = dict(batch.headers)
        assert batch.path == "/in?x=1" and 1 <= batch.records <= 3 and batch.body.endswith(b"}\n")
        assert sent["host"] == "records.test" and sent["content-type"] == "application/json-lines"
        assert sent["authorization"] == "Bearer t" and sent["x-team"] == "costs"
    assert len(set(keys(stack))) == len(stack.sink.batches)
    assert stack.metric("tollgate_records_total", result="sent") == 7


@pytest.mark.parametrize("fault", ["500", "429", "reset"])
def test_a_failed_batch_is_sent_again_under_the_same_key_and_arrives_once(start: Start, fault: str) -> None:
    stack = start(with_collector(), concurrency=1)
    if fault == "reset":
        stack.sink.resets = 1
    else:
        stack.sink.statuses.append(int(fault))
    (id,) = call(stack)
    assert [r["id"] for r in assert_nothing_lost(stack, 1)] == [id]
    first, again = stack.sink.batches
    assert (first.body, keys(stack)[0]) == (again.body, keys(stack)[1])
    assert stack.metric("tollgate_records_total", result="retried") == 1
    assert stack.metric("tollgate_records_total", result="sent") == 1
    assert len(said(stack, "did not take a batch")) == 1


def test_a_refused_batch_is_counted_said_and_not_sent_again(start: Start) -> None:
    stack = start(with_collector(), concurrency=1)
    stack.sink.statuses.append(400)
    (refused,) = call(stack)
    stack.wait(lambda: stack.metric("tollgate_records_total", result="dropped_rejected") == 1, 10, "nothing dropped")
    (sent,) = call(stack)
    assert [r["id"] for r in stack.sink.wait_for(1)] == [sent]
    assert {r["id"] for r in stack.wait_access_log(2)} == {refused, sent}
    assert len(said(stack, "it answered 400")) == 1


def test_a_collector_that_is_down_and_comes_back_has_every_record_once(start: Start) -> None:
    stack = start(with_collector(), concurrency=1)
    stack.sink.stop()
    ids = call(stack, 20)
    stack.wait(lambda: stack.metric("tollgate_records_total", result="retried") >= 1, 10, "nothing was tried")
    assert not stack.sink.records
    stack.sink.start()
    ids += call(stack, 5)
    assert sorted(r["id"] for r in assert_nothing_lost(stack, 25)) == sorted(ids)
    assert stack.metric("tollgate_records_total", result="sent") == 25
    assert len(said(stack, "did not take a batch")) == 1


def test_a_slow_collector_delays_no_call_and_repeats_keep_their_key(start: Start) -> None:
    stack = start(with_collector(timeout_ms=200), concurrency=1)
    stack.sink.delay_ms = 400
    (id,) = call(stack)
    stack.wait(lambda: stack.metric("tollgate_records_total", result="retried") >= 1, 10, "no timeout")
    stack.sink.delay_ms = 0
    call(stack)
    stack.wait(lambda: stack.metric("tollgate_records_total", result="sent") == 2, 10, "never sent")
    # It had stored the first before its answer was given up: the repeat says so by its key.
    with_id = [key for key, batch in zip(keys(stack), stack.sink.batches) if id.encode() in batch.body]
    assert len(set(with_id)) == 1 and len(with_id) >= 2


def test_a_collector_cluster_that_does_not_exist_costs_no_call_and_is_said_once(start: Start) -> None:
    stack = start(with_collector(cluster="nowhere"), concurrency=1)
    ids = call(stack, 5)
    assert sorted(r["id"] for r in stack.wait_access_log(5)) == sorted(ids)
    stack.wait(lambda: stack.metric("tollgate_records_total", result="retried") >= 2, 10, "nothing was tried")
    lines = said(stack, "nowhere")
    assert len(lines) == 1 and "is the cluster configured," in lines[0], lines
    assert call(stack) and not stack.sink.batches


def test_attempts_end_and_are_counted(start: Start) -> None:
    stack = start(with_collector(cluster="nowhere", max_attempts=2), concurrency=1)
    call(stack)
    stack.wait(lambda: stack.metric("tollgate_records_total", result="dropped_attempts") == 1, 10, "tried for ever")


def test_a_full_queue_drops_its_oldest_and_the_access_log_has_them(start: Start) -> None:
    stack = start(with_collector(cluster="nowhere", max_queue_bytes=65_536), concurrency=1)
    calls = 150
    call(stack, calls)
    assert len(stack.wait_access_log(calls)) == calls
    dropped = stack.metric("tollgate_records_total", result="dropped_queue_full")
    assert 0 < dropped < calls
    assert len(said(stack, "the record queue is full")) == 1


def test_a_record_of_a_call_without_a_collector_is_in_the_access_log(start: Start) -> None:
    def none(bootstrap: Bootstrap) -> None:
        del envoy_config.filter_config(bootstrap)["collector"]

    stack = start(none)
    session = fresh()
    stack.client.chat(headers={"x-cost-session": session})
    assert one_logged(stack, session)["price_status"] == "priced"
    assert not stack.sink.batches

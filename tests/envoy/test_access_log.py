"""The access log beside the records: single values in a format of one's own, and long streams before their end."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

from conftest import Start
from support import envoy_config
from support.audit import Record, fresh
from support.envoy_config import Bootstrap
from support.replay import fixtures
from support.stack import read_ndjson

FIXTURE = "anthropic-messages-sse-cache.sse"
VALUES = ["cost_usd", "cost_microusd", "department", "request_model", "input_tokens", "decision", "tags.customer", "team"]


def test_single_values_can_be_logged_each_by_itself(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "values.ndjson"

    def edit(bootstrap: Bootstrap) -> None:
        envoy_config.filter_config(bootstrap)["access_log"] = {"values": VALUES}
        form = {name: f"%FILTER_STATE(wasm.tollgate.{name}:PLAIN)%" for name in VALUES}
        envoy_config.add_json_access_log(bootstrap, path, form, calls_only=True)

    stack = start(edit, concurrency=1)
    stack.client.chat(headers={"x-cost-department": "sales", "x-cost-tag-customer": "acme"})
    stack.wait(lambda: path.exists() and len(read_ndjson(path)) == 1, 10, "no line")
    (line,), (record,) = read_ndjson(path), stack.access_log()
    cost = Decimal(record["cost_usd"])
    assert line == {
        "cost_usd": str(record["cost_usd"]), "cost_microusd": str(-int(-cost * 1_000_000 // 1)), "department": "sales",
        "request_model": "gpt-4o", "input_tokens": str(record["input_tokens"]), "decision": "allowed",
        "tags.customer": "acme", "team": None,
    }


def test_a_long_stream_is_in_the_log_before_its_end(start: Start) -> None:
    def edit(bootstrap: Bootstrap) -> None:
        envoy_config.filter_config(bootstrap)["access_log"] = {"progress_secs": 1}
        envoy_config.connection_manager(bootstrap)["access_log_options"] = {"access_log_flush_interval": "1s"}

    stack = start(edit, concurrency=1)
    session = fresh()
    data = fixtures()[FIXTURE].data
    stack.client.send(
        "POST", "/v1/messages", json.dumps({"model": "claude-sonnet-4-5", "stream": True, "max_tokens": 10}).encode(),
        {"content-type": "application/json", "x-cost-session": session, "x-replay-fixture": FIXTURE,
         "x-replay-chunk": str(len(data) // 40), "x-replay-delay-ms": "100"},
    )

    def finals() -> list[Record]:
        return [r for r in stack.access_log() if r["end_reason"] != "provisional"]

    stack.wait(lambda: len(finals()) == 1, 10, "the stream never ended")
    (final,) = finals()
    so_far = [r for r in stack.access_log() if r["end_reason"] == "provisional"]
    assert {r["id"] for r in so_far} == {final["id"]} and len(so_far) >= 2
    metered = [r for r in so_far if "cost_picousd" in r]
    assert metered, so_far
    costs = [r["cost_picousd"] for r in metered]
    assert costs == sorted(costs) and 0 < costs[0] <= costs[-1] < final["cost_picousd"], (costs, final)
    assert metered[-1]["input_tokens"] == final["input_tokens"] and not any("seq" in r for r in so_far)
    assert [r["id"] for r in stack.sink.wait_for(1)] == [final["id"]], "the collector gets what is final"

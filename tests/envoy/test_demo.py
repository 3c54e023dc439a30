"""What envoy.yaml says of budgets beside what `make demo` plays: their labels, and who reaches the admin endpoint."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from conftest import Start
from support import envoy_config
from support.envoy_config import Bootstrap
from support.stack import Stack

TOKEN = "the token of these tests"
DEMO = {"x-cost-environment": "demo", "x-cost-department": "r.and.d", "x-cost-run-id": "run-1"}
PATHS = ["/.tollgate", "/.tollgate/budgets", "/.tollgate/budgets?all", "/x/../.tollgate/budgets"]


def open_admin(bootstrap: Bootstrap) -> None:
    envoy_config.flush_soon(bootstrap)
    envoy_config.filter_config(bootstrap)["admin"] = {"token_sha256": hashlib.sha256(TOKEN.encode()).hexdigest()}


def from_elsewhere(bootstrap: Bootstrap) -> None:
    """The admin endpoint is for another network, so that this machine is elsewhere."""
    open_admin(bootstrap)
    (access,) = [f for f in envoy_config.http_filters(bootstrap) if f["name"] == "tollgate_admin_access"]
    (policy,) = access["typed_config"]["rules"]["policies"].values()
    (principal,) = policy["principals"]
    principal["not_id"]["direct_remote_ip"] = {"address_prefix": "192.0.2.0", "prefix_len": 24}


def ask(stack: Stack, path: str) -> tuple[int, bytes]:
    reply = stack.client.send("GET", path, headers={"authorization": f"Bearer {TOKEN}"})
    return reply.status, reply.body


def scopes(stack: Stack) -> dict[str, dict[str, Any]]:
    """Every scope by its budget."""
    status, body = ask(stack, "/.tollgate/budgets")
    assert status == 200, body
    return {scope["budget"]: scope for scope in json.loads(body)["scopes"]}


@pytest.mark.parametrize("path", PATHS)
def test_only_this_machine_reaches_the_admin_endpoint(start: Start, path: str) -> None:
    status, body = ask(start(from_elsewhere), path)
    assert (status, body) == (403, b"RBAC: access denied")


def test_calls_of_elsewhere_pass(start: Start) -> None:
    assert start(from_elsewhere).client.chat().status == 200


def test_budgets_leave_alone_what_is_not_the_demos(start: Start) -> None:
    stack = start(open_admin)
    for _ in range(3):
        assert stack.client.chat("acme-chat-9b", headers=DEMO | {"x-cost-environment": "production"}).status == 200
    records = stack.wait_access_log(3)
    assert {(r["price_status"], "estimated_cost_usd" in r) for r in records} == {("unknown_model", False)}
    assert scopes(stack) == {}


def test_what_budgets_do_is_counted_by_budget(start: Start) -> None:
    stack = start(open_admin)
    for number, (run, workload, decision, budget) in enumerate([
        ("run-1", "agentic-read", "allowed", None),
        ("run-1", "agentic-read", "allowed", None),
        ("run-1", "agentic-read", "refused", "run-cap"),
        ("run-2", "agentic-read", "downgraded", "department-month"),
        ("run-3", "agentic-write", "refused", "department-month"),
    ], start=1):
        headers = DEMO | {"x-cost-run-id": run, "x-cost-workload": workload}
        stack.client.chat("gpt-4o", headers=headers, max_tokens=64)
        # One after the other: what a call cost is spent when the next one comes.
        record = stack.wait_access_log(number)[-1]
        assert (record["decision"], record.get("budget")) == (decision, budget), record
    counted = stack.metrics("tollgate_budget_")
    detail = {s.name: "threshold" if "alerts" in s.name else "reason" for s in counted}
    labelled = {(s.name, s.labels.get("budget"), s.labels.get(detail[s.name])): s.value for s in counted}
    assert labelled == {
        ("tollgate_budget_refusals_total", "run-cap", "budget_exceeded"): 1,
        ("tollgate_budget_refusals_total", "department-month", "budget_exceeded"): 1,
        ("tollgate_budget_downgrades_total", "department-month", None): 1,
        # The second call reaches two thresholds.
        ("tollgate_budget_alerts_total", "department-month", "50"): 1,
        ("tollgate_budget_alerts_total", "department-month", "80"): 1,
        ("tollgate_budget_alerts_total", "department-month", "100"): 1,
    }
    assert scopes(stack)["department-month"]["spent_calls"] == 3

"""The admin endpoint of budgets through a real Envoy: what it changes, and that nothing of it reaches the provider."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from conftest import Start
from support import envoy_config
from support.audit import fresh
from support.budgets import ADMIN, CHAT, TOKEN, at_rest, budget, with_budgets
from support.client import Reply, call_body
from support.envoy_config import Bootstrap
from support.stack import Stack

BODY = call_body("gpt-4o", False, False, {"max_tokens": 1})


@pytest.fixture(scope="module")
def gate(envoy: str) -> Iterator[Stack]:
    with Stack(with_budgets(budget("cents", limit_usd="0.000001")), envoy=envoy) as stack:
        yield stack


def change(stack: Stack, action: str, order: Any, token: str = TOKEN, pieces: bool = False) -> Reply:
    body = json.dumps(order).encode()
    parts = (bytes([byte]) for byte in body)
    headers = {"authorization": f"Bearer {token}"}
    return stack.client.send("POST", f"{ADMIN}/budgets/cents/{action}", parts if pieces else body, headers)


def call(stack: Stack, team: str) -> int:
    headers = {"content-type": "application/json", "x-cost-feature": "cents", "x-cost-team": team}
    return stack.client.send("POST", CHAT, BODY, headers).status


def seen(stack: Stack) -> list[Any]:
    return [r for r in stack.replay.requests if any(name == "authorization" and TOKEN in value for name, value in r["headers"])]


@pytest.mark.parametrize("pieces", [False, True], ids=["whole", "in pieces"])
def test_a_grant_lets_calls_pass_until_a_reset_and_the_provider_hears_nothing_of_it(gate: Stack, pieces: bool) -> None:
    team = fresh()
    assert call(gate, team) == 429
    until = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    order = {"scope": {"team": team}, "usd": "1.00", "until": until, "reason": "a test"}
    granted = change(gate, "grant", order, pieces=pieces)
    assert granted.status == 200, granted
    assert json.loads(granted.body)["granted_usd"] == 1
    assert call(gate, team) == 200
    assert at_rest(gate, "cents", team=team).spent > 0
    cleared = change(gate, "reset", {"scope": {"team": team}, "reason": "over"}, pieces=pieces)
    assert (cleared.status, json.loads(cleared.body)["spent_usd"]) == (200, 0)
    assert seen(gate) == []

    told = gate.sink.wait_for(2, where=lambda r: r["type"] == "admin" and r["scope"] == {"team": team})
    assert sorted(f"{r['action']}: {r['reason']}" for r in told) == ["grant: a test", "reset: over"]


def test_without_the_token_nothing_changes_and_nothing_is_told(gate: Stack) -> None:
    refused = change(gate, "reset", {"scope": {"team": "x"}, "reason": "mine"}, token="another")
    assert refused.status == 401
    assert b"cents" not in refused.body
    assert gate.client.send("GET", f"{ADMIN}/budgets", None, {}).status == 401


def test_a_change_whose_body_envoy_does_not_show_is_answered_all_the_same(start: Start) -> None:
    def edit(bootstrap: Bootstrap) -> None:
        with_budgets(budget("cents", limit_usd="0.000001"))(bootstrap)
        del envoy_config.plugin(bootstrap)["allow_on_headers_stop_iteration"]

    stack = start(edit, concurrency=1)
    for _ in range(4):
        answer = change(stack, "reset", {"scope": {"team": "a"}, "reason": "over"})
        assert (answer.status, answer.json()["error"]["code"]) == (501, "headers_cannot_be_held")
    assert seen(stack) == []

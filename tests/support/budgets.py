"""Budgets for tests: a gateway that has some, calls whose bound is known, and what the ledger says of them."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from support import envoy_config
from support.audit import BYTES_PER_TOKEN, PICO_PER_MICRO, Record, fresh
from support.client import Headers, Reply, call_body
from support.envoy_config import Bootstrap
from support.stack import Stack

ADMIN, TOKEN = "/.tollgate", "the token of the tests"
CHAT = "/v1/chat/completions"
# gpt-4o in the shipped price table, in micro-dollars a token.
INPUT, OUTPUT = Decimal("2.5"), Decimal(10)


def with_budgets(*budgets: dict[str, Any], **sections: Any) -> Callable[[Bootstrap], None]:
    """The shipped gateway with these budgets, further sections of the configuration, and the admin endpoint."""

    def edit(bootstrap: Bootstrap) -> None:
        envoy_config.flush_soon(bootstrap)
        envoy_config.exact_balance(bootstrap)
        config = envoy_config.filter_config(bootstrap)
        digest = hashlib.sha256(TOKEN.encode()).hexdigest()
        admin = {"path": ADMIN, "token_sha256": digest}
        config |= {"budgets": copy.deepcopy(list(budgets)), "admin": admin, **sections}

    return edit


def budget(name: str, **settings: Any) -> dict[str, Any]:
    """A budget for the calls of the feature of its name, with a counter for each team and a window that never ends."""
    scope = {"match": {"feature": name}, "per": ["team"], "when_missing": "share", "window": "lifetime"}
    return {"name": name, **scope, **settings}


def pico(usd: Any) -> int:
    """Dollars as pico-dollars."""
    return int(Decimal(str(usd)).scaleb(12))


def bound(body: bytes, max_tokens: int) -> int:
    """The most that a call of gpt-4o may cost, in pico-dollars."""
    return int((-(-len(body) // BYTES_PER_TOKEN) * INPUT + max_tokens * OUTPUT) * PICO_PER_MICRO)


@dataclass(frozen=True, slots=True)
class Standing:
    """What the ledger says of one scope; money in pico-dollars."""

    spent: int = 0
    reserved: int = 0
    tokens: int = 0
    calls: int = 0
    reserved_calls: int = 0


def standing(stack: Stack, budget: str, **scope: str) -> Standing:
    """How a scope stands; nothing spent where the ledger does not know it."""
    reply = stack.client.send("GET", f"{ADMIN}/budgets", None, {"authorization": f"Bearer {TOKEN}"})
    assert reply.status == 200, reply
    listing = json.loads(reply.body, parse_float=Decimal)
    found = [s for s in listing["scopes"] if s["budget"] == budget and s["scope"] == scope]
    assert len(found) <= 1, found
    if not found:
        return Standing()
    own = found[0]
    money = pico(own["spent_usd"]), pico(own["reserved_usd"])
    return Standing(*money, own["spent_tokens"], own["spent_calls"], own["reserved_calls"])


def at_rest(stack: Stack, budget: str, **scope: str) -> Standing:
    """How a scope stands once no call holds anything in it."""
    stack.wait(lambda: not standing(stack, budget, **scope).reserved_calls, 10, f"holds stay in {budget} {scope}")
    return standing(stack, budget, **scope)


@dataclass(frozen=True, slots=True)
class Sent:
    """A call that was made: the answer, the session to find its record by, and what the provider got of it."""

    reply: Reply
    session: str
    provider: list[dict[str, Any]]

    @property
    def code(self) -> str | None:
        """What the filter said was wrong, in OpenAI's dialect."""
        return self.reply.json()["error"]["code"] if self.reply.status >= 400 else None

    @property
    def bodies(self) -> list[str]:
        """The bodies that reached the provider whole: of a refused call it may have seen the headers."""
        return [entry["body"] for entry in self.provider if entry["body"] is not None]


def send(
    stack: Stack, feature: str, team: str | None = None, *, model: str | None = "gpt-4o", max_tokens: int = 100,
    used: tuple[int, int] | None = None, stream: bool = False, body: Any = None, path: str = CHAT,
    headers: Headers | None = None, **extra: Any,
) -> Sent:
    """A chat of `max_tokens` at most that turns out to use `used` tokens of input and output."""
    session = fresh()
    sent = {"x-cost-feature": feature, "x-cost-session": session, "x-mark": session}
    if team is not None:
        sent["x-cost-team"] = team
    if used is not None:
        sent["x-replay-usage"] = f"{used[0]},0,{used[1]},0"
    if body is None:
        body = call_body(model, stream, True, {"max_tokens": max_tokens, **extra})
    reply = stack.client.send("POST", path, body, sent | (headers or {}))
    return Sent(reply, session, [r for r in list(stack.replay.requests) if ["x-mark", session] in r["headers"]])


def usage_records(stack: Stack, number: int) -> list[Record]:
    """All usage records, of which there are `number`: the same in the access log and at the collector, where those of
    other types are numbered apart."""

    def ids(records: list[Record]) -> list[str]:
        return sorted(r["id"] for r in records if r["type"] == "usage")

    def complete() -> bool:
        return len(ids(stack.access_log())) >= number <= len(ids(list(stack.sink.records)))

    stack.wait(complete, 10, f"fewer than {number} records")
    logged, sent = stack.access_log(), list(stack.sink.records)
    assert len(logged) == number and ids(logged) == ids(sent) and len(set(ids(sent))) == number
    numbers: dict[tuple[str, bool], list[int]] = {}
    for record in sent:
        numbers.setdefault((record["instance"], record["type"] == "usage"), []).append(record["seq"])
    assert all(sorted(seq) == list(range(1, len(seq) + 1)) for seq in numbers.values()), numbers
    return logged

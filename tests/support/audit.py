"""What must be true of records, computed apart from the filter: the cost of a usage, one record a call, and nothing
lost or twice between the access log and the collector."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

from support import envoy_config
from support.replay import fixtures
from support.stack import Stack, StackError

Record = dict[str, Any]
# USD per million tokens is micro-dollars per token, a million pico-dollars.
PICO_PER_MICRO = 1_000_000
COUNTS = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens", "total_tokens")


def fresh() -> str:
    """A value no other call has; sent as x-cost-session it finds the call's record."""
    return uuid.uuid4().hex


@lru_cache(maxsize=1)
def shipped_prices() -> list[dict[str, Any]]:
    """The models of the price table in envoy.yaml."""
    return envoy_config.filter_config(envoy_config.load())["prices"]["models"]


def priced_model(model: str) -> str | None:
    """The name in the shipped price table that `model` is priced by."""
    def names(price: dict[str, Any]) -> list[str]:
        return [price["model"], *price["aliases"]]

    found = (p["model"] for p in shipped_prices() if any(fnmatchcase(model, name) for name in names(p)))
    return next(found, None)


def cost_picousd(model: str, usage: dict[str, int]) -> int | None:
    """What the shipped price table makes of a usage; None where the model has no price there."""
    rates = next((p["rates"] for p in shipped_prices() if p["model"] == priced_model(model)), None)
    if rates is None:
        return None
    cached = usage.get("cached_input_tokens", 0)
    micro_usd = (
        (usage["input_tokens"] - cached) * Decimal(rates["input"])
        + cached * Decimal(rates["cached_input"])
        + usage["output_tokens"] * Decimal(rates["output"])
    )
    return int(micro_usd * PICO_PER_MICRO)


def expected(fixture: str, request_model: str | None) -> Record:
    """What the record of a call that this fixture answers must say; None where a field must be absent."""
    meta = fixtures()[fixture].meta
    usage = meta["usage"]
    wanted: Record = {name: usage.get(name) for name in COUNTS}
    wanted |= {"status": meta["status"], "end_reason": "complete", "request_model": request_model}
    wanted |= {"response_model": meta.get("response_model"), "usage_source": "reported" if usage else "none"}
    if usage:
        cost = cost_picousd(meta["response_model"], usage)
        wanted |= {"cost_picousd": cost, "price_status": "unknown_model" if cost is None else "priced"}
    elif meta["status"] >= 400:
        wanted |= {"cost_picousd": 0, "price_status": "free"}
    else:
        wanted |= {"cost_picousd": None, "price_status": None}
    return wanted


def assert_says(record: Record, wanted: Record) -> None:
    """`record` has these fields; None is an absent one. All that differ are named."""
    wrong = {name: (record.get(name), value) for name, value in wanted.items() if record.get(name) != value}
    assert not wrong, f"(is, must be): {wrong} in {record}"


def one_record(stack: Stack, session: str, timeout: float = 10) -> Record:
    """The one record of the call that sent `session`: at the collector, and the same in the access log."""
    stack.sink.wait_for(1, timeout, where=lambda r: r.get("session") == session)
    logged = one_logged(stack, session)
    at_sink = [r for r in list(stack.sink.records) if r.get("session") == session]
    assert at_sink == [logged]
    return logged


def one_logged(stack: Stack, session: str) -> Record:
    """The one access log line of the call that sent `session`."""
    def mine() -> list[Record]:
        return [r for r in stack.access_log() if r.get("session") == session]

    stack.wait(lambda: bool(mine()), 10, f"no access log line of {session}")
    found = mine()
    assert len(found) == 1, found
    return found[0]


def llm_calls(stack: Stack) -> list[Record]:
    """Envoy's own log lines of the calls that must have a record."""
    calls = (r for r in stack.plain_log() if r["method"] == "POST")
    return [r for r in calls if r["path"].partition("?")[0].endswith("/chat/completions")]


def lines(path: Path) -> list[bytes]:
    """A file's lines, sorted."""
    return sorted(path.read_bytes().splitlines()) if path.exists() else []


def assert_nothing_lost(stack: Stack, number: int | None = None) -> list[Record]:
    """Every LLM call that Envoy saw, `number` of them if given, has one line in the access log, and the collector has
    the same bytes. Returns the records with decimals for fractions."""
    calls = 0

    def settled() -> bool:
        nonlocal calls
        calls = len(llm_calls(stack))
        return number in (None, calls) and calls == len(lines(stack.access_log_path)) == len(lines(stack.records_path))

    try:
        stack.wait(settled, 10, "calls, access log lines and records never agreed")
    except StackError:
        logged, sent = lines(stack.access_log_path), lines(stack.records_path)
        raise AssertionError(
            f"{calls} calls, {len(logged)} in the access log, {len(sent)} at the collector; only in the log: "
            f"{sorted(set(logged) - set(sent))[:3]}, only at the collector: {sorted(set(sent) - set(logged))[:3]}"
        ) from None
    logged = lines(stack.access_log_path)
    assert logged == lines(stack.records_path)
    records = [json.loads(line, parse_float=Decimal) for line in logged]
    assert_consistent(records)
    return records


def assert_consistent(records: Iterable[Record]) -> None:
    """What holds for every set of final records of one Envoy: ids differ, numbers run on, charges sum to the cost."""
    records = list(records)
    twice = [id for id, number in Counter(r["id"] for r in records).items() if number > 1]
    assert not twice, f"ids used twice: {twice}"
    by_instance: dict[str, list[int]] = {}
    for record in records:
        by_instance.setdefault(record["instance"], []).append(record["seq"])
        if "cost_picousd" in record:
            assert Decimal(record["cost_usd"]).scaleb(12) == record["cost_picousd"], record
            assert sum(c["cost_picousd"] for c in record.get("charges", [])) == record["cost_picousd"], record
    for instance, numbers in by_instance.items():
        assert sorted(numbers) == list(range(1, len(numbers) + 1)), f"seq of {instance}"

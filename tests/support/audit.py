"""What must be true of records, computed apart from the filter: the cost of a usage, one record a call, and nothing
lost or twice between the access log and the collector."""

from __future__ import annotations

import json
import re
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
# The default of reservation.tokens_per_byte is a quarter.
BYTES_PER_TOKEN = 4
TEXT = re.compile(rb'"(?:content|arguments|refusal)": ?"((?:[^"\\]|\\.)*\\?)')
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
        return [price["model"], *price.get("aliases", [])]

    found = (p["model"] for p in shipped_prices() if any(fnmatchcase(model, name) for name in names(p)))
    return next(found, None)


def cost_picousd(model: str | None, usage: dict[str, int]) -> int | None:
    """What the shipped price table makes of a usage; None where the model has no price there."""
    rates = next((p["rates"] for p in shipped_prices() if model and p["model"] == priced_model(model)), None)
    return None if rates is None else cost_at(rates, usage)


def cost_at(rates: dict[str, str], usage: dict[str, int]) -> int:
    """What a usage costs at these rates, in pico-dollars."""
    cached, written = usage.get("cached_input_tokens", 0), usage.get("cache_creation_input_tokens", 0)
    long = usage.get("cache_creation_1h_input_tokens", 0)
    tokens = {
        "input": usage["input_tokens"] - cached - written, "cached_input": cached, "cache_creation": written - long,
        "cache_creation_1h": long, "output": usage.get("output_tokens", 0),
    }
    micro_usd = sum(count * Decimal(rates[name]) for name, count in tokens.items() if count)
    return int(micro_usd * PICO_PER_MICRO)


def estimate(model: str | None, sent: int, text: int = 0) -> Record:
    """What the record of a call without reported usage says: `sent` bytes were asked, `text` bytes of text came."""
    tokens: Record = {"input_tokens": -(-sent // BYTES_PER_TOKEN)}
    if text:
        tokens["output_tokens"] = -(-text // BYTES_PER_TOKEN)
    cost = cost_picousd(model, tokens)
    status = "unknown_model" if cost is None else "estimated"
    # A total is a provider's word.
    unknown = {"output_tokens": None, "total_tokens": None}
    return {"usage_source": "estimated", **unknown, **tokens, "cost_picousd": cost, "price_status": status}


def text_bytes(body: bytes) -> int:
    """The length of the generated text in a chat answer or the beginning of one, decoded."""
    count = 0
    for found in TEXT.findall(body):
        # A string that is cut off counts as far as it came: without half an escape or half a character.
        whole = re.sub(rb"\\(?:u[0-9a-fA-F]{0,3})?$", b"", found).decode("utf-8", "ignore")
        count += len(json.loads(f'"{whole}"').encode("utf-8", "surrogatepass"))
    return count


def assert_estimated(record: Record, model: str | None, sent: int, least: int = 0, most: int | None = None) -> None:
    """`record` is an estimate for `sent` bytes of request and `least` to `most` bytes of text."""
    tokens = record.get("output_tokens", 0)
    most = least if most is None else most
    assert -(-least // BYTES_PER_TOKEN) <= tokens <= -(-most // BYTES_PER_TOKEN), record
    assert_says(record, estimate(model, sent, tokens * BYTES_PER_TOKEN))


def expected(fixture: str, request_model: str | None, sent: int = 0) -> Record:
    """What the record of a call that this fixture answers must say, where `sent` is the length of the request's body;
    None where a field must be absent."""
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
        wanted |= estimate(meta["response_model"], sent, text_bytes(fixtures()[fixture].data))
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


def exact_records(stack: Stack) -> list[Record]:
    """The records in the access log, with decimals for fractions."""
    return [json.loads(line, parse_float=Decimal) for line in lines(stack.access_log_path)]


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
    assert lines(stack.access_log_path) == lines(stack.records_path)
    records = exact_records(stack)
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
        counted = "input_tokens" in record or "output_tokens" in record
        assert counted or record["usage_source"] != "estimated", record
        assert not counted or record["usage_source"] != "none", record
        assert (record["usage_source"] == "estimated") >= (record.get("price_status") == "estimated"), record
        if record["usage_source"] == "estimated":
            assert "input_tokens" in record, record
            assert record["price_status"] in ("estimated", "unknown_model", "unpriced"), record
        if "cost_picousd" in record:
            assert Decimal(record["cost_usd"]).scaleb(12) == record["cost_picousd"], record
            assert sum(c["cost_picousd"] for c in record.get("charges", [])) == record["cost_picousd"], record
    for instance, numbers in by_instance.items():
        assert sorted(numbers) == list(range(1, len(numbers) + 1)), f"seq of {instance}"

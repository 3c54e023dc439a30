"""Two workers under load: nothing lost, nothing twice, and a sum exact to the last pico-dollar."""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

from conftest import Start
from support import envoy_config
from support.audit import assert_nothing_lost, cost_picousd
from support.envoy_config import Bootstrap

CALLS, CONCURRENCY = 500, 50
MODELS = ("gpt-4o", "gpt-4o-mini", "gpt-5")


def balanced(bootstrap: Bootstrap) -> None:
    envoy_config.flush_soon(bootstrap)
    envoy_config.exact_balance(bootstrap)


def test_500_calls_at_once_on_two_workers_are_500_records_and_an_exact_sum(start: Start) -> None:
    stack = start(balanced)
    chance = random.Random(500)

    def plan(number: int) -> tuple[str, bool, dict[str, int], dict[str, str]]:
        cached, fresh_input, output = chance.randrange(9000), chance.randrange(9000), chance.randrange(5000)
        # The rest are hidden thinking, part of the output.
        reasoning = chance.randrange(output + 1)
        usage = {"input_tokens": cached + fresh_input, "cached_input_tokens": cached, "output_tokens": output}
        headers = {
            "x-replay-usage": f"{cached + fresh_input},{cached},{output},{reasoning}", "x-cost-tag-call": str(number),
            "x-cost-session": str(number % 7), "x-request-id": "the-same-for-all",
        }
        if number % 5 == 0:
            headers |= {"x-replay-gzip": "1", "accept-encoding": "gzip"}
        return MODELS[number % 3], number % 2 == 0, usage, headers

    plans = [plan(number) for number in range(CALLS)]

    def send(number: int) -> str:
        model, stream, _usage, headers = plans[number]
        # Every other stream doesn't ask for its usage: the filter does.
        reply = stack.client.chat(model, stream=stream, include_usage=number % 4 == 0, headers=headers)
        assert reply.status == 200 and not reply.cut
        return reply.headers["x-tollgate-id"]

    with ThreadPoolExecutor(CONCURRENCY) as pool:
        ids = list(pool.map(send, range(CALLS)))

    records = assert_nothing_lost(stack, CALLS)
    assert len(set(ids)) == CALLS
    by_id = {r["id"]: r for r in records}
    for number, ((model, _stream, usage, _headers), id) in enumerate(zip(plans, ids)):
        record = by_id[id]
        assert record["tags"]["call"] == str(number)
        assert record["cost_picousd"] == cost_picousd(model, usage), record
    total = sum(cost_picousd(model, usage) or 0 for model, _, usage, _ in plans)
    assert sum(r["cost_picousd"] for r in records) == total
    assert sum(Decimal(r["cost_usd"]) for r in records) == Decimal(total).scaleb(-12)

    shares = Counter(r["instance"] for r in records)
    assert len(shares) == 2 and min(shares.values()) >= CALLS // 5, shares
    # One more of each batch would be a repeat; the collector has seen each key once.
    keys = [dict(b.headers)["idempotency-key"] for b in stack.sink.batches]
    assert len(keys) == len(set(keys))

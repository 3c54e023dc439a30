"""Price tables as large as the published ones, for tests and benchmarks.

The numbers follow the largest public table: how many models have a cache rate, context tiers, service tiers, off-peak
hours. Names and rates are made up, and the same in every run.
"""

from __future__ import annotations

from typing import Any

MODELS = 4000
PROVIDERS = ("openai", "azure", "anthropic", "bedrock", "vertex_ai", "gemini", "mistral", "together_ai", "dashscope")


def usd(number: int, factor: int = 1) -> str:
    """A rate that only model `number` has, in dollars per million tokens."""
    micros = (10_000 + number) * factor
    return f"{micros // 1_000_000}.{micros % 1_000_000:06}".rstrip("0").rstrip(".")


def model(number: int) -> dict[str, Any]:
    """Model `number`: the first ones have everything, the last ones two rates."""
    kind = number % 50
    provider = PROVIDERS[number % len(PROVIDERS)]
    rates = {"input": usd(number), "output": usd(number, 4)}
    entry: dict[str, Any] = {"provider": provider, "model": f"{provider}-model-{number}-2026-05-13", "rates": rates}
    if kind < 20:
        rates["cached_input"] = usd(number, 2)
    if kind < 6:
        rates |= {"cache_creation": usd(number, 3), "cache_creation_1h": usd(number, 5)}
    if kind < 2:
        rates |= {"input_audio": usd(number, 6), "output_audio": usd(number, 7), "input_image": usd(number, 8)}
        long = {name: usd(number, 9) for name in ("input", "output", "cached_input")}
        entry["tiers"] = [{"input_over": 272_000, "rates": long}]
        entry["units"] = {"web_search_requests": "0.01"}
        entry["multipliers"] = {"region": {"eu": "1.1", "us": "1.1"}}
    if kind < 8:
        tier = {"input": usd(number, 10), "output": usd(number, 11), "cached_input": usd(number, 12)}
        entry["service_tiers"] = {name: {"rates": tier} for name in ("flex", "priority", "batch")}
    if kind < 10:
        entry["aliases"] = [f"{provider}-model-{number}", f"{provider}-model-{number}-latest"]
    if kind == 10:
        entry["off_peak"] = [{"hours_utc": "16:30-00:30", "rates": {"input": usd(number, 13)}}]
    return entry | {"max_output_tokens": 16_384, "max_input_tokens": 128_000}


def full_table(models: int = MODELS) -> dict[str, Any]:
    """The section `prices` with so many models."""
    return {"version": "full", "models": [model(number) for number in range(models)]}


def count_rates(prices: dict[str, Any]) -> int:
    """How many rates a table has, in all places."""
    def count(value: Any) -> int:
        if isinstance(value, list):
            return sum(map(count, value))
        if not isinstance(value, dict):
            return 0
        own = len(value.get("rates", {}))
        return own + sum(count(below) for name, below in value.items() if name != "rates")

    return count(prices)

"""What calls cost on a real Envoy: every kind of term once, what becomes of a model without a price, and a price table
as large as the published ones. The rules themselves are in tests/prices."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

import openai
import pytest
from conftest import Start
from support import envoy_config
from support.audit import Record, assert_consistent, assert_says, exact_records, fresh, one_record
from support.client import Reply, call_body, slowly
from support.envoy_config import Bootstrap
from support.price_tables import full_table, model
from support.stack import Stack, find_envoy

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
GENERATE, CONVERSE = "/v1beta/models/{}:generateContent", "/model/{}/converse"
MEGABYTE = 1 << 20
# More than the headers of any request here.
HEAD_BYTES = 4096

LADDER = {
    "provider": "openai", "model": "ladder", "aliases": ["ladder-2026-*"],
    "rates": {"input": "2.50", "cached_input": "0.25", "output": "15.00"},
    "tiers": [{"input_over": 1000, "rates": {"input": "5.00", "cached_input": "0.50", "output": "22.50"}}],
    "service_tiers": {
        "flex": {"rates": {"input": "1.25", "output": "7.50"}},
        "priority": {"rates": {"input": "5.00", "output": "30.00"}},
        "batch": {"multiplier": "0.5"},
    },
    "multipliers": {"region": {"eu": "1.1"}},
    "units": {"web_search_requests": "0.01"},
}
PRICES: dict[str, Any] = {
    "version": "test",
    "providers": {"azure": {"discount": "0.125"}},
    "models": [
        LADDER,
        {"provider": "azure", "model": "ladder", "rates": {"input": "4", "output": "8"}},
        {"provider": "anthropic", "model": "pacer", "rates": {"input": "3", "cache_creation": "3.75", "output": "15"},
         "multipliers": {"geo": {"us": "1.1"}, "speed": {"fast": "2"}}},
        {"provider": "mistral", "model": "hourly", "rates": {"input": "0.04", "output": "0.04"},
         "units": {"audio_seconds": {"usd": "0.10", "per": 3600}}},
        {"model": "dated", "rates": {"input": "1", "output": "1"}, "effective": [
            {"from": "2020-01-01T00:00:00Z", "rates": {"input": "2", "output": "2"}},
            {"from": "2400-01-01T00:00:00Z", "rates": {"input": "9", "output": "9"}}]},
        {"model": "nightly", "rates": {"input": "1", "output": "1"},
         "off_peak": [{"hours_utc": "00:00-00:00", "rates": {"input": "0.25"}}]},
        {"provider": "bedrock", "model": "amazon.nova-x-v1:0", "rates": {"input": "0.80", "output": "3.20"}},
    ],
}
UPSTREAMS = [
    {"match": {"host": "committed.internal"}, "price_multiplier": "0.8"},
    {"match": {"host": "europe.internal"}, "region": "EU"},
    {"match": {"host": "azure.internal"}, "provider": "azure"},
]


def priced(bootstrap: Bootstrap) -> None:
    envoy_config.flush_soon(bootstrap)
    envoy_config.filter_config(bootstrap).update(prices=PRICES, upstreams=UPSTREAMS)


def with_policy(policy: str) -> Any:
    def edit(bootstrap: Bootstrap) -> None:
        priced(bootstrap)
        envoy_config.filter_config(bootstrap)["prices"] = PRICES | {"on_unknown_model": policy}

    return edit


@pytest.fixture(scope="module")
def prices(envoy: str) -> Iterator[Stack]:
    with Stack(priced, envoy=envoy) as stack:
        yield stack
        assert_consistent(exact_records(stack))


@pytest.fixture(scope="module")
def strict(envoy: str) -> Iterator[Stack]:
    """Models without a price are refused."""
    with Stack(with_policy("reject"), envoy=envoy) as stack:
        yield stack
        assert_consistent(exact_records(stack))


def ask(
    stack: Stack, path: str, body: Any, answer: Any = None, headers: dict[str, str] | None = None
) -> tuple[Reply, Record]:
    """Sends a call that the replay provider answers with `answer`; the reply and its one record."""
    session = fresh()
    sent = {"x-cost-session": session, "x-mark": session, **(headers or {})}
    if answer is not None:
        sent["x-replay-body"] = json.dumps(answer)
    reply = stack.client.send("POST", path, body if not isinstance(body, dict) else json.dumps(body).encode(), sent)
    return reply, one_record(stack, session)


def arrived(stack: Stack, record: Record) -> list[dict[str, Any]]:
    """What the provider got of a call."""
    return [r for r in stack.replay.requests if ["x-mark", record["session"]] in r["headers"]]


def picousd(terms: list[tuple[Any, str, int, str]]) -> int:
    """The sum of quantity x rate / per x multiplier, each rounded half to even to the pico-dollar."""
    products = (Decimal(str(n)) * Decimal(rate) * Decimal(times) * 10**12 / per for n, rate, per, times in terms)
    return sum(int(product.quantize(Decimal(1), ROUND_HALF_EVEN)) for product in products)


def chat(name: str, prompt: int, completion: int, cached: int = 0, **more: Any) -> dict[str, Any]:
    details = {"cached_tokens": cached}
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "prompt_tokens_details": details}
    return {"id": "x", "object": "chat.completion", "model": name, "choices": [], "usage": usage, **more}


def message(name: str, **usage: Any) -> dict[str, Any]:
    return {"type": "message", "model": name, "usage": usage}


SEARCHED = {
    "object": "response", "status": "completed", "model": "ladder", "output": [{"type": "web_search_call"}] * 2,
    "usage": {"input_tokens": 100, "output_tokens": 10},
}
HEARD = chat("hourly", 4, 2)
HEARD["usage"] |= {"prompt_audio_seconds": 61}
M = 1_000_000
TERMS: list[Any] = [
    pytest.param(CHAT, {}, chat("ladder", 1000, 10, 400), "response_model",
                 [(600, "2.5", M, "1"), (400, "0.25", M, "1"), (10, "15", M, "1")], id="at the bound of a tier"),
    pytest.param(CHAT, {}, chat("ladder", 1001, 10, 400), "response_model",
                 [(601, "5", M, "1"), (400, "0.5", M, "1"), (10, "22.5", M, "1")], id="above the bound of a tier"),
    pytest.param(CHAT, {}, chat("ladder-2026-02-03", 100, 10, service_tier="flex"), "response_model_alias",
                 [(100, "1.25", M, "1"), (10, "7.5", M, "1")], id="flex"),
    pytest.param(CHAT, {}, chat("ladder", 2000, 10, service_tier="priority"), "response_model",
                 [(2000, "5", M, "1"), (10, "22.5", M, "1")], id="priority above a tier"),
    pytest.param(CHAT, {}, chat("something-else", 101, 10, service_tier="batch"), "request_model",
                 [(101, "2.5", M, "0.5"), (10, "15", M, "0.5")], id="batch, by the request"),
    pytest.param(CHAT, {"host": "eu.api.openai.com"}, chat("ladder", 101, 10), "response_model",
                 [(101, "2.5", M, "1.1"), (10, "15", M, "1.1")], id="region by the host"),
    pytest.param(CHAT, {"host": "europe.internal"}, chat("ladder", 101, 10), "response_model",
                 [(101, "2.5", M, "1.1"), (10, "15", M, "1.1")], id="region by the configuration"),
    pytest.param(CHAT, {"host": "committed.internal"}, chat("ladder", 101, 10), "response_model",
                 [(101, "2.5", M, "0.8"), (10, "15", M, "0.8")], id="an upstream's factor"),
    pytest.param(CHAT, {"host": "azure.internal"}, chat("ladder", 101, 10), "response_model",
                 [(101, "4", M, "0.875"), (10, "8", M, "0.875")], id="another biller and its discount"),
    pytest.param(RESPONSES, {}, SEARCHED, "response_model",
                 [(100, "2.5", M, "1"), (10, "15", M, "1"), (2, "0.01", 1, "1")], id="web searches"),
    pytest.param(CHAT, {}, HEARD, "response_model",
                 [(4, "0.04", M, "1"), (2, "0.04", M, "1"), (61, "0.1", 3600, "1")], id="seconds by the hour"),
    pytest.param(MESSAGES, {}, message("pacer", input_tokens=7, cache_creation_input_tokens=9, output_tokens=3,
                                       inference_geo="us", speed="fast"), "response_model",
                 [(7, "3", M, "2.2"), (9, "3.75", M, "2.2"), (3, "15", M, "2.2")], id="geography and speed"),
    pytest.param(CHAT, {}, chat("dated", 101, 10), "response_model",
                 [(101, "2", M, "1"), (10, "2", M, "1")], id="one date is past, one to come"),
    pytest.param(CHAT, {}, chat("nightly", 101, 10), "response_model",
                 [(101, "0.25", M, "1"), (10, "1", M, "1")], id="off-peak all day"),
    pytest.param(CONVERSE.format("eu.amazon.nova-x-v1%3A0"), {}, {"usage": {"inputTokens": 7, "outputTokens": 3}},
                 "request_model_alias", [(7, "0.8", M, "1"), (3, "3.2", M, "1")], id="a region in Bedrock's name"),
]


@pytest.mark.parametrize(("path", "headers", "answer", "by", "terms"), TERMS)
def test_a_call_costs_what_its_terms_say(
    prices: Stack, path: str, headers: dict[str, str], answer: Any, by: str, terms: list[tuple[Any, str, int, str]]
) -> None:
    _, record = ask(prices, path, {"model": "ladder", "messages": []}, answer, headers)
    assert_says(record, {"cost_picousd": picousd(terms), "price_status": "priced", "priced_by": by, "notes": None,
                         "price_version": "test"})
    assert len(record["charges"]) == len(terms)


def test_a_model_without_a_price_passes_and_has_no_cost(prices: Stack) -> None:
    reply, record = ask(prices, CHAT, {"model": "acme-9b"}, chat("acme-9b", 10, 10))
    assert reply.status == 200
    assert_says(record, {"price_status": "unknown_model", "cost_picousd": None, "priced_by": None, "input_tokens": 10})


# Refused


UNKNOWN: list[Any] = [
    pytest.param(CHAT, {"model": "acme-9b"}, lambda e: e["error"]["code"] == "unknown_model", id="OpenAI"),
    pytest.param(MESSAGES, {"model": "acme-9b", "max_tokens": 1},
                 lambda e: (e["type"], e["error"]["type"]) == ("error", "invalid_request_error"), id="Anthropic"),
    pytest.param(GENERATE.format("acme-9b"), {"contents": []},
                 lambda e: (e["error"]["code"], e["error"]["status"]) == (400, "INVALID_ARGUMENT"), id="Gemini"),
    pytest.param(CONVERSE.format("acme-9b"), {"messages": []}, lambda e: "message" in e, id="Bedrock"),
]


def sent_upstream(stack: Stack) -> int:
    """Bytes that Envoy has written to the provider so far."""
    return stack.counter("cluster.llm_upstream.upstream_cx_tx_bytes_total")


def assert_unseen(stack: Stack, record: Record) -> None:
    """The provider got none of the body; headers may have gone ahead of a body that came in pieces."""
    assert [r["body_len"] for r in arrived(stack, record)] in ([], [None])


@pytest.mark.parametrize("pieces", [1, 5], ids=["whole", "in pieces"])
@pytest.mark.parametrize(("path", "body", "is_dialect"), UNKNOWN)
def test_a_model_without_a_price_is_refused_before_the_provider_sees_it(
    strict: Stack, path: str, body: dict[str, Any], is_dialect: Any, pieces: int
) -> None:
    # The model comes first and the end late: nothing may leave in between.
    text = json.dumps(body | {"padding": "x" * HEAD_BYTES * 10}).encode()
    before = sent_upstream(strict)
    size = -(-len(text) // pieces)
    parts = [text[at : at + size] for at in range(0, len(text), size)]
    reply, record = ask(strict, path, text if pieces == 1 else slowly(parts, 0.02))
    assert (reply.status, reply.headers["content-type"]) == (400, "application/json")
    error = reply.json()
    assert is_dialect(error), error
    assert "acme-9b" in reply.body.decode()
    assert_says(record, {"decision": "refused", "price_status": "free", "cost_picousd": 0, "status": 400,
                         "request_model": "acme-9b", "error": "unknown_model"})
    assert_unseen(strict, record)
    assert sent_upstream(strict) - before < HEAD_BYTES


def test_a_request_that_names_no_model_is_refused(strict: Stack) -> None:
    reply, record = ask(strict, CHAT, {"messages": []})
    assert reply.status == 400
    assert_unseen(strict, record)
    assert_says(record, {"decision": "refused", "request_model": None})


def test_an_sdk_raises_what_it_raises_for_a_bad_request(strict: Stack) -> None:
    session = fresh()
    with openai.OpenAI(base_url=f"{strict.client.url}/v1", api_key="sk-test", max_retries=2) as client:
        with pytest.raises(openai.BadRequestError) as raised:
            client.chat.completions.create(
                model="acme-9b", messages=[{"role": "user", "content": "hello"}],
                extra_headers={"x-cost-session": session, "x-mark": session},
            )
    assert raised.value.code == "unknown_model"
    assert "acme-9b" in str(raised.value)
    # The one record says that it did not try again.
    assert_unseen(strict, one_record(strict, session))


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize("model_first", [True, False], ids=["model first", "model last"])
def test_a_megabyte_for_a_model_with_a_price_passes_byte_for_byte(
    strict: Stack, chunked: bool, model_first: bool
) -> None:
    padding = '"messages": [{"role": "user", "content": "' + 'é "'.replace('"', '\\"') * (MEGABYTE // 5) + '"}]'
    fields = ['"model":  "ladder"', padding] if model_first else [padding, '"model":  "ladder"']
    body = ("{" + " , ".join(fields) + "}").encode()
    assert len(body) >= MEGABYTE
    parts = [body[at : at + 65_536] for at in range(0, len(body), 65_536)]
    reply, record = ask(strict, CHAT, iter(parts) if chunked else body, chat("ladder", 300, 1))
    (entry,) = arrived(strict, record)
    assert (reply.status, entry["body_len"]) == (200, len(body))
    assert entry["body_sha256"] == hashlib.sha256(body).hexdigest()
    assert_says(record, {"decision": "allowed", "price_status": "priced", "request_model": "ladder"})


def test_a_stream_of_a_model_with_a_price_is_still_asked_for_its_usage(strict: Stack) -> None:
    body = call_body("ladder", True, False, {})
    _, record = ask(strict, CHAT, body, headers={"x-replay-fixture": "openai-chat-sse-usage.sse"})
    (entry,) = arrived(strict, record)
    assert json.loads(entry["body"])["stream_options"] == {"include_usage": True}
    assert_says(record, {"decision": "allowed", "usage_source": "reported"})


def test_what_is_free_needs_no_price(strict: Stack) -> None:
    reply, record = ask(strict, "/v1/moderations", {"model": "acme-9b", "input": "hello"}, {"id": "m", "results": []})
    assert reply.status == 200
    assert_says(record, {"price_status": "free", "decision": "allowed"})


# Assumed


def test_a_model_without_a_price_is_priced_as_the_dearest_of_its_provider(start: Start, envoy: str) -> None:
    stack = start(with_policy("assume_highest"), envoy=envoy)
    for host, priced_model, terms in [
        ("azure.internal", "ladder", [(1000, "4", M, "0.875"), (10, "8", M, "0.875")]),
        # Its own are cheaper than what is for sale at any provider; that one's rates rise in 2400.
        ("api.mistral.ai", "dated", [(1000, "2", M, "1"), (10, "2", M, "1")]),
    ]:
        _, record = ask(stack, CHAT, {"model": "acme-9b"}, chat("acme-9b", 1000, 10), {"host": host})
        assert_says(record, {"cost_picousd": picousd(terms), "price_status": "estimated", "usage_source": "reported",
                             "priced_by": "assumed_highest", "priced_model": priced_model})


# A table of thousands


def full(bootstrap: Bootstrap) -> None:
    envoy_config.flush_soon(bootstrap)
    envoy_config.filter_config(bootstrap)["prices"] = full_table()


def full_text(bootstrap: Bootstrap) -> None:
    full(bootstrap)
    envoy_config.set_filter_config_text(bootstrap)


@pytest.mark.parametrize("edit", [full, full_text], ids=["Struct", "text"])
def test_envoy_starts_and_prices_with_thousands_of_models(start: Start, envoy: str, edit: Any) -> None:
    # The YAML writer of the tests would take longer than Envoy.
    stack = start(edit, envoy=envoy, json_bootstrap=True)
    for number in (0, 1234, 3999):
        entry = model(number)
        _, record = ask(stack, CHAT, {"model": entry["model"]}, chat(entry["model"], 1000, 10))
        terms = [(1000, entry["rates"]["input"], M, "1"), (10, entry["rates"]["output"], M, "1")]
        assert_says(record, {"cost_picousd": picousd(terms), "priced_model": entry["model"],
                             "provider": entry["provider"], "price_version": "full"})


def test_envoys_validation_mode_reads_thousands_of_models_and_names_a_mistake_among_them(tmp_path: Path) -> None:
    def validate(name: str, table: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        bootstrap = envoy_config.load()
        envoy_config.filter_config(bootstrap)["prices"] = table
        envoy_config.write(tmp_path / name, bootstrap)
        command = [find_envoy(), "--mode", "validate", "-c", str(tmp_path / name), "--log-level", "warning"]
        return subprocess.run(command, cwd=envoy_config.ROOT, capture_output=True, text=True, timeout=60)

    good = validate("good.json", full_table())
    assert good.returncode == 0, good.stderr
    broken = full_table()
    broken["models"][3210]["rates"]["input"] = "cheap"
    bad = validate("bad.json", broken)
    assert bad.returncode == 1
    assert 'prices.models[3210].rates.input: expected a decimal amount, got "cheap"' in bad.stdout + bad.stderr

"""A configuration is taken whole or refused whole, with every mistake named; a refused one changes nothing."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Start
from support import envoy_config
from support.audit import assert_nothing_lost, assert_says, expected, fresh, one_logged, one_record
from support.envoy_config import Bootstrap
from support.stack import Stack, boot_failure, find_envoy

JSON, SSE = "openai-chat-json.json", "openai-chat-sse-usage.sse"

# One mistake of each kind, and what the log must say of each.
BROKEN: dict[str, Any] = {
    "version": 2,
    "budgetz": [],
    "attribution": {"max_value_bytes": "many", "forward_header": True},
    "prices": {"models": [
        {"model": "gpt-4o", "rates": {"input": "ten", "outptu": "1"}},
        {"rates": {"input": "-1"}},
        {"model": "gpt-4o", "rates": {"input": "1"}},
    ]},
    "collector": {"path": "no-slash", "flush_ms": 1, "headers": {"authorization": "change me"}, "format": "xml"},
}
MISTAKES = [
    "version: this filter reads version 1",
    "budgetz: unknown key",
    "attribution.max_value_bytes: expected a whole number",
    'attribution.forward_header: unknown key; did you mean forward_headers?',
    'prices.models[0].rates.input: expected a decimal amount, got "ten"',
    "prices.models[0].rates.outptu: unknown key; did you mean output?",
    "prices.models[1].model: is missing",
    "prices.models[1].rates.input: expected an amount of zero or more",
    "collector.cluster: is missing",
    "collector.path: must begin with /",
    "collector.flush_ms: expected a whole number from 10",
    'collector.headers.authorization: "change me" is a placeholder',
    'collector.format: expected ndjson, json_array, msgpack, otlp_json or cloudevents, got "xml"',
]


def as_struct(bootstrap: Bootstrap) -> None:
    envoy_config.set_filter_config(bootstrap, BROKEN)


def as_text(bootstrap: Bootstrap) -> None:
    envoy_config.set_filter_config_text(bootstrap, json.dumps(BROKEN, indent=1))


FORMS: list[Any] = [
    pytest.param(as_struct, False, id="Struct in YAML"),
    pytest.param(as_struct, True, id="Struct in JSON"),
    pytest.param(as_text, False, id="StringValue in YAML"),
    pytest.param(as_text, True, id="StringValue in JSON"),
]


def assert_names_every_mistake(log: str) -> None:
    missing = [mistake for mistake in MISTAKES if mistake not in log]
    assert not missing, f"{missing} not in:\n{log}"
    assert f"configuration refused: {len(MISTAKES)} error(s) above" in log


@pytest.mark.parametrize(("edit", "json_bootstrap"), FORMS)
def test_envoy_does_not_start_with_a_broken_configuration_and_names_every_mistake(
    envoy: str, edit: Callable[[Bootstrap], None], json_bootstrap: bool
) -> None:
    refusal = boot_failure(edit, envoy=envoy, json_bootstrap=json_bootstrap)
    assert refusal.code == 1
    assert_names_every_mistake(refusal.log)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{version: 1}", "not valid JSON: key must be a string at line 1 column 2"),
        ('{"version": 1,', "not valid JSON: EOF"),
        ("[]", "expected an object, got a list"),
        ('{"prices": {"version": "a", "version": "b"}}', "prices.version: is written twice"),
    ],
)
def test_text_that_is_no_configuration_is_refused(text: str, message: str) -> None:
    refusal = boot_failure(lambda bootstrap: envoy_config.set_filter_config_text(bootstrap, text))
    assert (refusal.code, message in refusal.log) == (1, True), refusal.log


def test_envoys_validation_mode_refuses_it_too(tmp_path: Path) -> None:
    def validate(name: str, edit: Callable[[Bootstrap], None]) -> subprocess.CompletedProcess[str]:
        bootstrap = envoy_config.load()
        edit(bootstrap)
        envoy_config.write(tmp_path / name, bootstrap)
        command = [find_envoy(), "--mode", "validate", "-c", str(tmp_path / name), "--log-level", "warning"]
        return subprocess.run(command, cwd=envoy_config.ROOT, capture_output=True, text=True, timeout=30)

    good, bad = validate("good.yaml", lambda _bootstrap: None), validate("bad.yaml", as_struct)
    assert good.returncode == 0, good.stderr
    assert bad.returncode == 1
    assert_names_every_mistake(bad.stdout + bad.stderr)


def doubles(bootstrap: Bootstrap) -> None:
    """The shipped prices as numbers instead of strings."""
    envoy_config.flush_soon(bootstrap)
    for model in envoy_config.filter_config(bootstrap)["prices"]["models"]:
        model["rates"] = {name: float(rate) for name, rate in model["rates"].items()}


def doubles_in_text(bootstrap: Bootstrap) -> None:
    doubles(bootstrap)
    envoy_config.set_filter_config_text(bootstrap)


@pytest.mark.parametrize(
    "edit", [envoy_config.flush_soon, doubles, doubles_in_text], ids=["strings", "numbers", "text"]
)
@pytest.mark.parametrize("json_bootstrap", [False, True], ids=["YAML", "JSON"])
def test_prices_are_the_same_in_every_form(
    start: Start, edit: Callable[[Bootstrap], None], json_bootstrap: bool
) -> None:
    stack = start(edit, json_bootstrap=json_bootstrap)
    session = fresh()
    stack.client.chat("gpt-5", stream=True, headers={"x-cost-session": session})
    assert_says(one_record(stack, session), expected("openai-chat-sse-usage-reasoning.sse", "gpt-5"))


def test_a_double_that_lost_digits_is_refused_and_asks_for_a_string() -> None:
    def imprecise(bootstrap: Bootstrap) -> None:
        envoy_config.filter_config(bootstrap)["prices"]["models"][0]["rates"]["input"] = 0.1 + 0.2

    refusal = boot_failure(imprecise, json_bootstrap=True)
    assert "prices.models[0].rates.input: 0.30000000000000004 has passed" in refusal.log
    assert "write a string" in refusal.log


@pytest.mark.parametrize("configured", [True, False], ids=["empty Struct", "none at all"])
def test_without_configuration_calls_are_metered_to_the_access_log_alone(start: Start, configured: bool) -> None:
    def empty(bootstrap: Bootstrap) -> None:
        if configured:
            envoy_config.set_filter_config(bootstrap, {})
        else:
            del envoy_config.plugin(bootstrap)["configuration"]

    stack = start(empty)
    session = fresh()
    reply = stack.client.chat(headers={"x-cost-session": session})
    record = one_logged(stack, session)
    assert reply.headers["x-tollgate-id"] == record["id"]
    assert_says(record, {"end_reason": "complete", "input_tokens": 412, "output_tokens": 31, "usage_source": "reported",
                         "price_status": "unknown_model", "cost_picousd": None, "seq": 1})
    assert not stack.sink.batches


def raise_price(bootstrap: Bootstrap) -> None:
    prices = envoy_config.filter_config(bootstrap)["prices"]
    prices["version"] = "raised"
    for model in prices["models"]:
        model["rates"] = {name: str(10 * float(rate)) for name, rate in model["rates"].items()}


def break_config(bootstrap: Bootstrap) -> None:
    envoy_config.set_filter_config(bootstrap, BROKEN)


def call(stack: Stack) -> dict[str, Any]:
    session = fresh()
    assert stack.client.chat(headers={"x-cost-session": session}).status == 200
    return one_record(stack, session)


def test_a_broken_update_is_rejected_and_the_old_configuration_keeps_serving(envoy: str, start: Start) -> None:
    stack = start(dynamic=True, envoy=envoy)
    before = call(stack)
    assert stack.update(break_config) is False
    assert_names_every_mistake(stack.log())
    after = call(stack)
    assert_says(after, expected(JSON, "gpt-4o") | {"price_version": before["price_version"]})
    assert stack.update(raise_price) is True, "a good update after a rejected one"
    assert call(stack)["price_version"] == "raised"
    assert_nothing_lost(stack)


def test_a_good_update_prices_new_calls_and_a_call_under_way_ends_as_it_began(envoy: str, start: Start) -> None:
    stack = start(dynamic=True, envoy=envoy)
    old, new = fresh(), fresh()
    headers = {"x-cost-session": old, "x-replay-delay-ms": "10"}
    body = b'{"model": "gpt-4o", "stream": true, "stream_options": {"include_usage": true}}'
    with stack.client.open("POST", "/v1/chat/completions", body, headers) as response:
        assert response.read1(10)
        assert stack.update(raise_price) is True
        stack.client.chat(headers={"x-cost-session": new})
        raised = one_record(stack, new)
        response.read()
    began = one_record(stack, old)
    assert_says(began, expected(SSE, "gpt-4o") | {"price_version": "2026-11-01"})
    cheap = expected(JSON, "gpt-4o")["cost_picousd"]
    assert_says(raised, {"price_version": "raised", "cost_picousd": 10 * cheap})
    assert_nothing_lost(stack)


def test_no_record_is_lost_across_updates_under_traffic(start: Start) -> None:
    """Records wait in a queue of the configuration they began with; that one must still leave."""
    def slow_flush(bootstrap: Bootstrap) -> None:
        envoy_config.filter_config(bootstrap)["collector"]["flush_ms"] = 400

    stack = start(slow_flush, dynamic=True)
    for version in range(3):
        for _ in range(10):
            stack.client.chat()

        def rename(bootstrap: Bootstrap, name: str = f"v{version}") -> None:
            envoy_config.filter_config(bootstrap)["prices"]["version"] = name

        assert stack.update(rename) is True
    stack.client.chat()
    assert {r["price_version"] for r in assert_nothing_lost(stack, 31)} == {"2026-11-01", "v0", "v1", "v2"}


def test_records_of_a_configuration_that_has_drained_still_reach_the_collector(start: Start) -> None:
    """Its root context is gone by the time its last stream ends; the next one sends what is left."""
    stack = start(envoy_config.flush_soon, dynamic=True, arguments=("--drain-time-s", "1"))
    streaming = fresh()
    hang = {"x-cost-session": streaming, "x-replay-fault": "hang-mid-body"}
    body = b'{"model": "gpt-4o", "stream": true}'
    with stack.client.open("POST", "/v1/chat/completions", body, hang) as response:
        assert response.read1(10)
        assert stack.update(raise_price) is True
        stack.client.chat()
        stack.sink.wait_for(1, 15, where=lambda record: record.get("session") == streaming)
    assert_says(one_logged(stack, streaming), {"end_reason": "gateway_closed", "request_model": "gpt-4o"})
    logged = {record["id"] for record in stack.wait_access_log(2)}
    stack.wait(lambda: {record["id"] for record in stack.sink.records} == logged, 10, "a record is missing")
    # The answer to a batch under way when its root goes comes to nobody: it may be sent again, under the same key.
    for id in logged:
        sent = [batch for batch in stack.sink.batches if id.encode() in batch.body]
        assert len({(dict(batch.headers)["idempotency-key"], batch.body) for batch in sent}) == 1, sent


def test_a_missing_module_stops_envoy_and_is_named(tmp_path: Path) -> None:
    refusal = boot_failure(lambda bootstrap: envoy_config.set_wasm(bootstrap, tmp_path / "none.wasm"))
    assert (refusal.code, "none.wasm" in refusal.log) == (1, True), refusal.log


def test_forwarded_headers_reach_the_provider_when_configured(start: Start) -> None:
    def forward(bootstrap: Bootstrap) -> None:
        envoy_config.flush_soon(bootstrap)
        envoy_config.filter_config(bootstrap)["attribution"] = {"forward_headers": True}

    stack = start(forward)
    session = fresh()
    stack.client.chat(headers={"x-cost-session": session})
    one_record(stack, session)
    (arrived,) = stack.replay.requests
    assert ["x-cost-session", session] in arrived["headers"]


def test_without_collector_cluster_settings_the_defaults_deliver(start: Start) -> None:
    def least(bootstrap: Bootstrap) -> None:
        envoy_config.set_filter_config(bootstrap, {"collector": {"cluster": "cost_collector", "flush_ms": 20}})

    stack = start(least)
    stack.client.chat()
    stack.sink.wait_for(1)
    (batch,) = stack.sink.batches
    sent = dict(batch.headers)
    assert (batch.path, sent["host"], sent["content-type"]) == ("/", "cost_collector", "application/x-ndjson")
    assert sent["idempotency-key"]



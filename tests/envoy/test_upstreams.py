"""What the configuration says of an upstream counts, matched by cluster, route or host as Envoy knows them when the
request arrives; a polled response is charged once, whichever worker sees it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import yaml
from conftest import Start
from support import envoy_config, variants
from support.audit import (
    Record, assert_consistent, assert_says, cost_picousd, exact_records, expected, fresh, one_record,
)
from support.client import call_body
from support.envoy_config import Bootstrap
from support.replay import fixtures
from support.stack import Stack

CHAT, JSON, SSE = "/v1/chat/completions", "openai-chat-json.json", "openai-chat-sse-usage.sse"
GROK = "xai-chat-additive.json"
SILENT = call_body("gpt-4o", True, False, {})


def known(bootstrap: Bootstrap) -> None:
    """Two clusters and three routes to the replay provider, with something said of each but one."""
    envoy_config.flush_soon(bootstrap)
    second = json.loads(json.dumps(envoy_config.cluster(bootstrap, "llm_upstream")))
    second["name"] = second["load_assignment"]["cluster_name"] = "azure_east"
    bootstrap["static_resources"]["clusters"].append(second)
    hosts = envoy_config.connection_manager(bootstrap)["route_config"]["virtual_hosts"]
    hosts[0]["routes"][:0] = [
        variants.to("azure", cluster="azure_east"), variants.to("assistant"), variants.to("both", cluster="azure_east"),
    ]
    envoy_config.filter_config(bootstrap)["upstreams"] = [
        {"match": {"cluster": "azure_*", "route": "both"}, "provider": "first"},
        {"match": {"cluster": "azure_*"}, "provider": "azure", "inject_include_usage": False},
        {"match": {"route": "assist*"}, "api": "openai_chat", "provider": "assistants"},
        {"match": {"host": "*.x.ai"}, "quirks": ["reasoning_additive"], "provider": "xai"},
    ]


@pytest.fixture(scope="module")
def several(envoy: str) -> Iterator[Stack]:
    with Stack(known, envoy=envoy) as stack:
        yield stack
        assert_consistent(exact_records(stack))


def ask(stack: Stack, path: str, body: bytes = SILENT, **headers: str) -> tuple[bytes, Record, dict[str, Any]]:
    session = fresh()
    sent = {"x-cost-session": session, "x-mark": session}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    reply = stack.client.send("POST", path, body, sent)
    (entry,) = [r for r in stack.replay.requests if ["x-mark", session] in r["headers"]]
    return reply.body, one_record(stack, session), entry


def test_an_upstream_is_known_by_its_cluster(several: Stack) -> None:
    body, record, entry = ask(several, f"/azure{CHAT}", x_replay_fixture=SSE)
    assert_says(record, expected(SSE, "gpt-4o") | {"provider": "azure", "cluster": "azure_east", "route": "azure"})
    assert entry["body"].encode() == SILENT and body == fixtures()[SSE].data


def test_an_upstream_is_known_by_its_route_and_its_api_is_what_the_configuration_says(several: Stack) -> None:
    body, record, entry = ask(several, "/assistant/ask", x_replay_fixture=SSE)
    wanted = {"provider": "assistants", "api": "openai_chat", "cluster": "llm_upstream", "route": "assistant"}
    assert_says(record, expected(SSE, "gpt-4o") | wanted)
    assert json.loads(entry["body"])["stream_options"] == {"include_usage": True}
    assert b'"choices":[]' not in body


def test_an_upstream_is_known_by_its_host_whose_quirks_count(several: Stack) -> None:
    usage = fixtures()[GROK].meta["usage"]
    _, record, _ = ask(several, CHAT, call_body("grok-4", False, False, {}), host="api.x.ai", x_replay_fixture=GROK)
    wanted = {name: usage[name] for name in ("input_tokens", "output_tokens", "total_tokens")}
    assert_says(record, wanted | {"provider": "xai", "usage_source": "reported", "route": "llm"})


def test_all_of_a_match_must_fit_and_the_first_counts(several: Stack) -> None:
    _, record, entry = ask(several, f"/both{CHAT}", x_replay_fixture=SSE)
    assert_says(record, {"provider": "first", "cluster": "azure_east", "route": "both"})
    assert json.loads(entry["body"])["stream_options"] == {"include_usage": True}
    # Nothing is said of the rest: the price table knows who bills.
    _, record, _ = ask(several, CHAT, host="x.ai.example", x_replay_fixture=SSE)
    assert_says(record, {"provider": "openai", "route": "llm", "cluster": "llm_upstream"})


def test_the_examples_in_the_shipped_file_are_accepted(start: Start) -> None:
    text = envoy_config.ENVOY_YAML.read_text(encoding="utf-8")
    (block,) = re.findall(r"^ +# upstreams:\n(?: +# .*\n)+", text, re.MULTILINE)
    examples = yaml.safe_load(re.sub(r"^ +# ", "", block, flags=re.MULTILINE))
    assert examples.keys() == {"upstreams", "metering"}

    def use(bootstrap: Bootstrap) -> None:
        envoy_config.flush_soon(bootstrap)
        envoy_config.filter_config(bootstrap).update(examples)

    stack = start(use)
    body, record, entry = ask(stack, CHAT, SILENT + b" " * 4096, x_replay_fixture=SSE)
    assert entry["body"].encode() == SILENT + b" " * 4096 and body == fixtures()[SSE].data
    assert re.fullmatch("[0-9a-f]{16}", record["request_hash"]) and re.fullmatch("[0-9a-f]{16}", record["prefix_hash"])


# Responses that are polled

QUEUED, DONE = "openai-responses-background-queued.json", "openai-responses-background-done.json"
POLLS = 24


def balanced(bootstrap: Bootstrap) -> None:
    envoy_config.flush_soon(bootstrap)
    envoy_config.exact_balance(bootstrap)


def test_a_response_is_charged_once_however_often_and_wherever_it_is_polled(start: Start, envoy: str) -> None:
    stack = start(balanced, envoy=envoy)
    response = json.loads(fixtures()[DONE].data)["id"]

    def look(fixture: str) -> int:
        headers = {"x-replay-fixture": fixture, "x-replay-wait-ms": "20"}
        return stack.client.send("GET", f"/v1/responses/{response}", None, headers).status

    body = json.dumps(fixtures()[QUEUED].meta["request"]).encode()
    assert stack.client.send("POST", "/v1/responses", body, {"x-replay-fixture": QUEUED}).status == 200
    assert look(QUEUED) == 200
    with ThreadPoolExecutor(POLLS) as pool:
        assert set(pool.map(look, [DONE] * POLLS)) == {200}
    created, waiting, *polls = sorted(stack.sink.wait_for(2 + POLLS), key=lambda r: r["ts"])
    assert sorted(map(json.dumps, stack.wait_access_log(2 + POLLS))) == sorted(map(json.dumps, stack.sink.records))

    free = {"price_status": "free", "cost_picousd": 0, "api": "openai_responses", "response_id": response}
    for record in (created, waiting):
        assert_says(record, free | {"notes": ["not_finished"], "usage_source": "none"})
    charged = [r for r in polls if r["usage_source"] == "reported"]
    usage = fixtures()[DONE].meta["usage"]
    assert len(charged) == 1
    assert_says(charged[0], {"price_status": "priced", "cost_picousd": cost_picousd("gpt-5", usage), "notes": None})
    for record in polls:
        if record is not charged[0]:
            assert_says(record, free | {"notes": ["charged_before"], "usage_source": "none", "input_tokens": None})
    assert len({r["instance"] for r in polls}) == 2, "one worker did it all"
    assert_consistent(exact_records(stack))
    counted = sum(s.value for s in stack.metrics("tollgate_tokens_total"))
    assert counted == usage["input_tokens"] + usage["output_tokens"]
    # Another response is another charge.
    assert stack.client.send("POST", "/v1/responses", b'{"model": "gpt-5"}').status == 200
    stack.sink.wait_for(1, where=lambda r: r.get("response_id") != response and r["price_status"] == "priced")

"""Where the path names the model, a cheaper one is asked for in the path, and the route is chosen anew by it. With the
headers held that is decided by what the body says; without, by the headers alone, and the body is held against it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from support import envoy_config
from support.audit import assert_says, fresh, one_record
from support.budgets import Sent, at_rest, budget, send, with_budgets
from support.envoy_config import Bootstrap
from support.stack import Stack

CHEAPER = "x-cost-model"
MAX_OUTPUT_TOKENS = 8_192
VERTEX = "/v1/projects/p/locations/europe-west4/publishers"
OPUS, HAIKU = "eu.anthropic.claude-opus-4-8", "eu.anthropic.claude-haiku-4-5"
GEMINI_BODY = {"contents": [{"parts": [{"text": "hello"}]}], "generationConfig": {"maxOutputTokens": 100}}
CHAT_BODY = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 100}
CLAUDE_BODY = {"anthropic_version": "v", **CHAT_BODY}
CONVERSE_BODY = {"messages": [{"role": "user", "content": [{"text": "hello"}]}], "inferenceConfig": {"maxTokens": 100}}
CASES = {
    "gemini": ("/v1beta/models/{}:generateContent?key=k", "gemini-2.5-flash", "gemini-2.5-flash-lite", GEMINI_BODY),
    "gemini stream": (
        "/v1beta/models/{}:streamGenerateContent?alt=sse", "gemini-2.5-flash", "gemini-2.5-flash-lite", GEMINI_BODY
    ),
    "vertex": (
        VERTEX + "/google/models/{}:generateContent", "gemini-2.5-flash", "gemini-2.5-flash-lite", GEMINI_BODY
    ),
    "vertex claude": (VERTEX + "/anthropic/models/{}:rawPredict", "claude-opus-4-8", "claude-haiku-4-5", CLAUDE_BODY),
    "azure": ("/openai/deployments/{}/chat/completions?api-version=1", "large", "small", CHAT_BODY),
    "bedrock converse": ("/model/{}/converse", OPUS, HAIKU, CONVERSE_BODY),
    "bedrock invoke": ("/model/{}/invoke", OPUS, HAIKU, CLAUDE_BODY),
}
DOWNGRADES = [
    {"from": "gpt-4o", "to": "gpt-4o-mini"},
    *({"from": model, "to": target} for model, target in sorted({case[1:3] for case in CASES.values()})),
]
DEAR, CHEAP = {"input": "5.00", "output": "25.00"}, {"input": "1.00", "output": "5.00"}
MODELS = [
    {"provider": "azure", "model": "large", "rates": DEAR}, {"provider": "azure", "model": "small", "rates": CHEAP},
    {"provider": "vertex_ai", "model": "claude-opus-4-8", "rates": DEAR},
    {"provider": "vertex_ai", "model": "claude-haiku-4-5", "rates": CHEAP},
    {"provider": "bedrock", "model": OPUS, "rates": DEAR},
]
CREDENTIAL = "Credential=AKIA/20261122/eu-central-1/bedrock/aws4_request"
SIGNED = {"authorization": f"AWS4-HMAC-SHA256 {CREDENTIAL}, SignedHeaders=host, Signature=0"}
IMAGE = {"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": "AAAA"}}]}]}


@pytest.fixture(scope="module", params=[True, False], ids=["held", "not held"])
def holds(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture(scope="module")
def gate(envoy: str, holds: bool) -> Iterator[Stack]:
    budgets = [budget("down", limit_usd="0.01", hard_limit_usd="0.02", on_exceeded="downgrade")]

    def edit(bootstrap: Bootstrap) -> None:
        metering = {"hold_request_headers": holds}
        with_budgets(*budgets, downgrades=DOWNGRADES, metering=metering)(bootstrap)
        models = envoy_config.filter_config(bootstrap)["prices"]["models"]
        models += MODELS
        for model in models:
            if model["model"] == "gemini-2.5-flash-lite":
                model["max_output_tokens"] = MAX_OUTPUT_TOKENS
        routes = envoy_config.connection_manager(bootstrap)["route_config"]["virtual_hosts"][0]["routes"]
        cheaper = "|".join(sorted({case[2].replace(".", "[.]") for case in CASES.values()}))
        match = {"safe_regex": {"regex": f".*/({cheaper})[:/].*"}}
        routes.insert(0, {**routes[0], "name": "cheaper", "match": match})

    with Stack(edit, envoy=envoy) as stack:
        yield stack


@pytest.fixture
def team(gate: Stack) -> str:
    """A team that has spent its cent."""
    team = fresh()
    assert send(gate, "down", team, used=(0, 1000)).code is None
    at_rest(gate, "down", team=team)
    return team


def ask(gate: Stack, team: str, case: str, body: Any = None, **headers: str) -> Sent:
    path, model, _, own = CASES[case]
    data = json.dumps(own if body is None else body).encode()
    return send(gate, "down", team, path=path.format(model), body=data, headers=headers)


@pytest.mark.parametrize("case", CASES)
def test_the_path_names_the_cheaper_model_and_leads_where_that_is(gate: Stack, team: str, case: str) -> None:
    path, model, target, body = CASES[case]
    sent = ask(gate, team, case)
    assert (sent.reply.status, sent.reply.headers[CHEAPER]) == (200, target)
    (entry,) = sent.provider
    assert (entry["path"], entry["body"]) == (path.format(target), json.dumps(body))
    record = one_record(gate, sent.session)
    assert_says(record, {"decision": "downgraded", "downgraded_from": model, "request_model": model, "route": "cheaper"})


@pytest.mark.parametrize("case", CASES)
def test_a_call_that_fits_goes_where_it_wants_once_its_body_is_known(gate: Stack, case: str, holds: bool) -> None:
    path, model, target, body = CASES[case]
    sent = ask(gate, fresh(), case)
    # Without the body, an answer of 4096 tokens is to be feared, which is more than a cent.
    named = model if holds else target
    assert sent.reply.headers.get(CHEAPER, model) == named
    assert [(entry["path"], entry["body"]) for entry in sent.provider] == [(path.format(named), json.dumps(body))]
    assert_says(one_record(gate, sent.session), {"route": "llm" if named == model else "cheaper"})


def test_what_the_cheaper_model_cannot_do_is_refused(gate: Stack, team: str, holds: bool) -> None:
    sent = ask(gate, team, "gemini", IMAGE)
    assert (sent.reply.status, sent.bodies) == (429, [])
    assert len(sent.provider) <= (not holds), "without holding, the provider may see headers"
    notes = one_record(gate, sent.session)["notes"]
    assert {"downgrade_misfit:vision", "no_downgrade"} <= set(notes)


@pytest.mark.parametrize("case", ["bedrock converse", "gemini"])
def test_a_signed_path_stays(gate: Stack, team: str, case: str, holds: bool) -> None:
    sent = ask(gate, team, case, **SIGNED)
    assert (sent.reply.status, sent.bodies) == (400 if "bedrock" in case else 429, [])
    assert len(sent.provider) <= (not holds)
    assert "no_downgrade" in one_record(gate, sent.session)["notes"]


def test_a_limit_that_the_cheaper_model_does_not_take_is_lowered_with_the_length(
    gate: Stack, team: str, holds: bool
) -> None:
    body = {**GEMINI_BODY, "generationConfig": {"maxOutputTokens": 9000}}
    sent = ask(gate, team, "gemini", body)
    (entry,) = sent.provider
    assert (entry["path"], entry["body"]) == (
        CASES["gemini"][0].format("gemini-2.5-flash-lite"), json.dumps(body).replace("9000", str(MAX_OUTPUT_TOKENS))
    )
    lengths = [value for name, value in entry["headers"] if name.lower() == "content-length"]
    assert lengths == ([str(entry["body_len"])] if holds else [])

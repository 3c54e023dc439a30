"""A call beyond its budget goes to a cheaper model where that can be done honestly: in a body nobody has signed, to the
same provider, to a model that can do what is asked, up to a hard limit. Everything else is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from support import budgets, envoy_config, sdks
from support.audit import assert_says, cost_picousd, fresh, one_record
from support.budgets import at_rest, budget, pico, send, with_budgets
from support.client import call_body, slowly
from support.envoy_config import Bootstrap
from support.stack import Stack

HARD = "0.02"
MAX_OUTPUT_TOKENS = 16_384
BUDGETS = [
    budget("down", limit_usd="0.01", hard_limit_usd=HARD, on_exceeded="downgrade"),
    budget("reads", limit_usd="0.01", hard_limit_usd=HARD,
           on_exceeded={"agentic_write": "block", "agentic_read": "downgrade"}),
    budget("calls", limit_calls=1, on_exceeded="downgrade"),
    budget("both", limit_usd="0.01", hard_limit_usd=HARD, on_exceeded="downgrade"),
    budget("both-block", match={"feature": "both"}, limit_usd="0.015", on_exceeded="block"),
]
DOWNGRADES = [
    {"from": "gpt-4o", "to": "gpt-4o-mini"},
    {"from": "claude-opus-*", "to": "claude-haiku-4-5", "supports": ["tools", "vision", "max_tokens"]},
    {"from": "gpt-5", "to": "claude-haiku-4-5"},
    {"from": "o4-mini", "to": "gpt-4o"},
]
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
CREDENTIAL = "Credential=AKIA/20261122/eu-central-1/bedrock/aws4_request"
REQUESTED, CHEAPER = "x-cost-requested-model", "x-cost-model"


def cheaper(bootstrap: Bootstrap) -> None:
    with_budgets(*BUDGETS, downgrades=DOWNGRADES)(bootstrap)
    for model in envoy_config.filter_config(bootstrap)["prices"]["models"]:
        if model["model"] == "gpt-4o-mini":
            model["max_output_tokens"] = MAX_OUTPUT_TOKENS


@pytest.fixture(scope="module")
def gate(envoy: str) -> Iterator[Stack]:
    """All of `BUDGETS`; each test has teams of its own."""
    with Stack(cheaper, envoy=envoy) as stack:
        yield stack


@pytest.fixture
def team(gate: Stack) -> str:
    """A team that has spent its cent in every budget."""
    team = fresh()
    for feature in ("down", "reads", "calls", "both"):
        first = send(gate, feature, team, used=(0, 1000))
        assert (first.code, CHEAPER in first.reply.headers) == (None, False)
        at_rest(gate, feature, team=team)
    return team


def assert_refused(gate: Stack, sent: budgets.Sent, *notes: str) -> None:
    """The budget's refusal: nothing of it reached the provider, and the record says why it went nowhere else."""
    assert (sent.reply.status, sent.code, sent.bodies) == (429, "budget_exceeded", [])
    assert CHEAPER not in sent.reply.headers
    record = one_record(gate, sent.session)
    assert_says(record, {"decision": "refused", "downgraded_from": None, "cost_picousd": 0})
    assert set(notes) <= set(record.get("notes", [])), record


def assert_downgraded(gate: Stack, sent: budgets.Sent, feature: str, used: dict[str, int]) -> None:
    """Client, provider and record agree that gpt-4o-mini answered."""
    assert (sent.code, len(sent.bodies)) == (None, 1)
    assert (sent.reply.headers[REQUESTED], sent.reply.headers[CHEAPER]) == ("gpt-4o", "gpt-4o-mini")
    cost, full = cost_picousd("gpt-4o-mini", used) or 0, cost_picousd("gpt-4o", used) or 0
    record = one_record(gate, sent.session)
    assert_says(record, {
        "decision": "downgraded", "downgraded_from": "gpt-4o", "request_model": "gpt-4o", "budget": feature,
        "response_model": "gpt-4o-mini-2024-07-18", "cost_picousd": cost, "price_status": "priced",
    })
    assert pico(record["avoided_cost_usd"]) == full - cost
    assert pico(record["estimated_cost_usd"]) >= cost


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
def test_a_downgraded_request_differs_in_model_and_limit_alone(gate: Stack, team: str, chunked: bool) -> None:
    before = (
        '{ "max_tokens" : 16500,"model":\t"gpt-4o" , "messages":[{"role":"user","content":"model: gpt-4o \\u00e9 é"}],'
        '\n"metadata":{"model":"gpt-4o","max_tokens":16500}, "user" : null }  '
    )
    after = before.replace("16500,", f"{MAX_OUTPUT_TOKENS},", 1).replace('"gpt-4o"', '"gpt-4o-mini"', 1)
    data = before.encode()
    body = slowly([data[at : at + 7] for at in range(0, len(data), 7)], 0.001) if chunked else data
    sent = send(gate, "down", team, body=body, used=(50, 20))
    assert_downgraded(gate, sent, "down", {"input_tokens": 50, "output_tokens": 20})
    assert sent.bodies == [after]
    names = [name.lower() for name, _ in sent.provider[0]["headers"]]
    assert not [name for name in names if name.startswith("x-cost-")]
    assert sent.reply.json()["model"] == "gpt-4o-mini-2024-07-18"
    counted = gate.counter("wasmcustom.tollgate_budget_downgrades_total.budget.down")
    assert counted >= 1


def test_a_limit_that_the_cheaper_model_takes_stays(gate: Stack, team: str) -> None:
    sent = send(gate, "down", team, max_tokens=300, used=(50, 20))
    assert_downgraded(gate, sent, "down", {"input_tokens": 50, "output_tokens": 20})
    assert json.loads(sent.bodies[0]) == json.loads(call_body("gpt-4o-mini", False, True, {"max_tokens": 300}))


@pytest.mark.parametrize("asks", [True, False], ids=["asks for usage", "does not ask"])
def test_a_downgraded_stream_stays_a_stream(gate: Stack, team: str, asks: bool) -> None:
    body = call_body("gpt-4o", True, asks, {"max_tokens": 300})
    sent = send(gate, "down", team, body=body, used=(50, 20), headers={"x-replay-delay-ms": "1"})
    assert_downgraded(gate, sent, "down", {"input_tokens": 50, "output_tokens": 20})
    assert sent.reply.body.endswith(b"data: [DONE]\n\n")
    assert (b'"choices":[]' in sent.reply.body) == asks, "the event that only the filter asked for"
    assert json.loads(sent.bodies[0])["stream_options"] == {"include_usage": True}
    record = one_record(gate, sent.session)
    assert (record["stream"], record["end_reason"]) == (True, "complete")


def test_the_sdk_reads_the_cheaper_models_answer(gate: Stack, team: str) -> None:
    headers = {"x-cost-feature": "down", "x-cost-team": team}
    with openai.OpenAI(base_url=f"{gate.client.url}/v1", api_key="sk-test", default_headers=headers) as client:
        raw = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=sdks.HELLO, max_tokens=100)
        assert (raw.headers[REQUESTED], raw.headers[CHEAPER]) == ("gpt-4o", "gpt-4o-mini")
        reply = raw.parse()
        assert reply.model == "gpt-4o-mini-2024-07-18" and reply.choices[0].message.content
        usage: Any = {"include_usage": True}
        chunks = list(client.chat.completions.create(
            model="gpt-4o", messages=sdks.HELLO, max_tokens=100, stream=True, stream_options=usage
        ))
    assert {chunk.model for chunk in chunks} == {"gpt-4o-mini-2024-07-18"}
    assert any(chunk.choices and chunk.choices[0].delta.content for chunk in chunks) and chunks[-1].usage


def test_anthropics_sdk_reads_it_too_and_images_go_to_a_model_that_is_said_to_see(gate: Stack, team: str) -> None:
    headers = {"x-cost-feature": "down", "x-cost-team": team, "x-cost-session": team + "-2", "x-mark": team}
    image = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    messages: Any = [{"role": "user", "content": [image, {"type": "text", "text": "What is it?"}]}]
    client = sdks.anthropic_client(gate.client.url, headers)
    raw = client.messages.with_raw_response.create(model="claude-opus-4-8", max_tokens=200, messages=messages)
    assert (raw.headers[REQUESTED], raw.headers[CHEAPER]) == ("claude-opus-4-8", "claude-haiku-4-5")
    assert raw.parse().content
    (arrived,) = [r for r in gate.replay.requests if ["x-mark", team] in r["headers"]]
    assert json.loads(arrived["body"])["model"] == "claude-haiku-4-5"
    assert_says(one_record(gate, team + "-2"), {"decision": "downgraded", "downgraded_from": "claude-opus-4-8"})


@pytest.mark.parametrize(
    ("tool", "said", "passes"),
    [
        ("find_page", None, True), ("send_email", None, False), ("find_page", "agentic-write", False),
        ("send_email", "agentic-read", True),
    ],
)
def test_an_agent_that_writes_stops_and_one_that_reads_goes_on(
    gate: Stack, team: str, tool: str, said: str | None, passes: bool
) -> None:
    headers = {"x-cost-workload": said} if said else {}
    tools = [{"type": "function", "function": {"name": tool, "parameters": {}}}]
    sent = send(gate, "reads", team, tools=tools, used=(50, 20), headers=headers)
    if passes:
        assert_downgraded(gate, sent, "reads", {"input_tokens": 50, "output_tokens": 20})
    else:
        assert_refused(gate, sent)
    writes = said == "agentic-write" if said else tool == "send_email"
    assert one_record(gate, sent.session)["workload"] == ("agentic-write" if writes else "agentic-read")


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"AWS4-HMAC-SHA256 {CREDENTIAL}, SignedHeaders=host, Signature=0"},
        {"x-amz-content-sha256": "0" * 64},
        {"content-md5": "AAAAAAAAAAAAAAAAAAAAAA=="},
        {"content-digest": "sha-256=:AAAA:"},
        {"signature-input": 'sig=("content-digest")', "signature": "sig=:AAAA:"},
    ],
    ids=lambda headers: next(iter(headers)),
)
def test_a_body_that_must_stay_as_it_is_goes_nowhere_else(gate: Stack, team: str, headers: dict[str, str]) -> None:
    body = call_body("gpt-4o", False, True, {"max_tokens": 100})
    sent = send(gate, "down", team, body=body, headers=headers)
    assert_refused(gate, sent, "no_downgrade")


@pytest.mark.parametrize(
    ("extra", "note"),
    [
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "vision"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}}, "structured_output"),
        ({"reasoning_effort": "high"}, "reasoning"),
        ({"logprobs": True}, "logprobs"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_cheaper_model_cannot_do_is_refused(gate: Stack, team: str, extra: dict[str, Any], note: str) -> None:
    sent = send(gate, "down", team, **extra)
    assert_refused(gate, sent, "no_downgrade", f"downgrade_misfit:{note}")


@pytest.mark.parametrize("model", ["gpt-5", "o4-mini", "gpt-4o-mini"])
def test_no_call_goes_to_another_provider_or_to_a_dearer_model_or_where_nothing_is_said(
    gate: Stack, team: str, model: str
) -> None:
    assert_refused(gate, send(gate, "down", team, model=model), "no_downgrade")


def test_a_downgrade_that_costs_too_much_all_the_same_is_refused(gate: Stack, team: str) -> None:
    messages = [{"role": "user", "content": "word " * 80_000}]
    assert_refused(gate, send(gate, "down", team, messages=messages))


def test_downgrades_end_at_the_hard_limit(gate: Stack, team: str) -> None:
    def client(_number: int) -> list[str | None]:
        return [send(gate, "down", team, max_tokens=1000, used=(20, 1000)).code for _ in range(4)]

    with ThreadPoolExecutor(16) as pool:
        codes = [code for part in pool.map(client, range(16)) for code in part]
    assert set(codes) <= {None, "budget_busy", "budget_exceeded"}
    for _ in range(30):
        last = send(gate, "down", team, max_tokens=1000, used=(20, 1000))
        at_rest(gate, "down", team=team)
        if last.code is not None:
            break
    assert_refused(gate, last)
    most = cost_picousd("gpt-4o-mini", {"input_tokens": 40, "output_tokens": 1000}) or 0
    assert pico(HARD) - most < at_rest(gate, "down", team=team).spent <= pico(HARD)


def test_a_cheaper_model_is_no_way_around_a_limit_of_calls(gate: Stack, team: str) -> None:
    assert_refused(gate, send(gate, "calls", team, used=(50, 20)))
    assert at_rest(gate, "calls", team=team).calls == 1


def test_a_budget_that_blocks_is_stronger_than_one_that_downgrades(gate: Stack, team: str) -> None:
    # Half a cent is left in the one that blocks.
    assert_downgraded(gate, send(gate, "both", team, max_tokens=400, used=(50, 20)), "both",
                      {"input_tokens": 50, "output_tokens": 20})
    refused = send(gate, "both", team, max_tokens=600)
    assert_refused(gate, refused)
    assert refused.reply.headers["x-cost-budget"] == "both-block"


def test_a_call_within_its_budget_goes_where_it_wants(gate: Stack) -> None:
    body = call_body("gpt-4o", False, True, {"max_tokens": 100}) + b"\n"
    sent = send(gate, "down", fresh(), body=body)
    assert (sent.bodies, CHEAPER in sent.reply.headers) == ([body.decode()], False)
    assert_says(one_record(gate, sent.session), {"decision": "allowed", "downgraded_from": None, "budget": None})

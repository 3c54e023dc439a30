"""The client examples run as they are, through the shipped gateway, and their records say what the examples promise."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from support import envoy_config
from support.audit import Record, assert_says
from support.envoy_config import ROOT
from support.stack import Stack

CLIENTS = ROOT / "examples" / "clients"


@pytest.fixture(scope="module")
def gateway(envoy: str) -> Iterator[Stack]:
    with Stack(envoy_config.flush_soon, envoy=envoy) as stack:
        yield stack


def run(stack: Stack, file: str, calls: int, **environment: str) -> tuple[str, list[Record]]:
    """What an example prints, and the records of its calls in their order."""
    before = len(stack.sink.records)
    command = [str(CLIENTS / file)] if file.endswith(".sh") else [sys.executable, str(CLIENTS / file)]
    env = os.environ | {"GATEWAY_URL": stack.client.url, "OPENAI_API_KEY": "sk-test", "ANTHROPIC_API_KEY": "sk-test"}
    done = subprocess.run(command, env=env | environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    stack.sink.wait_for(before + calls)
    records = sorted(list(stack.sink.records)[before:], key=lambda r: r["ts"])
    assert len(records) == calls
    for record in records:
        assert_says(record, {"status": 200, "price_status": "priced", "notes": None})
    return done.stdout, records


@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        ("openai_sdk.py", {
            "department": "support", "feature": "ticket-summary", "environment": "production", "user": "u-2077",
            "tags": {"customer": "acme"},
        }),
        ("anthropic_sdk.py", {
            "department": "product", "feature": "code-review", "user": "u-0815", "project": "apollo", "stream": True,
        }),
        ("curl.sh", {"department": "finance", "feature": "invoice-check", "gl_account": "6420"}),
    ],
)
def test_a_client_says_who_pays(gateway: Stack, file: str, wanted: dict[str, Any]) -> None:
    printed, (record,) = run(gateway, file, 1)
    assert_says(record, wanted)
    assert printed.strip()
    if file == "openai_sdk.py":
        assert f"record: {record['id']}" in printed


def test_an_agents_runs_make_a_tree(gateway: Stack) -> None:
    printed, (first, research, last) = run(gateway, "agent_run.py", 3)
    assert_says(first, {"workload": "agentic-write", "parent_run_id": None, "agent_handoff": None})
    assert_says(research, {
        "workload": "agentic-read", "parent_run_id": first["run_id"], "agent_handoff": "true", "mcp_server": "web-search",
    })
    assert last["run_id"] == first["run_id"] != research["run_id"]
    assert printed.split() == ["planner", f"{first['run_id']},", "researcher", research["run_id"]]


@pytest.mark.parametrize(("branch", "session"), [("feature/JIRA-2341-faster-search", "JIRA-2341"), ("main", "pr-17")])
def test_a_coding_session_belongs_to_its_ticket_or_pull_request(gateway: Stack, branch: str, session: str) -> None:
    _, (question, commit) = run(gateway, "work_item.py", 2, BRANCH=branch, PULL_REQUEST="17")
    both = {"session": session, "department": "engineering", "tags": {"pull-request": "pr-17"}}
    assert_says(question, both | {"outcome": None})
    assert_says(commit, both | {"outcome": "pull-request-merged"})

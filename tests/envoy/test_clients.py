"""The client examples run as they are, through the shipped gateway: their records say what the examples promise, and the
provider sees none of the headers. Those in TypeScript are type-checked too."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import envoy_config
from support.audit import Record, assert_says
from support.envoy_config import ROOT
from support.stack import Stack

CLIENTS = ROOT / "examples" / "clients"
NODE_SETTINGS = ROOT / "tests" / "node"
# The first run installs Node and the packages.
INSTALL_SECONDS = 300
RUN_SECONDS = 60
# What a call carries for its provider, whichever SDK made it.
SECRETS = {"authorization": "Bearer sk-test", "x-api-key": "sk-test"}


class Node:
    """Node, and a folder where the TypeScript examples find their packages."""

    def __init__(self, installed: Path, folder: Path) -> None:
        self.binary, self.folder = installed / "bin" / "node", folder
        (folder / "node_modules").symlink_to(installed / "node_modules")
        for file in (NODE_SETTINGS / "package.json", NODE_SETTINGS / "tsconfig.json", *CLIENTS.glob("*.ts")):
            shutil.copy(file, folder)


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Node:
    tool = subprocess.run([ROOT / "tools" / "node.sh"], capture_output=True, text=True, timeout=INSTALL_SECONDS)
    assert tool.returncode == 0, tool.stderr
    return Node(Path(tool.stdout.strip()), tmp_path_factory.mktemp("typescript"))


@pytest.fixture(scope="module")
def gateway(envoy: str) -> Iterator[Stack]:
    with Stack(envoy_config.flush_soon, envoy=envoy) as stack:
        yield stack


def run(stack: Stack, file: str, calls: int, node: Node | None = None, **environment: str) -> tuple[str, list[Record]]:
    """What an example prints, and the records of its calls in their order."""
    recorded, arrived = len(stack.sink.records), len(stack.replay.requests)
    if file.endswith(".ts"):
        assert node is not None
        command = [str(node.binary), str(node.folder / file)]
    else:
        command = [str(CLIENTS / file)] if file.endswith(".sh") else [sys.executable, str(CLIENTS / file)]
    env = os.environ | {"GATEWAY_URL": stack.client.url, "OPENAI_API_KEY": "sk-test", "ANTHROPIC_API_KEY": "sk-test"}
    done = subprocess.run(command, env=env | environment, capture_output=True, text=True, timeout=RUN_SECONDS)
    assert done.returncode == 0, done.stderr
    stack.sink.wait_for(recorded + calls)
    records = sorted(list(stack.sink.records)[recorded:], key=lambda r: r["ts"])
    assert len(records) == calls
    for record in records:
        assert_says(record, {"status": 200, "price_status": "priced", "notes": None})
    requests = list(stack.replay.requests)[arrived:]
    assert len(requests) == calls
    for request in requests:
        headers = {name.lower(): value for name, value in request["headers"]}
        assert not [name for name in headers if name.startswith("x-cost-")]
        assert SECRETS.items() & headers.items(), "the provider was not shown the caller's key"
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
        ("openai_sdk.ts", {
            "department": "support", "feature": "ticket-summary", "user": "u-2077", "tags": {"customer": "acme"},
        }),
        ("anthropic_sdk.ts", {
            "department": "product", "feature": "code-review", "user": "u-0815", "project": "apollo", "stream": True,
        }),
    ],
)
def test_a_client_says_who_pays(gateway: Stack, node: Node, file: str, wanted: dict[str, Any]) -> None:
    printed, (record,) = run(gateway, file, 1, node)
    assert_says(record, wanted)
    assert printed.strip()
    if file.startswith("openai_sdk"):
        assert f"record: {record['id']}" in printed


def test_every_run_of_a_langchain_chain_is_a_run_of_its_own(gateway: Stack) -> None:
    runs = set()
    for _ in range(2):
        printed, (record,) = run(gateway, "langchain_chat.py", 1)
        assert_says(record, {"department": "sales", "feature": "lead-research", "workload": "agentic-read"})
        assert printed.strip()
        runs.add(record["run_id"])
    assert len(runs) == 2


def test_the_typescript_examples_are_of_the_right_types(node: Node) -> None:
    compiler = node.folder / "node_modules" / "typescript" / "bin" / "tsc"
    command = [node.binary, compiler, "--project", node.folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS)
    assert done.returncode == 0, done.stdout


def test_every_example_is_run_by_these_tests() -> None:
    this = Path(__file__).read_text(encoding="utf-8")
    examples = [file.name for file in CLIENTS.iterdir() if file.suffix in {".py", ".sh", ".ts"}]
    assert not [name for name in examples if f'"{name}"' not in this]


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

"""The dashboards are what Grafana's own types say they are, are made as its linter wants them, and every query of the
ClickHouse one runs on the shipped tables, over records of real calls. The Prometheus one's are in test_prometheus.py."""

from __future__ import annotations

import json
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support import envoy_config
from support.envoy_config import ROOT
from support.stack import Stack

GRAFANA = ROOT / "examples" / "grafana"
DASHBOARDS = sorted(GRAFANA.glob("*.json"))
SCHEMA = ROOT / "examples" / "sinks" / "clickhouse" / "schema.sql"
INSTALL_SECONDS = 300
GRID_COLUMNS = 24
INTERVAL_SECONDS = 3600
DEMO = {"x-cost-environment": "demo", "x-cost-department": "research", "x-cost-team": "papers", "x-cost-feature": "read"}

Dashboard = dict[str, Any]


def load(name: str) -> Dashboard:
    return json.loads((GRAFANA / name).read_text(encoding="utf-8"))


def tool(name: str) -> Path:
    """What a set-up script prints."""
    done = subprocess.run([ROOT / "tools" / name], capture_output=True, text=True, timeout=INSTALL_SECONDS)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def shown(dashboard: Dashboard) -> list[dict[str, Any]]:
    """The panels that show something: not the headings."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def test_the_dashboards_are_of_grafanas_types(tmp_path: Path) -> None:
    node = tool("node.sh")
    (tmp_path / "node_modules").symlink_to(node / "node_modules")
    for path in DASHBOARDS:
        text = path.read_text(encoding="utf-8")
        code = f'import type {{ Dashboard }} from "@grafana/schema";\nexport const dashboard: Dashboard = {text};\n'
        (tmp_path / f"{path.stem}.ts").write_text(code, encoding="utf-8")
    compiler = node / "node_modules" / "typescript" / "bin" / "tsc"
    options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--types", ""]
    command = [node / "bin" / "node", compiler, *options, *sorted(tmp_path.glob("*.ts"))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_two_dashboards_are_shipped_and_each_has_an_id_of_its_own() -> None:
    dashboards = [json.loads(path.read_text(encoding="utf-8")) for path in DASHBOARDS]
    assert [d["uid"] for d in dashboards] == ["tollgate-clickhouse", "tollgate-prometheus"]
    # What is provisioned from a file cannot be saved.
    assert not any(d["editable"] for d in dashboards)
    assert len({d["title"] for d in dashboards}) == len(dashboards)


@pytest.mark.parametrize("name", [path.name for path in DASHBOARDS])
def test_a_dashboard_is_made_as_grafanas_linter_wants_it(name: str) -> None:
    dashboard = load(name)
    sources = [v for v in dashboard["templating"]["list"] if v["type"] == "datasource"]
    assert [v["name"] for v in sources] == ["datasource"]
    # Provisioned from a file nobody is asked for a data source, so everything takes the variable's.
    source = {"type": sources[0]["query"], "uid": "${datasource}"}
    assert all(v["datasource"] == source for v in dashboard["templating"]["list"] if v["type"] == "query")
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in shown(dashboard):
        assert panel["title"] and panel["description"].endswith("."), panel["title"]
        assert panel["datasource"] == source and panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"] and all(target["datasource"] == source for target in panel["targets"]), panel["title"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]), panel["title"]
    titles = [panel["title"] for panel in shown(dashboard)]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("name", [path.name for path in DASHBOARDS])
def test_no_panel_lies_on_another(name: str) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in load(name)["panels"]:
        grid = panel["gridPos"]
        assert 0 <= grid["x"] and grid["x"] + grid["w"] <= GRID_COLUMNS, panel["title"]
        for x in range(grid["x"], grid["x"] + grid["w"]):
            for y in range(grid["y"], grid["y"] + grid["h"]):
                other = taken.setdefault((x, y), panel["title"])
                assert other == panel["title"], f"{panel['title']} lies on {other}"


def test_counters_are_only_shown_as_rates_and_increases() -> None:
    for panel in shown(load("tollgate-prometheus.json")):
        for target in panel["targets"]:
            for counter in re.finditer(r"tollgate_\w+_total", target["expr"]):
                if ":" in target["expr"][counter.start() - 1 : counter.end() + 1]:
                    continue
                before = target["expr"][: counter.start()]
                assert before.endswith(("rate(", "increase(")), f"{panel['title']}: {target['expr']}"


def expanded(sql: str, chosen: dict[str, str] | None) -> str:
    """A query as the data source sends it, where `chosen` is the values of its variables; without any, all."""
    to = datetime.now(UTC) + timedelta(minutes=1)
    window = [f"toDateTime({int(time.timestamp())})" for time in (to - timedelta(hours=2), to)]

    def condition(found: re.Match[str]) -> str:
        return found[1].replace(f"${found[2]}", chosen[found[2]]) if chosen else "1=1"

    sql = re.sub(r"\$__conditionalAll\((.*), \$(\w+)\)", condition, sql)
    sql = re.sub(r"\$__timeFilter\(([\w.]+)\)", rf"\1 >= {window[0]} AND \1 <= {window[1]}", sql)
    interval = rf"toStartOfInterval(toDateTime(\1), INTERVAL {INTERVAL_SECONDS} second)"
    sql = re.sub(r"\$__timeInterval\(([\w.]+)\)", interval, sql)
    assert "$" not in sql, sql
    return sql


def records() -> list[dict[str, Any]]:
    """Records of calls of every kind, as the collector got them."""
    with Stack(envoy_config.flush_soon) as stack:
        chat = stack.client.chat
        chat("gpt-4o", headers={"x-cost-department": "support", "x-cost-team": "l2", "x-cost-session": "JIRA-1"})
        chat("gpt-4o-mini", stream=True, headers={"x-cost-department": "support", "x-cost-session": "JIRA-1"})
        chat("gpt-5")
        chat("acme-chat-9b", headers={"x-cost-department": "support"})
        chat("gpt-4o", headers={"x-cost-department": "support", "x-replay-status": "500"})
        for run in ("run-1", "run-1", "run-1", "run-2", "run-3"):
            number = len(stack.access_log())
            workload = "agentic-write" if run == "run-3" else "agentic-read"
            chat("gpt-4o", headers=DEMO | {"x-cost-run-id": run, "x-cost-workload": workload}, max_tokens=64)
            stack.wait(lambda seen=number: len(stack.access_log()) > seen, 10, "a call has no record")
        wanted = len(stack.access_log())
        stack.sink.wait_for(wanted, where=lambda record: record["type"] == "usage")
        stack.sink.wait_for(1, where=lambda record: record["type"] == "budget_alert")
        return list(stack.sink.records)


@pytest.fixture(scope="module")
def answers() -> dict[tuple[str, bool], list[dict[str, Any]]]:
    """What each panel's query gives, by its title and whether the variables' values are chosen."""
    dashboard = load("tollgate-clickhouse.json")
    lines = "\n".join(json.dumps(record) for record in records())
    schema = re.sub(r"--.*", "", SCHEMA.read_text(encoding="utf-8"))
    settings = "date_time_input_format = 'best_effort', input_format_skip_unknown_fields = 1"
    insert = f"INSERT INTO tollgate.all_records SETTINGS {settings} FORMAT JSONEachRow"
    chosen = {"department": "'research'", "team": "'papers'", "feature": "'read'", "provider": "'openai', 'unknown'"}
    asked: dict[tuple[str, bool], str] = {}
    for panel in shown(dashboard):
        (target,) = panel["targets"]
        asked[panel["title"], False] = expanded(target["rawSql"], None)
        asked[panel["title"], True] = expanded(target["rawSql"], chosen)
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            asked[variable["name"], False] = expanded(variable["query"], None)
    work = {"statements": [s for s in schema.split(";") if s.strip()] + [f"{insert}\n{lines}"], "queries": list(asked.values())}
    done = subprocess.run(
        [tool("chdb.sh"), ROOT / "tests" / "support" / "chdb_queries.py"],
        input=json.dumps(work), capture_output=True, text=True, timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = dict(zip(asked, json.loads(done.stdout), strict=True))
    failed = [answer["error"] for answer in found.values() if "error" in answer]
    assert not failed, "\n\n".join(failed)
    return {key: answer["data"] for key, answer in found.items()}


Answers = dict[tuple[str, bool], list[dict[str, Any]]]


def test_every_panel_over_the_records_shows_something(answers: Answers) -> None:
    empty = {key for key, rows in answers.items() if not any(v not in (None, "") for row in rows for v in row.values())}
    # Nothing was lost, and the chosen feature asked for what has a price and was of no session.
    assert empty == {
        ("Records lost on the way", False), ("Records lost on the way", True), ("Models without a price", True),
        ("Sessions", True),
    }


def test_the_numbers_are_those_of_the_calls(answers: Answers) -> None:
    assert answers["Calls", False] == [{"value": 10}]
    assert answers["Calls", True] == [{"value": 5}]
    assert [row["value"] for row in answers["department", False]] == ["research", "support", "unattributed"]
    (unattributed,) = [row for row in answers["Showback", False] if row["department"] == "unattributed"]
    assert unattributed["calls"] == 1 and 0 < unattributed["share"] < 1
    (downgrade,) = answers["Downgrades", False]
    assert (downgrade["asked"], downgrade["got"]) == ("gpt-4o", "gpt-4o-mini") and downgrade["saved"] > 0
    assert {(row["budget"], row["decision"], row["calls"]) for row in answers["What budgets did", False]} == {
        ("run-cap", "refused", 1), ("department-month", "downgraded", 1), ("department-month", "refused", 1),
    }
    (unpriced,) = answers["Models without a price", False]
    assert (unpriced["model"], unpriced["price"]) == ("acme-chat-9b", "unknown_model")
    assert answers["Agent runs", False][0]["calls"] == 3

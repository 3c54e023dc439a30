"""Metrics as Prometheus sees them, and the rules and the dashboard over them: on a real Prometheus that scrapes a real Envoy
between calls of every kind. Where tools/prometheus.sh finds no Prometheus, what needs one is skipped and says so.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import envoy_config
from support.client import Headers
from support.envoy_config import ROOT, Bootstrap
from support.prometheus import EXAMPLES, RULES, Prometheus
from support.stack import WASM, Stack

INSTALL_SECONDS = 300
NO_PROMETHEUS = 3
TEST_WASM = WASM.with_name("tollgate-test.wasm")
DASHBOARD = ROOT / "examples" / "grafana" / "tollgate-prometheus.json"
DEMO = {"x-cost-environment": "demo", "x-cost-department": "demo"}
# In order: each sees what those before it spent.
CALLS: list[tuple[str, bool, Headers]] = [
    ("gpt-4o", False, {"x-cost-department": "r.and.d", "x-cost-feature": "Chat Bot"}),
    ("gpt-4o", True, {"x-cost-department": "support", "x-cost-feature": "chat-bot"}),
    ("gpt-5", False, {}),
    ("acme-chat-9b", False, {"x-cost-department": "support"}),
    ("gpt-4o", True, {"x-cost-department": "support", "x-replay-fixture": "openai-chat-sse-no-usage.sse"}),
    ("gpt-4o", False, {"x-cost-department": "support", "x-replay-claims": "gzip", "x-cost-team": "\xff"}),
    ("gpt-4o", False, {"x-cost-department": "support", "x-replay-status": "500"}),
    ("gpt-4o", False, DEMO | {"x-cost-run-id": "run-1", "x-cost-workload": "agentic-read"}),
    ("gpt-4o", False, DEMO | {"x-cost-run-id": "run-1", "x-cost-workload": "agentic-read"}),
    ("gpt-4o", False, DEMO | {"x-cost-run-id": "run-1", "x-cost-workload": "agentic-read"}),
    ("gpt-4o", False, DEMO | {"x-cost-run-id": "run-2", "x-cost-workload": "agentic-read"}),
    ("gpt-4o", False, DEMO | {"x-cost-run-id": "run-3", "x-cost-workload": "agentic-write"}),
]
# What no call gives rise to under the shipped configuration.
UNPROVOKED = {"tollgate_host_errors_total", "tollgate_busy_refusals_total", "tollgate_released_holds_total"}

FIRING = {
    "TollgateRecordsDropped", "TollgateCallsUnpriced", "TollgateRepliesUnreadable", "TollgateBudgetThreshold",
    "TollgateBudgetExceeded", "TollgateVmTrapped",
}


def families() -> dict[str, list[str]]:
    """Every metric by its name in Prometheus, with its labels in order, as src/telemetry.rs has them."""
    text = (ROOT / "src" / "telemetry.rs").read_text(encoding="utf-8")
    found = re.findall(r'\(\s*"(\w+_total)",\s*\[(.*?)\],?\s*\)', text, re.DOTALL)
    return {f"tollgate_{name}": re.findall(r'Some\(\("(\w+)"', labels) for name, labels in found}


@pytest.fixture(scope="session")
def tools() -> Path:
    """The folder of prometheus and promtool."""
    tool = subprocess.run([ROOT / "tools" / "prometheus.sh"], capture_output=True, text=True, timeout=INSTALL_SECONDS)
    if tool.returncode == NO_PROMETHEUS:
        pytest.skip(tool.stderr.strip())
    assert tool.returncode == 0, tool.stderr
    return Path(tool.stdout.strip())


def run(tools: Path, *arguments: str) -> str:
    """What promtool says; it has to be content."""
    done = subprocess.run([tools / "promtool", *arguments], cwd=EXAMPLES, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_rules_and_the_configuration_are_valid(tools: Path) -> None:
    run(tools, "check", "rules", "--lint=all", "--lint-fatal", RULES.name)
    assert "1 rule files found" in run(tools, "check", "config", "prometheus.yaml")


def test_the_rules_say_what_their_tests_say(tools: Path) -> None:
    run(tools, "test", "rules", "tollgate.rules.test.yaml")


def test_every_alert_is_tested() -> None:
    rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule}
    tests = (EXAMPLES / "tollgate.rules.test.yaml").read_text(encoding="utf-8")
    assert len(alerts) > 10 and alerts <= set(re.findall(r"\bTollgate\w+", tests))


@pytest.mark.parametrize("name", sorted(families()))
def test_the_shipped_tags_cut_every_label_out_of_a_metrics_name(name: str) -> None:
    labels = families()[name]
    values = {label: f'{label} a/b:c"\\' for label in labels}
    if labels and labels[-1] != "reason":
        # Only the last one keeps its dots; reasons are words of the filter's own.
        values[labels[-1]] += "-4.5.x"
    stat = f"wasmcustom.{name}" + "".join(f".{label}.{value}" for label, value in values.items())
    left, found = stat, {}
    for tag in envoy_config.load()["stats_config"]["stats_tags"]:
        if matched := re.search(tag["regex"], stat):
            left, found = left.replace(matched[1], ""), found | {tag["tag_name"]: matched[2]}
    assert (left, found) == (f"wasmcustom.{name}", values)


def test_the_documentation_lists_every_metric_with_its_labels() -> None:
    text = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    found = re.findall(r"`(tollgate_\w+_total)(?:{([\w,]+)})?`", text)
    listed = {name: sorted(filter(None, labels.split(","))) for name, labels in found}
    assert listed == {name: sorted(labels) for name, labels in families().items()}


@dataclass
class Watched:
    """An Envoy that had some calls, their records, and the Prometheus that has seen it."""

    stack: Stack
    records: list[dict[str, Any]]
    prometheus: Prometheus


def a_batch_each(bootstrap: Bootstrap) -> None:
    """Each call's record in a batch of its own, so that a batch that is refused is one record lost."""
    envoy_config.flush_soon(bootstrap)
    envoy_config.filter_config(bootstrap)["collector"]["max_batch"] = 1


@pytest.fixture(scope="module")
def watched(envoy: str, tools: Path) -> Iterator[Watched]:
    """One worker, so that all numbers are one VM's, after another VM has died."""
    with Stack(a_batch_each, envoy=envoy, wasm=TEST_WASM, concurrency=1) as stack:
        with Prometheus(tools, stack.admin_port) as prometheus:
            assert stack.client.chat(headers={"x-tollgate-test-trap": "request_headers"}).status == 503
            stack.wait(lambda: stack.client.chat().status == 200, 5, "the worker did not come back")
            stack.sink.wait_for(1)
            stack.sink.statuses.append(400)
            # Twice, with a look at the counters in between: what has not grown since has no rate.
            for _ in range(2):
                play(stack)
                prometheus.wait_for(f"sum(tollgate_calls_total) == {stack.metric('tollgate_calls_total')}")
            prometheus.wait_for("job:tollgate_downgraded_calls:ratio_rate5m > 0")
            prometheus.wait_for(f"count(ALERTS{{alertstate='firing'}}) >= {len(FIRING)}")
            yield Watched(stack, ended(stack), prometheus)


def play(stack: Stack) -> None:
    """All calls, one after the other: what a call cost is spent, and its record sent, before the next one comes."""
    for model, stream, headers in CALLS:
        number = len(ended(stack))
        stack.client.chat(model, stream=stream, headers=headers, max_tokens=64)
        stack.wait(lambda seen=number: len(ended(stack)) > seen, 10, "a call has no record")


def ended(stack: Stack) -> list[dict[str, Any]]:
    """The records of calls that did not die with their VM."""
    return [record for record in stack.access_log() if record["end_reason"] != "provisional"]


def test_every_metric_has_its_labels_and_no_name_has_one(watched: Watched) -> None:
    wanted = families()
    found: dict[str, set[str]] = {}
    for sample in watched.stack.metrics():
        assert sample.name in wanted, f"{sample.name}: a label that no stats_tag cuts out, or a metric nobody knows"
        assert set(sample.labels) == set(wanted[sample.name]), sample
        assert all(sample.labels.values()), sample
        found.setdefault(sample.name, set())
    assert set(wanted) - set(found) == UNPROVOKED


def test_the_cost_of_the_last_hour_is_that_of_the_records(watched: Watched) -> None:
    by_department: dict[str, int] = {}
    for record in watched.records:
        department = record.get("department", "unattributed").replace(".", "_")
        by_department[department] = by_department.get(department, 0) + record.get("cost_picousd", 0)
    wanted = {department: pico / 10**12 for department, pico in by_department.items() if pico}
    counted = watched.prometheus.wait_for("job_department:tollgate_cost_usd:increase1h")
    assert {labels["department"]: value for labels, value in counted} == pytest.approx(wanted, abs=1e-9)
    assert len(wanted) == 4


def test_every_recording_rule_has_a_value(watched: Watched) -> None:
    rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    names = {rule["record"] for group in rules["groups"] for rule in group["rules"] if "record" in rule}
    empty = {name for name in names if not watched.prometheus.query(name)}
    # Envoy leaves out what was never counted, and Prometheus has not been there for an hour.
    assert empty == {
        "job_instance_call:tollgate_host_errors:increase15m", "job_instance:tollgate_vm_reload_failures:increase15m",
        "job_instance:tollgate_busy_refusals:increase15m", "job_instance:tollgate_released_holds:increase15m",
    }


def test_the_alerts_say_what_happened(watched: Watched) -> None:
    alerts = watched.prometheus.get("alerts")["alerts"]
    assert {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"} == FIRING
    for alert in alerts:
        for text in alert["annotations"].values():
            assert "error" not in text and "<no value>" not in text and "{{" not in text, text


def expressions() -> list[tuple[str, str]]:
    """Every expression of the dashboard by its panel, its variables filled in as Grafana does where all is chosen."""
    filled = {"$__rate_interval": "1m", "$__range": "6h", "$job": ".*", "$department": ".*", "$model": ".*"}
    found = []
    for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"]
            for name, value in filled.items():
                expression = expression.replace(name, value)
            assert "$" not in expression, expression
            found.append((panel["title"], expression))
    return found


def test_every_panel_of_the_dashboard_shows_something(watched: Watched) -> None:
    def shows(expression: str) -> bool:
        # Sums of five minutes are of those that are over; the next one ends at the next full five minutes.
        at = math.ceil(time.time() / 300) * 300 if ":5m]" in expression else time.time()
        return bool(watched.prometheus.query(expression, at))

    empty = {title for title, expression in expressions() if not shows(expression)}
    assert empty == {"Today and yesterday", "Host calls that failed", "Requests held back"}

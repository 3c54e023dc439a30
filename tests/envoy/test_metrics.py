"""/stats/prometheus says the same as the records."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

import pytest
from support import envoy_config
from support.audit import Record, assert_nothing_lost, priced_model
from support.client import Headers
from support.envoy_config import Bootstrap
from support.stack import Stack

PICO_PER_NANO = 1000
CALLS: list[tuple[str, bool, Headers]] = [
    ("gpt-4o", False, {"x-cost-department": "support"}),
    ("gpt-4o", True, {"x-cost-department": "support"}),
    ("gpt-4o-mini", False, {"x-cost-department": "r.and.d"}),
    ("gpt-4o-mini", False, {"x-cost-department": 'a b/c:"d\\'}),
    ("gpt-5", False, {"x-cost-department": "Zürich".encode().decode("latin-1")}),
    ("gpt-5", True, {}),
    ("acme-chat-9b", False, {"x-cost-department": "support"}),
    ("gpt-4o", False, {"x-cost-department": "support", "x-replay-status": "500"}),
    ("gpt-4o", False, {"x-replay-fault": "close-mid-body"}),
    ("gpt-4o", True, {"x-replay-fixture": "openai-chat-sse-no-usage.sse"}),
    ("gpt-4o", False, {"x-replay-usage": "1,0,1,0", "x-cost-department": "support"}),
    ("gpt-4o", False, {"x-cost-team": "\xff", "x-cost-user": "", "x-cost-wrong": "x"}),
    ("gpt-4o", False, {"x-replay-gzip": "1", "x-replay-fault": "close-mid-body"}),
    # Answers that cannot be read: not what they claim, in an encoding that was not asked for, ending in the middle.
    ("gpt-4o", False, {"x-replay-claims": "gzip"}),
    ("gpt-4o", True, {"x-replay-claims": "br"}),
    ("gpt-4o", False, {"x-replay-fault": "short-body"}),
    ("gpt-4o", True, {"x-replay-fault": "short-body", "x-replay-gzip": "1"}),
]
ROUNDS = 4


def impatient(bootstrap: Bootstrap) -> None:
    envoy_config.flush_soon(bootstrap)
    envoy_config.close_soon(bootstrap)
    # Costs with a part below a nano-dollar, which the shipped prices never have.
    for model in envoy_config.filter_config(bootstrap)["prices"]["models"]:
        model["rates"]["input"] += "0001"


@pytest.fixture(scope="module")
def metered(envoy: str) -> Iterator[tuple[Stack, list[Record]]]:
    """A gateway after some calls of every kind, and their records."""
    with Stack(impatient, envoy=envoy) as stack:
        for _ in range(ROUNDS):
            for model, stream, headers in CALLS:
                stack.client.chat(model, stream=stream, headers=headers)
        records = assert_nothing_lost(stack, ROUNDS * len(CALLS))
        yield stack, records


def samples(stack: Stack, name: str, *labels: str) -> dict[tuple[str, ...], float]:
    """A metric's values by the values of its labels, which are all that it has."""
    found = {}
    for sample in stack.metrics(name):
        assert sample.name == name, "a label that no stats_tag cuts out of the name"
        assert set(sample.labels) == set(labels), sample
        found[tuple(sample.labels[label] for label in labels)] = sample.value
    return found


Metered = tuple[Stack, list[Record]]


def test_calls_are_counted_by_decision_and_api(metered: Metered) -> None:
    stack, records = metered
    wanted = Counter((r["decision"], r["api"]) for r in records)
    assert samples(stack, "tollgate_calls_total", "decision", "api") == wanted


def test_tokens_are_counted_once_by_class(metered: Metered) -> None:
    stack, records = metered
    wanted: Counter[str] = Counter()
    for record in records:
        cached, thought = record.get("cached_input_tokens", 0), record.get("reasoning_tokens", 0)
        wanted += Counter({
            "input": record.get("input_tokens", 0) - cached, "cached_input": cached,
            "output": record.get("output_tokens", 0) - thought, "reasoning": thought,
        })
    assert samples(stack, "tollgate_tokens_total", "class") == {(name,): number for name, number in wanted.items()}


def test_cost_is_counted_in_nano_dollars_by_department_and_model(metered: Metered) -> None:
    stack, records = metered
    # Each VM carries what is below a nano-dollar, so it is the whole nanos of each VM that add up.
    by_vm: defaultdict[tuple[str, str, str], int] = defaultdict(int)
    for record in records:
        if record.get("price_status") in ("priced", "estimated"):
            # In all labels but the last one, a dot would end the value.
            department = record.get("department", "unattributed").replace(".", "_")
            # An answer that could not be read names no model: the one asked for has the price then.
            model = priced_model(record.get("response_model", record["request_model"]))
            assert model == record["priced_model"]
            by_vm[department, model, record["instance"]] += record["cost_picousd"]
    wanted: Counter[tuple[str, ...]] = Counter()
    for (department, model, _vm), picousd in by_vm.items():
        wanted[department, model] += picousd // PICO_PER_NANO
    assert samples(stack, "tollgate_cost_usd_nanos_total", "department", "model") == wanted
    assert any(picousd % PICO_PER_NANO for picousd in by_vm.values()), "nothing was to be carried"
    assert {"support", "r_and_d", "unattributed", "Zürich", 'a b/c:"d\\'} == {department for department, _ in wanted}


def test_records_are_counted_by_what_became_of_them(metered: Metered) -> None:
    stack, records = metered
    stack.wait(lambda: stack.metric("tollgate_records_total") == len(records), 10, "records are missing")
    assert samples(stack, "tollgate_records_total", "result") == {("sent",): len(records)}


def test_what_could_not_be_priced_metered_or_attributed_or_was_estimated_is_counted(metered: Metered) -> None:
    stack, records = metered
    unknown = sum(r.get("price_status") == "unknown_model" for r in records)
    assert samples(stack, "tollgate_unpriced_calls_total", "status") == {("unknown_model",): unknown} and unknown
    # A call that broke off has no usage either, but its provider had no occasion to report.
    complete = [r for r in records if r["end_reason"] == "complete" and r.get("price_status") != "free"]
    unmetered = sum(r["usage_source"] != "reported" for r in complete)
    assert samples(stack, "tollgate_unmetered_calls_total", "api") == {("openai_chat",): unmetered} and unmetered
    estimated = sum("estimated" in (r["usage_source"], r.get("price_status")) for r in records)
    assert samples(stack, "tollgate_estimated_calls_total", "api") == {("openai_chat",): estimated} and estimated
    nobody = sum("department" not in r for r in records)
    assert samples(stack, "tollgate_unattributed_calls_total") == {(): nobody} and nobody


def test_dropped_values_are_counted_by_reason(metered: Metered) -> None:
    stack, _records = metered
    wanted = {(reason,): ROUNDS for reason in ("not_utf8", "empty", "unknown_header")}
    assert samples(stack, "tollgate_dropped_values_total", "reason") == wanted


def test_answers_that_could_not_be_read_are_counted_and_noted_by_reason(metered: Metered) -> None:
    stack, records = metered
    noted = Counter((note,) for r in records for note in r.get("notes", []) if ":" not in note)
    encodings = {("response_encoding_corrupt",): ROUNDS, ("response_encoding_unreadable",): ROUNDS}
    assert noted == {**encodings, ("response_truncated",): 2 * ROUNDS}
    assert samples(stack, "tollgate_damaged_replies_total", "reason") == noted


def test_nothing_failed_at_the_host(metered: Metered) -> None:
    stack, _records = metered
    assert samples(stack, "tollgate_host_errors_total", "call") == {}


def test_labels_of_callers_are_capped(metered: Metered) -> None:
    stack, _records = metered
    before = len(samples(stack, "tollgate_cost_usd_nanos_total", "department", "model"))
    for number in range(300):
        stack.client.chat(headers={"x-cost-department": f"department-{number}"})
    found = samples(stack, "tollgate_cost_usd_nanos_total", "department", "model")
    # A hundred values per worker, and one for the rest.
    assert before < len(found) <= 2 * 100 * 3
    assert found["other", "gpt-4o"] > 0

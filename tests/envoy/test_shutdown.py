"""What Envoy is told to stop, it writes down first: the access log has every record."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from conftest import Start
from support import envoy_config
from support.audit import assert_says, expected, fresh
from support.envoy_config import Bootstrap
from support.stack import Stack

JSON = "openai-chat-json.json"
# Nothing leaves and nothing is written before the end, unless the end itself does it.
NEVER_MS = 3_600_000


def hourly(bootstrap: Bootstrap) -> None:
    envoy_config.filter_config(bootstrap)["collector"]["flush_ms"] = NEVER_MS


def end(stack: Stack) -> None:
    """Ends Envoy with SIGTERM."""
    stack.stop()
    assert not stack.running()


def logged(stack: Stack) -> list[dict[str, object]]:
    return [json.loads(line) for line in stack.access_log_path.read_bytes().splitlines()]


@pytest.mark.parametrize("edit", [hourly, envoy_config.flush_soon], ids=["records queued", "records sent"])
def test_records_that_were_never_sent_are_in_the_access_log(
    start: Start, envoy: str, edit: Callable[[Bootstrap], None]
) -> None:
    stack = start(edit, envoy=envoy, log_flush_ms=NEVER_MS)
    ids = [stack.client.chat().headers["x-tollgate-id"] for _ in range(25)]
    end(stack)
    records = logged(stack)
    assert sorted(str(r["id"]) for r in records) == sorted(ids)
    for record in records:
        assert_says(record, expected(JSON, "gpt-4o"))
    if edit is hourly:
        assert not stack.sink.records


def test_calls_under_way_at_the_end_have_a_record_too(start: Start, envoy: str) -> None:
    stack = start(hourly, envoy=envoy, log_flush_ms=NEVER_MS)
    streaming = fresh()
    hang = {"x-cost-session": streaming, "x-replay-fault": "hang-mid-body"}
    body = b'{"model": "gpt-4o", "stream": true}'
    with stack.client.open("POST", "/v1/chat/completions", body, hang) as response:
        assert response.read1(10)
        end(stack)
    found = [r for r in logged(stack) if r["session"] == streaming]
    assert len(found) == 1
    assert_says(found[0], {"request_model": "gpt-4o", "stream": True, "usage_source": "estimated", "status": 200})

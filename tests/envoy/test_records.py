"""`tollgate records merge`: what the collector did not get is in the access log, and both together are every call once."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from conftest import Start
from support import envoy_config
from support.audit import fresh, lines
from support.envoy_config import Bootstrap
from support.replay import fixtures
from support.stack import WASM, Stack, StackError, read_ndjson

COMMAND = envoy_config.ROOT / "dist" / "tollgate"
TEST_WASM = WASM.with_name("tollgate-test.wasm")
STREAM = "anthropic-messages-sse-cache.sse"
RELOAD_SECONDS = 1.0


def merge(output: Path, collector: list[Path], logs: list[Path], code: int = 0) -> dict[str, Any]:
    """Merges strictly into `output`; returns the summary."""
    assert COMMAND.exists(), f"{COMMAND} is missing: run `make command`"
    command = [COMMAND, "records", "merge", *collector, "--access-log", *logs, "--strict", "--format", "json"]
    done = subprocess.run([*command, "-o", output], capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    return json.loads(done.stderr)


def calls(stack: Stack, number: int) -> list[str]:
    ids = []
    for _ in range(number):
        reply = stack.client.chat()
        assert reply.status == 200
        ids.append(reply.headers["x-tollgate-id"])
    return ids


# A record as a text among other things.
IN_JSON = {"status": "%RESPONSE_CODE%", "record": "%FILTER_STATE(wasm.tollgate.record:PLAIN)%"}


def test_an_outage_of_the_collector_is_made_good_from_the_access_log(start: Start, tmp_path: Path) -> None:
    json_log = tmp_path / "access.json"

    def edit(bootstrap: Bootstrap) -> None:
        envoy_config.with_collector(max_attempts=2, max_batch=10)(bootstrap)
        envoy_config.add_json_access_log(bootstrap, json_log, IN_JSON)

    stack = start(edit)
    some = 30
    ids = calls(stack, some)
    stack.sink.wait_for(some)
    stack.sink.stop()
    ids += calls(stack, 2 * some)

    def dropped() -> int:
        return int(stack.metric("tollgate_records_total", result="dropped_attempts"))

    stack.wait(lambda: dropped() > 0, 20, "nothing was dropped")
    stack.sink.start()
    ids += calls(stack, some)
    stack.client.send("GET", "/index.html", b"", {})

    def settled() -> bool:
        return stack.metric("tollgate_records_total", result="sent") + dropped() == len(ids)

    stack.wait(settled, 40, "records are neither sent nor dropped")
    stack.wait_access_log(len(ids))
    stack.wait(lambda: json_log.exists() and len(read_ndjson(json_log)) == len(ids) + 1, 10, "the other log is short")
    # The collector alone misses what was dropped, and says so by its numbers unless it was a VM's last.
    alone = tmp_path / "alone.ndjson"
    lost = merge(alone, [stack.records_path], [stack.records_path], code=1)["missing"]["records"]
    assert 0 < lost <= dropped()

    merged = tmp_path / "merged.ndjson"
    summary = merge(merged, [stack.records_path], [stack.access_log_path])
    assert sorted(r["id"] for r in read_ndjson(merged)) == sorted(ids)
    assert lines(merged) == lines(stack.access_log_path)
    assert (summary["written"], summary["added"], summary["provisional"]) == (len(ids), dropped(), 0)
    assert (summary["missing"]["records"], summary["contradicting"]["count"]) == (0, 0)
    begun = [(r["ts"], r["id"]) for r in read_ndjson(merged)]
    assert begun == sorted(begun)

    # The same from a log of another format, and once more from what was merged.
    other = tmp_path / "other.ndjson"
    summary = merge(other, [stack.records_path], [json_log])
    assert other.read_bytes() == merged.read_bytes()
    assert summary["access_log"]["other_json"] == 1
    assert merge(other, [merged], [stack.access_log_path, json_log])["added"] == 0
    assert other.read_bytes() == merged.read_bytes()


def test_a_call_whose_vm_died_keeps_its_provisional_record(start: Start, tmp_path: Path) -> None:
    if not TEST_WASM.is_file():
        raise StackError(f"{TEST_WASM} is missing: run `make filter-test`")

    def edit(bootstrap: Bootstrap) -> None:
        envoy_config.flush_soon(bootstrap)
        envoy_config.close_soon(bootstrap)

    stack = start(edit, wasm=TEST_WASM, concurrency=1)
    session = fresh()
    calls(stack, 3)
    stack.sink.wait_for(3)
    # The answer had begun.
    trapped = {"x-cost-session": session, "x-tollgate-test-trap": "response_body"}
    assert stack.client.chat(headers=trapped).status == 200
    stack.wait(lambda: stack.client.chat().status == 200, RELOAD_SECONDS, "the worker did not come back")
    stack.wait_access_log(5)
    merged = tmp_path / "merged.ndjson"
    summary = merge(merged, [stack.records_path], [stack.access_log_path])
    assert lines(merged) == lines(stack.access_log_path)
    assert (summary["written"], summary["provisional"], summary["missing"]["records"]) == (5, 1, 0)
    (kept,) = (r for r in read_ndjson(merged) if r["end_reason"] == "provisional")
    assert kept["session"] == session


def test_of_a_long_stream_its_end_counts_and_before_that_the_last_that_was_seen(start: Start, tmp_path: Path) -> None:
    def edit(bootstrap: Bootstrap) -> None:
        envoy_config.flush_soon(bootstrap)
        envoy_config.filter_config(bootstrap)["access_log"] = {"progress_secs": 1}
        envoy_config.connection_manager(bootstrap)["access_log_options"] = {"access_log_flush_interval": "1s"}

    stack = start(edit, concurrency=1)
    size = len(fixtures()[STREAM].data)
    stack.client.send(
        "POST", "/v1/messages", json.dumps({"model": "claude-sonnet-4-5", "stream": True, "max_tokens": 10}).encode(),
        {"content-type": "application/json", "x-replay-fixture": STREAM, "x-replay-chunk": str(size // 40),
         "x-replay-delay-ms": "100"},
    )
    (final,) = stack.sink.wait_for(1)
    stack.wait(lambda: stack.access_log()[-1:] == [final], 10, "the stream's end is not in the log")
    log = stack.access_log_path.read_bytes().splitlines(keepends=True)
    assert len(log) >= 3

    merged, before = tmp_path / "merged.ndjson", tmp_path / "before.log"
    summary = merge(merged, [stack.records_path], [stack.access_log_path])
    assert read_ndjson(merged) == [final]
    assert (summary["written"], summary["added"], summary["provisional"]) == (1, 0, 0)
    # A log that was read a moment before the end, with its entries in whatever order.
    before.write_bytes(b"".join(reversed(log[:-1])))
    summary = merge(merged, [], [before])
    assert merged.read_bytes() == log[-2]
    assert (summary["written"], summary["provisional"]) == (1, 1)

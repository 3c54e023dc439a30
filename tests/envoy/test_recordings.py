"""Real provider answers through the gateway, where they are at hand: each record says what the provider billed.

They are no part of the project (see tests/recordings.rs, which looks for them in the same places); the project's own
fixtures cover the same shapes without them.
"""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import envoy_config
from support.audit import assert_says, fresh, one_record
from support.envoy_config import Bootstrap
from support.replay import Fixture, fixtures
from support.stack import Stack

BESIDE = Path(__file__).resolve().parents[3] / "shared" / "recordings"
FOLDER = Path(os.environ.get("TOLLGATE_RECORDINGS", BESIDE))
INDEX = FOLDER / "index.json"
RECORDINGS: list[dict[str, Any]] = json.loads(INDEX.read_text(encoding="utf-8")) if INDEX.exists() else []
WAYS = [("whole", False), ("1", False), ("7", False), ("whole", True), ("7", True)]
COUNTS = {
    "input_tokens": "input_total", "cached_input_tokens": "cache_read", "cache_creation_input_tokens": "cache_write",
    "cache_creation_1h_input_tokens": "cache_write_1h", "output_tokens": "output_total", "reasoning_tokens": "reasoning",
}


def as_they_are(bootstrap: Bootstrap) -> None:
    """What was recorded is served as it is: nobody is asked for usage in between."""
    envoy_config.flush_soon(bootstrap)
    envoy_config.filter_config(bootstrap)["metering"] = {"inject_include_usage": False}


def served(recording: dict[str, Any]) -> Fixture:
    """A recording as the replay provider serves it, decoded."""
    data = (FOLDER / recording["file"]).read_bytes()
    data = gzip.decompress(data) if recording["content_encoding"] == "gzip" else data
    return Fixture(recording["file"], data, recording)


@pytest.fixture(scope="module")
def recorded(envoy: str) -> Iterator[Stack]:
    mine = {recording["file"]: served(recording) for recording in RECORDINGS}
    fixtures().update(mine)
    with Stack(as_they_are, envoy=envoy) as stack:
        yield stack
    for name in mine:
        del fixtures()[name]


@pytest.mark.skipif(not RECORDINGS, reason="no recordings at hand; the fixtures cover the same shapes")
@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: str(recording["file"]))
def test_a_recorded_answer_gives_the_usage_that_was_billed(recorded: Stack, recording: dict[str, Any]) -> None:
    fixture, expected = fixtures()[recording["file"]], recording["expected"]
    for chunk, compressed in WAYS:
        if chunk == "1" and len(fixture.data) > 5000:
            continue
        session = fresh()
        # A recorder has blotted out some hosts with what no host may contain.
        host = re.sub(r"[^A-Za-z0-9.-]", "x", recording["host"])
        headers = {"host": host, "x-cost-session": session, "content-type": "application/json"}
        headers |= {"x-replay-fixture": fixture.name, "x-replay-chunk": chunk}
        headers |= {"x-replay-gzip": "1", "accept-encoding": "gzip"} if compressed else {}
        reply = recorded.client.send(recording["method"], recording["path"], b"{}", headers)
        assert (gzip.decompress(reply.body) if compressed else reply.body) == fixture.data
        record = one_record(recorded, session)
        assert_says(record, {"usage_source": "reported" if expected else "estimated", "end_reason": "complete"})
        if expected:
            billed = {ours: expected.get(theirs, 0) for ours, theirs in COUNTS.items()}
            assert {name: record.get(name) or 0 for name in billed} == billed, (chunk, compressed)

"""A VM that dies takes its stream with it, but not its record, and not the worker for longer than a moment."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator

import pytest
from support import envoy_config
from support.audit import assert_says, expected, fresh, one_logged, one_record
from support.envoy_config import Bootstrap
from support.stack import WASM, Stack, StackError

TEST_WASM = WASM.with_name("tollgate-test.wasm")
RELOAD_SECONDS = 1.0


def impatient(bootstrap: Bootstrap) -> None:
    envoy_config.flush_soon(bootstrap)
    envoy_config.close_soon(bootstrap)


@pytest.fixture(scope="module")
def fragile(envoy: str) -> Iterator[Stack]:
    """One worker, so that the call after a trap meets the worker that trapped."""
    if not TEST_WASM.is_file():
        raise StackError(f"{TEST_WASM} is missing: run `make filter-test`")
    with Stack(impatient, envoy=envoy, wasm=TEST_WASM, concurrency=1) as stack:
        yield stack


def call(stack: Stack, session: str, trap: str | None = None) -> int:
    """A call's status; 0 where there was no answer at all."""
    headers = {"x-cost-session": session} | ({"x-tollgate-test-trap": trap} if trap else {})
    try:
        return stack.client.chat(headers=headers).status
    except ConnectionError:
        return 0


@pytest.mark.parametrize(
    ("trap", "status", "model"),
    [
        ("request_headers", 503, None),
        # The trap is in the first of two body callbacks; the model is known after the last.
        ("request_body", 503, None),
        ("response_headers", 503, "gpt-4o"),
        ("response_body", 200, "gpt-4o"),
        ("log", 200, "gpt-4o"),
    ],
)
def test_a_call_whose_vm_traps_has_a_provisional_record_in_the_access_log(
    fragile: Stack, trap: str, status: int, model: str | None
) -> None:
    session = fresh()
    assert call(fragile, session, trap) == status
    began = time.monotonic()
    after = fresh()
    fragile.wait(lambda: call(fragile, after) == 200, RELOAD_SECONDS, "the worker did not come back")
    took = time.monotonic() - began

    assert_says(one_logged(fragile, session), {
        "end_reason": "provisional", "seq": None, "status": None, "request_model": model, "usage_source": "none",
        "cost_picousd": None, "type": "usage", "gateway": "tollgate-gateway",
    })
    # The first call that a new VM serves is metered like any other. Those before it got 503, and no record.
    served = one_record(fragile, after)
    assert_says(served, expected("openai-chat-json.json", "gpt-4o") | {"seq": 1})
    assert not [r for r in fragile.sink.records if r.get("session") == session]
    assert took < RELOAD_SECONDS


@pytest.mark.parametrize("fault", ["", "hang-mid-body"], ids=["goes on", "is silent"])
def test_a_stream_beside_a_trap_keeps_its_provisional_record(fragile: Stack, fault: str) -> None:
    beside, trapped, after = fresh(), fresh(), fresh()
    headers = {"x-cost-session": beside, "x-replay-fault": fault, "x-replay-delay-ms": "20"}
    body = b'{"model": "gpt-4o", "stream": true}'
    with fragile.client.open("POST", "/v1/chat/completions", body, headers) as response:
        assert response.read1(10)
        call(fragile, trapped, "request_headers")
        if not fault:
            # Envoy cuts it at its next piece: the VM that read it is gone.
            with pytest.raises((http.client.IncompleteRead, ConnectionError)):
                response.read()
    logged = one_logged(fragile, beside)
    assert_says(logged, {"end_reason": "provisional", "seq": None, "request_model": "gpt-4o", "stream": True})
    fragile.wait(lambda: call(fragile, after) == 200, RELOAD_SECONDS, "the worker did not come back")
    one_record(fragile, after)


def test_ids_are_never_used_again_after_a_reload(fragile: Stack) -> None:
    ids = []
    for _ in range(3):
        session = fresh()
        fragile.wait(lambda: call(fragile, session) == 200, RELOAD_SECONDS, "the worker did not come back")
        ids.append(one_record(fragile, session)["id"])
        call(fragile, fresh(), "request_headers")
    instances = {r["instance"] for r in fragile.access_log()}
    assert len(set(ids)) == 3 and len(instances) >= 3
    fragile.wait(lambda: call(fragile, fresh()) == 200, RELOAD_SECONDS, "the worker did not come back")

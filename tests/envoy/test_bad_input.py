"""Whatever a caller sends, its call passes, the next ones too, and somebody is told."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import pytest
from conftest import Start
from support import envoy_config
from support.audit import assert_says, expected, fresh, one_record
from support.envoy_config import Bootstrap
from support.stack import Stack
from support.wire import Wire, header, request_head

JSON = "openai-chat-json.json"
END = b"fp_fc3f053a75"
BODY = b'{"model": "gpt-4o", "messages": []}'


def permissive(bootstrap: Bootstrap) -> None:
    """Envoy lets pass what a strict front would refuse: callers' request ids, thousands of headers, any path."""
    envoy_config.flush_soon(bootstrap)
    manager = envoy_config.connection_manager(bootstrap)
    manager["preserve_external_request_id"] = True
    manager["common_http_protocol_options"]["max_headers_count"] = 2000
    manager["max_request_headers_kb"] = 1024


@pytest.fixture(scope="module")
def open_door(envoy: str) -> Iterator[Stack]:
    with Stack(permissive, envoy=envoy) as stack:
        yield stack


def ask(stack: Stack, *headers: tuple[bytes, bytes], path: bytes = b"/v1/chat/completions") -> tuple[bytes, str]:
    """A call with these very bytes; its answer and its session."""
    session = fresh()
    with Wire(stack.client.port) as wire:
        sent = [(b"x-cost-session", session.encode()), *headers]
        wire.send(request_head(path, sent, length=len(BODY)) + BODY)
        answer = wire.read_until(END)
    assert answer.startswith(b"HTTP/1.1 200 ")
    return answer, session


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"\xff\xfe", "not_utf8"), (b"caf\xe9", "not_utf8"), (b"", "empty"), (b"x" * 129, "too_long"),
        ("a\u0085b".encode(), "control_character"),
    ],
)
def test_a_bad_value_is_dropped_noted_and_counted_and_its_call_and_the_next_pass(
    open_door: Stack, value: bytes, reason: str
) -> None:
    before = open_door.metric("tollgate_dropped_values_total", reason=reason)
    answer, session = ask(open_door, (b"x-cost-team", value), (b"x-cost-user", b"u"))
    record = one_record(open_door, session)
    assert header(answer, b"x-tollgate-id") == record["id"].encode()
    wanted = expected(JSON, "gpt-4o")
    assert_says(record, wanted | {"team": None, "user": "u", "notes": [f"x-cost-team: {reason}"]})
    assert open_door.metric("tollgate_dropped_values_total", reason=reason) == before + 1
    for _ in range(4):
        _, after = ask(open_door, (b"x-cost-team", b"t"))
        assert_says(one_record(open_door, after), wanted | {"team": "t", "notes": None})


def test_the_log_says_it_once_a_worker(start: Start) -> None:
    stack = start(permissive, concurrency=1)
    for _ in range(5):
        _, session = ask(stack, (b"x-cost-team", b"\xff\xfe"))
        one_record(stack, session)
    said = [line for line in stack.log().splitlines() if "x-cost-team" in line]
    assert len(said) == 1 and "not_utf8" in said[0] and "tollgate_dropped_values_total" in said[0], said


def test_a_repeated_or_unknown_header_of_ours_is_noted_and_the_first_value_counts(open_door: Stack) -> None:
    _, session = ask(open_door, (b"x-cost-team", b"a"), (b"X-COST-TEAM", b"b"), (b"x-cost-departement", b"c"))
    record = one_record(open_door, session)
    assert_says(record, {"team": "a", "notes": ["x-cost-team: repeated", "x-cost-departement: unknown_header"]})


def test_a_value_in_any_script_is_taken_as_it_is(open_door: Stack) -> None:
    value = 'Zürich "東京" \\ {} 🦀'
    _, session = ask(open_door, (b"x-cost-team", value.encode()), (b"x-cost-tag-k", value.encode()))
    assert_says(one_record(open_door, session), {"team": value, "tags": {"k": value}, "notes": None})


def test_a_request_id_that_is_no_text_is_left_out_and_the_call_passes(open_door: Stack) -> None:
    answer, session = ask(open_door, (b"x-request-id", b"\xff\xfe\x80"))
    record = one_record(open_door, session)
    id = header(answer, b"x-tollgate-id") or b""
    assert_says(record, expected(JSON, "gpt-4o") | {"request_id": None, "id": id.decode()})


def test_callers_that_repeat_a_request_id_still_get_ids_of_their_own(open_door: Stack) -> None:
    records = [one_record(open_door, ask(open_door, (b"x-request-id", b"same"))[1]) for _ in range(5)]
    assert {r["request_id"] for r in records} == {"same"}
    assert len({r["id"] for r in records}) == 5


@pytest.mark.parametrize("path", [b"/\xff\xfe/chat/completions", b"/v1/chat/completions?\xff=\xfe"])
def test_a_path_that_is_no_text_gets_an_answer_and_the_next_call_too(start: Start, path: bytes) -> None:
    stack = start(permissive)
    with Wire(stack.client.port) as wire:
        wire.send(request_head(path, [], length=len(BODY)) + BODY)
        assert wire.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 ")
    for _ in range(4):
        _, session = ask(stack)
        assert_says(one_record(stack, session), expected(JSON, "gpt-4o"))


def test_a_thousand_tags_are_bounded_counted_and_removed(open_door: Stack) -> None:
    before = open_door.metric("tollgate_dropped_values_total", reason="too_many_tags")
    tags = [(b"X-Cost-Tag-%d" % n, b"v" * 60) for n in range(1000)]
    _, session = ask(open_door, *tags, (b"x-mark", b"thousand"), (b"x-cost-team", b"t"))
    record = one_record(open_door, session)
    assert_says(record, expected(JSON, "gpt-4o") | {"team": "t"})
    assert len(record["tags"]) == 32 and len(record["notes"]) == 16
    assert open_door.metric("tollgate_dropped_values_total", reason="too_many_tags") == before + 1000 - 32
    arrived = [r for r in open_door.replay.requests if ["x-mark", "thousand"] in r["headers"]]
    assert not [name for name, _ in arrived[-1]["headers"] if name.startswith("x-cost-")]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"\xff\xfe\x00", b'{"model": 7}', b'{"model": "\\ud800"}', b"[" * 100_000,
        b'{"model": "' + b"x" * 100_000,
    ],
    ids=["nothing", "open", "binary", "a number", "half a character", "deep", "endless text"],
)
def test_a_body_that_is_no_call_passes_and_is_recorded(open_door: Stack, body: bytes) -> None:
    session = fresh()
    reply = open_door.client.send("POST", "/v1/chat/completions", body, {"x-cost-session": session})
    record = one_record(open_door, session)
    assert_says(record, {"status": reply.status, "end_reason": "complete", "id": reply.headers["x-tollgate-id"]})
    _, after = ask(open_door)
    assert_says(one_record(open_door, after), expected(JSON, "gpt-4o"))


@pytest.mark.parametrize("first", [True, False], ids=["model first", "model last"])
def test_30_megabytes_of_request_pass_whole_and_the_model_is_known(shipped: Stack, first: bool) -> None:
    session = fresh()
    text = json.dumps([{"role": "user", "content": 'é "quoted" \\ ' * 1_250_000}], ensure_ascii=False)
    parts = ['"model": "gpt-4o"', f'"messages": {text}'] if first else [f'"messages": {text}', '"model": "gpt-4o"']
    body = ("{" + ", ".join(parts) + "}").encode()
    assert 20_000_000 < len(body) < 31_000_000
    headers = {"x-cost-session": session, "x-mark": session, "x-replay-fixture": JSON}
    reply = shipped.client.send("POST", "/v1/chat/completions", body, headers)
    assert reply.status == 200
    record = one_record(shipped, session)
    assert_says(record, expected(JSON, "gpt-4o") | {"message_count": 1})
    (arrived,) = [r for r in shipped.replay.requests if ["x-mark", session] in r["headers"]]
    assert arrived["body_sha256"] == hashlib.sha256(body).hexdigest()

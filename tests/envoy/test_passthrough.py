"""The filter changes nothing but what it says: the same bytes pass with it and without it. What it changes to have
usage reported is in test_injection.py."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support import variants
from support.audit import assert_nothing_lost, assert_says, expected, fresh, one_record
from support.client import Headers, Reply, call_body
from support.replay import events, fixtures, gzip_pieces
from support.stack import Stack

CHUNKS = ("whole", "1", "5", "7")


@pytest.fixture(scope="module")
def reading(envoy: str) -> Iterator[Stack]:
    """A gateway that only reads: it asks nobody for usage."""
    with Stack(variants.without_injection, envoy=envoy) as stack:
        yield stack
        assert_nothing_lost(stack)


@pytest.mark.parametrize("gzipped", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("fixture", sorted(name for name, f in fixtures().items() if not f.own))
def test_every_answer_passes_byte_for_byte_and_is_metered_in_any_chunks(
    shipped: Stack, fixture: str, gzipped: bool
) -> None:
    meta, data = fixtures()[fixture].meta, fixtures()[fixture].data
    served = b"".join(gzip_pieces(events(data, True) if meta["stream"] else [data])) if gzipped else data

    def ask(chunk: str) -> tuple[str, Reply]:
        session = fresh()
        headers = {"x-cost-session": session, "x-replay-fixture": fixture, "x-replay-chunk": chunk}
        headers |= {"x-replay-gzip": "1", "accept-encoding": "gzip"} if gzipped else {}
        model, stream, path = meta["request_model"], meta["stream"], meta["path"]
        return session, shipped.client.chat(model, stream=stream, headers=headers, path=path)

    with ThreadPoolExecutor(len(CHUNKS)) as pool:
        asked = list(pool.map(ask, CHUNKS))
    for chunk, (session, reply) in zip(CHUNKS, asked):
        assert (reply.status, reply.body == served) == (meta["status"], True), chunk
        sent = len(call_body(meta["request_model"], meta["stream"], True, {}))
        wanted = expected(fixture, meta["request_model"], sent) | {"id": reply.headers["x-tollgate-id"], "notes": None}
        assert_says(one_record(shipped, session), wanted)


def arrived(stack: Stack, headers: Headers, body: bytes, mark: str) -> tuple[dict[str, Any], Reply]:
    """A call's request as the provider got it, and the answer as the client got it."""
    # Ports differ between the two gateways; the name the client asks for does not.
    reply = stack.client.send("POST", "/v1/chat/completions?q=%20", body, {"host": "gateway.test", **headers})
    (entry,) = [r for r in stack.replay.requests if ["x-mark", mark] in r["headers"]]
    return entry, reply


@pytest.mark.parametrize(
    ("accepts", "narrowed"),
    [
        ("gzip, deflate", "gzip, deflate"), ("gzip, deflate, br, zstd", "gzip, deflate"), ("br", "identity"),
        ("identity", "identity"),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_the_provider_gets_the_request_that_it_gets_without_the_filter(
    reading: Stack, bare: Stack, accepts: str, narrowed: str, stream: bool
) -> None:
    mark = fresh()
    headers = {
        "authorization": "Bearer sk-secret", "x-mark": mark, "X-Cost-Team": "a", "accept-encoding": accepts,
        "x-other": "  kept ", "x-costly": "not ours", "x-cost-tag-a": "1", "openai-organization": "org-1",
        "user-agent": "test/1.0",
    }
    # Spacing, escapes and key order are the caller's; re-encoding would change them.
    body = b'{ "stream" :%b,"model": "gpt-4\\u006f",\n"messages":[{"role":"user","content":"\xc3\xbc\\/"}] }'
    body %= b"true" if stream else b"false"
    (with_filter, reply), (without, bare_reply) = (arrived(s, headers, body, mark) for s in (reading, bare))

    def comparable(entry: dict[str, Any]) -> list[list[str]]:
        masked = [[name, "*" if name == "x-request-id" else value] for name, value in entry["headers"]]
        return sorted(masked)

    wanted = [[name, value] for name, value in comparable(without) if not name.startswith("x-cost-")]
    wanted = [[name, narrowed if name == "accept-encoding" else value] for name, value in wanted]
    assert comparable(with_filter) == wanted
    for key in ("method", "path", "body", "body_len", "body_sha256"):
        assert with_filter[key] == without[key], key
    assert with_filter["body"].encode() == body

    volatile = {"date", "x-request-id", "x-envoy-upstream-service-time"}
    heads = [{k: v for k, v in r.headers.items() if k not in volatile} for r in (reply, bare_reply)]
    assert heads[0].pop("x-tollgate-id")
    assert heads[0] == heads[1]
    bodies = [re.sub(rb"chatcmpl-Replay\d+", b"*", r.body) for r in (reply, bare_reply)]
    assert bodies[0] == bodies[1] and b"*" in bodies[0]
    assert (b'"usage"' in bodies[0]) != stream, "nobody asked a stream for usage"


def test_a_chunked_request_passes_chunked_and_its_model_is_read(shipped: Stack, bare: Stack) -> None:
    parts = [b'{"mes', b'sages":[],"mo', b'del":"gp', b't-4o"', b"}"]
    mark, session = fresh(), fresh()
    entries = []
    for stack in (shipped, bare):
        headers = {"x-mark": mark, "x-cost-session": session}
        stack.client.send("POST", "/v1/chat/completions", iter(parts), headers)
        entries += [r for r in stack.replay.requests if ["x-mark", mark] in r["headers"]]
    assert entries[0]["body"] == entries[1]["body"] == b"".join(parts).decode()
    for entry in entries:
        assert "chunked" in dict(entry["headers"])["transfer-encoding"]
    assert one_record(shipped, session)["request_model"] == "gpt-4o"


def test_a_signed_cost_header_is_left_alone(shipped: Stack) -> None:
    mark = fresh()
    signature = "AWS4-HMAC-SHA256 Credential=AK/20261121/eu/s/aws4_request, SignedHeaders=host;x-cost-team, Signature=a"
    headers = {"authorization": signature, "x-cost-team": "t", "x-cost-user": "u", "x-mark": mark}
    shipped.client.chat(headers=headers)
    (entry,) = [r for r in shipped.replay.requests if ["x-mark", mark] in r["headers"]]
    sent = dict(entry["headers"])
    assert sent["x-cost-team"] == "t", "removing it would break the signature"
    assert "x-cost-user" not in sent

"""A stream of OpenAI's chat API is asked for its usage in the caller's place: the provider's request differs by exactly
that, the client's stream by exactly the event it would not have got, and the record says what was billed."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, product
from typing import Any

import openai
import pytest
from support import envoy_config
from support.audit import (
    Record, assert_estimated, assert_nothing_lost, assert_says, estimate, expected, fresh, one_record, text_bytes,
)
from support.client import Headers, Reply, call_body, slowly
from support.envoy_config import Bootstrap
from support.replay import fixtures, gzip_pieces
from support.stack import Stack
from support.wire import Wire, header, request_head

CHAT, SSE, LEGACY = "/v1/chat/completions", "openai-chat-sse-usage.sse", "openai-completions-sse.sse"
HELLO: list[Any] = [{"role": "user", "content": "hello"}]
SILENT = call_body("gpt-4o", True, False, {})
ASKED_FOR = b',"stream_options":{"include_usage":true}'
STREAMS = {
    name: fixture for name, fixture in fixtures().items()
    if name.endswith(".sse") and fixture.meta["api"] in ("openai_chat", "openai_completions")
}
CHUNKS = ("whole", "7", "1")


def without_usage_event(stream: bytes) -> bytes:
    """The stream without its events that have nothing but usage."""
    blank = b"\r\n\r\n" if b"\r\n\r\n" in stream else b"\n\n"

    def stays(event: bytes) -> bool:
        data = event.strip().removeprefix(b"data:").strip()
        call = json.loads(data) if data[:1] == b"{" else {}
        return not (call.get("choices") == [] and isinstance(call.get("usage"), dict))

    kept = [event for event in stream.split(blank) if stays(event)]
    return blank.join(kept)


def arrived(stack: Stack, mark: str) -> dict[str, Any]:
    """The call with this x-mark as the provider got it."""
    (entry,) = [r for r in list(stack.replay.requests) if ["x-mark", mark] in r["headers"]]
    return entry


def ask(stack: Stack, body: bytes = SILENT, path: str = CHAT, **headers: str) -> tuple[Reply, Record, dict[str, Any]]:
    """A call: the answer, its record, and the request as the provider got it."""
    session = fresh()
    sent = {"x-cost-session": session, "x-mark": session}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    reply = stack.client.send("POST", path, body, sent)
    return reply, one_record(stack, session), arrived(stack, session)


# What the provider gets


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (b'{ "model": "gpt-4\\u006f",\n "messages":[],"stream" :true }',
         b'{ "model": "gpt-4\\u006f",\n "messages":[],"stream" :true ' + ASKED_FOR + b"}"),
        (b'{"stream_options": {"x": [1]}, "stream": true, "model": "gpt-4o"}',
         b'{"stream_options": {"x": [1],"include_usage":true}, "stream": true, "model": "gpt-4o"}'),
        (b'{"stream": true, "stream_options": {"include_usage": false }, "model": "gpt-4o"}',
         b'{"stream": true, "stream_options": {"include_usage": true }, "model": "gpt-4o"}'),
        (b'{"stream": true, "stream_options": {"include_usage": true}, "model": "gpt-4o"}', None),
        (b'{"stream": false, "model": "gpt-4o"}', None),
        (b'{"model": "gpt-4o", "stream_options": null}', None),
        (b'{"model": "gpt-4o", "stream": true, "mess', None),
    ],
    ids=["asks nothing", "other options", "asks for none", "asks", "no stream", "no stream, options", "no JSON"],
)
def test_the_provider_gets_the_callers_request_and_the_question_for_usage(
    shipped: Stack, bare: Stack, body: bytes, wanted: bytes | None
) -> None:
    mark = fresh()
    headers = {
        "host": "gateway.test", "authorization": "Bearer sk-secret", "x-mark": mark, "x-cost-session": mark,
        "accept-encoding": "gzip, br", "x-other": "  kept ", "user-agent": "test/1.0",
    }
    replies = [stack.client.send("POST", CHAT, body, headers) for stack in (shipped, bare)]
    with_filter, without = (arrived(stack, mark) for stack in (shipped, bare))
    assert without["body"].encode() == body
    assert with_filter["body"].encode() == (body if wanted is None else wanted)
    changed = {
        "accept-encoding": ("identity", "gzip, br"), "content-length": (None, str(len(body))),
        "transfer-encoding": ("chunked", None), "x-cost-session": (None, mark),
    }
    sent, own = dict(with_filter["headers"]), dict(without["headers"])
    names = (sent.keys() | own.keys()) - {"x-request-id"}
    assert {n: (sent.get(n), own.get(n)) for n in names if sent.get(n) != own.get(n)} == changed
    assert [n for n, _ in with_filter["headers"]].count("accept-encoding") == 1

    volatile = {"date", "x-request-id", "x-envoy-upstream-service-time", "x-tollgate-id"}
    heads = [{k: v for k, v in r.headers.items() if k not in volatile} for r in replies]
    assert heads[0] == heads[1] and replies[0].status == 200
    assert_says(one_record(shipped, mark), {"end_reason": "complete", "usage_source": "reported"})


def big_body(model_first: bool) -> bytes:
    """A streamed call of nearly 30 MB."""
    text = json.dumps([{"role": "user", "content": 'é "quoted" \\ ' * 1_250_000}], ensure_ascii=False)
    parts = ['"model": "gpt-4o"', f'"messages": {text}', '"stream": true']
    return ("{" + ", ".join(parts if model_first else parts[::-1]) + "}").encode()


@pytest.mark.parametrize("first", [True, False], ids=["model first", "model last"])
def test_30_megabytes_of_request_are_asked_too(shipped: Stack, first: bool) -> None:
    body = big_body(first)
    assert 20_000_000 < len(body) < 31_000_000
    reply, record, entry = ask(shipped, body, x_replay_fixture=SSE)
    assert reply.body == without_usage_event(fixtures()[SSE].data)
    assert_says(record, expected(SSE, "gpt-4o") | {"message_count": 1, "notes": None})
    assert entry["body_sha256"] == hashlib.sha256(body[:-1] + ASKED_FOR + b"}").hexdigest()


def test_a_request_that_is_sent_in_pieces_is_asked_as_it_comes(shipped: Stack) -> None:
    session = fresh()
    body = b'{"stream_options": {"x": 1}, "messages": [], "model": "gpt-4o", "stream": true}'
    parts = [body[at : at + 5] for at in range(0, len(body), 5)]
    headers = {"x-cost-session": session, "x-mark": session, "x-replay-fixture": SSE}
    reply = shipped.client.send("POST", CHAT, slowly(parts, 0.01), headers)
    assert reply.body == without_usage_event(fixtures()[SSE].data)
    assert arrived(shipped, session)["body"].encode() == body.replace(b'"x": 1', b'"x": 1,"include_usage":true')
    assert_says(one_record(shipped, session), expected(SSE, "gpt-4o") | {"notes": None})


def test_a_request_that_is_answered_while_it_is_sent_goes_on_whole(edges: Stack) -> None:
    session = fresh()
    extra = [
        (b"x-cost-session", session.encode()), (b"x-mark", session.encode()), (b"x-replay-fault", b"early-answer"),
        (b"x-replay-fixture", SSE.encode()), (b"x-replay-delay-ms", b"20"),
    ]
    rest = b'"], "model": "gpt-4o", "stream": true}'
    with Wire(edges.client.port) as wire:
        sent = b'{"stream_options": {"x": 1}, "messages": ["'
        wire.send(request_head(headers=extra) + b"%x\r\n%b\r\n" % (len(sent), sent))
        # The client goes on sending, a little at a time, until its answer begins.
        for number in count():
            if wire.readable(0.005) or number > 1000:
                break
            wire.send(b"4\r\nmore\r\n")
            sent += b"more"
        wire.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(rest), rest))
        wire.read_until(b"[DONE]\n\n")
        # Envoy gives up a request that isn't over when its answer is; this one is.
        edges.wait(lambda: arrived(edges, session)["body_len"] is not None, 10, "the request never arrived whole")
    id = header(wire.seen, b"x-tollgate-id") or b""
    asked = (sent + rest).replace(b'"x": 1', b'"x": 1,"include_usage":true')
    assert arrived(edges, session)["body"].encode() == asked
    assert_says(one_record(edges, session), expected(SSE, "gpt-4o") | {"id": id.decode()})


# What the client gets


@pytest.mark.parametrize("name", sorted(STREAMS))
def test_the_clients_bytes_are_the_providers_without_the_event_that_only_has_usage(shipped: Stack, name: str) -> None:
    fixture, path = STREAMS[name], CHAT if STREAMS[name].meta["api"] == "openai_chat" else "/x/v1/chat/completions"
    ways = list(product(CHUNKS, ("0", "1")))

    def play(way: tuple[str, str]) -> tuple[Reply, Record, dict[str, Any]]:
        chunk, sized = way
        headers = {"x_replay_fixture": name, "x_replay_chunk": chunk, "x_replay_content_length": sized}
        return ask(shipped, SILENT, path, **headers)

    with ThreadPoolExecutor(len(ways)) as pool:
        played = list(pool.map(play, ways))
    for way, (reply, record, entry) in zip(ways, played):
        assert (reply.status, reply.body == without_usage_event(fixture.data)) == (200, True), way
        if fixture.meta["content_type"]:
            assert "content-length" not in reply.headers, way
        assert entry["body"].encode() == SILENT[:-1] + ASKED_FOR + b"}", way
        assert_says(record, {"end_reason": "complete", "id": reply.headers["x-tollgate-id"], "notes": None})
        usage = fixture.meta["usage"]
        if usage:
            assert_says(record, {"usage_source": "reported"})
            assert_says(record, {n: usage[n] for n in ("input_tokens", "output_tokens") if n in usage})
        else:
            assert_says(record, estimate(fixture.meta["response_model"], len(SILENT), text_bytes(fixture.data)))


def test_a_client_that_asked_gets_every_byte(shipped: Stack) -> None:
    for chunk in CHUNKS:
        body = call_body("gpt-4o", True, True, {})
        reply, record, entry = ask(shipped, body, x_replay_fixture=SSE, x_replay_chunk=chunk,
                                   x_replay_content_length="1")
        assert reply.body == fixtures()[SSE].data and entry["body"].encode() == body
        assert reply.headers["content-length"] == str(len(reply.body))
        assert_says(record, expected(SSE, "gpt-4o") | {"notes": None})


def test_a_stream_that_comes_encoded_all_the_same_keeps_its_event_and_says_so(shipped: Stack) -> None:
    packed = b"".join(gzip_pieces(fixtures()[SSE].pieces()))
    for sized in ("0", "1"):
        reply, record, entry = ask(shipped, accept_encoding="gzip", x_replay_fixture=SSE, x_replay_gzip="1",
                                   x_replay_content_length=sized)
        assert (reply.body, reply.headers["content-encoding"]) == (packed, "gzip")
        assert reply.headers.get("content-length") == (str(len(packed)) if sized == "1" else None)
        assert gzip.decompress(reply.body) == fixtures()[SSE].data
        assert dict(entry["headers"])["accept-encoding"] == "identity"
        assert_says(record, expected(SSE, "gpt-4o") | {"notes": ["usage_event_kept"]})


def test_an_error_in_the_place_of_a_stream_passes_as_it_is(shipped: Stack) -> None:
    reply, record, _ = ask(shipped, x_replay_status="429")
    data = fixtures()["openai-error-429.json"].data
    assert (reply.body, reply.headers["content-length"]) == (data, str(len(data)))
    assert_says(record, expected("openai-error-429.json", "gpt-4o") | {"notes": None})


def test_a_client_that_hangs_up_is_an_estimate_of_what_it_was_sent(shipped: Stack) -> None:
    session = fresh()
    headers = {"x-cost-session": session, "x-replay-fixture": SSE, "x-replay-fault": "hang-mid-body"}
    whole = fixtures()[SSE].data
    with shipped.client.open("POST", CHAT, SILENT, headers) as response:
        read = b""
        while len(read) < 500:
            read += response.read1(500)
    # Whole events arrive, and none is held back.
    assert whole.startswith(read)
    record = one_record(shipped, session)
    assert_says(record, {"end_reason": "client_abort", "status": 200, "stream": True, "notes": None})
    assert_estimated(record, "gpt-4o", len(SILENT), text_bytes(read), text_bytes(whole[: len(whole) // 2]))


def test_events_reach_the_client_as_they_come(shipped: Stack) -> None:
    session = fresh()
    headers = {"x-cost-session": session, "x-replay-fixture": SSE, "x-replay-delay-ms": "15"}
    with shipped.client.open("POST", CHAT, SILENT, headers) as response:
        began = time.monotonic()
        first = response.read1(1 << 16)
        to_first = time.monotonic() - began
        rest = response.read()
    assert first + rest == without_usage_event(fixtures()[SSE].data)
    # A stream that is collected first would be the other way round.
    assert to_first < time.monotonic() - began - to_first
    one_record(shipped, session)


# What an SDK gets


def sdk(base: str, headers: Headers, kind: Any = openai.OpenAI) -> Any:
    return kind(base_url=f"{base}/v1", api_key="sk-test", max_retries=0, default_headers=headers)


def shown(chunk: Any) -> dict[str, Any]:
    """All that an application sees of a chunk; the replay provider's ids are never the same."""
    return chunk.model_dump() | {"id": "*"}


def heard(base: str, model: str, headers: Headers, **options: Any) -> list[dict[str, Any]]:
    with sdk(base, headers) as client:
        stream = client.chat.completions.create(model=model, messages=HELLO, stream=True, **options)
        return [shown(chunk) for chunk in stream]


async def heard_async(base: str, model: str, headers: Headers) -> list[dict[str, Any]]:
    async with sdk(base, headers, openai.AsyncOpenAI) as client:
        stream = await client.chat.completions.create(model=model, messages=HELLO, stream=True)
        return [shown(chunk) async for chunk in stream]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["OpenAI", "AsyncOpenAI"])
@pytest.mark.parametrize(("model", "fixture"), [("gpt-4o", SSE), ("gpt-5", "openai-chat-sse-usage-reasoning.sse")])
def test_an_sdk_that_did_not_ask_hears_what_it_hears_from_the_provider_itself(
    shipped: Stack, model: str, fixture: str, asynchronous: bool
) -> None:
    session = fresh()
    headers = {"x-cost-session": session, "x-mark": session}
    itself = f"http://127.0.0.1:{shipped.replay.port}"
    if asynchronous:
        through = asyncio.run(heard_async(shipped.client.url, model, headers))
        straight = asyncio.run(heard_async(itself, model, {}))
    else:
        through, straight = heard(shipped.client.url, model, headers), heard(itself, model, {})
    assert len(straight) > 3 and through == straight
    assert all(chunk["usage"] is None and chunk["choices"] for chunk in through)
    assert json.loads(arrived(shipped, session)["body"])["stream_options"] == {"include_usage": True}
    assert_says(one_record(shipped, session), expected(fixture, model) | {"stream": True, "notes": None})


def test_an_sdk_that_asked_gets_its_usage(shipped: Stack) -> None:
    session = fresh()
    through = heard(shipped.client.url, "gpt-4o", {"x-cost-session": session}, stream_options={"include_usage": True})
    record = one_record(shipped, session)
    assert through[-1]["choices"] == [] and through[-1]["usage"]["total_tokens"] == record["total_tokens"]
    assert_says(record, expected(SSE, "gpt-4o") | {"notes": None})


# Where nobody is asked


def careful(bootstrap: Bootstrap) -> None:
    """An upstream that takes no options, one that takes them whatever is known of it, and trailers pass."""
    envoy_config.flush_soon(bootstrap)
    envoy_config.enable_trailers(bootstrap)
    envoy_config.filter_config(bootstrap)["upstreams"] = [
        {"match": {"host": "stubborn.*"}, "inject_include_usage": False},
        {"match": {"host": "new.mistral.ai"}, "inject_include_usage": True},
    ]


@pytest.fixture(scope="module")
def wary(envoy: str) -> Iterator[Stack]:
    with Stack(careful, envoy=envoy) as stack:
        yield stack
        assert_nothing_lost(stack)


SIGNED = "AWS4-HMAC-SHA256 Credential=AK/20261121/eu/s/aws4_request, SignedHeaders=content-length;host, Signature=a"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("host", "api.mistral.ai"), ("host", "stubborn.example"), ("authorization", SIGNED), ("content-md5", "a"),
        ("digest", "sha-256=a"), ("content-digest", "sha-256=:a:"), ("x-amz-content-sha256", "a"),
        ("content-encoding", "gzip"), ("path", "/openai/deployments/d/chat/completions?api-version=2024-02-01"),
    ],
)
def test_nobody_is_asked_where_it_is_refused_or_the_bytes_are_vouched_for(wary: Stack, name: str, value: str) -> None:
    body = gzip.compress(SILENT) if name == "content-encoding" else SILENT
    path = value if name == "path" else CHAT
    headers = {} if name == "path" else {name: value}
    reply, record, entry = ask(wary, body, path, x_replay_fixture=SSE, **headers)
    assert entry["body_sha256"] == hashlib.sha256(body).hexdigest()
    assert dict(entry["headers"])["content-length"] == str(len(body))
    assert reply.body == fixtures()[SSE].data
    assert_says(record, {"usage_source": "reported", "notes": None})


def test_what_is_said_of_an_upstream_counts_more_than_its_name(wary: Stack) -> None:
    reply, record, entry = ask(wary, host="new.mistral.ai", x_replay_fixture=SSE)
    assert entry["body"].encode() == SILENT[:-1] + ASKED_FOR + b"}"
    assert reply.body == without_usage_event(fixtures()[SSE].data)
    assert_says(record, expected(SSE, "gpt-4o") | {"notes": None})


def test_a_request_with_trailers_is_not_asked(wary: Stack) -> None:
    session = fresh()
    extra = [(b"x-cost-session", session.encode()), (b"x-mark", session.encode()), (b"trailer", b"x-end")]
    with Wire(wary.client.port) as wire:
        wire.send(request_head(headers=extra))
        wire.send(b"%x\r\n%b\r\n0\r\nx-end: 1\r\n\r\n" % (len(SILENT), SILENT))
        wire.read_until(b"[DONE]\n\n")
    assert arrived(wary, session)["body"].encode() == SILENT
    text = text_bytes(fixtures()[SSE].data)
    assert_says(one_record(wary, session), estimate("gpt-4o", len(SILENT), text) | {"end_reason": "complete"})


def test_trailers_behind_a_stream_reach_the_client(wary: Stack) -> None:
    session = fresh()
    extra = [(b"x-cost-session", session.encode()), (b"x-replay-fault", b"trailers"), (b"x-replay-chunk", b"whole")]
    with Wire(wary.client.port) as wire:
        wire.send(request_head(headers=extra, length=len(SILENT)) + SILENT)
        seen = wire.read_until(b"\r\nx-replay-trailer: end\r\n\r\n")
    assert b"data: [DONE]\n\n\r\n0\r\n" in seen and b"prompt_tokens" not in seen
    assert_says(one_record(wary, session), expected(SSE, "gpt-4o") | {"notes": None})


def test_an_event_that_trailers_end_reaches_the_client(wary: Stack) -> None:
    session, size = fresh(), len(fixtures()[SSE].data) - 1
    extra = [
        (b"x-cost-session", session.encode()), (b"x-replay-fault", b"trailers"), (b"x-replay-fixture", SSE.encode()),
        (b"x-replay-fault-after", b"%d" % size),
    ]
    with Wire(wary.client.port) as wire:
        wire.send(request_head(headers=extra, length=len(SILENT)) + SILENT)
        seen = wire.read_until(b"\r\nx-replay-trailer: end\r\n\r\n")
    one_record(wary, session)
    assert b"data: [DONE]\n" in seen


@pytest.mark.parametrize("kind", ["none", "text/plain"])
def test_a_stream_of_another_type_loses_its_event_or_says_that_it_kept_it(wary: Stack, kind: str) -> None:
    reply, record, _ = ask(wary, x_replay_fixture=SSE, x_replay_content_type=kind)
    assert reply.body == without_usage_event(fixtures()[SSE].data) or record.get("notes") == ["usage_event_kept"]


def test_a_stream_that_begins_early_loses_its_event_or_was_not_asked_for_it(wary: Stack) -> None:
    session, rest = fresh(), b'], "model": "gpt-4o", "stream": true}'
    extra = [
        (b"x-cost-session", session.encode()), (b"x-replay-fault", b"early-answer"),
        (b"x-replay-fixture", SSE.encode()), (b"x-replay-delay-ms", b"20"),
    ]
    with Wire(wary.client.port) as wire:
        wire.send(request_head(headers=extra) + b'e\r\n{"messages": [\r\n')
        wire.read_until(b"data:")
        wire.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(rest), rest))
        seen = wire.read_until(b"[DONE]\n\n")
    record = one_record(wary, session)

    def bodies() -> list[str]:
        mine = [r for r in wary.replay.requests if ["x-request-id", record["request_id"]] in [list(h) for h in r["headers"]]]
        return [r["body"] for r in mine if r["body"] is not None]

    # The provider answers first and reads on afterwards.
    wary.wait(lambda: bool(bodies()), 10, "the provider never got the whole request")
    (body,) = bodies()
    assert ("include_usage" in body) == (b"prompt_tokens" not in seen)


def test_a_body_under_an_aws_signature_stays(wary: Stack) -> None:
    signature = SIGNED.replace("content-length;host", "host;x-amz-date")
    _, _, entry = ask(wary, path="/openai/v1/chat/completions", authorization=signature)
    assert entry["body"].encode() == SILENT

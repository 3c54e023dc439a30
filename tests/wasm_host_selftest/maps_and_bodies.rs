//! When header maps can be reached, and what buffers hold.

use super::guest::{Arg, Guest, Returns, bytes, out, out_bytes};
use super::one_stream;
use crate::support::wasm_host::{Action, HeaderMap, HostCall, NO_HEADERS, Plugin, Process, Side, StreamState, status};

const REQUEST_HEADERS: &str = "proxy_on_request_headers";
const REQUEST_BODY: &str = "proxy_on_request_body";
const RESPONSE_HEADERS: &str = "proxy_on_response_headers";
const RESPONSE_BODY: &str = "proxy_on_response_body";
const RESPONSE_TRAILERS: &str = "proxy_on_response_trailers";

fn get(map: u32, name: &str) -> [Arg; 4] {
    [Arg::I32(map), bytes(name), Arg::Out(0), Arg::Out(1)]
}

fn put(map: u32, name: &str, value: &[u8]) -> [Arg; 3] {
    [Arg::I32(map), bytes(name), bytes(value)]
}

fn read(body: u32) -> [Arg; 5] {
    [Arg::I32(body), Arg::I32(0), Arg::I32(u32::MAX), Arg::Out(0), Arg::Out(1)]
}

fn set(body: u32, start: u32, length: u32, data: &str) -> [Arg; 4] {
    [Arg::I32(body), Arg::I32(start), Arg::I32(length), bytes(data)]
}

#[test]
fn a_map_survives_its_encoding_and_a_broken_block_is_empty() {
    let map = HeaderMap::new(&[("a", b"1".as_slice()), ("", b""), ("bin", b"\xff\0\xfe")]);
    assert_eq!(HeaderMap::decode(&map.encode()), map);
    assert_eq!(HeaderMap::default().encode(), [0; 4]);
    let bytes = map.encode();
    for length in 0..bytes.len() - 1 {
        assert!(HeaderMap::decode(&bytes[..length]).is_empty(), "{length}");
    }
}

#[test]
fn headers_are_read_and_changed_in_their_callback() {
    let guest = Guest::new()
        .calls(REQUEST_HEADERS, HostCall::GetHeaderMapValue, &get(0, "X-Bin"))
        .calls(REQUEST_HEADERS, HostCall::GetHeaderMapValue, &[Arg::I32(0), bytes("none"), Arg::Out(2), Arg::Out(3)])
        .calls(REQUEST_HEADERS, HostCall::AddHeaderMapValue, &put(0, "Twice", b"2"))
        .calls(REQUEST_HEADERS, HostCall::ReplaceHeaderMapValue, &put(0, "x-bin", b"\xfe"))
        .calls(REQUEST_HEADERS, HostCall::RemoveHeaderMapValue, &[Arg::I32(0), bytes("gone")])
        .calls(REQUEST_HEADERS, HostCall::GetHeaderMapSize, &[Arg::I32(0), Arg::Out(4)])
        .calls(REQUEST_HEADERS, HostCall::GetHeaderMapPairs, &[Arg::I32(0), Arg::Out(5), Arg::Out(6)])
        .calls(REQUEST_HEADERS, HostCall::GetHeaderMapValue, &get(8, "x"));
    let (vm, stream) = one_stream(&guest);
    let sent = [("x-bin", b"\xff".as_slice()), ("twice", b"1"), ("gone", b""), ("gone", b"x")];
    stream.request_headers(&sent, true).unwrap();
    assert_eq!(guest.statuses(&vm), [0, status::NOT_FOUND, 0, 0, 0, 0, 0, status::BAD_ARGUMENT]);
    assert_eq!(out_bytes(&vm, 0, 1), b"\xff");
    assert_eq!(out(&vm, 2), u32::MAX, "an out parameter stays as it was");
    let expected = HeaderMap::new(&[("twice", b"1".as_slice()), ("twice", b"2"), ("x-bin", b"\xfe")]);
    assert_eq!(stream.upstream_headers(), expected);
    assert_eq!(out(&vm, 4), 18);
    assert_eq!(HeaderMap::decode(&out_bytes(&vm, 5, 6)), expected);
}

#[test]
fn an_empty_header_is_a_null_pointer_and_all_headers_can_be_set() {
    let map = HeaderMap::new(&[(":path", "/"), ("a", "b")]);
    let guest = Guest::new().calls(REQUEST_HEADERS, HostCall::GetHeaderMapValue, &get(0, "empty")).calls(
        REQUEST_HEADERS,
        HostCall::SetHeaderMapPairs,
        &[Arg::I32(0), Arg::Bytes(map.encode())],
    );
    let (vm, stream) = one_stream(&guest);
    stream.request_headers(&[("empty", "")], true).unwrap();
    assert_eq!((out(&vm, 0), out(&vm, 1)), (0, 0));
    assert_eq!(stream.upstream_headers(), map);
}

#[test]
fn after_continue_headers_are_out_of_reach_until_the_log() {
    let guest = Guest::new()
        .calls(REQUEST_BODY, HostCall::GetHeaderMapValue, &get(0, "a"))
        .calls(REQUEST_BODY, HostCall::ReplaceHeaderMapValue, &put(0, "a", b"c"))
        .calls(REQUEST_BODY, HostCall::GetHeaderMapPairs, &[Arg::I32(0), Arg::Out(2), Arg::Out(3)])
        .calls(RESPONSE_HEADERS, HostCall::GetHeaderMapValue, &get(0, "a"))
        .calls(RESPONSE_HEADERS, HostCall::GetHeaderMapValue, &get(2, ":status"))
        .calls(RESPONSE_BODY, HostCall::GetHeaderMapValue, &get(2, ":status"))
        .calls("proxy_on_log", HostCall::GetHeaderMapValue, &get(0, "a"))
        .calls("proxy_on_log", HostCall::GetHeaderMapValue, &get(1, "a"))
        .calls("proxy_on_log", HostCall::GetHeaderMapValue, &get(2, ":status"))
        .calls("proxy_on_log", HostCall::GetHeaderMapValue, &get(3, "a"))
        .calls("proxy_on_log", HostCall::ReplaceHeaderMapValue, &put(0, "a", b"c"))
        .calls("proxy_on_done", HostCall::GetHeaderMapValue, &get(0, "a"));
    let (vm, stream) = one_stream(&guest);
    stream.request_headers(&[("a", "b")], false).unwrap();
    stream.request_body("x", true).unwrap();
    stream.response_headers(&[(":status", "200")], false).unwrap();
    stream.response_body("x", true).unwrap();
    stream.finish().unwrap();
    assert_eq!(guest.statuses(&vm), [2, 2, 0, 2, 0, 2, 0, 1, 0, 1, 2, 2]);
    assert_eq!((out(&vm, 2), out(&vm, 3)), (0, 0), "all pairs are none");
}

#[test]
fn with_continue_each_callback_sees_its_chunk() {
    let guest = Guest::new().calls(RESPONSE_BODY, HostCall::GetBufferBytes, &read(1)).calls(
        RESPONSE_BODY,
        HostCall::GetBufferStatus,
        &[Arg::I32(1), Arg::Out(2), Arg::Out(3)],
    );
    let (vm, stream) = one_stream(&guest);
    stream.request_headers(NO_HEADERS, true).unwrap();
    stream.response_headers(NO_HEADERS, false).unwrap();
    stream.response_body("hello", false).unwrap();
    assert_eq!((out_bytes(&vm, 0, 1), out(&vm, 2)), (b"hello".to_vec(), 5));
    stream.response_body("you", false).unwrap();
    assert_eq!((out_bytes(&vm, 0, 1), out(&vm, 2)), (b"you".to_vec(), 3));
    stream.response_body("", true).unwrap();
    assert_eq!(out(&vm, 2), 0);
    assert_eq!(stream.state().response.forwarded, [b"hello".to_vec(), b"you".to_vec()]);
    assert!(stream.state().response.ended);
}

#[test]
fn with_pause_the_body_accumulates_and_continue_passes_it_on_whole() {
    let guest = Guest::new().returns(REQUEST_BODY, Returns::PauseUntilEnd).calls(
        REQUEST_BODY,
        HostCall::GetBufferBytes,
        &read(0),
    );
    let (vm, stream) = one_stream(&guest);
    stream.request_headers(NO_HEADERS, false).unwrap();
    assert_eq!(stream.request_body("ab", false), Ok(Action::Pause));
    assert_eq!(stream.request_body("cd", false), Ok(Action::Pause));
    assert!(stream.upstream_body().is_empty());
    assert_eq!(stream.request_body("", true), Ok(Action::Continue));
    let sizes: Vec<_> = Guest::events(&vm)[6..].iter().map(|(_, args)| args[1]).collect();
    assert_eq!(sizes, [2, 4, 4]);
    assert_eq!(out_bytes(&vm, 0, 1), b"abcd");
    assert_eq!(stream.state().request.forwarded, [b"abcd"]);
}

#[test]
fn a_buffer_changes_at_its_beginning_and_its_end_only() {
    let guest = Guest::new()
        .calls(RESPONSE_BODY, HostCall::SetBufferBytes, &set(1, 0, 0, "<"))
        .calls(RESPONSE_BODY, HostCall::SetBufferBytes, &set(1, u32::MAX, 0, ">"))
        .calls(RESPONSE_BODY, HostCall::SetBufferBytes, &set(1, 1, 1, "no"))
        .calls(RESPONSE_BODY, HostCall::SetBufferBytes, &set(1, 0, 2, "A"))
        .calls("proxy_on_response_trailers", HostCall::SetBufferBytes, &set(1, 0, 0, "no"))
        .calls("proxy_on_response_trailers", HostCall::GetBufferBytes, &read(1))
        .calls("proxy_on_response_trailers", HostCall::GetBufferBytes, &read(9));
    let (vm, stream) = one_stream(&guest);
    stream.request_headers(NO_HEADERS, true).unwrap();
    stream.response_headers(NO_HEADERS, false).unwrap();
    stream.response_body("ab", false).unwrap();
    stream.response_trailers(NO_HEADERS).unwrap();
    assert_eq!(guest.statuses(&vm), [0, 0, 2, 0, 2, 0, 2]);
    assert_eq!(stream.client_body(), b"Ab>");
    assert_eq!((out(&vm, 0), out(&vm, 1)), (0, 0), "nothing is a null pointer");
}

#[test]
fn a_chunk_can_be_drained_and_the_body_sent_at_the_end() {
    let drain = Guest::new().calls(REQUEST_BODY, HostCall::SetBufferBytes, &set(0, 0, u32::MAX, ""));
    let (_, stream) = one_stream(&drain);
    stream.request_headers(NO_HEADERS, false).unwrap();
    stream.request_body("ab", false).unwrap();
    assert!(stream.state().request.forwarded.is_empty());
    assert!(!stream.state().request.ended);
    stream.request_body("cd", true).unwrap();
    assert!(stream.state().request.ended);
}

#[test]
fn reading_behind_the_end_gives_nothing() {
    let behind = [Arg::I32(0), Arg::I32(5), Arg::I32(u32::MAX), Arg::Out(0), Arg::Out(1)];
    let guest = Guest::new().calls(REQUEST_BODY, HostCall::GetBufferBytes, &behind);
    let (vm, stream) = one_stream(&guest);
    stream.request_headers(NO_HEADERS, false).unwrap();
    stream.request_body("abc", true).unwrap();
    assert_eq!((guest.statuses(&vm), out(&vm, 0), out(&vm, 1)), (vec![0], 0, 0));
}

#[test]
fn held_headers_stop_the_body_unless_the_plugin_allows_it() {
    let guest = Guest::new()
        .returns(REQUEST_HEADERS, Returns::Word(1))
        .returns(REQUEST_BODY, Returns::PauseUntilEnd)
        .calls(REQUEST_BODY, HostCall::ReplaceHeaderMapValue, &put(0, "model", b"mini"));
    let (vm, stream) = one_stream(&guest);
    assert_eq!(stream.request_headers(NO_HEADERS, false), Ok(Action::Pause));
    assert_eq!(stream.request_body("x", true), Ok(Action::Withheld));
    assert_eq!(guest.statuses(&vm), [u32::MAX]);

    let vm = Process::new().start_vm(&guest.build());
    vm.configure(Plugin { allow_on_headers_stop_iteration: true, ..Plugin::default() }).unwrap();
    let stream = vm.stream();
    assert_eq!(stream.request_headers(NO_HEADERS, false), Ok(Action::Pause));
    assert_eq!(stream.request_body("x", false), Ok(Action::Pause));
    assert!(stream.state().request.sent_headers.is_none());
    assert_eq!(stream.request_body("y", true), Ok(Action::Continue));
    assert_eq!(stream.upstream_headers().text("model").as_deref(), Some("mini"));
    assert_eq!(stream.upstream_body(), b"xy");
}

#[test]
fn held_response_headers_go_with_the_body_and_trailers_release_what_is_held() {
    let guest = Guest::new()
        .returns(RESPONSE_HEADERS, Returns::Word(1))
        .returns(RESPONSE_BODY, Returns::Word(1))
        .calls(RESPONSE_TRAILERS, HostCall::GetBufferBytes, &read(1))
        .calls(RESPONSE_TRAILERS, HostCall::AddHeaderMapValue, &put(2, "x-cost-usd", b"1"))
        .calls(RESPONSE_TRAILERS, HostCall::AddHeaderMapValue, &put(3, "x-cost-usd", b"2"));
    let vm = Process::new().start_vm(&guest.build());
    vm.configure(Plugin { allow_on_headers_stop_iteration: true, ..Plugin::default() }).unwrap();
    let stream = vm.stream();
    stream.request_headers(NO_HEADERS, true).unwrap();
    stream.response_headers(&[(":status", "200")], false).unwrap();
    stream.response_body("ab", false).unwrap();
    stream.response_body("cd", false).unwrap();
    assert_eq!(stream.response_trailers(&[("x-up", "1")]), Ok(Action::Continue));
    assert_eq!(guest.statuses(&vm), [0, 0, 0]);
    assert_eq!(out_bytes(&vm, 0, 1), b"abcd");
    let StreamState { response: Side { sent_headers, sent_trailers, forwarded, .. }, .. } = stream.state().clone();
    assert_eq!(sent_headers.unwrap().text("x-cost-usd").as_deref(), Some("1"));
    assert_eq!(sent_trailers, Some(HeaderMap::new(&[("x-up", "1"), ("x-cost-usd", "2")])));
    assert_eq!(forwarded, [b"abcd"]);
}

#[test]
fn trailers_are_created_at_the_end_of_a_body_and_not_before() {
    let guest = Guest::new().calls(RESPONSE_BODY, HostCall::ReplaceHeaderMapValue, &put(3, "x-cost-usd", b"1"));
    let (vm, stream) = one_stream(&guest);
    stream.request_headers(NO_HEADERS, true).unwrap();
    stream.response_headers(NO_HEADERS, false).unwrap();
    stream.response_body("a", false).unwrap();
    assert_eq!(guest.statuses(&vm), [2]);
    stream.response_body("b", true).unwrap();
    assert_eq!(guest.statuses(&vm), [0]);
    assert_eq!(stream.state().response.sent_trailers, Some(HeaderMap::new(&[("x-cost-usd", "1")])));
    assert!(stream.state().response.ended);
}

#[test]
fn a_paused_end_goes_on_when_continued() {
    let guest = Guest::new()
        .returns(REQUEST_BODY, Returns::Word(1))
        .calls(RESPONSE_HEADERS, HostCall::SetBufferBytes, &set(0, 0, u32::MAX, "new"))
        .calls(RESPONSE_HEADERS, HostCall::ContinueStream, &[Arg::I32(0)]);
    let (vm, stream) = one_stream(&guest);
    stream.request_headers(NO_HEADERS, false).unwrap();
    stream.request_body("old", true).unwrap();
    assert!(!stream.state().request.ended);
    stream.response_headers(NO_HEADERS, true).unwrap();
    assert_eq!(guest.statuses(&vm), [0, 0]);
    assert_eq!((stream.upstream_body(), stream.state().request.ended), (b"new".to_vec(), true));
}

#[test]
fn a_held_body_is_in_reach_until_it_is_passed_on() {
    let guest = Guest::new()
        .returns(REQUEST_BODY, Returns::PauseUntilEnd)
        .calls(RESPONSE_HEADERS, HostCall::ContinueStream, &[Arg::I32(1)])
        .calls(RESPONSE_HEADERS, HostCall::SetBufferBytes, &set(0, 0, 0, "<"))
        .calls(RESPONSE_BODY, HostCall::SetBufferBytes, &set(0, 0, 0, "<"));
    let (vm, stream) = one_stream(&guest);
    stream.request_headers(NO_HEADERS, false).unwrap();
    stream.request_body("held", false).unwrap();
    stream.response_headers(NO_HEADERS, false).unwrap();
    assert_eq!(stream.request_body("", true), Ok(Action::Continue));
    stream.response_body("x", true).unwrap();
    assert_eq!(guest.statuses(&vm), [0, 0, 2]);
    assert_eq!(stream.upstream_body(), b"<held");
}

#[test]
fn an_answer_may_come_while_the_request_is_being_read() {
    let (_, stream) = one_stream(&Guest::new());
    stream.request_headers(NO_HEADERS, false).unwrap();
    stream.request_body("a", false).unwrap();
    assert_eq!(stream.response_headers(&[(":status", "503")], false), Ok(Action::Continue));
    assert_eq!(stream.request_body("b", true), Ok(Action::Continue));
    assert_eq!(stream.response_body("c", true), Ok(Action::Continue));
}

#[test]
fn what_cannot_happen_in_envoy_is_withheld() {
    let (_, stream) = one_stream(&Guest::new());
    assert_eq!(stream.request_body("a", false), Ok(Action::Withheld), "a body before its headers");
    assert_eq!(stream.response_headers(NO_HEADERS, true), Ok(Action::Withheld), "a response to nothing");
    stream.request_headers(NO_HEADERS, true).unwrap();
    assert_eq!(stream.request_headers(NO_HEADERS, true), Ok(Action::Withheld), "headers twice");
    assert_eq!(stream.request_body("a", true), Ok(Action::Withheld), "a body after the end");
    assert_eq!(stream.request_trailers(NO_HEADERS), Ok(Action::Withheld), "trailers after the end");
}

//! HTTP calls of the guest, local replies, continuing and closing streams, foreign functions.

use super::guest::{Arg, Guest, Returns, bytes, out, out_bytes};
use super::{one_stream, started};
use crate::support::wasm_host::{Action, CallState, HeaderMap, HostCall, HttpCall, LocalReply, NO_HEADERS, Process};

const HEADERS: &str = "proxy_on_request_headers";
const ANSWER: &str = "proxy_on_http_call_response";

fn dispatch(cluster: &str, headers: &[(&str, &str)]) -> [Arg; 6] {
    let headers = HeaderMap::new(headers).encode();
    [bytes(cluster), Arg::Bytes(headers), bytes("body"), bytes(""), Arg::I32(500), Arg::Out(0)]
}

const COMPLETE: &[(&str, &str)] = &[(":method", "POST"), (":path", "/v1/records"), (":authority", "collector")];

fn local_reply(status: u32, body: &str, headers: &[(&str, &str)]) -> [Arg; 5] {
    let headers = HeaderMap::new(headers).encode();
    [Arg::I32(status), bytes("over the limit"), bytes(body), Arg::Bytes(headers), Arg::I32(u32::MAX)]
}

#[test]
fn a_call_is_dispatched_and_its_answer_read_in_its_callback_only() {
    let value = |slot| [Arg::I32(6), bytes(":status"), Arg::Out(slot), Arg::Out(slot + 1)];
    let body = |slot| [Arg::I32(4), Arg::I32(0), Arg::I32(99), Arg::Out(slot), Arg::Out(slot + 1)];
    let guest = Guest::new()
        .calls("proxy_on_configure", HostCall::HttpCall, &dispatch("collector", COMPLETE))
        .calls(ANSWER, HostCall::GetHeaderMapValue, &value(1))
        .calls(ANSWER, HostCall::GetBufferBytes, &body(3))
        .calls("proxy_on_request_headers", HostCall::GetHeaderMapValue, &value(5))
        .calls("proxy_on_request_headers", HostCall::GetBufferBytes, &body(5));
    let process = Process::new();
    process.add_cluster("collector");
    let vm = started(&process, &guest);
    let mut headers = HeaderMap::new(COMPLETE);
    headers.add("content-length", b"4");
    let call = HttpCall {
        token: out(&vm, 0),
        context: 1,
        cluster: "collector".to_owned(),
        headers,
        body: b"body".to_vec(),
        trailers: HeaderMap::default(),
        timeout_ms: 500,
        state: CallState::Open,
    };
    assert_eq!(vm.open_calls(), std::slice::from_ref(&call));
    vm.answer_call(call.token, 202, &[("server", "x")], b"taken").unwrap();
    vm.stream().request_headers(NO_HEADERS, true).unwrap();
    assert_eq!(guest.statuses(&vm), [0, 0, 0, 2, 1]);
    assert!(Guest::events(&vm).contains(&(ANSWER, vec![1, call.token, 2, 5, 0])));
    assert_eq!((out_bytes(&vm, 1, 2), out_bytes(&vm, 3, 4)), (b"202".to_vec(), b"taken".to_vec()));
    assert_eq!(vm.calls()[0].state, CallState::Answered);
}

#[test]
fn a_call_to_an_unknown_cluster_or_without_its_headers_is_refused() {
    let guest = Guest::new()
        .calls(HEADERS, HostCall::HttpCall, &dispatch("nowhere", COMPLETE))
        .calls(HEADERS, HostCall::HttpCall, &dispatch("collector", &COMPLETE[..2]))
        .calls(HEADERS, HostCall::HttpCall, &dispatch("collector", &[]));
    let process = Process::new();
    process.add_cluster("collector");
    let vm = started(&process, &guest);
    vm.stream().request_headers(NO_HEADERS, true).unwrap();
    assert_eq!(guest.statuses(&vm), [2, 2, 2]);
    assert!(vm.calls().is_empty());
}

#[test]
fn a_failed_call_has_no_headers_no_body_and_a_status() {
    let guest = Guest::new()
        .calls("proxy_on_configure", HostCall::HttpCall, &dispatch("c", COMPLETE))
        .calls(ANSWER, HostCall::GetHeaderMapValue, &[Arg::I32(6), bytes(":status"), Arg::Out(1), Arg::Out(2)])
        .calls(ANSWER, HostCall::GetStatus, &[Arg::Out(3), Arg::Out(4), Arg::Out(5)]);
    let process = Process::new();
    process.add_cluster("c");
    let vm = started(&process, &guest);
    vm.fail_call(1).unwrap();
    assert!(Guest::events(&vm).contains(&(ANSWER, vec![1, 1, 0, 0, 0])));
    assert_eq!(guest.statuses(&vm), [0, 2, 0]);
    assert_eq!((out(&vm, 3), out_bytes(&vm, 4, 5)), (11, b"reset".to_vec()));
}

#[test]
fn a_held_request_goes_on_when_the_answer_comes_and_a_gone_stream_gets_none() {
    let guest = Guest::new()
        .returns(HEADERS, Returns::Word(1))
        .calls(HEADERS, HostCall::HttpCall, &dispatch("c", COMPLETE))
        .calls(ANSWER, HostCall::ReplaceHeaderMapValue, &[Arg::I32(0), bytes("x"), bytes("1")])
        .calls(ANSWER, HostCall::SetEffectiveContext, &[Arg::I32(99)])
        .calls(ANSWER, HostCall::SetEffectiveContext, &[Arg::I32(2)])
        .calls(ANSWER, HostCall::ReplaceHeaderMapValue, &[Arg::I32(0), bytes("x"), bytes("1")])
        .calls(ANSWER, HostCall::ContinueStream, &[Arg::I32(0)])
        .calls(
            "proxy_on_request_body",
            HostCall::GetHeaderMapValue,
            &[Arg::I32(0), bytes("x"), Arg::Out(1), Arg::Out(2)],
        );
    let process = Process::new();
    process.add_cluster("c");
    let vm = started(&process, &guest);
    let stream = vm.stream();
    assert_eq!(stream.request_headers(&[("a", "b")], false), Ok(Action::Pause));
    assert_eq!(stream.request_body("one", false), Ok(Action::Withheld));
    assert_eq!(stream.request_body("two", true), Ok(Action::Withheld));
    assert!(stream.state().request.sent_headers.is_none());
    vm.answer_call(1, 200, NO_HEADERS, b"").unwrap();
    assert_eq!(guest.statuses(&vm), [0, 2, 2, 0, 0, 0, 2]);
    assert_eq!(stream.upstream_headers().text("x").as_deref(), Some("1"));
    assert!(Guest::events(&vm).contains(&("proxy_on_request_body", vec![2, 6, 1])), "what was held comes at once");
    assert_eq!(stream.upstream_body(), b"onetwo");
    assert!(stream.state().request.ended);

    let gone = vm.stream();
    gone.request_headers(NO_HEADERS, true).unwrap();
    gone.finish().unwrap();
    assert_eq!(vm.calls()[1].state, CallState::Cancelled);
}

#[test]
fn a_local_reply_from_the_request_comes_back_through_the_guests_response() {
    let guest = Guest::new()
        .calls(HEADERS, HostCall::SendLocalResponse, &local_reply(429, "{}", &[("retry-after", "30")]))
        .calls(HEADERS, HostCall::SendLocalResponse, &local_reply(500, "second", &[]))
        .calls("proxy_on_response_headers", HostCall::ContinueStream, &[Arg::I32(0)])
        .calls("proxy_on_response_headers", HostCall::AddHeaderMapValue, &[Arg::I32(2), bytes("x"), bytes("y")]);
    let (vm, stream) = one_stream(&guest);
    assert_eq!(stream.request_headers(NO_HEADERS, false), Ok(Action::Continue), "what it returns does not matter");
    assert_eq!(stream.request_body("x", true), Ok(Action::Withheld));
    assert_eq!(stream.response_headers(NO_HEADERS, true), Ok(Action::Withheld));
    let reply = LocalReply {
        status: 429,
        details: "over_the_limit".to_owned(),
        headers: HeaderMap::new(&[("retry-after", "30")]),
        body: b"{}".to_vec(),
        grpc_status: -1,
    };
    assert_eq!(stream.local_reply(), Some(reply));
    assert!(stream.state().request.sent_headers.is_none(), "nothing reaches the upstream");
    let sent = [
        (":status", "429"),
        ("retry-after", "30"),
        ("content-length", "2"),
        ("content-type", "text/plain"),
        ("x", "y"),
    ];
    assert_eq!(stream.client_headers(), HeaderMap::new(&sent));
    assert_eq!(stream.client_body(), b"{}");
    let callbacks: Vec<_> = Guest::events(&vm)[5..].iter().map(|(name, _)| *name).collect();
    assert_eq!(callbacks, [HEADERS, "proxy_on_response_headers", "proxy_on_response_body"]);
    stream.finish().unwrap();
}

#[test]
fn a_local_reply_from_the_response_replaces_it_unseen() {
    let on = "proxy_on_response_headers";
    let guest = Guest::new().returns(on, Returns::Word(1)).calls(
        on,
        HostCall::SendLocalResponse,
        &local_reply(500, "", &[("content-type", "application/json")]),
    );
    let (vm, stream) = one_stream(&guest);
    stream.request_headers(NO_HEADERS, true).unwrap();
    assert_eq!(stream.response_headers(&[(":status", "200")], false), Ok(Action::Pause));
    assert_eq!(stream.response_body("upstream's", true), Ok(Action::Withheld));
    assert_eq!(stream.client_headers(), HeaderMap::new(&[(":status", "500"), ("content-type", "application/json")]));
    assert_eq!((stream.client_body(), stream.state().response.ended), (vec![], true));
    assert_eq!(Guest::events(&vm).last().unwrap().0, on);
}

#[test]
fn a_local_reply_after_the_head_of_another_just_ends_the_stream() {
    let on = "proxy_on_response_body";
    let guest = Guest::new().calls(on, HostCall::SendLocalResponse, &local_reply(429, "late", &[]));
    let (_, stream) = one_stream(&guest);
    stream.request_headers(NO_HEADERS, true).unwrap();
    stream.response_headers(&[(":status", "200")], false).unwrap();
    stream.response_body("x", false).unwrap();
    assert!(stream.state().reset);
    assert_eq!(stream.client_headers().text(":status").as_deref(), Some("200"));
    assert_eq!(stream.response_body("x", true), Ok(Action::Withheld));
}

#[test]
fn the_effective_context_lasts_until_the_callback_returns() {
    let set = [bytes("k"), bytes("v")];
    let guest = Guest::new()
        .calls("proxy_on_configure", HostCall::SetTickPeriod, &[Arg::I32(1)])
        .calls("proxy_on_tick", HostCall::SetEffectiveContext, &[Arg::I32(2)])
        .calls("proxy_on_tick", HostCall::SetProperty, &set)
        .calls("proxy_on_tick", HostCall::SetEffectiveContext, &[Arg::I32(0)])
        .calls("proxy_on_tick", HostCall::SetProperty, &set)
        .calls("proxy_on_tick", HostCall::SetEffectiveContext, &[Arg::I32(2)])
        .calls("proxy_on_done", HostCall::SetProperty, &set);
    let (vm, stream) = one_stream(&guest);
    stream.request_headers(NO_HEADERS, false).unwrap();
    vm.tick().unwrap();
    vm.retire(1).unwrap();
    assert_eq!(guest.statuses(&vm), [0, 0, 0, 0, 1, 0, 1]);
    assert_eq!(stream.filter_state("k").as_deref(), Some("v"));
}

#[test]
fn a_local_reply_outside_a_stream_does_nothing() {
    let guest = Guest::new().calls("proxy_on_configure", HostCall::SendLocalResponse, &local_reply(429, "", &[]));
    let vm = started(&Process::new(), &guest);
    assert_eq!(guest.statuses(&vm), [0]);
}

#[test]
fn a_closed_stream_sees_only_its_end() {
    let guest = Guest::new()
        .calls(HEADERS, HostCall::CloseStream, &[Arg::I32(1)])
        .calls(HEADERS, HostCall::CloseStream, &[Arg::I32(4)])
        .calls(HEADERS, HostCall::ContinueStream, &[Arg::I32(2)])
        .calls(HEADERS, HostCall::ContinueStream, &[Arg::I32(4)]);
    let (vm, stream) = one_stream(&guest);
    stream.request_headers(NO_HEADERS, false).unwrap();
    assert_eq!(guest.statuses(&vm), [0, 2, 0, 2]);
    assert_eq!(stream.request_body("x", true), Ok(Action::Withheld));
    stream.finish().unwrap();
    assert_eq!(Guest::events(&vm).last().unwrap().0, "proxy_on_delete");
}

#[test]
fn properties_are_declared_once_and_other_foreign_functions_are_missing() {
    let declare = |name: &str| {
        let mut message = vec![0x18, 3, 0x0a, u8::try_from(name.len()).unwrap()];
        message.extend(name.as_bytes());
        [bytes("declare_property"), Arg::Bytes(message), Arg::Out(0), Arg::Out(1)]
    };
    let call = |name: &str| [bytes(name), bytes(""), Arg::I32(0), Arg::I32(0)];
    let on = "proxy_on_configure";
    let guest = Guest::new()
        .calls(on, HostCall::CallForeignFunction, &declare("cost"))
        .calls(on, HostCall::CallForeignFunction, &declare("cost"))
        .calls(on, HostCall::CallForeignFunction, &declare("other"))
        .calls(on, HostCall::CallForeignFunction, &call("clear_route_cache"))
        .calls(on, HostCall::CallForeignFunction, &call("set_dynamic_metadata"));
    let vm = started(&Process::new(), &guest);
    assert_eq!(guest.statuses(&vm), [0, 2, 0, 0, 1]);
}

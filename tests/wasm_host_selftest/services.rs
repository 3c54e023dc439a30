//! Properties, shared data, queues and metrics.

use super::guest::{Arg, Guest, bytes, out, out_bytes, out_u64};
use super::{one_stream, started};
use crate::support::wasm_host::{CasRule, HostCall, NO_HEADERS, Process, SharedStore, Stats};

const TICK: &str = "proxy_on_tick";

/// A guest that ticks; its calls are made in the tick.
fn ticking() -> Guest {
    Guest::new().calls("proxy_on_configure", HostCall::SetTickPeriod, &[Arg::I32(1)])
}

fn get(key: &str, slot: usize) -> [Arg; 4] {
    [bytes(key), Arg::Out(slot), Arg::Out(slot + 1), Arg::Out(slot + 2)]
}

#[test]
fn shared_data_is_compared_and_swapped_as_envoy_does() {
    let set = |value: &str, cas| [bytes("k"), bytes(value), cas];
    let guest = ticking()
        .calls(TICK, HostCall::GetSharedData, &get("k", 0))
        .calls(TICK, HostCall::SetSharedData, &set("1", Arg::I32(u32::MAX)))
        .calls(TICK, HostCall::SetSharedData, &set("2", Arg::I32(u32::MAX)))
        .calls(TICK, HostCall::GetSharedData, &get("k", 0))
        .calls(TICK, HostCall::SetSharedData, &set("33", Arg::FromOut(2)))
        .calls(TICK, HostCall::SetSharedData, &set("44", Arg::FromOut(2)))
        .calls(TICK, HostCall::SetSharedData, &set("55", Arg::I32(0)))
        .calls(TICK, HostCall::GetSharedData, &get("k", 3));
    let vm = started(&Process::new(), &guest);
    vm.tick().unwrap();
    assert_eq!(guest.statuses(&vm)[1..], [1, 0, 8, 0, 0, 8, 0, 0]);
    assert_eq!(out_bytes(&vm, 0, 1), b"1");
    assert_eq!(out_bytes(&vm, 3, 4), b"55");
    assert_eq!((out(&vm, 2), out(&vm, 5)), (1, 3), "one counter numbers all changes");
}

#[test]
fn two_vms_see_one_store_and_one_clock() {
    let process = Process::new();
    let writer = ticking().calls(TICK, HostCall::SetSharedData, &[bytes("k"), bytes("v"), Arg::I32(0)]);
    let reader = ticking().calls(TICK, HostCall::GetSharedData, &get("k", 0));
    let (writer, reader_vm) = (started(&process, &writer), started(&process, &reader));
    reader_vm.tick().unwrap();
    assert_eq!(reader.statuses(&reader_vm)[1], 1);
    writer.tick().unwrap();
    reader_vm.tick().unwrap();
    assert_eq!(out_bytes(&reader_vm, 0, 1), b"v");
}

#[test]
fn an_emptied_key_stays_in_envoy_and_goes_in_nginx() {
    let mut envoy = SharedStore::default();
    let mut nginx = SharedStore::with_rule(CasRule::Nginx);
    for store in [&mut envoy, &mut nginx] {
        store.set(b"k", Some(b"v"), 0).unwrap();
        let (_, cas) = store.get(b"k").unwrap();
        store.set(b"k", None, cas).unwrap();
    }
    assert_eq!(envoy.get(b"k"), Ok((vec![], 2)));
    assert_eq!(nginx.get(b"k"), Err(1));
}

#[test]
fn nginx_wants_the_current_number_or_0_for_an_absent_key() {
    let mut store = SharedStore::with_rule(CasRule::Nginx);
    assert_eq!(store.set(b"k", Some(b"1"), u32::MAX), Err(8));
    assert_eq!(store.set(b"k", Some(b"1"), 0), Ok(()));
    assert_eq!(store.set(b"k", Some(b"2"), 0), Err(8));
    assert_eq!(store.set(b"k", Some(b"2"), 1), Ok(()));
}

#[test]
fn a_store_can_be_full() {
    let mut store = SharedStore::default();
    store.max_keys = Some(1);
    assert_eq!(store.set(b"a", Some(b"1"), 0), Ok(()));
    assert_eq!(store.set(b"b", Some(b"1"), 0), Err(10));
    assert_eq!(store.set(b"a", Some(b"2"), 0), Ok(()));
}

#[test]
fn the_last_vm_to_register_a_queue_is_told_of_each_item() {
    let process = Process::new();
    let guest = ticking()
        .calls("proxy_on_configure", HostCall::RegisterSharedQueue, &[bytes("q"), Arg::Out(0)])
        .calls(TICK, HostCall::ResolveSharedQueue, &[bytes(""), bytes("nope"), Arg::Out(1)])
        .calls(TICK, HostCall::ResolveSharedQueue, &[bytes(""), bytes("q"), Arg::Out(1)])
        .calls(TICK, HostCall::EnqueueSharedQueue, &[Arg::FromOut(1), bytes("item")])
        .calls(TICK, HostCall::EnqueueSharedQueue, &[Arg::I32(9), bytes("item")])
        .calls("proxy_on_queue_ready", HostCall::DequeueSharedQueue, &[Arg::Param(1), Arg::Out(2), Arg::Out(3)])
        .calls("proxy_on_queue_ready", HostCall::DequeueSharedQueue, &[Arg::Param(1), Arg::Out(4), Arg::Out(5)]);
    let (first, last) = (started(&process, &guest), started(&process, &guest));
    first.tick().unwrap();
    first.deliver_queue_notices().unwrap();
    last.deliver_queue_notices().unwrap();
    assert_eq!(guest.statuses(&first)[2..], [1, 0, 0, 1, u32::MAX, u32::MAX]);
    assert_eq!(guest.statuses(&last)[6..], [0, 7]);
    assert_eq!(out_bytes(&last, 2, 3), b"item");
}

#[test]
fn metrics_keep_envoys_rules() {
    let define = |kind, name: &str, slot| [Arg::I32(kind), bytes(name), Arg::Out(slot)];
    let change = |slot, value| [Arg::FromOut(slot), Arg::I64(value)];
    let guest = ticking()
        .calls(TICK, HostCall::DefineMetric, &define(0, "c", 0))
        .calls(TICK, HostCall::DefineMetric, &define(1, "g", 1))
        .calls(TICK, HostCall::DefineMetric, &define(2, "h", 2))
        .calls(TICK, HostCall::DefineMetric, &define(0, "c", 3))
        .calls(TICK, HostCall::DefineMetric, &define(3, "x", 4))
        .calls(TICK, HostCall::IncrementMetric, &change(0, 5))
        .calls(TICK, HostCall::IncrementMetric, &change(0, 0))
        .calls(TICK, HostCall::IncrementMetric, &change(0, -1))
        .calls(TICK, HostCall::RecordMetric, &change(3, 2))
        .calls(TICK, HostCall::RecordMetric, &change(1, 9))
        .calls(TICK, HostCall::IncrementMetric, &change(1, -2))
        .calls(TICK, HostCall::IncrementMetric, &change(2, 1))
        .calls(TICK, HostCall::RecordMetric, &change(2, 77))
        .calls(TICK, HostCall::GetMetric, &[Arg::FromOut(0), Arg::Out(5)])
        .calls(TICK, HostCall::GetMetric, &[Arg::FromOut(2), Arg::Out(6)])
        .calls(TICK, HostCall::IncrementMetric, &[Arg::I32(4000), Arg::I64(1)])
        .calls(TICK, HostCall::RecordMetric, &[Arg::I32(4002), Arg::I64(1)]);
    let process = Process::new();
    let vm = started(&process, &guest);
    vm.tick().unwrap();
    assert_eq!(guest.statuses(&vm)[1..], [0, 0, 0, 0, 2, 0, 2, 2, 0, 0, 0, 2, 0, 0, 2, 1, 1]);
    assert_ne!(out(&vm, 0), out(&vm, 3), "each definition is a new id");
    assert_eq!(out_u64(&vm, 5), 7);
    assert_eq!(process.counter("c"), Some(7));
    assert_eq!(process.counter("absent"), None);
    let other = started(&process, &guest);
    other.tick().unwrap();
    let expected = Stats {
        counters: [("c".to_owned(), 14)].into(),
        gauges: [("g".to_owned(), 7)].into(),
        histograms: [("h".to_owned(), vec![77, 77])].into(),
    };
    assert_eq!(*process.stats.borrow(), expected);
}

#[test]
fn properties_come_from_the_stream_then_the_vm_then_what_was_set() {
    let get = |path: &str, slot| [bytes(path), Arg::Out(slot), Arg::Out(slot + 1)];
    let headers = "proxy_on_request_headers";
    let guest = Guest::new()
        .calls("proxy_on_configure", HostCall::SetProperty, &[bytes("k"), bytes("v")])
        .calls("proxy_on_configure", HostCall::GetProperty, &get("plugin_name", 0))
        .calls(headers, HostCall::GetProperty, &get("xds\0route_name", 2))
        .calls(headers, HostCall::GetProperty, &get("plugin_name", 4))
        .calls(headers, HostCall::GetProperty, &get("k", 6))
        .calls(headers, HostCall::SetProperty, &[bytes("k"), bytes([0xff, 0xfe])])
        .calls(headers, HostCall::GetProperty, &get("k", 6));
    let process = Process::new();
    let vm = process.start_vm(&guest.build());
    vm.set_property(&["plugin_name"], "tollgate");
    vm.configure("").unwrap();
    let stream = vm.stream();
    stream.set_property(&["xds", "route_name"], "chat");
    stream.request_headers(NO_HEADERS, true).unwrap();
    assert_eq!(guest.statuses(&vm), [1, 0, 0, 0, 1, 0, 0]);
    assert_eq!(out_bytes(&vm, 0, 1), b"tollgate");
    assert_eq!(out_bytes(&vm, 2, 3), b"chat");
    assert_eq!(out_bytes(&vm, 6, 7), [0xff, 0xfe]);
    assert_eq!(stream.state().filter_state["k"], [0xff, 0xfe]);
}

#[test]
fn properties_of_the_request_headers_go_with_them() {
    let get = [bytes("request\0path"), Arg::Out(0), Arg::Out(1)];
    let guest = Guest::new()
        .calls("proxy_on_request_headers", HostCall::GetProperty, &get)
        .calls("proxy_on_request_body", HostCall::GetProperty, &get)
        .calls("proxy_on_log", HostCall::GetProperty, &get);
    let (vm, stream) = one_stream(&guest);
    stream.set_property(&["request", "path"], "/v1");
    stream.request_headers(NO_HEADERS, false).unwrap();
    stream.request_body("x", true).unwrap();
    stream.log().unwrap();
    assert_eq!(guest.statuses(&vm), [0, 1, 0]);
}

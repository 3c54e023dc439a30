//! The life of VMs, root contexts and streams.

use super::guest::{Arg, Guest, Returns, bytes};
use super::{one_stream, started};
use crate::support::wasm_host::{Action, Clock, HostCall, LogLine, NO_HEADERS, Plugin, Process};

#[test]
fn a_vm_initialises_then_starts_then_configures() {
    let guest = Guest::new();
    let vm = Process::new().start_vm(&guest.build());
    vm.set_vm_configuration(b"vm");
    assert_eq!(vm.configure("plugin"), Ok((1, true)));
    assert_eq!(
        Guest::events(&vm),
        [
            ("_initialize", vec![]),
            ("proxy_on_context_create", vec![1, 0]),
            ("proxy_on_vm_start", vec![1, 2]),
            ("proxy_on_configure", vec![1, 6]),
        ],
    );
}

#[test]
fn a_configuration_is_readable_only_while_it_is_delivered() {
    let read = |slot| [Arg::I32(7), Arg::I32(0), Arg::I32(u32::MAX), Arg::Out(slot), Arg::Out(slot + 1)];
    let guest = Guest::new()
        .calls("proxy_on_vm_start", HostCall::GetBufferBytes, &read(0))
        .calls("proxy_on_configure", HostCall::GetBufferBytes, &read(2))
        .calls("proxy_on_request_headers", HostCall::GetBufferBytes, &read(4));
    let vm = Process::new().start_vm(&guest.build());
    vm.configure("abc").unwrap();
    vm.stream().request_headers(NO_HEADERS, true).unwrap();
    assert_eq!(guest.statuses(&vm), [1, 0, 1]);
    assert_eq!(super::guest::out_bytes(&vm, 2, 3), b"abc");
}

#[test]
fn a_refused_update_leaves_streams_on_the_old_root_and_an_accepted_one_moves_new_streams() {
    let vm = started(&Process::new(), &Guest::new());
    let before = vm.stream();
    assert_eq!(vm.configure("new"), Ok((3, true)));
    let after = vm.stream();
    assert_eq!((before.state().root, after.state().root), (1, 3));

    let refusing = Guest::new().returns("proxy_on_configure", Returns::Word(0));
    let vm = Process::new().start_vm(&refusing.build());
    assert_eq!(vm.configure("new"), Ok((1, false)));
}

#[test]
fn a_stream_is_logged_then_done_then_deleted() {
    let (vm, stream) = one_stream(&Guest::new());
    stream.request_headers(&[(":path", "/"), ("a", "b")], true).unwrap();
    stream.finish().unwrap();
    assert_eq!(
        Guest::events(&vm)[4..],
        [
            ("proxy_on_context_create", vec![2, 1]),
            ("proxy_on_request_headers", vec![2, 2, 1]),
            ("proxy_on_log", vec![2]),
            ("proxy_on_done", vec![2]),
            ("proxy_on_delete", vec![2]),
        ],
    );
    assert_eq!(stream.response_headers(NO_HEADERS, true), Ok(Action::Withheld));
}

#[test]
fn a_stream_an_earlier_filter_answered_is_only_logged() {
    let (vm, stream) = one_stream(&Guest::new());
    stream.finish().unwrap();
    let callbacks: Vec<_> = Guest::events(&vm)[4..].iter().map(|(name, _)| *name).collect();
    assert_eq!(callbacks, ["proxy_on_context_create", "proxy_on_log", "proxy_on_done", "proxy_on_delete"]);
}

#[test]
fn only_roots_with_a_period_tick_and_old_ones_go_on_until_they_are_retired() {
    let guest = Guest::new().calls("proxy_on_configure", HostCall::SetTickPeriod, &[Arg::I32(250)]).calls(
        "proxy_on_tick",
        HostCall::GetCurrentTime,
        &[Arg::Out(0)],
    );
    let process = Process::new();
    let vm = started(&process, &guest);
    vm.configure("").unwrap();
    assert_eq!((vm.tick_period_ms(1), vm.tick_period_ms(2)), (250, 250));
    process.clock.advance(std::time::Duration::from_millis(250));
    vm.tick().unwrap();
    vm.retire(1).unwrap();
    vm.tick().unwrap();
    let ticks: Vec<_> = Guest::events(&vm).into_iter().filter(|(name, _)| *name == "proxy_on_tick").collect();
    assert_eq!(ticks, [1, 2, 2].map(|root| ("proxy_on_tick", vec![root])));
    assert_eq!(super::guest::out_u64(&vm, 0), Clock::START_NS + 250_000_000);
}

#[test]
fn a_root_that_is_not_done_is_deleted_when_it_says_so() {
    let guest = Guest::new()
        .returns("proxy_on_done", Returns::Word(0))
        .calls("proxy_on_configure", HostCall::SetTickPeriod, &[Arg::I32(1)])
        .calls("proxy_on_configure", HostCall::Done, &[])
        .calls("proxy_on_tick", HostCall::Done, &[]);
    let vm = started(&Process::new(), &guest);
    vm.retire(1).unwrap();
    assert_eq!(Guest::events(&vm).last().unwrap().0, "proxy_on_done");
    vm.tick().unwrap();
    assert_eq!(guest.statuses(&vm), [0, 1, 0]);
    assert_eq!(Guest::events(&vm).last().unwrap(), &("proxy_on_delete", vec![1]));
}

#[test]
fn log_lines_are_kept_and_the_level_is_told() {
    let guest = Guest::new()
        .calls("proxy_on_configure", HostCall::Log, &[Arg::I32(3), bytes("careful")])
        .calls("proxy_on_configure", HostCall::Log, &[Arg::I32(6), bytes("no such level")])
        .calls("proxy_on_configure", HostCall::GetLogLevel, &[Arg::Out(0)]);
    let vm = Process::new().start_vm(&guest.build());
    vm.set_log_level(4);
    vm.configure("").unwrap();
    assert_eq!(vm.logs(), [LogLine { level: 3, text: "careful".to_owned() }]);
    assert_eq!((guest.statuses(&vm), super::guest::out(&vm, 0)), (vec![0, 2, 0], 4));
}

#[test]
fn fuel_is_the_same_for_the_same_exchange_on_any_vm() {
    let read = [Arg::I32(1), Arg::I32(0), Arg::I32(u32::MAX), Arg::Out(0), Arg::Out(1)];
    let program = Guest::new().calls("proxy_on_response_body", HostCall::GetBufferBytes, &read).build();
    let exchange = || {
        let vm = Process::new().start_vm(&program);
        vm.configure(Plugin::default()).unwrap();
        let stream = vm.stream();
        let ((), fuel) = vm.fuel_used(|| {
            stream.request_headers(&[(":path", "/")], true).unwrap();
            stream.response_headers(&[(":status", "200")], false).unwrap();
            stream.response_body("hello", true).unwrap();
            stream.finish().unwrap();
        });
        assert_eq!(vm.fuel_used(|| ()).1, 0);
        fuel
    };
    let fuel = exchange();
    assert!(fuel > 100, "{fuel}");
    assert_eq!(fuel, exchange());
}

#[test]
fn the_memory_of_the_guest_is_measured() {
    let vm = started(&Process::new(), &Guest::new());
    assert_eq!(vm.memory_bytes(), 8 * 65_536);
}

//! Planted faults, traps, and what is left of a VM after one.

use super::guest::{Arg, Guest, Returns, bytes};
use super::{one_stream, started};
use crate::support::wasm_host::{Action, Dead, Effect, Fault, HostCall, NO_HEADERS, Process, When};

/// Arguments of the right types for a host call, whatever they mean.
fn any_args(call: HostCall) -> Vec<Arg> {
    call.signature().chars().map(|c| if c == 'I' { Arg::I64(0) } else { Arg::I32(0) }).collect()
}

#[test]
fn every_host_call_is_offered_counted_and_can_be_told_to_fail() {
    for call in HostCall::ALL.iter().copied() {
        let guest = Guest::new().calls("proxy_on_tick", call, &any_args(call)).calls(
            "proxy_on_configure",
            HostCall::SetTickPeriod,
            &[Arg::I32(1)],
        );
        let vm = started(&Process::new(), &guest);
        let before = vm.made(call);
        vm.fail(call, Fault::always(10));
        vm.tick().unwrap();
        assert_eq!(guest.statuses(&vm)[0], 10, "{call:?}");
        assert_eq!(vm.made(call), before + 1, "{call:?}");

        vm.fail(call, Fault { effect: Effect::Trap, when: When::Always });
        let dead = vm.tick().unwrap_err();
        assert_eq!(dead.callback, "proxy_on_tick");
        assert!(dead.reason.contains(call.import_name()), "{dead}");
    }
}

#[test]
fn no_host_call_with_senseless_arguments_breaks_the_host() {
    for call in HostCall::ALL.iter().copied() {
        for word in [0, 1, 7, 9, 0x7fff_fff0, u32::MAX] {
            let args: Vec<_> = any_args(call)
                .into_iter()
                .map(|arg| if matches!(arg, Arg::I64(_)) { Arg::I64(i64::MIN) } else { Arg::I32(word) })
                .collect();
            let mut guest = Guest::new();
            for callback in ["proxy_on_request_headers", "proxy_on_request_body", "proxy_on_log", "proxy_on_done"] {
                guest = guest.calls(callback, call, &args);
            }
            let (vm, stream) = one_stream(&guest);
            // Some of these kill the VM in Envoy, and so here; none may panic.
            let ends = [
                stream.request_headers(NO_HEADERS, false).map(|_| ()),
                stream.request_body("x", true).map(|_| ()),
                stream.finish(),
            ];
            assert_eq!(ends.iter().any(Result::is_err), vm.death().is_some(), "{call:?} {word}");
        }
    }
}

#[test]
fn a_fault_strikes_the_calls_it_names() {
    let time = [Arg::Out(0)];
    let guest =
        (0..4).fold(Guest::new(), |guest, _| guest.calls("proxy_on_request_headers", HostCall::GetCurrentTime, &time));
    let outcomes = |fault: Option<Fault>| {
        let (vm, stream) = one_stream(&guest);
        vm.fail(HostCall::GetCurrentTime, Fault::always(12));
        match fault {
            Some(fault) => vm.fail(HostCall::GetCurrentTime, fault),
            None => vm.heal(HostCall::GetCurrentTime),
        }
        stream.request_headers(NO_HEADERS, true).unwrap();
        guest.statuses(&vm)
    };
    assert_eq!(outcomes(None), [0, 0, 0, 0]);
    assert_eq!(outcomes(Some(Fault::always(2))), [2, 2, 2, 2]);
    assert_eq!(outcomes(Some(Fault::first(2, 8))), [8, 8, 0, 0]);
    assert_eq!(outcomes(Some(Fault::nth(3, 1))), [0, 0, 1, 0]);
}

#[test]
fn after_a_trap_the_vm_answers_nothing_and_filter_state_stays() {
    let guest = Guest::new()
        .calls("proxy_on_request_headers", HostCall::SetProperty, &[bytes("tollgate.record"), bytes("provisional")])
        .calls("proxy_on_response_headers", HostCall::GetCurrentTime, &[Arg::Out(0)]);
    let (vm, stream) = one_stream(&guest);
    vm.fail(HostCall::GetCurrentTime, Fault::trap_at(1));
    assert_eq!(stream.request_headers(NO_HEADERS, true), Ok(Action::Continue));
    let dead = stream.response_headers(NO_HEADERS, true).unwrap_err();
    assert_eq!(
        dead.to_string(),
        "the VM trapped in proxy_on_response_headers: proxy_get_current_time_nanoseconds was told to trap"
    );
    assert_eq!(stream.response_body("x", true), Err(dead.clone()));
    assert_eq!(stream.finish(), Err(dead.clone()));
    assert_eq!(vm.tick(), Ok(()), "no root of this guest ticks");
    assert_eq!(vm.configure(""), Err(dead.clone()));
    assert_eq!(vm.death(), Some(dead));
    assert_eq!(stream.filter_state("tollgate.record").as_deref(), Some("provisional"));
}

#[test]
fn the_guests_own_traps_kill_it_too() {
    let reason = |returns| {
        let (vm, stream) = one_stream(&Guest::new().returns("proxy_on_request_headers", returns));
        vm.limit_fuel(100_000);
        let Dead { callback, reason } = stream.request_headers(NO_HEADERS, true).unwrap_err();
        assert_eq!(callback, "proxy_on_request_headers");
        reason
    };
    assert!(reason(Returns::Trap).contains("unreachable"));
    assert!(reason(Returns::LoopForever).contains("fuel"));
    assert!(reason(Returns::Unheard).contains("env.proxy_unheard_of"));
}

#[test]
fn the_last_words_of_a_panic_are_part_of_the_reason() {
    let guest = Guest::new()
        .calls("proxy_on_request_headers", HostCall::Log, &[Arg::I32(5), bytes("panicked at here")])
        .returns("proxy_on_request_headers", Returns::Trap);
    let dead = one_stream(&guest).1.request_headers(NO_HEADERS, true).unwrap_err();
    assert!(dead.reason.ends_with(": panicked at here"), "{dead}");
}

#[test]
fn a_vm_that_traps_when_it_initialises_is_dead() {
    let vm = Process::new().start_vm(&Guest::new().returns("_initialize", Returns::Trap).build());
    assert_eq!(vm.configure("").unwrap_err().callback, "_initialize");
}

#[test]
fn other_vms_live_on_and_the_store_survives() {
    let process = Process::new();
    let guest = Guest::new()
        .calls("proxy_on_request_headers", HostCall::SetSharedData, &[bytes("k"), bytes("v"), Arg::I32(0)])
        .returns("proxy_on_request_body", Returns::Trap);
    let (first, second) = (started(&process, &guest), started(&process, &guest));
    let stream = first.stream();
    stream.request_headers(NO_HEADERS, false).unwrap();
    stream.request_body("", true).unwrap_err();
    assert_eq!(second.stream().request_headers(NO_HEADERS, true), Ok(Action::Continue));
    assert_eq!(process.shared.borrow().text("k").as_deref(), Some("v"));
}

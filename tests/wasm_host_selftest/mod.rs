//! The tests of the wasm host itself: what it claims of Envoy, shown with guests written for it.
//!
//! The host judges every other test of the compiled filter, so each of its rules is shown here once.

mod calls;
mod faults;
mod guest;
mod lifecycle;
mod maps_and_bodies;
mod services;

use crate::support::wasm_host::{HttpStream, Process, Vm};
use guest::Guest;

/// A VM that runs `guest`, configured with no configuration.
fn started(process: &Process, guest: &Guest) -> Vm {
    let vm = process.start_vm(&guest.build());
    assert_eq!(vm.configure(""), Ok((1, true)));
    vm
}

/// A VM in a process of its own, and a stream in it.
fn one_stream(guest: &Guest) -> (Vm, HttpStream) {
    let vm = started(&Process::new(), guest);
    let stream = vm.stream();
    (vm, stream)
}

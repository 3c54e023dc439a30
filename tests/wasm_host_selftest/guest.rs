//! Guests for the host's own tests: straight-line modules written as text, one for each test.
//!
//! A guest makes given host calls in given callbacks and notes each status; it also notes every callback with its
//! arguments, so that a test sees exactly what the host told it.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::support::wasm_host::{HostCall, Program, Vm};

/// Callbacks with their number of parameters and whether they return something.
const CALLBACKS: [(&str, usize, bool); 16] = [
    ("proxy_on_context_create", 2, false),
    ("proxy_on_vm_start", 2, true),
    ("proxy_on_configure", 2, true),
    ("proxy_on_tick", 1, false),
    ("proxy_on_queue_ready", 2, false),
    ("proxy_on_request_headers", 3, true),
    ("proxy_on_request_body", 3, true),
    ("proxy_on_request_trailers", 2, true),
    ("proxy_on_response_headers", 3, true),
    ("proxy_on_response_body", 3, true),
    ("proxy_on_response_trailers", 2, true),
    ("proxy_on_http_call_response", 5, false),
    ("proxy_on_log", 1, false),
    ("proxy_on_done", 1, true),
    ("proxy_on_delete", 1, false),
    ("_initialize", 0, false),
];

/// Where the guest notes statuses, out parameters and callbacks, and keeps its constants and heap.
const CURSOR: usize = 0x800;
const STATUSES: usize = 0x1000;
const OUTS: usize = 0x2000;
const EVENTS: usize = 0x3000;
const CONSTANTS: usize = 0x8000;
const HEAP: usize = 0x20000;

/// An argument of a host call.
#[derive(Clone, Debug)]
pub enum Arg {
    I32(u32),
    I64(i64),
    /// Two arguments: a pointer and a length.
    Bytes(Vec<u8>),
    /// A pointer to 8 bytes, read afterwards with [`Guest::out`]; they start as all ones.
    Out(usize),
    /// The word in an out slot.
    FromOut(usize),
    /// The callback's parameter of that number.
    Param(usize),
}

/// What a callback returns: the action, or the answer.
#[derive(Clone, Copy, Debug)]
pub enum Returns {
    Word(u32),
    /// Pause until the end of the stream, then Continue.
    PauseUntilEnd,
    /// Runs into an `unreachable`, as a panic does.
    Trap,
    /// Never returns.
    LoopForever,
    /// Calls a function that no host offers.
    Unheard,
}

/// A guest in the making.
#[derive(Clone, Debug, Default)]
pub struct Guest {
    code: BTreeMap<&'static str, String>,
    returns: BTreeMap<&'static str, Returns>,
    constants: Vec<u8>,
    calls: usize,
}

/// A string or bytes as an argument.
pub fn bytes(value: impl AsRef<[u8]>) -> Arg {
    Arg::Bytes(value.as_ref().to_vec())
}

impl Guest {
    pub fn new() -> Self {
        Self::default()
    }

    /// In `callback`, makes a host call. The order of these is the number of the status in [`Self::statuses`].
    pub fn calls(mut self, callback: &str, call: HostCall, args: &[Arg]) -> Self {
        let mut text = format!("(i32.store (i32.const {}) (call ${}", STATUSES + self.calls * 4, call.import_name());
        for arg in args {
            match arg {
                Arg::I32(value) => write!(text, " (i32.const {value})").unwrap(),
                Arg::I64(value) => write!(text, " (i64.const {value})").unwrap(),
                Arg::Out(slot) => write!(text, " (i32.const {})", OUTS + slot * 8).unwrap(),
                Arg::FromOut(slot) => write!(text, " (i32.load (i32.const {}))", OUTS + slot * 8).unwrap(),
                Arg::Param(index) => write!(text, " (local.get {index})").unwrap(),
                Arg::Bytes(value) => {
                    let at = CONSTANTS + self.constants.len();
                    self.constants.extend(value);
                    write!(text, " (i32.const {at}) (i32.const {})", value.len()).unwrap();
                }
            }
        }
        text.push_str("))\n");
        self.calls += 1;
        self.code.entry(name(callback)).or_default().push_str(&text);
        self
    }

    /// What `callback` returns; without this 0 from HTTP callbacks, 1 from the others.
    pub fn returns(mut self, callback: &str, returns: Returns) -> Self {
        self.returns.insert(name(callback), returns);
        self
    }

    pub fn build(&self) -> Program {
        let mut text = String::from("(module\n");
        for call in HostCall::ALL {
            let import = call.import_name();
            let params: Vec<_> = call.signature().chars().map(|c| if c == 'I' { "i64" } else { "i32" }).collect();
            writeln!(text, "(import \"env\" \"{import}\" (func ${import} (param {}) (result i32)))", params.join(" "))
                .unwrap();
        }
        text.push_str(&format!(
            "(import \"env\" \"proxy_unheard_of\" (func $unheard_of (result i32)))
            (memory (export \"memory\") 8)
            (global $heap (mut i32) (i32.const {HEAP}))
            (func (export \"proxy_abi_version_0_2_1\"))
            (func (export \"malloc\") (param $size i32) (result i32)
              (global.get $heap)
              (global.set $heap (i32.add (global.get $heap) (local.get $size))))
            (func $note (param $value i32)
              (i32.store (i32.load (i32.const {CURSOR})) (local.get $value))
              (i32.store (i32.const {CURSOR}) (i32.add (i32.load (i32.const {CURSOR})) (i32.const 4))))
            (data (i32.const {CURSOR}) \"{}\")\n",
            escaped(&u32::try_from(EVENTS).unwrap().to_le_bytes()),
        ));
        for (index, (callback, params, result)) in CALLBACKS.iter().enumerate() {
            writeln!(
                text,
                "(func (export \"{callback}\") (param {}) {}",
                "i32 ".repeat(*params),
                if *result { "(result i32)" } else { "" },
            )
            .unwrap();
            writeln!(text, "(call $note (i32.const {index}))").unwrap();
            for param in 0..*params {
                writeln!(text, "(call $note (local.get {param}))").unwrap();
            }
            text.push_str(self.code.get(callback).map_or("", String::as_str));
            let http = callback.contains("_request_") || callback.contains("_response_");
            let end = match self.returns.get(callback).copied().unwrap_or(Returns::Word(u32::from(!http))) {
                Returns::Word(word) if *result => format!("(i32.const {word})"),
                Returns::Word(_) => String::new(),
                Returns::PauseUntilEnd => "(i32.eqz (local.get 2))".to_owned(),
                Returns::Trap => "(unreachable)".to_owned(),
                Returns::Unheard => "(drop (call $unheard_of)) (unreachable)".to_owned(),
                Returns::LoopForever => "(loop $l (br $l)) (unreachable)".to_owned(),
            };
            writeln!(text, "{end})").unwrap();
        }
        let outs = escaped(&[0xff; 512]);
        writeln!(text, "(data (i32.const {OUTS}) \"{outs}\")").unwrap();
        writeln!(text, "(data (i32.const {STATUSES}) \"{outs}\")").unwrap();
        writeln!(text, "(data (i32.const {CONSTANTS}) \"{}\"))", escaped(&self.constants)).unwrap();
        Program::from_bytes(text.as_bytes())
    }

    /// The statuses of the host calls, in the order of the script; all ones where one was not made.
    pub fn statuses(&self, vm: &Vm) -> Vec<u32> {
        (0..self.calls).map(|call| word(vm, STATUSES + call * 4)).collect()
    }

    /// The callbacks made, each with its arguments.
    pub fn events(vm: &Vm) -> Vec<(&'static str, Vec<u32>)> {
        let (mut at, end) = (EVENTS, word(vm, CURSOR) as usize);
        let mut events = Vec::new();
        while at < end {
            let (name, params, _) = CALLBACKS[word(vm, at) as usize];
            events.push((name, (1..=params).map(|param| word(vm, at + param * 4)).collect()));
            at += (params + 1) * 4;
        }
        events
    }
}

/// The word in an out slot.
pub fn out(vm: &Vm, slot: usize) -> u32 {
    word(vm, OUTS + slot * 8)
}

/// The two words in an out slot as one number.
pub fn out_u64(vm: &Vm, slot: usize) -> u64 {
    u64::from_le_bytes(vm.memory()[OUTS + slot * 8..][..8].try_into().unwrap())
}

/// The bytes a pointer slot and a length slot name.
pub fn out_bytes(vm: &Vm, pointer: usize, length: usize) -> Vec<u8> {
    let (at, len) = (out(vm, pointer) as usize, out(vm, length) as usize);
    vm.memory()[at..at + len].to_vec()
}

/// Bytes as a string of the text format.
fn escaped(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\{byte:02x}")).collect()
}

fn word(vm: &Vm, at: usize) -> u32 {
    u32::from_le_bytes(vm.memory()[at..at + 4].try_into().unwrap())
}

fn name(callback: &str) -> &'static str {
    CALLBACKS.iter().map(|(name, ..)| *name).find(|name| *name == callback).expect("a callback the guest has")
}

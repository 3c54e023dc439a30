//! One instance of a module: its start, its root contexts, its calls.

use std::cell::{Ref, RefCell};
use std::fmt;
use std::rc::Rc;

use wasmi::{Extern, Instance, Linker, Store, Val};

use super::guest::GuestExports;
use super::headers::HeaderMap;
use super::hostcall::{Fault, HostCall};
use super::imports;
use super::process::Process;
use super::program::Program;
use super::state::{Answer, CallState, HostState, HttpCall, LogLine, Root, StreamState, status};
use super::stream::HttpStream;

/// Fuel for one callback: far more than any needs, so that an endless loop ends as a trap.
const CALLBACK_FUEL: u64 = 20_000_000_000;

/// What the guest returned from a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Continue,
    Pause,
    /// Envoy would not make the callback now: the stream is held, cut, or answered by a local reply.
    Withheld,
}

/// The VM has trapped, now or earlier; Envoy would not call it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dead {
    /// The callback that trapped.
    pub callback: &'static str,
    pub reason: String,
}

impl fmt::Display for Dead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the VM trapped in {}: {}", self.callback, self.reason)
    }
}

/// What Envoy's configuration says of a plugin.
#[derive(Clone, Debug, Default)]
pub struct Plugin {
    /// As the guest reads it in `proxy_on_configure`.
    pub configuration: Vec<u8>,
    /// Lets body callbacks come while the headers are held; Envoy's default is no.
    pub allow_on_headers_stop_iteration: bool,
}

impl<T: AsRef<[u8]>> From<T> for Plugin {
    fn from(configuration: T) -> Self {
        Self { configuration: configuration.as_ref().to_vec(), allow_on_headers_stop_iteration: false }
    }
}

/// A handle on an instance of a module.
#[derive(Clone)]
pub struct Vm(pub(super) Rc<RefCell<VmInner>>);

pub struct VmInner {
    pub store: Store<HostState>,
    instance: Instance,
    pub dead: Option<Dead>,
    callback_fuel: u64,
    fuel_spent: u64,
}

impl Vm {
    pub(super) fn start(process: Process, program: &Program, ordinal: u32) -> Self {
        let mut store = Store::new(&program.engine, HostState::new(process, ordinal));
        store.set_fuel(CALLBACK_FUEL).expect("fuel is metered");
        let mut linker = Linker::new(&program.engine);
        imports::link(&mut linker, &program.module);
        let instance = linker
            .instantiate_and_start(&mut store, &program.module)
            .unwrap_or_else(|error| panic!("the module does not start: {error}"));
        assert!(
            instance.get_export(&store, "proxy_abi_version_0_2_1").is_some(),
            "the module does not export proxy_abi_version_0_2_1",
        );
        let memory = instance.get_memory(&store, "memory").expect("the module exports its memory");
        let allocate = ["proxy_on_memory_allocate", "malloc"]
            .iter()
            .find_map(|name| instance.get_typed_func(&store, name).ok())
            .expect("the module exports proxy_on_memory_allocate or malloc");
        store.data_mut().guest = Some(GuestExports { memory, allocate });
        let mut inner = VmInner { store, instance, dead: None, callback_fuel: CALLBACK_FUEL, fuel_spent: 0 };
        let start = if inner.exports("_initialize") { "_initialize" } else { "_start" };
        // A VM that traps here is dead and says so in whatever is asked of it next.
        let _ = inner.call(0, start, &[]);
        Self(Rc::new(RefCell::new(inner)))
    }

    /// Creates a root context and configures it. Streams use the last one that accepted its configuration: a second
    /// call is a configuration update. The first number is the root's id.
    pub fn configure(&self, plugin: impl Into<Plugin>) -> Result<(u32, bool), Dead> {
        let plugin = plugin.into();
        let mut vm = self.0.borrow_mut();
        let state = vm.store.data_mut();
        let id = state.allocate_context();
        let (vm_size, plugin_size) = (state.vm_configuration.len(), plugin.configuration.len());
        state.roots.insert(
            id,
            Root {
                configuration: plugin.configuration,
                allow_on_headers_stop_iteration: plugin.allow_on_headers_stop_iteration,
                ..Root::default()
            },
        );
        vm.callback(id, "proxy_on_context_create", &[id, 0])?;
        if vm.callback(id, "proxy_on_vm_start", &[id, word(vm_size)])? == Some(0) {
            return Ok((id, false));
        }
        vm.store.data_mut().configuring = Some(id);
        let answer = vm.callback(id, "proxy_on_configure", &[id, word(plugin_size)]);
        vm.store.data_mut().configuring = None;
        let accepted = answer? != Some(0);
        if let Some(root) = vm.store.data_mut().roots.get_mut(&id) {
            root.accepted = accepted;
        }
        Ok((id, accepted))
    }

    /// Ends a root context: at the end of its drain time after an update, or when the process stops.
    pub fn retire(&self, root: u32) -> Result<(), Dead> {
        self.0.borrow_mut().retire(root)
    }

    /// A new exchange, on the last root context that accepted its configuration.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn stream(&self) -> HttpStream {
        let mut vm = self.0.borrow_mut();
        let state = vm.store.data_mut();
        let root = state.roots.iter().rev().find(|(_, root)| root.accepted).map(|(id, _)| *id);
        let root = root.expect("no root context has accepted a configuration");
        let id = state.allocate_context();
        state.streams.insert(id, StreamState { root, ..StreamState::default() });
        HttpStream { vm: self.clone(), id }
    }

    /// Lets the timers of all root contexts that asked for one fire once.
    pub fn tick(&self) -> Result<(), Dead> {
        let mut vm = self.0.borrow_mut();
        let ticking = vm.store.data().roots.iter().filter(|(_, root)| root.tick_period_ms > 0);
        for id in ticking.map(|(id, _)| *id).collect::<Vec<_>>() {
            vm.callback(id, "proxy_on_tick", &[id])?;
        }
        Ok(())
    }

    /// The tick period of a root context in milliseconds; 0 is none.
    pub fn tick_period_ms(&self, root: u32) -> u32 {
        self.0.borrow().store.data().roots.get(&root).map_or(0, |root| root.tick_period_ms)
    }

    /// Delivers the notices of filled queues to this VM.
    pub fn deliver_queue_notices(&self) -> Result<(), Dead> {
        let mut vm = self.0.borrow_mut();
        loop {
            let state = vm.store.data();
            let next = state.process.shared.borrow_mut().next_ready(state.vm);
            let Some((root, token)) = next else { return Ok(()) };
            vm.callback(root, "proxy_on_queue_ready", &[root, token])?;
        }
    }

    /// Every HTTP call the guest has dispatched, in order.
    pub fn calls(&self) -> Vec<HttpCall> {
        self.0.borrow().store.data().calls.clone()
    }

    /// Those that still wait for an answer.
    pub fn open_calls(&self) -> Vec<HttpCall> {
        self.calls().into_iter().filter(|call| call.state == CallState::Open).collect()
    }

    /// Answers a call. A timeout is a 504 with the body `upstream request timeout`, a refused connection a 503.
    ///
    /// # Panics
    ///
    /// When the call is not open.
    pub fn answer_call<V: AsRef<[u8]>>(
        &self,
        token: u32,
        status: u16,
        headers: &[(&str, V)],
        body: &[u8],
    ) -> Result<(), Dead> {
        let mut map = HeaderMap::new(&[(":status", status.to_string())]);
        map.0.extend(HeaderMap::new(headers).0);
        self.0.borrow_mut().answer_call(token, Some((map, body.to_vec())))
    }

    /// Ends a call without an answer, as an overlong one does: no headers, no body.
    ///
    /// # Panics
    ///
    /// When the call is not open.
    pub fn fail_call(&self, token: u32) -> Result<(), Dead> {
        self.0.borrow_mut().answer_call(token, None)
    }

    /// Plants a fault in a host call, in place of an earlier one.
    pub fn fail(&self, call: HostCall, fault: Fault) {
        self.0.borrow_mut().store.data_mut().faults.plant(call, fault);
    }

    /// Removes the fault of a host call.
    pub fn heal(&self, call: HostCall) {
        self.0.borrow_mut().store.data_mut().faults.remove(call);
    }

    /// How often the guest made a host call.
    pub fn made(&self, call: HostCall) -> u64 {
        self.0.borrow().store.data().faults.made(call)
    }

    /// What the guest logged.
    pub fn logs(&self) -> Vec<LogLine> {
        self.0.borrow().store.data().logs.clone()
    }

    /// Sets what `proxy_get_log_level` answers; at first it is 2, info.
    pub fn set_log_level(&self, level: u32) {
        self.0.borrow_mut().store.data_mut().log_level = level;
    }

    /// Sets what the guest reads as the VM configuration from the next root context on.
    pub fn set_vm_configuration(&self, configuration: &[u8]) {
        self.0.borrow_mut().store.data_mut().vm_configuration = configuration.to_vec();
    }

    /// Sets a property that root contexts and streams see.
    pub fn set_property(&self, path: &[&str], value: impl AsRef<[u8]>) {
        let path = path.join("\0").into_bytes();
        self.0.borrow_mut().store.data_mut().properties.insert(path, value.as_ref().to_vec());
    }

    /// Runs `work` and says how much fuel this VM used in it.
    pub fn fuel_used<R>(&self, work: impl FnOnce() -> R) -> (R, u64) {
        let before = self.0.borrow().fuel_spent;
        let result = work();
        (result, self.0.borrow().fuel_spent - before)
    }

    /// Limits each callback from now on; one that needs more traps.
    pub fn limit_fuel(&self, per_callback: u64) {
        self.0.borrow_mut().callback_fuel = per_callback;
    }

    /// The size of the guest's memory in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.memory().len()
    }

    /// The guest's memory.
    pub fn memory(&self) -> Ref<'_, [u8]> {
        Ref::map(self.0.borrow(), |vm| vm.store.data().guest.expect("the guest is instantiated").memory.data(&vm.store))
    }

    /// Why the VM is dead, if it is.
    pub fn death(&self) -> Option<Dead> {
        self.0.borrow().dead.clone()
    }
}

impl VmInner {
    /// Calls an export, if the module has it, and then does what had to wait for its return.
    pub fn callback(&mut self, context: u32, name: &'static str, args: &[u32]) -> Result<Option<u32>, Dead> {
        let result = self.call(context, name, args)?;
        self.store.data_mut().stop_iteration = false;
        self.run_deferred()?;
        Ok(result)
    }

    /// Calls an export, if the module has it: its result, or 0 if it has none.
    pub fn call(&mut self, context: u32, name: &'static str, args: &[u32]) -> Result<Option<u32>, Dead> {
        if let Some(dead) = &self.dead {
            return Err(dead.clone());
        }
        let Some(Extern::Func(function)) = self.instance.get_export(&self.store, name) else {
            return Ok(None);
        };
        let state = self.store.data_mut();
        (state.current, state.effective) = (context, 0);
        let args: Vec<Val> = args.iter().map(|arg| Val::I32(arg.cast_signed())).collect();
        let mut results = vec![Val::I32(0); function.ty(&self.store).results().len()];
        self.store.set_fuel(self.callback_fuel).expect("fuel is metered");
        let outcome = function.call(&mut self.store, &args, &mut results);
        self.fuel_spent += self.callback_fuel - self.store.get_fuel().expect("fuel is metered");
        if let Err(error) = outcome {
            let state = self.store.data_mut();
            state.deferred.clear();
            // A guest's panic handler logs what the trap itself doesn't say.
            let last_words = state.logs.last().filter(|line| line.level == 5).map(|line| format!(": {}", line.text));
            let dead = Dead { callback: name, reason: format!("{error}{}", last_words.unwrap_or_default()) };
            self.dead = Some(dead.clone());
            return Err(dead);
        }
        match results.first() {
            Some(Val::I32(value)) => Ok(Some(value.cast_unsigned())),
            Some(other) => panic!("{name} returned {other:?}"),
            None => Ok(Some(0)),
        }
    }

    pub fn exports(&self, name: &str) -> bool {
        self.instance.get_export(&self.store, name).is_some()
    }

    fn retire(&mut self, root: u32) -> Result<(), Dead> {
        let done = self.callback(root, "proxy_on_done", &[root])?;
        if done == Some(0) {
            if let Some(root) = self.store.data_mut().roots.get_mut(&root) {
                root.done_pending = true;
            }
            return Ok(());
        }
        self.delete_root(root)
    }

    pub fn delete_root(&mut self, root: u32) -> Result<(), Dead> {
        self.callback(root, "proxy_on_delete", &[root])?;
        self.store.data_mut().roots.remove(&root);
        Ok(())
    }

    fn answer_call(&mut self, token: u32, answer: Option<(HeaderMap, Vec<u8>)>) -> Result<(), Dead> {
        let state = self.store.data_mut();
        let call = state.calls.iter_mut().find(|call| call.token == token && call.state == CallState::Open);
        let call = call.unwrap_or_else(|| panic!("call {token} is not open"));
        call.state = CallState::Answered;
        let context = call.context;
        let root = state.streams.get(&context).map_or(context, |stream| stream.root);
        let (mut headers, mut body) = (0, 0);
        if let Some((map, bytes)) = answer {
            (headers, body) = (map.len(), bytes.len());
            state.answering = Some(Answer { root, headers: map, body: bytes, trailers: None });
        } else {
            state.last_status = (status::BROKEN_CONNECTION, "reset".to_owned());
        }
        let args = [root, token, word(headers), word(body), 0];
        let result = self.call(root, "proxy_on_http_call_response", &args);
        let state = self.store.data_mut();
        state.answering = None;
        state.last_status.1.clear();
        state.stop_iteration = false;
        result?;
        self.run_deferred()
    }
}

pub fn word(size: usize) -> u32 {
    u32::try_from(size).expect("smaller than 4 GiB")
}

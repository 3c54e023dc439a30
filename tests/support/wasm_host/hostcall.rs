//! The host calls by name and signature, and the faults a test can plant in them.
//!
//! Faults sit in front of every call in one place, so a call added here can be made to fail without further work.

use std::collections::BTreeMap;

macro_rules! host_calls {
    ($($name:ident $import:literal $signature:literal)*) => {
        /// A function the host offers in the module `env`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum HostCall { $(#[doc = $import] $name,)* }

        impl HostCall {
            /// Every host call, for tests that fail each in turn.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name the guest imports.
            pub fn import_name(self) -> &'static str {
                match self { $(Self::$name => $import,)* }
            }

            /// The parameters: `i` is an i32, `I` an i64. The result is always one i32 status.
            pub fn signature(self) -> &'static str {
                match self { $(Self::$name => $signature,)* }
            }
        }
    };
}

host_calls! {
    Log "proxy_log" "iii"
    GetLogLevel "proxy_get_log_level" "i"
    GetCurrentTime "proxy_get_current_time_nanoseconds" "i"
    SetTickPeriod "proxy_set_tick_period_milliseconds" "i"
    GetBufferBytes "proxy_get_buffer_bytes" "iiiii"
    SetBufferBytes "proxy_set_buffer_bytes" "iiiii"
    GetBufferStatus "proxy_get_buffer_status" "iii"
    GetHeaderMapPairs "proxy_get_header_map_pairs" "iii"
    SetHeaderMapPairs "proxy_set_header_map_pairs" "iii"
    GetHeaderMapSize "proxy_get_header_map_size" "ii"
    GetHeaderMapValue "proxy_get_header_map_value" "iiiii"
    RemoveHeaderMapValue "proxy_remove_header_map_value" "iii"
    ReplaceHeaderMapValue "proxy_replace_header_map_value" "iiiii"
    AddHeaderMapValue "proxy_add_header_map_value" "iiiii"
    GetProperty "proxy_get_property" "iiii"
    SetProperty "proxy_set_property" "iiii"
    GetSharedData "proxy_get_shared_data" "iiiii"
    SetSharedData "proxy_set_shared_data" "iiiii"
    RegisterSharedQueue "proxy_register_shared_queue" "iii"
    ResolveSharedQueue "proxy_resolve_shared_queue" "iiiii"
    DequeueSharedQueue "proxy_dequeue_shared_queue" "iii"
    EnqueueSharedQueue "proxy_enqueue_shared_queue" "iii"
    ContinueStream "proxy_continue_stream" "i"
    CloseStream "proxy_close_stream" "i"
    SendLocalResponse "proxy_send_local_response" "iiiiiiii"
    HttpCall "proxy_http_call" "iiiiiiiiii"
    GrpcCall "proxy_grpc_call" "iiiiiiiiiiii"
    GrpcStream "proxy_grpc_stream" "iiiiiiiii"
    GrpcSend "proxy_grpc_send" "iiii"
    GrpcCancel "proxy_grpc_cancel" "i"
    GrpcClose "proxy_grpc_close" "i"
    GetStatus "proxy_get_status" "iii"
    SetEffectiveContext "proxy_set_effective_context" "i"
    CallForeignFunction "proxy_call_foreign_function" "iiiiii"
    Done "proxy_done" ""
    DefineMetric "proxy_define_metric" "iiii"
    GetMetric "proxy_get_metric" "ii"
    RecordMetric "proxy_record_metric" "iI"
    IncrementMetric "proxy_increment_metric" "iI"
}

impl HostCall {
    /// The host call imported as `name`.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|call| call.import_name() == name)
    }
}

/// What a faulty host call does instead of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Returns this status and touches nothing.
    Status(u32),
    /// Traps, which kills the VM as a panic in the guest would.
    Trap,
}

/// Which calls are faulty, counted from the moment the fault is planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// All of them.
    Always,
    /// The first `n`.
    First(u64),
    /// Only the `n`th, from 1.
    Nth(u64),
}

/// A planted fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What happens.
    pub effect: Effect,
    /// To which calls.
    pub when: When,
}

impl Fault {
    /// Every call returns `status`.
    pub fn always(status: u32) -> Self {
        Self { effect: Effect::Status(status), when: When::Always }
    }

    /// The first `n` calls return `status`.
    pub fn first(n: u64, status: u32) -> Self {
        Self { effect: Effect::Status(status), when: When::First(n) }
    }

    /// The `n`th call, from 1, returns `status`.
    pub fn nth(n: u64, status: u32) -> Self {
        Self { effect: Effect::Status(status), when: When::Nth(n) }
    }

    /// The `n`th call, from 1, traps.
    pub fn trap_at(n: u64) -> Self {
        Self { effect: Effect::Trap, when: When::Nth(n) }
    }
}

/// The faults planted in one VM, and how often each host call was made.
#[derive(Debug, Default)]
pub struct Faults {
    planted: BTreeMap<HostCall, (Fault, u64)>,
    made: BTreeMap<HostCall, u64>,
}

impl Faults {
    pub fn plant(&mut self, call: HostCall, fault: Fault) {
        self.planted.insert(call, (fault, 0));
    }

    pub fn remove(&mut self, call: HostCall) {
        self.planted.remove(&call);
    }

    pub fn made(&self, call: HostCall) -> u64 {
        self.made.get(&call).copied().unwrap_or(0)
    }

    /// Counts a call and says what, if anything, happens instead of it.
    pub fn strike(&mut self, call: HostCall) -> Option<Effect> {
        *self.made.entry(call).or_default() += 1;
        let (fault, seen) = self.planted.get_mut(&call)?;
        *seen += 1;
        let struck = match fault.when {
            When::Always => true,
            When::First(n) => *seen <= n,
            When::Nth(n) => *seen == n,
        };
        struck.then_some(fault.effect)
    }
}

//! Plays exchanges through the compiled module.

use super::chunks::Chunking;
use super::exchange::{Driver, End, Exchange, Headers, LASTS_SECONDS, Outcome};
use super::wasm_host::{HeaderMap, HttpStream, NO_HEADERS, Plugin, Process, Program, Vm};

/// One worker of one Envoy; started anew for each configuration.
#[derive(Default)]
pub struct WasmDriver {
    running: Option<(Vec<u8>, Process, Vm)>,
}

impl WasmDriver {
    fn running(&mut self, config: &[u8]) -> (&Process, &Vm) {
        if self.running.as_ref().is_none_or(|(running, ..)| running != config) {
            let (process, vm) = start(config);
            self.running = Some((config.to_vec(), process, vm));
        }
        let (_, process, vm) = self.running.as_ref().expect("just started");
        (process, vm)
    }
}

/// An Envoy with one worker and a collector cluster.
pub fn start(config: &[u8]) -> (Process, Vm) {
    let envoy = Process::new();
    envoy.add_cluster("cost_collector");
    let vm = envoy.start_vm(&Program::filter());
    vm.set_property(&["xds", "node", "id"], "gateway-1");
    // As the shipped Envoy configuration has it.
    let plugin = Plugin { allow_on_headers_stop_iteration: true, ..Plugin::from(config) };
    let (_, accepted) = vm.configure(plugin).expect("configuring does not trap");
    assert!(accepted, "the configuration is refused: {:?}", vm.logs());
    (envoy, vm)
}

/// What Envoy knows of an exchange at its end.
pub fn set_properties(call: &HttpStream, code_details: &str) {
    call.set_property(&["response", "code_details"], code_details);
    call.set_property(&["upstream", "request_attempt_count"], 1u64.to_le_bytes());
    call.set_property(&["xds", "route_name"], "llm");
    call.set_property(&["xds", "cluster_name"], "llm_upstream");
}

/// Plays everything up to, not including, the log callback.
pub fn play_until_log(call: &HttpStream, exchange: &Exchange, chunking: Chunking) {
    let end_of_stream = exchange.request_body.is_empty();
    call.request_headers(&borrowed(&exchange.request_headers), end_of_stream).unwrap();
    if !end_of_stream {
        for chunk in chunking.cut(&exchange.request_body) {
            call.request_body(chunk, false).unwrap();
        }
        call.request_body("", true).unwrap();
    }
    let Some(response) = &exchange.response_headers else { return };
    let end_of_stream = exchange.response_body.is_empty() && exchange.end == End::Body;
    call.response_headers(&borrowed(response), end_of_stream).unwrap();
    for chunk in chunking.cut(&exchange.response_body) {
        call.response_body(chunk, false).unwrap();
    }
    match exchange.end {
        End::Body if !end_of_stream => drop(call.response_body("", true).unwrap()),
        End::Trailers => drop(call.response_trailers(NO_HEADERS).unwrap()),
        End::Body | End::None => {}
    }
}

fn borrowed(headers: &Headers) -> Vec<(&str, &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect()
}

fn owned(headers: HeaderMap) -> Headers {
    headers.0
}

impl Driver for WasmDriver {
    fn play_at(&mut self, exchange: &Exchange, chunking: Chunking, ends: Option<u64>) -> Outcome {
        // A look at an earlier response is charged once per process, so each begins with a new one.
        if exchange.request_headers.iter().any(|(name, value)| name == ":method" && value == b"GET") {
            self.running = None;
        }
        let (process, vm) = self.running(&exchange.config);
        let set_clock = |seconds: u64| process.clock.set_ns(seconds * 1_000_000_000);
        if let Some(ends) = ends {
            set_clock(ends - LASTS_SECONDS);
        }
        let call = vm.stream();
        set_properties(&call, &exchange.code_details);
        play_until_log(&call, exchange, chunking);
        if let Some(ends) = ends {
            set_clock(ends);
        }
        call.finish().unwrap();
        let record = call.filter_state("tollgate.record").map(|record| serde_json::from_str(&record).unwrap());
        Outcome {
            record,
            upstream_headers: owned(call.upstream_headers()),
            upstream_body: call.upstream_body(),
            client_headers: owned(call.client_headers()),
            client_body: call.client_body(),
        }
    }
}

//! What holding headers needs of Envoy.

use super::warnings::{Warning, warning};
use crate::envoy::Buffer;
use tollgate::config::Config;

/// Warnings about a configuration whose plugin lets it hold or does not (`None` where that can't be seen), before routes
/// with these limits.
pub(super) fn of(config: &Config, can_hold: Option<bool>, buffers: &[Buffer]) -> Vec<Warning> {
    let metering = &config.metering;
    let mut list = Vec::new();
    if can_hold == Some(false) {
        let option = "the plugin's configuration lacks allow_on_headers_stop_iteration: true";
        if config.admin.is_some() {
            let message = format!("{option}, so that changes of budgets are answered 501");
            list.push(warning("admin", "change_without_option", message));
        }
        if metering.cost_headers {
            let message = format!("{option}, so that an answer waits two seconds for its cost and goes without");
            list.push(warning("metering.cost_headers", "cost_headers_without_option", message));
        }
    }
    if !metering.hold_request_headers {
        return list;
    }
    if can_hold == Some(false) {
        let message = "the plugin's configuration lacks allow_on_headers_stop_iteration: true, so that Envoy can't hold a \
                       request: every call would wait two seconds and then go on unheld";
        list.push(warning("metering.hold_request_headers", "hold_without_option", message));
    }
    for Buffer { route, bytes } in buffers.iter().filter(|buffer| buffer.bytes < metering.max_request_bytes) {
        let message = format!(
            "the route {route:?} lets Envoy hold {bytes} bytes of a request, and max_request_bytes is {}: Envoy would answer \
             413 to what is longer; raise the route's request_body_buffer_limit (before Envoy 1.37 the listener's \
             per_connection_buffer_limit_bytes) or lower max_request_bytes",
            metering.max_request_bytes
        );
        list.push(warning("metering.max_request_bytes", "hold_above_buffer_limit", message));
    }
    list
}

//! How much of a request Envoy holds back at most, route by route.
//!
//! A listener's limit is for all of its routes, and a route's own counts where it is more. Routes that come by xDS, and
//! the listeners of those that stand alone, are not known here.

use super::either;
use crate::document::{Document, Node};

/// What Envoy holds where nothing is said.
const DEFAULT_BYTES: u64 = 1 << 20;

/// What a request may be on one route to be held whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Buffer {
    /// The route's name; empty where it has none.
    pub(crate) route: String,
    /// The limit, in bytes.
    pub(crate) bytes: u64,
}

/// The limits of all routes in a document.
pub(super) fn of(document: &Document) -> Vec<Buffer> {
    let mut buffers = Vec::new();
    for root in &document.roots {
        find(root, DEFAULT_BYTES, &mut buffers);
    }
    buffers
}

fn find(node: &Node, listener: u64, buffers: &mut Vec<Buffer>) {
    let own = either(node, "per_connection_buffer_limit_bytes", "perConnectionBufferLimitBytes").and_then(number);
    let listener = own.unwrap_or(listener);
    for host in either(node, "virtual_hosts", "virtualHosts").map(Node::elements).unwrap_or_default() {
        for route in host.get("routes").map(Node::elements).unwrap_or_default() {
            // Redirects and direct responses lead to no provider.
            if route.get("route").is_some() {
                let own = limit(route).or_else(|| limit(host));
                let name = route.get("name").and_then(Node::text).unwrap_or_default();
                buffers.push(Buffer { route: name.into(), bytes: own.unwrap_or(0).max(listener) });
            }
        }
    }
    node.elements().iter().for_each(|element| find(element, listener, buffers));
    node.entries().iter().for_each(|entry| find(&entry.value, listener, buffers));
}

/// The limit of a route or a virtual host, by its name of today or the older one.
fn limit(node: &Node) -> Option<u64> {
    either(node, "request_body_buffer_limit", "requestBodyBufferLimit")
        .or_else(|| either(node, "per_request_buffer_limit_bytes", "perRequestBufferLimitBytes"))
        .and_then(number)
}

/// A number, which in JSON may be a string; some messages wrap it.
fn number(node: &Node) -> Option<u64> {
    node.get("value").unwrap_or(node).text()?.replace('_', "").parse().ok()
}

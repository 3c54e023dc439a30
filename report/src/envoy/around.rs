//! What an Envoy configuration says around the filter and the filter depends on: formats of access logs, hosts that
//! routes rewrite, and where verified tokens are put.

use super::{either, find_plugins, is_tollgate};
use crate::document::{Document, Node};
use std::collections::BTreeSet;

/// What stands before the name of a value of the filter's.
const VALUE: &str = "wasm.tollgate.";
/// What stands before that in a format.
const IN_FORMAT: &str = "FILTER_STATE(";

/// What stands around the filter.
#[derive(Debug, Default)]
pub(crate) struct Around {
    /// Values of the filter's that access logs ask for.
    pub(crate) logged: Vec<Logged>,
    /// Routes that give the request another host, which they do after the filter.
    pub(crate) rewritten: Vec<Rewritten>,
    /// Under which names `jwt_authn`, where it stands before the filter, puts what it verified into its metadata; `None`
    /// where no such filter is seen.
    pub(crate) tokens: Option<BTreeSet<String>>,
    /// Whether it has a listener's filters, and with them its access logs.
    pub(crate) has_listener: bool,
}

/// A value that an access log asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Logged {
    /// Its name, without what all have in front.
    pub(crate) name: String,
    /// The line it is asked for in.
    pub(crate) line: usize,
}

/// A route to another host than callers name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rewritten {
    /// The route's name, where it has one.
    pub(crate) route: Option<String>,
    /// Where it leads.
    pub(crate) cluster: String,
    /// The host that the provider is told.
    pub(crate) host: String,
    /// The hosts that callers may name, as patterns.
    pub(crate) domains: Vec<String>,
}

/// What stands around the filter in a document.
pub(super) fn of(document: &Document) -> Around {
    let mut around = Around::default();
    document.roots.iter().for_each(|root| find(root, false, &mut around));
    around
}

/// Looks at a node and all below; `behind` is whether it stands behind the filter.
fn find(node: &Node, behind: bool, around: &mut Around) {
    let mut logged = |from: &Node, text: &str| {
        if let Some(rest) = text.strip_prefix(VALUE) {
            let name = rest.split([':', ')']).next().unwrap_or_default();
            around.logged.push(Logged { name: name.into(), line: from.at.line });
        }
    };
    node.text().unwrap_or_default().split(IN_FORMAT).skip(1).for_each(|text| logged(node, text));
    // Those of a gRPC service are listed.
    let listed = either(node, "filter_state_objects_to_log", "filterStateObjectsToLog");
    for name in listed.map(Node::elements).unwrap_or_default() {
        logged(name, name.text().unwrap_or_default());
    }
    for host in either(node, "virtual_hosts", "virtualHosts").map(Node::elements).unwrap_or_default() {
        let domains: Vec<String> = texts(host.get("domains")).collect();
        let routes = host.get("routes").map(Node::elements).unwrap_or_default();
        around.rewritten.extend(routes.iter().filter_map(|route| rewritten(route, &domains)));
    }
    if node.get("@type").and_then(Node::text).is_some_and(|name| name.ends_with(".JwtAuthentication")) {
        let tokens = around.tokens.get_or_insert_default();
        for provider in node.get("providers").map(Node::entries).unwrap_or_default() {
            let names = [
                either(&provider.value, "payload_in_metadata", "payloadInMetadata"),
                either(&provider.value, "header_in_metadata", "headerInMetadata"),
                either(&provider.value, "failed_status_in_metadata", "failedStatusInMetadata"),
            ];
            if !behind {
                tokens.extend(names.into_iter().flatten().filter_map(Node::text).map(String::from));
            }
        }
    }
    node.elements().iter().for_each(|element| find(element, behind, around));
    for entry in node.entries() {
        if matches!(&*entry.key, "http_filters" | "httpFilters") {
            around.has_listener = true;
            let mut behind = behind;
            for filter in entry.value.elements() {
                find(filter, behind, around);
                behind |= is_filter(filter);
            }
        } else {
            find(&entry.value, behind, around);
        }
    }
}

/// Whether an HTTP filter is Tollgate's.
fn is_filter(filter: &Node) -> bool {
    let mut plugins = Vec::new();
    find_plugins(filter, &mut plugins);
    plugins.into_iter().any(is_tollgate)
}

fn rewritten(route: &Node, domains: &[String]) -> Option<Rewritten> {
    let action = route.get("route")?;
    Some(Rewritten {
        route: route.get("name").and_then(Node::text).map(String::from),
        cluster: action.get("cluster")?.text()?.into(),
        host: either(action, "host_rewrite_literal", "hostRewriteLiteral")?.text()?.into(),
        domains: domains.into(),
    })
}

fn texts(list: Option<&Node>) -> impl Iterator<Item = String> {
    list.map(Node::elements).unwrap_or_default().iter().filter_map(Node::text).map(String::from)
}

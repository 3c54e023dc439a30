//! What an Envoy configuration says around the filter and the filter depends on: formats of access logs, hosts that
//! routes rewrite, and where verified tokens are put.

use super::either;
use crate::document::{Document, Node};
use std::collections::BTreeSet;

/// What stands before the name of a value of the filter's in a format.
const LOGGED: &str = "FILTER_STATE(wasm.tollgate.";

/// What stands around the filter.
#[derive(Debug, Default)]
pub(crate) struct Around {
    /// Values of the filter's that formats ask for.
    pub(crate) logged: Vec<Logged>,
    /// Routes that give the request another host, which they do after the filter.
    pub(crate) rewritten: Vec<Rewritten>,
    /// Under which names `jwt_authn` puts what it verified into its metadata; `None` where no such filter is seen.
    pub(crate) tokens: Option<BTreeSet<String>>,
}

/// A value that a format asks for.
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
    document.roots.iter().for_each(|root| find(root, &mut around));
    around
}

fn find(node: &Node, around: &mut Around) {
    if let Some(text) = node.text() {
        for rest in text.split(LOGGED).skip(1) {
            let name = rest.split([':', ')']).next().unwrap_or_default();
            around.logged.push(Logged { name: name.into(), line: node.at.line });
        }
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
            tokens.extend(names.into_iter().flatten().filter_map(Node::text).map(String::from));
        }
    }
    node.elements().iter().for_each(|element| find(element, around));
    node.entries().iter().for_each(|entry| find(&entry.value, around));
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

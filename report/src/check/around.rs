//! What the Envoy around the filter has to have for what the filter's configuration says.

use super::warnings::{Warning, warning};
use crate::document::Node;
use crate::envoy::{Around, Logged, Rewritten};
use tollgate::api::provider;
use tollgate::config::{Config, OnUnmetered};
use tollgate::exchange::Route;

/// Where `jwt_authn` puts what it verified, as the beginning of a property's path.
const TOKENS: [&str; 3] = ["metadata", "filter_metadata", "envoy.filters.http.jwt_authn"];

/// Warnings about a configuration, which is `tree` as it is written, and what stands around it.
pub(super) fn of(config: &Config, tree: &Node, around: &Around) -> Vec<Warning> {
    let mut list = Vec::new();
    logged(config, around, &mut list);
    rewritten(config, around, &mut list);
    tokens(tree, around, &mut list);
    list
}

/// Values that access logs ask for and the filter does not keep, and records that nobody asks for.
fn logged(config: &Config, around: &Around, list: &mut Vec<Warning>) {
    let kept: Vec<&str> =
        config.access_log.values.iter().filter_map(|value| value.key.strip_prefix("tollgate.")).collect();
    for Logged { name, line } in &around.logged {
        if name != "record" && !kept.contains(&name.as_str()) {
            let message = format!(
                "line {line} asks for wasm.tollgate.{name}, which is neither the record nor one of {}: it will always be empty",
                kept.join(", ")
            );
            list.push(warning("access_log.values", "unknown_logged_value", message));
        }
    }
    if around.has_listener && config.collector.is_none() && around.logged.iter().all(|logged| logged.name != "record") {
        let message = "no format of an access log has %FILTER_STATE(wasm.tollgate.record:PLAIN)% either: there will be no \
                       records at all";
        list.push(warning("", "no_records", message));
    }
}

/// Routes to providers whose calls the filter does not know to be theirs, since it sees the host before it is rewritten.
fn rewritten(config: &Config, around: &Around, list: &mut Vec<Warning>) {
    if config.metering.on_unmetered == OnUnmetered::Allow {
        return;
    }
    for route in &around.rewritten {
        if provider::of_host(&route.host).is_none() || route.domains.iter().all(|domain| is_told(config, route, domain))
        {
            continue;
        }
        let Rewritten { cluster, host, .. } = route;
        let message = format!(
            "the route to {cluster:?} rewrites the host to {host} after this filter, which so cannot tell whose calls on \
             unknown paths are: add {{match: {{cluster: {cluster:?}}}}} here, with the provider"
        );
        list.push(warning("upstreams", "host_rewritten", message));
    }
}

/// Whether what callers of a host send on a route is known to go to an LLM provider, or may be.
fn is_told(config: &Config, route: &Rewritten, domain: &str) -> bool {
    let to = Route { route: route.route.as_deref(), cluster: Some(&route.cluster), properties: &[] };
    let by_host = config.upstreams.iter().any(|upstream| !upstream.matches_route());
    provider::of_host(domain).is_some()
        || config.upstream(to, Some(domain)).is_some()
        || (domain.contains('*') && by_host)
}

/// Dimensions from a token's claims that nobody puts where they are looked for.
fn tokens(tree: &Node, around: &Around, list: &mut Vec<Warning>) {
    let Some(names) = &around.tokens else { return };
    let dimensions = tree.get("attribution").and_then(|attribution| attribution.get("dimensions"));
    for dimension in dimensions.map(Node::entries).unwrap_or_default() {
        let sources = dimension.value.get("from").map(Node::elements).unwrap_or_default();
        for (index, source) in sources.iter().enumerate() {
            let path: Vec<&str> =
                source.get("property").map(Node::elements).unwrap_or_default().iter().filter_map(Node::text).collect();
            let Some(name) = path.strip_prefix(&TOKENS).and_then(|rest| rest.first()) else { continue };
            if !names.contains(*name) {
                let message = format!(
                    "no provider of jwt_authn in front of this filter has payload_in_metadata: {name}: no call will have this \
                     value from its token"
                );
                let path = format!("attribution.dimensions.{}.from[{index}].property", dimension.key);
                list.push(warning(path, "token_not_in_metadata", message));
            }
        }
    }
}

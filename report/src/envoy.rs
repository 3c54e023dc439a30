//! Where the filter's configuration stands in a file: the whole of it, or somewhere in an Envoy configuration.
//!
//! A Wasm filter can be in many places (a listener, a route's own filters, an upstream's, a composite filter, xDS
//! resources, a config dump), so the search is for what they share: an object with `vm_config`.

mod around;
mod buffers;

pub(crate) use around::{Around, Logged, Rewritten};
pub(crate) use buffers::Buffer;

use crate::document::{Dialect, Document, Entry, Node, Numbers, Position, Value};
use anyhow::bail;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeSet;
use tollgate::config::{Config, ConfigError, Origin};

/// Keys at the top of an Envoy configuration, of which a filter's own has none.
const ENVOY_KEYS: [&str; 9] = [
    "static_resources",
    "staticResources",
    "dynamic_resources",
    "dynamicResources",
    "resources",
    "configs",
    "@type",
    "typed_config",
    "http_filters",
];

/// A filter's configuration, as it was found in a file.
#[derive(Debug)]
pub(crate) struct Found {
    /// It as a tree with the file's positions.
    pub(crate) tree: Node,
    /// Whether Envoy can hold requests for it; `None` where the file does not show its plugin.
    pub(crate) can_hold: Option<bool>,
    delivered: Delivered,
}

/// What the filter is given.
#[derive(Debug)]
enum Delivered {
    /// The tree as JSON.
    Tree(Numbers, Origin),
    /// Text that is no JSON, which the filter will say.
    Text(String),
    /// Bytes that Envoy passes on as they are.
    Bytes(Vec<u8>),
}

impl Found {
    /// No configuration at all, which is a valid one.
    pub(crate) fn empty(at: Position) -> Found {
        let tree = Node { at, value: Value::Map(Vec::new()) };
        Found { tree, can_hold: None, delivered: Delivered::Tree(Numbers::AsWritten, Origin::Json) }
    }

    /// Reads it with the filter's own code.
    pub(crate) fn read(&self) -> Result<Config, Vec<ConfigError>> {
        match &self.delivered {
            Delivered::Tree(numbers, origin) => Config::from_json(&self.tree.to_json(*numbers), *origin),
            Delivered::Text(text) => Config::from_json(text, Origin::Json),
            Delivered::Bytes(bytes) => Config::from_bytes(bytes),
        }
    }

    /// Puts a section in the place of the one called `key`.
    ///
    /// # Errors
    /// The configuration has no sections that are known here.
    pub(crate) fn replace(&mut self, key: &str, section: Node) -> anyhow::Result<()> {
        let (Value::Map(entries), Delivered::Tree(numbers, origin)) = (&mut self.tree.value, &mut self.delivered)
        else {
            bail!("the configuration has no sections to put `{key}` among");
        };
        entries.retain(|entry| entry.key != key);
        entries.push(Entry { at: section.at, key: key.into(), value: section });
        if *numbers == Numbers::EnvoyJson {
            // The section has not been a Struct of doubles.
            (*numbers, *origin) = (Numbers::AsWritten, Origin::Json);
        }
        Ok(())
    }
}

/// What a file configures.
#[derive(Debug)]
pub(crate) struct Configured {
    /// Every configuration of the filter in it.
    pub(crate) filters: Vec<Found>,
    /// Every cluster Envoy will have; `None` where that cannot be known.
    pub(crate) clusters: Option<BTreeSet<String>>,
    /// What requests may be to be held, on the routes in it.
    pub(crate) buffers: Vec<Buffer>,
    /// What else the filter depends on.
    pub(crate) around: Around,
}

/// The filter's configurations in a document.
///
/// # Errors
/// An Envoy configuration without the filter, or with several Wasm filters of which none can be told to be it.
pub(crate) fn configured(document: &Document) -> anyhow::Result<Configured> {
    let mut plugins = Vec::new();
    for root in &document.roots {
        find_plugins(root, &mut plugins);
    }
    if plugins.is_empty() {
        return bare(document);
    }
    let several = plugins.len() > 1;
    plugins.retain(|plugin| !several || is_tollgate(plugin));
    if plugins.is_empty() {
        bail!("it has several Wasm filters, none of them with `root_id: tollgate`");
    }
    let numbers = match document.dialect {
        Dialect::Json => Numbers::EnvoyJson,
        Dialect::Yaml => Numbers::EnvoyYaml,
    };
    let found = |plugin: &Node| {
        let found = configuration(plugin, numbers)?;
        anyhow::Ok(Found { can_hold: Some(can_hold(plugin)), ..found })
    };
    let filters = plugins.into_iter().map(found).collect::<Result<_, _>>()?;
    Ok(Configured {
        filters,
        clusters: clusters(document),
        buffers: buffers::of(document),
        around: around::of(document),
    })
}

fn bare(document: &Document) -> anyhow::Result<Configured> {
    let is_envoys = |root: &Node| ENVOY_KEYS.iter().any(|key| root.get(key).is_some());
    let root = match document.roots.as_slice() {
        [] => bail!("it is empty"),
        [root] if !is_envoys(root) => root,
        _ if document.roots.iter().any(is_envoys) => bail!("it has no Wasm filter"),
        _ => bail!("it has several documents, none of them with a Wasm filter"),
    };
    // JSON is what a StringValue holds. YAML will be a Struct in Envoy's YAML.
    let delivered = match document.dialect {
        Dialect::Json => Delivered::Tree(Numbers::AsWritten, Origin::Json),
        Dialect::Yaml => Delivered::Tree(Numbers::EnvoyYaml, Origin::Struct),
    };
    let found = Found { tree: root.clone(), can_hold: None, delivered };
    Ok(Configured { filters: vec![found], clusters: None, buffers: Vec::new(), around: Around::default() })
}

fn either<'n>(node: &'n Node, key: &str, camel_case: &str) -> Option<&'n Node> {
    node.get(key).or_else(|| node.get(camel_case))
}

fn find_plugins<'n>(node: &'n Node, plugins: &mut Vec<&'n Node>) {
    if either(node, "vm_config", "vmConfig").is_some() {
        plugins.push(node);
        return;
    }
    node.elements().iter().for_each(|element| find_plugins(element, plugins));
    node.entries().iter().for_each(|entry| find_plugins(&entry.value, plugins));
}

fn is_tollgate(plugin: &Node) -> bool {
    let root_id = either(plugin, "root_id", "rootId").and_then(Node::text);
    root_id == Some("tollgate") || either(plugin, "vm_config", "vmConfig").is_some_and(names_module)
}

/// Whether a file or address under `vm_config` has the module's name in it.
fn names_module(node: &Node) -> bool {
    node.text().is_some_and(|text| text.contains("tollgate"))
        || node.elements().iter().any(names_module)
        || node.entries().iter().any(|entry| names_module(&entry.value))
}

/// Whether a plugin's callbacks go on while it holds headers.
fn can_hold(plugin: &Node) -> bool {
    let allow = either(plugin, "allow_on_headers_stop_iteration", "allowOnHeadersStopIteration");
    allow.and_then(Node::text).is_some_and(|text| text.eq_ignore_ascii_case("true"))
}

/// The configuration of a plugin, unwrapped from its `Any`.
fn configuration(plugin: &Node, numbers: Numbers) -> anyhow::Result<Found> {
    let Some(any) = plugin.get("configuration") else { return Ok(Found::empty(plugin.at)) };
    let Some(type_url) = any.get("@type").and_then(Node::text) else {
        bail!("{}: the filter's configuration has no \"@type\"", any.at);
    };
    let Some(value) = any.get("value") else { return Ok(Found::empty(any.at)) };
    match (type_url.rsplit('/').next().unwrap_or_default(), value.text()) {
        ("google.protobuf.Struct", _) => {
            Ok(Found { tree: value.clone(), can_hold: None, delivered: Delivered::Tree(numbers, Origin::Struct) })
        }
        ("google.protobuf.StringValue", Some(text)) => Ok(string_value(value, text)),
        ("google.protobuf.BytesValue", Some(text)) => match STANDARD.decode(text.trim()) {
            Ok(bytes) => Ok(Found { tree: value.clone(), can_hold: None, delivered: Delivered::Bytes(bytes) }),
            Err(error) => bail!("{}: the filter's configuration is not base64: {error}", value.at),
        },
        (type_name, _) => bail!(
            "{}: the filter's configuration is a {type_name}; it takes a google.protobuf.Struct, or JSON in a \
             google.protobuf.StringValue",
            any.at
        ),
    }
}

/// The JSON in a string, with the positions of the file around it.
fn string_value(value: &Node, text: &str) -> Found {
    let as_text = |at| {
        let tree = Node { at, ..value.clone() };
        Found { tree, can_hold: None, delivered: Delivered::Text(text.into()) }
    };
    match Document::parse(text, Dialect::Json).map(|document| document.roots.into_iter().next()) {
        Ok(Some(mut tree)) => {
            move_into(&mut tree, value);
            Found { tree, can_hold: None, delivered: Delivered::Tree(Numbers::AsWritten, Origin::Json) }
        }
        Ok(None) => as_text(value.at),
        Err(error) => as_text(value.position_within(error.at)),
    }
}

fn move_into(node: &mut Node, outer: &Node) {
    node.at = outer.position_within(node.at);
    match &mut node.value {
        Value::Plain(_) | Value::Text { .. } => {}
        Value::List(elements) => elements.iter_mut().for_each(|element| move_into(element, outer)),
        Value::Map(entries) => {
            for entry in entries {
                entry.at = outer.position_within(entry.at);
                move_into(&mut entry.value, outer);
            }
        }
    }
}

/// The clusters of a bootstrap; those that come by xDS are not known here.
fn clusters(document: &Document) -> Option<BTreeSet<String>> {
    let [root] = document.roots.as_slice() else { return None };
    let resources = either(root, "static_resources", "staticResources")?;
    let dynamic = either(root, "dynamic_resources", "dynamicResources");
    if dynamic.is_some_and(|dynamic| !dynamic.entries().is_empty()) {
        return None;
    }
    let clusters = resources.get("clusters").map(Node::elements).unwrap_or_default();
    Some(clusters.iter().filter_map(|cluster| cluster.get("name")?.text()).map(String::from).collect())
}

#[cfg(test)]
mod tests;

//! Configuration: what an operator writes, checked whole and compiled once.
//!
//! Text or a Struct comes in, a [`Config`] or every error at once comes out. Sections are read by hand through
//! `config/node.rs` rather than by serde derives, which stop at the first error and lose a number's text.

mod access_log;
mod attribution;
mod budgets;
mod collector;
mod node;
mod prices;
mod structpb;

use crate::api::Api;
use crate::attribution::Rules;
use crate::budget::Budget;
use crate::budget::ledger::LedgerConfig;
use crate::exchange::Route;
use crate::glob::Glob;
use crate::money::Decimal;
pub use access_log::AccessLogConfig;
pub use budgets::DowngradeConfig;
pub use collector::CollectorConfig;
use node::{Errors, Node, Object};
pub use prices::{OnUnknownModel, PricesConfig};
use serde_json::value::RawValue;
use std::fmt;

/// The version of the configuration's own format.
pub const CONFIG_VERSION: u64 = 1;

/// Where the text came from: decimal amounts are read more strictly where they were doubles on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// JSON as written: numbers keep their digits.
    Json,
    /// A `google.protobuf.Struct`: numbers were doubles.
    Struct,
}

/// One thing wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where, as `collector.flush_ms` or `prices.models[2].rates.input`; empty for the whole.
    pub path: String,
    /// What.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.path, self.message) }
    }
}

/// A whole, valid configuration.
#[derive(Debug, Default)]
pub struct Config {
    /// How calls are attributed.
    pub attribution: Rules,
    /// What is known of certain upstreams, tried in order.
    pub upstreams: Vec<UpstreamConfig>,
    /// What models cost.
    pub prices: PricesConfig,
    /// How much may be spent by whom.
    pub budgets: Vec<Budget>,
    /// Cheaper models.
    pub downgrades: Vec<DowngradeConfig>,
    /// Where spend is counted.
    pub ledger: LedgerConfig,
    /// Where budgets are looked at and changed.
    pub admin: Option<AdminConfig>,
    /// How bodies are read.
    pub metering: MeteringConfig,
    /// How calls are told to write or only to read.
    pub workload: WorkloadConfig,
    /// How usage is estimated.
    pub reservation: ReservationConfig,
    /// What the access log may show besides the record.
    pub access_log: AccessLogConfig,
    /// Where records are sent; absent: only to the access log.
    pub collector: Option<CollectorConfig>,
}

/// One entry of `upstreams`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamConfig {
    cluster: Option<Glob>,
    host: Option<Glob>,
    route: Option<Glob>,
    /// Who bills.
    pub provider: Option<Box<str>>,
    /// The wire format, whatever the path looks like.
    pub api: Option<Api>,
    /// Whether `stream_options.include_usage` may be set for the caller; `None`: as `metering` says.
    pub inject_include_usage: Option<bool>,
    /// Reasoning tokens are on top of the completion's, and no arithmetic shows it.
    pub reasoning_additive: bool,
    /// What its calls cost, as a multiple of the price table's.
    pub price_multiplier: Option<Decimal>,
    /// Where it serves, where host and path do not say.
    pub region: Option<Box<str>>,
    /// Whether a call that should be changed, and that a signature covers, passes as it is; else it is refused.
    pub pass_signed: bool,
}

impl UpstreamConfig {
    /// Whether route or cluster have to be known to match.
    pub fn matches_route(&self) -> bool {
        self.cluster.is_some() || self.route.is_some()
    }

    fn matches(&self, route: Route<'_>, host: Option<&str>) -> bool {
        let fits = |pattern: &Option<Glob>, value: Option<&str>| {
            pattern.as_ref().is_none_or(|pattern| value.is_some_and(|value| pattern.matches(value)))
        };
        fits(&self.cluster, route.cluster) && fits(&self.route, route.route) && fits(&self.host, host)
    }
}

/// The section `metering`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeteringConfig {
    /// Whether `stream_options.include_usage` is set for callers that did not ask.
    pub inject_include_usage: bool,
    /// Whether a request's headers are held too where its body has to be seen whole before the provider sees anything.
    pub hold_request_headers: bool,
    /// The longest request body that is metered, in bytes.
    pub max_request_bytes: u64,
    /// The most of all requests' bodies that one VM holds back at a time, in bytes.
    pub max_withheld_bytes: u64,
    /// Whether a longer one is refused; else it passes and is metered all the same. `None`: refused where a budget could
    /// have refused it.
    pub refuse_oversize: Option<bool>,
    /// What becomes of requests to LLM hosts that no format is known for.
    pub on_unmetered: OnUnmetered,
    /// Whether answers tell the caller what is left of its budgets, and those that are no streams what they cost.
    pub cost_headers: bool,
    /// Where streams tell what they cost.
    pub streamed_cost: StreamedCost,
    /// Keys `request_hash` and `prefix_hash`; absent: no hashes.
    pub hash_key: Option<Box<str>>,
}

/// Where a stream tells what it cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamedCost {
    /// Only in the record.
    #[default]
    Nowhere,
    /// Server-sent events, in a comment behind the last of them.
    Comment,
    /// In trailers.
    Trailers,
}

/// What becomes of a request that no format is known for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUnmetered {
    /// Its answer is read for usage of any shape; one to an LLM host has a record in any case.
    #[default]
    Record,
    /// It passes unread.
    Allow,
    /// One to an LLM host is refused; others pass unread.
    Reject,
}

impl Default for MeteringConfig {
    fn default() -> MeteringConfig {
        MeteringConfig {
            inject_include_usage: true,
            hold_request_headers: false,
            max_request_bytes: 8 << 20,
            max_withheld_bytes: 256 << 20,
            refuse_oversize: None,
            on_unmetered: OnUnmetered::Record,
            cost_headers: false,
            streamed_cost: StreamedCost::Nowhere,
            hash_key: None,
        }
    }
}

/// The section `workload`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadConfig {
    /// Words in a tool's name that make a call one that writes, in lower case.
    pub write_words: Vec<Box<str>>,
}

impl Default for WorkloadConfig {
    fn default() -> WorkloadConfig {
        WorkloadConfig { write_words: ["create", "update", "delete", "send", "write"].map(Into::into).into() }
    }
}

/// The section `reservation`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReservationConfig {
    /// Tokens to a byte of text, for estimates.
    pub tokens_per_byte: Decimal,
    /// What a call may generate where neither it nor the price table says.
    pub default_max_output_tokens: u64,
    /// How long a worker may be silent before what its calls hold is void, in seconds.
    pub lease_secs: u64,
}

impl Default for ReservationConfig {
    fn default() -> ReservationConfig {
        ReservationConfig {
            tokens_per_byte: Decimal::parse("0.25").unwrap_or_default(),
            default_max_output_tokens: 4096,
            lease_secs: 30,
        }
    }
}

/// The section `admin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// What its paths begin with.
    pub path: Box<str>,
    /// Of the token that opens it.
    pub token_sha256: [u8; 32],
}

impl Config {
    /// What is known of the upstream a request is going to.
    pub fn upstream(&self, route: Route<'_>, host: Option<&str>) -> Option<&UpstreamConfig> {
        self.upstreams.iter().find(|upstream| upstream.matches(route, host))
    }

    /// Reads what Envoy hands over: a serialized `google.protobuf.Struct`, or JSON text. Nothing at all is the
    /// empty configuration.
    ///
    /// # Errors
    /// Everything that is wrong, in the order of the text.
    pub fn from_bytes(bytes: &[u8]) -> Result<Config, Vec<ConfigError>> {
        if let Some(json) = structpb::to_json(bytes) {
            return Config::from_json(&json, Origin::Struct);
        }
        match str::from_utf8(bytes) {
            Ok(text) => Config::from_json(text, Origin::Json),
            Err(_) => Err(whole("expected JSON text (google.protobuf.StringValue) or a google.protobuf.Struct")),
        }
    }

    /// Reads JSON text.
    ///
    /// # Errors
    /// Everything that is wrong, in the order in which sections are documented.
    pub fn from_json(text: &str, origin: Origin) -> Result<Config, Vec<ConfigError>> {
        if text.trim().is_empty() {
            return Ok(Config::default());
        }
        let raw: &RawValue = serde_json::from_str(text).map_err(|error| whole(&format!("not valid JSON: {error}")))?;
        let errors = Errors::new(origin);
        let config = read_root(Node::root(raw, &errors));
        let list = errors.into_list();
        match config {
            Some(config) if list.is_empty() => Ok(config),
            _ => Err(list),
        }
    }
}

fn whole(message: &str) -> Vec<ConfigError> {
    vec![ConfigError { path: String::new(), message: message.into() }]
}

fn read_root(root: Node<'_, '_>) -> Option<Config> {
    let object = root.object()?;
    if let Some(version) = object.get("version")
        && let Some(number) = version.integer(0..=u64::MAX)
        && number != CONFIG_VERSION
    {
        version.error(format!("this filter reads version {CONFIG_VERSION}"));
    }
    let reservation = object.get("reservation").and_then(read_reservation).unwrap_or_default();
    let ledger = object.get("ledger").and_then(budgets::read_ledger);
    let attribution = object.get("attribution").and_then(attribution::read).unwrap_or_default();
    let access_log = object.get("access_log").and_then(|node| access_log::read(node, &attribution)).unwrap_or_default();
    let budgets = object.get("budgets").and_then(|list| budgets::read(list, &attribution)).unwrap_or_default();
    let mut config = Config {
        attribution,
        upstreams: object.get("upstreams").and_then(|list| list.list(read_upstream)).unwrap_or_default(),
        prices: object.get("prices").and_then(prices::read).unwrap_or_default(),
        metering: object.get("metering").and_then(read_metering).unwrap_or_default(),
        workload: object.get("workload").and_then(read_workload).unwrap_or_default(),
        budgets,
        downgrades: object.get("downgrades").and_then(budgets::read_downgrades).unwrap_or_default(),
        ledger: LedgerConfig { lease_secs: reservation.lease_secs, ..ledger.unwrap_or_default() },
        reservation,
        admin: object.get("admin").and_then(read_admin),
        access_log,
        collector: None,
    };
    config.collector = object.get("collector").and_then(|node| collector::read(node, &config.attribution));
    if let Some(list) = object.get("budgets")
        && config.downgrades.is_empty()
    {
        for (index, _) in config.budgets.iter().enumerate().filter(|(_, budget)| budget.downgrades()) {
            list.error_at(&format!("[{index}].on_exceeded"), "there are no downgrades to make");
        }
    }
    object.finish();
    Some(config)
}

fn read_size(
    object: &Object<'_, '_>,
    key: &'static str,
    default: usize,
    range: std::ops::RangeInclusive<u64>,
) -> usize {
    let number = object.get(key).and_then(|node| node.integer(range));
    number.and_then(|number| usize::try_from(number).ok()).unwrap_or(default)
}

fn read_u32(object: &Object<'_, '_>, key: &'static str, default: u32, range: std::ops::RangeInclusive<u64>) -> u32 {
    let number = object.get(key).and_then(|node| node.integer(range));
    number.and_then(|number| u32::try_from(number).ok()).unwrap_or(default)
}

fn read_upstream(node: Node<'_, '_>) -> Option<UpstreamConfig> {
    let object = node.object()?;
    let glob = |node: Node<'_, '_>| node.text().map(|text| Glob::new(&text));
    let mut upstream = UpstreamConfig {
        cluster: None,
        host: None,
        route: None,
        provider: object.get("provider").and_then(Node::text).map(|text| text.into_owned().into_boxed_str()),
        api: None,
        inject_include_usage: object.get("inject_include_usage").and_then(Node::boolean),
        reasoning_additive: false,
        price_multiplier: object.get("price_multiplier").and_then(prices::multiple),
        region: object.get("region").and_then(Node::text).map(|text| text.to_ascii_lowercase().into()),
        pass_signed: object
            .get("on_signed")
            .and_then(|policy| policy.one_of(&[("refuse", false), ("pass", true)]))
            .unwrap_or(false),
    };
    if let Some(matches) = object.require("match").and_then(Node::object) {
        upstream.cluster = matches.get("cluster").and_then(glob);
        upstream.host = matches.get("host").and_then(glob);
        upstream.route = matches.get("route").and_then(glob);
        if matches.is_empty() {
            matches.error("expected at least one of cluster, host, route");
        }
        matches.finish();
    }
    if let Some(api) = object.get("api")
        && let Some(name) = api.text()
    {
        upstream.api = Api::of_name(&name);
        if upstream.api.is_none() {
            let names: Vec<_> = Api::ALL.iter().map(|api| api.format().name).collect();
            api.error(format!("expected one of {}, got {name:?}", names.join(", ")));
        }
    }
    if let Some(quirks) = object.get("quirks") {
        let known = quirks.list(|quirk| quirk.one_of(&[("reasoning_additive", ())]));
        upstream.reasoning_additive = known.is_some_and(|known| !known.is_empty());
    }
    object.finish();
    Some(upstream)
}

const STREAMED_COST: [(&str, StreamedCost); 3] =
    [("none", StreamedCost::Nowhere), ("comment", StreamedCost::Comment), ("trailers", StreamedCost::Trailers)];

fn read_metering(node: Node<'_, '_>) -> Option<MeteringConfig> {
    let object = node.object()?;
    let default = MeteringConfig::default();
    let inject = object.get("inject_include_usage").and_then(Node::boolean);
    let max = object.get("max_request_bytes").and_then(|node| node.integer(1024..=1 << 30));
    let refuse_oversize =
        object.get("on_oversize").and_then(|policy| policy.one_of(&[("allow", false), ("refuse", true)]));
    let unmetered = [("record", OnUnmetered::Record), ("allow", OnUnmetered::Allow), ("reject", OnUnmetered::Reject)];
    let on_unmetered = object.get("on_unmetered").and_then(|policy| policy.one_of(&unmetered));
    let max_request_bytes = max.unwrap_or(default.max_request_bytes);
    let max_withheld = object.get("max_withheld_bytes").and_then(|node| {
        let bytes = node.integer(1024..=1 << 30)?;
        if bytes < max_request_bytes {
            node.error(format!("must not be less than max_request_bytes, which is {max_request_bytes}"));
        }
        Some(bytes)
    });
    let metering = MeteringConfig {
        hold_request_headers: object.get("hold_request_headers").and_then(Node::boolean).unwrap_or(false),
        max_request_bytes,
        max_withheld_bytes: max_withheld.unwrap_or_else(|| default.max_withheld_bytes.max(max_request_bytes)),
        refuse_oversize,
        on_unmetered: on_unmetered.unwrap_or_default(),
        streamed_cost: object.get("streamed_cost").and_then(|place| place.one_of(&STREAMED_COST)).unwrap_or_default(),
        cost_headers: object.get("cost_headers").and_then(Node::boolean).unwrap_or(default.cost_headers),
        inject_include_usage: inject.unwrap_or(default.inject_include_usage),
        hash_key: object.get("hash_key").and_then(Node::text).map(|text| text.into_owned().into_boxed_str()),
    };
    object.finish();
    Some(metering)
}

fn read_workload(node: Node<'_, '_>) -> Option<WorkloadConfig> {
    let object = node.object()?;
    let word = |node: Node<'_, '_>| {
        let word = node.text()?.to_lowercase();
        if !word.chars().all(char::is_alphanumeric) {
            node.error("expected one word of letters and digits");
        }
        Some(word.into_boxed_str())
    };
    let write_words = object.get("write_words").and_then(|list| list.list(word));
    object.finish();
    Some(WorkloadConfig { write_words: write_words.unwrap_or_else(|| WorkloadConfig::default().write_words) })
}

fn read_reservation(node: Node<'_, '_>) -> Option<ReservationConfig> {
    let object = node.object()?;
    let default = ReservationConfig::default();
    let tokens_per_byte = object.get("tokens_per_byte").and_then(Node::decimal).unwrap_or(default.tokens_per_byte);
    let number = |key, range| object.get(key).and_then(|node: Node<'_, '_>| node.integer(range));
    let max_output = number("default_max_output_tokens", 1..=100_000_000);
    let lease_secs = number("lease_secs", 5..=3600);
    object.finish();
    Some(ReservationConfig {
        tokens_per_byte,
        default_max_output_tokens: max_output.unwrap_or(default.default_max_output_tokens),
        lease_secs: lease_secs.unwrap_or(default.lease_secs),
    })
}

fn read_admin(node: Node<'_, '_>) -> Option<AdminConfig> {
    let object = node.object()?;
    let path = object.get("path").and_then(Node::text);
    if let (Some(path), Some(node)) = (&path, object.get("path"))
        && (!path.starts_with('/') || path.len() < 2 || path.ends_with('/'))
    {
        node.error("expected a path as /.tollgate");
    }
    let token_sha256 = object.require("token_sha256").and_then(attribution::read_hash);
    object.finish();
    Some(AdminConfig {
        path: path.map_or_else(|| "/.tollgate".into(), |path| Box::from(&*path)),
        token_sha256: token_sha256?,
    })
}

#[cfg(test)]
mod tests;

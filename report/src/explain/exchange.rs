//! One recorded call: its request and its response, from one file or from several.

mod file;
mod headers;

use crate::input;
use crate::output::Output;
use anyhow::{Context, bail};
use clap::Args;
use jiff::Timestamp;
use std::path::{Path, PathBuf};

/// Headers as raw bytes, names in lower case.
pub(crate) type Headers = Vec<(String, Vec<u8>)>;

/// Where the call is found.
#[derive(Args, Debug)]
pub(crate) struct CallArgs {
    /// A whole exchange in one file.
    #[arg(long, value_name = "FILE", conflicts_with_all = PARTS)]
    exchange: Option<PathBuf>,
    /// The request's headers, one `name: value` a line; a request line may stand first.
    #[arg(long, value_name = "FILE")]
    request_headers: Option<PathBuf>,
    /// The request's body.
    #[arg(long, value_name = "FILE")]
    request_body: Option<PathBuf>,
    /// The response's headers; a status line may stand first.
    #[arg(long, value_name = "FILE")]
    response_headers: Option<PathBuf>,
    /// The response's body: JSON, a stream of events, compressed or not.
    #[arg(long, value_name = "FILE")]
    response_body: Option<PathBuf>,
    /// The request's path.
    #[arg(long)]
    path: Option<String>,
    /// The request's method.
    #[arg(long)]
    method: Option<String>,
    /// The host it went to.
    #[arg(long)]
    host: Option<String>,
    /// The Envoy cluster it went to, which `upstreams` may ask for.
    #[arg(long)]
    cluster: Option<String>,
    /// The Envoy route it took.
    #[arg(long)]
    route: Option<String>,
    /// When it was billed (RFC 3339), for dated and off-peak prices; otherwise now.
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
}

const PARTS: [&str; 5] = ["request_headers", "request_body", "response_headers", "response_body", "path"];

/// A call as the filter sees it.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    /// With `:method`, `:path` and `:authority`.
    pub(crate) request_headers: Headers,
    /// Its bytes as they were sent.
    pub(crate) request_body: Vec<u8>,
    /// With `:status`; absent: no answer ever came.
    pub(crate) response_headers: Option<Headers>,
    /// Its bytes as they came, perhaps compressed.
    pub(crate) response_body: Vec<u8>,
    /// When it was billed, in nanoseconds since the Unix epoch.
    pub(crate) at_ns: Option<u64>,
    /// The Envoy cluster it went to.
    pub(crate) cluster: Option<String>,
    /// The Envoy route it took.
    pub(crate) route: Option<String>,
}

impl Exchange {
    /// A header of the request, as far as it is text.
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.request_headers.iter().find(|(own, _)| own == name);
        value.and_then(|(_, value)| str::from_utf8(value).ok()).unwrap_or_default()
    }
}

impl CallArgs {
    /// Reads the call.
    pub(crate) fn read(&self, output: &mut Output) -> anyhow::Result<Exchange> {
        let mut exchange = match &self.exchange {
            Some(path) => file::read(path)?,
            None if self.is_empty() => bail!(
                "there is no call to explain: give it whole by --exchange, or its parts, as in --path \
                 /v1/chat/completions --response-body answer.json"
            ),
            None => self.parts()?,
        };
        let named = [(":method", &self.method), (":path", &self.path), (":authority", &self.host)];
        for (name, value) in named {
            if let Some(value) = value {
                set(&mut exchange.request_headers, name, value.as_bytes());
            }
        }
        if exchange.header(":method").is_empty() {
            set(&mut exchange.request_headers, ":method", b"POST");
        }
        if exchange.header(":authority").is_empty() {
            let host = exchange.header("host").to_owned();
            if !host.is_empty() {
                set(&mut exchange.request_headers, ":authority", host.as_bytes());
            }
        }
        if !exchange.header(":path").starts_with('/') {
            bail!("the request has no path: give one with --path, as in --path /v1/chat/completions");
        }
        exchange.cluster = self.cluster.clone().or(exchange.cluster);
        exchange.route = self.route.clone().or(exchange.route);
        if let Some(at) = self.at {
            exchange.at_ns = Some(nanoseconds(at)?);
        }
        for (what, headers, body) in [
            ("request", Some(&mut exchange.request_headers), &exchange.request_body),
            ("response", exchange.response_headers.as_mut(), &exchange.response_body),
        ] {
            if headers.is_some_and(|headers| drop_false_encoding(headers, body)) {
                output.note(&format!(
                    "the {what}'s headers say gzip and its body is not compressed; it is taken as it is"
                ));
            }
        }
        Ok(exchange)
    }

    fn is_empty(&self) -> bool {
        let files = [&self.request_headers, &self.request_body, &self.response_headers, &self.response_body];
        files.iter().all(|file| file.is_none()) && self.path.is_none()
    }

    fn parts(&self) -> anyhow::Result<Exchange> {
        let headers = |path: &Option<PathBuf>| match path {
            Some(path) => {
                headers::parse(&input::bytes(path)?).with_context(|| format!("cannot use {}", input::name(path)))
            }
            None => Ok(Headers::new()),
        };
        let body = |path: &Option<PathBuf>| path.as_deref().map_or(Ok(Vec::new()), input::bytes);
        let request_body = body(&self.request_body)?;
        let mut exchange = Exchange {
            request_headers: headers(&self.request_headers)?,
            request_body,
            response_body: body(&self.response_body)?,
            ..Exchange::default()
        };
        if self.response_headers.is_some() || self.response_body.is_some() {
            let mut response = headers(&self.response_headers)?;
            if !response.iter().any(|(name, _)| name == ":status") {
                response.insert(0, (":status".into(), b"200".to_vec()));
            }
            exchange.response_headers = Some(response);
        }
        // A request without a body is over with its headers, and then it names no model.
        Ok(exchange)
    }
}

/// Makes `value` the only value of a header.
fn set(headers: &mut Headers, name: &str, value: &[u8]) {
    headers.retain(|(own, _)| own != name);
    headers.insert(0, (name.into(), value.to_vec()));
}

/// Takes `content-encoding: gzip` away where the body is no gzip: `curl --compressed` keeps the header and writes the
/// body decoded. Whether it did.
fn drop_false_encoding(headers: &mut Headers, body: &[u8]) -> bool {
    let before = headers.len();
    let claims = |(name, value): &(String, Vec<u8>)| name == "content-encoding" && value.eq_ignore_ascii_case(b"gzip");
    if !body.is_empty() && !body.starts_with(&[0x1f, 0x8b]) {
        headers.retain(|header| !claims(header));
    }
    headers.len() < before
}

fn nanoseconds(at: Timestamp) -> anyhow::Result<u64> {
    u64::try_from(at.as_nanosecond()).with_context(|| format!("{at} is before 1970 or after 2554"))
}

/// A file named in another, which is looked for beside that one.
fn beside(file: &Path, named: &str) -> PathBuf {
    file.parent().map_or_else(|| named.into(), |folder| folder.join(named))
}

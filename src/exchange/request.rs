//! The request's body on its way to the provider: read for its facts, and hashed where that is asked for.

use super::held::{Held, Whole};
use crate::api::facts::Configured;
use crate::api::{self, Api, RequestFacts, RequestField};
use crate::body::ContentEncoding;
use crate::body::json::{Cursor, Paths, Scanner};
use crate::body::multipart;
use crate::config::MeteringConfig;
use crate::http::Headers;
use crate::rewrite::include_usage::{self, Injector};
use crate::withheld::{Share, Withheld};
use sha2::{Digest, Sha256};
use std::rc::Rc;

/// Bytes of the body behind `prefix_hash`: about a thousand tokens, the least that providers cache.
const PREFIX_BYTES: usize = 4096;

/// Bytes of a body that are taken for text unseen: most requests are no longer.
const PLAIN_BYTES: u64 = 64 * 1024;

/// Letters and digits in a row that may still be text.
const LONGEST_WORD_BYTES: u64 = 1024;

/// What reading the body came to.
#[derive(Debug, Default)]
pub(super) struct RequestBody {
    /// What it says.
    pub(super) facts: RequestFacts,
    /// Its length.
    pub(super) bytes: u64,
    /// As much of it as may be text: files in forms and in base64 are not.
    pub(super) text_bytes: u64,
    /// The content type of a form.
    pub(super) form: Option<Box<[u8]>>,
    /// What was taken for files in base64.
    pub(super) file_bytes: u64,
    /// Keyed hash of all of it, 16 hex digits.
    pub(super) hash: Option<Box<str>>,
    /// Keyed hash of its first 4096 bytes, where it has as many.
    pub(super) prefix_hash: Option<Box<str>>,
    /// What became of asking for usage in the caller's place, where that was tried.
    pub(super) include_usage: Option<include_usage::Outcome>,
}

/// Reads one request body.
pub(super) struct RequestReader {
    format: Reading,
    hashes: Option<Hashes>,
    injector: Option<Injector>,
    /// Places that the configuration names.
    paths: Option<Rc<Paths<RequestField>>>,
    /// What goes on only once all of it has come and been judged.
    withheld: Option<Vec<u8>>,
    /// The host holds headers and body.
    held: Option<Held>,
    /// What is held back of it, here or by the host.
    share: Share,
    /// Characters of base64 in a row, so far.
    base64_run: u64,
    body: RequestBody,
}

enum Reading {
    Json(Scanner<RequestField, Option<Cursor<RequestField>>>),
    Form(multipart::Reader),
    /// Encoded.
    Off,
}

struct Hashes {
    all: Sha256,
    prefix: Sha256,
    prefix_left: usize,
}

/// What is to become of a body besides being read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Plan {
    /// Usage is asked for in the caller's place.
    pub(super) inject: bool,
    /// Nothing of it goes on before it has been judged.
    pub(super) withhold: bool,
    /// The host holds the headers too, and the body itself.
    pub(super) hold: bool,
    /// It may have to name another model or a lower limit.
    pub(super) rewrite: bool,
}

impl RequestReader {
    /// A reader of a body with these headers, which also reads what stands at `paths`; what it holds back counts in
    /// `withheld`.
    pub(super) fn new(
        api: Api,
        headers: &Headers<'_>,
        metering: &MeteringConfig,
        paths: Option<&Rc<Paths<RequestField>>>,
        plan: Plan,
        withheld: &Withheld,
    ) -> RequestReader {
        let readable = ContentEncoding::of(headers.get("content-encoding")) == ContentEncoding::Identity;
        // Only formats that take forms are read as such: a header must not hide what a body says.
        let takes_forms = matches!(api, Api::OpenaiTranscription | Api::OpenaiImages | Api::Unrecognised);
        let form = headers.get("content-type").filter(|_| takes_forms).and_then(multipart::Reader::new);
        let content_type = headers.get("content-type").filter(|_| form.is_some()).map(Into::into);
        let format = match form {
            _ if !readable => Reading::Off,
            Some(form) => Reading::Form(form),
            None => Reading::Json(Scanner::following(api.format().request, paths.cloned().map(Cursor::new))),
        };
        let hashes = metering.hash_key.as_deref().map(|key| {
            let keyed = Sha256::new().chain_update(key).chain_update([0]);
            Hashes { all: keyed.clone(), prefix: keyed, prefix_left: PREFIX_BYTES }
        });
        RequestReader {
            format,
            hashes,
            injector: (plan.inject && !plan.hold).then(Injector::new),
            paths: paths.cloned(),
            withheld: (plan.withhold && !plan.hold).then(Vec::new),
            held: plan.hold.then(|| Held::new(plan)),
            share: withheld.share(),
            base64_run: 0,
            body: RequestBody { form: content_type, ..RequestBody::default() },
        }
    }

    /// Reads the next bytes and returns what goes on in their place; `None`: they do.
    pub(super) fn feed(&mut self, bytes: &[u8], end_of_stream: bool) -> Option<Vec<u8>> {
        self.read(bytes);
        if let Some(held) = &mut self.held {
            held.keep(bytes);
            self.share.add(bytes.len());
            return None;
        }
        self.pass(bytes, end_of_stream)
    }

    fn pass(&mut self, bytes: &[u8], end_of_stream: bool) -> Option<Vec<u8>> {
        // Mistral's models refuse to be asked; while nothing is held back it is not too late to leave them alone.
        if self.is_for_mistral() && self.injector.as_ref().is_some_and(|injector| injector.held_bytes() == 0) {
            self.injector = None;
        }
        let edited = self.injector.as_mut().and_then(|injector| injector.feed(bytes, end_of_stream));
        let Some(withheld) = &mut self.withheld else { return edited };
        withheld.extend_from_slice(edited.as_deref().unwrap_or(bytes));
        self.share.add(bytes.len());
        Some(if end_of_stream { self.withheld.take().unwrap_or_default() } else { Vec::new() })
    }

    /// The same once the answer has overtaken the request. What was to be judged first never goes on: nobody waits for it
    /// any more.
    pub(super) fn feed_late(&mut self, bytes: &[u8], end_of_stream: bool) -> Option<Vec<u8>> {
        if let Some(held) = &mut self.held {
            held.forget();
            self.share.clear();
            return None;
        }
        if self.withheld.is_none() {
            return self.feed(bytes, end_of_stream);
        }
        self.withheld = Some(Vec::new());
        self.share.clear();
        Some(Vec::new())
    }

    fn is_for_mistral(&self) -> bool {
        self.body.facts.model.as_deref().is_some_and(api::is_mistral_model)
    }

    /// Whether the host holds headers and body.
    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Whether usage is asked for once the body passes.
    pub(super) fn injects_later(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.plan.inject)
    }

    /// Takes all of a body that the host has held, where it may have to be another than came.
    pub(super) fn take_held(&mut self) -> Option<Whole> {
        let held = self.held.take()?;
        if held.plan.inject && !self.is_for_mistral() {
            self.injector = Some(Injector::new());
        }
        held.finish(self.injector.as_mut())
    }

    /// Holds no longer: from here on the body passes, or is withheld, as one whose headers have gone on. Returns what goes
    /// on in the place of what has come of it.
    pub(super) fn release(&mut self) -> Option<Vec<u8>> {
        let held = self.held.take()?;
        self.share.clear();
        self.injector = held.plan.inject.then(Injector::new);
        self.withheld = held.plan.withhold.then(Vec::new);
        self.pass(&held.into_bytes(), false)
    }

    /// Whether what the body says can be read at all.
    pub(super) fn reads(&self) -> bool {
        !matches!(self.format, Reading::Off)
    }

    /// Whether nothing goes on before the end.
    pub(super) fn withholds(&self) -> bool {
        self.withheld.is_some() || self.held.as_ref().is_some_and(|held| held.plan.withhold)
    }

    /// Whether something of what has come has not gone on.
    pub(super) fn holds(&self) -> bool {
        self.withheld.as_ref().is_some_and(|withheld| !withheld.is_empty())
            || self.injector.as_ref().is_some_and(|injector| injector.held_bytes() > 0)
    }

    /// What became of asking for usage so far. A request that was overtaken by its answer is not asked any more where
    /// that can still be helped.
    pub(super) fn overtaken(&mut self) -> Option<include_usage::Outcome> {
        let outcome = self.injector.as_ref().map(Injector::outcome);
        if outcome != Some(include_usage::Outcome::Injected)
            && self.injector.as_ref().is_some_and(|injector| injector.held_bytes() == 0)
        {
            self.injector = None;
        }
        outcome
    }

    /// Counts what may be text. Short bodies are taken whole; in long ones, long runs of base64 are files.
    fn count_text(&mut self, bytes: &[u8]) {
        if matches!(self.format, Reading::Form(_)) {
            return;
        }
        let room = PLAIN_BYTES.saturating_sub(self.body.bytes);
        let plain = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        self.body.text_bytes += plain as u64;
        for byte in bytes.iter().skip(plain) {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'_') {
                self.base64_run += 1;
                continue;
            }
            let run = std::mem::take(&mut self.base64_run);
            let is_file = run >= LONGEST_WORD_BYTES;
            self.body.text_bytes += if is_file { 1 } else { run + 1 };
            self.body.file_bytes += if is_file { run } else { 0 };
        }
    }

    fn read(&mut self, bytes: &[u8]) {
        self.count_text(bytes);
        self.body.bytes = self.body.bytes.saturating_add(bytes.len() as u64);
        let facts = &mut self.body.facts;
        match &mut self.format {
            Reading::Json(scanner) => scanner.feed(bytes, facts),
            Reading::Form(form) => form.feed(bytes, |name, value| match name {
                "model" => facts.model = Some(value.into()),
                "stream" => facts.stream = value.parse().ok(),
                _ => {
                    // A field of a form is a key of the root object.
                    let field = self.paths.as_ref().and_then(|paths| paths.at_root(name));
                    if let Some(RequestField::Configured(number)) = field {
                        facts.set_configured(number, Configured::Text(value.into()));
                    }
                }
            }),
            Reading::Off => {}
        }
        if let Some(hashes) = &mut self.hashes {
            hashes.all.update(bytes);
            let prefix = bytes.get(..hashes.prefix_left).unwrap_or(bytes);
            hashes.prefix.update(prefix);
            hashes.prefix_left -= prefix.len();
        }
    }

    /// What the body says so far.
    pub(super) fn facts(&self) -> &RequestFacts {
        &self.body.facts
    }

    /// Bytes that have come so far.
    pub(super) fn bytes(&self) -> u64 {
        self.body.bytes
    }

    /// Ends the body.
    pub(super) fn finish(mut self) -> RequestBody {
        if let Reading::Json(scanner) = &mut self.format {
            scanner.finish(&mut self.body.facts);
        }
        self.body.include_usage = self.injector.map(|injector| injector.outcome());
        if let Some(hashes) = self.hashes.filter(|_| self.body.bytes > 0) {
            self.body.hash = Some(short_hex(hashes.all));
            self.body.prefix_hash = (hashes.prefix_left == 0).then(|| short_hex(hashes.prefix));
        }
        self.body
    }
}

fn short_hex(hash: Sha256) -> Box<str> {
    let first = hash.finalize().first_chunk().copied().unwrap_or_default();
    format!("{:016x}", u64::from_be_bytes(first)).into()
}

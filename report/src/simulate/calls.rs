//! Recorded calls in the order in which they began.
//!
//! A record is written when its call ends, so files are in the order of ends, more or less. Of all files together a
//! bounded number of calls is looked at at once, and the earliest of them comes next.

use super::records::{self, Line};
use crate::lines::{self, Damaged, Lines};
use crate::recorded::{self, Recorded, Values};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BinaryHeap, HashSet, VecDeque};
use std::hash::BuildHasher;
use std::path::PathBuf;
use std::rc::Rc;
use tollgate::api::Api;
use tollgate::budget::{Amount, Budget, Key};
use tollgate::config::{Config, OnUnknownModel, ReservationConfig};
use tollgate::downgrade;
use tollgate::estimate::{Asked, Size};
use tollgate::money::{Decimal, Usd};
use tollgate::price::Model;
use tollgate::record::{Decision, ExactNumber, PriceStatus, UsageRecord};
use tollgate::workload;

/// Calls that are sorted by their start.
const MAX_SORTED: usize = 200_000;

/// The last so many ids are known, and met again counted once.
const MAX_IDS: usize = 1 << 20;

/// Lines without a record that are named.
const MAX_DAMAGED: usize = 20;

/// A call as budgets see it.
#[derive(Debug)]
pub(super) struct Call {
    /// When it began, in nanoseconds since 1970.
    pub(super) start_ns: u64,
    /// When it ended.
    pub(super) end_ns: u64,
    /// What budgets look at.
    pub(super) values: Values,
    /// Whether it writes.
    pub(super) writes: bool,
    /// The most it might have cost.
    pub(super) estimate: Amount,
    /// What it cost; unknown where its model had no price.
    pub(super) cost: Option<Usd>,
    /// The tokens it used, where they are known.
    pub(super) tokens: Option<u64>,
    /// The cheaper model it could have gone to, where there is one.
    pub(super) cheaper: Option<Box<Cheaper>>,
    /// A signature kept it from going there, and let it pass.
    pub(super) passes_signed: bool,
}

/// A call at a cheaper model.
#[derive(Debug)]
pub(super) struct Cheaper {
    /// The most it might have cost there.
    pub(super) estimate: Amount,
    /// What the same tokens cost there; unknown where nobody counted them.
    pub(super) cost: Option<Usd>,
}

/// What was found in the files.
#[derive(Debug, Default, Serialize)]
pub(super) struct Found {
    /// Lines that are not empty.
    pub(super) lines: u64,
    /// Calls that were played.
    pub(super) calls: u64,
    /// Lines that were left out, by reason.
    pub(super) left_out: BTreeMap<&'static str, u64>,
    /// Calls that began before one that had been played already.
    pub(super) late: u64,
    /// Calls whose cost nobody knows; their estimate counts.
    pub(super) unpriced: u64,
    /// Calls that the new price table has no price for; what they cost when they were made counts.
    pub(super) priced_as_recorded: u64,
    /// Lines that are no records.
    pub(super) damaged_lines: u64,
    /// The first of them.
    pub(super) damaged: Vec<Damaged>,
}

/// Reads calls from files.
pub(super) struct Reader<'c> {
    files: Vec<File>,
    sorted: BinaryHeap<Earliest>,
    ids: Ids,
    rules: Rules<'c>,
    /// What was found so far.
    pub(super) found: Found,
    reached_ns: u64,
}

struct File {
    lines: Lines,
    next: Option<Call>,
}

/// How a record becomes a call.
struct Rules<'c> {
    config: &'c Config,
    keys: Rc<[Key]>,
    /// Every call costs what the configuration's prices say.
    reprice: bool,
    /// Some budget sends calls to cheaper models.
    downgrades: bool,
    /// Input is known in tokens.
    by_tokens: ReservationConfig,
}

/// A call that comes before those that began later.
struct Earliest(Call);

impl Ord for Earliest {
    fn cmp(&self, other: &Earliest) -> std::cmp::Ordering {
        other.0.start_ns.cmp(&self.0.start_ns).then_with(|| other.0.end_ns.cmp(&self.0.end_ns))
    }
}

impl PartialOrd for Earliest {
    fn partial_cmp(&self, other: &Earliest) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Earliest {
    fn eq(&self, other: &Earliest) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Earliest {}

/// The ids that came last.
#[derive(Default)]
struct Ids {
    known: HashSet<u64>,
    order: VecDeque<u64>,
    hash: RandomState,
}

impl Ids {
    /// Whether `id` is new.
    fn insert(&mut self, id: &str) -> bool {
        let id = self.hash.hash_one(id);
        let new = self.known.insert(id);
        if new {
            self.order.push_back(id);
            if self.order.len() > MAX_IDS
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
        new
    }
}

impl<'c> Reader<'c> {
    /// Opens the files. `reprice` says whether calls cost what the configuration's prices say.
    pub(super) fn open(paths: &[PathBuf], config: &'c Config, reprice: bool) -> anyhow::Result<Reader<'c>> {
        let progress = lines::progress(paths.iter());
        let files = paths.iter().map(|path| Ok(File { lines: Lines::open(path, &progress)?, next: None }));
        let mut reader = Reader {
            files: files.collect::<anyhow::Result<_>>()?,
            sorted: BinaryHeap::new(),
            ids: Ids::default(),
            rules: Rules {
                config,
                keys: recorded::keys(&config.budgets).into(),
                reprice,
                downgrades: config.budgets.iter().any(Budget::downgrades),
                by_tokens: ReservationConfig { tokens_per_byte: Decimal::ONE, ..config.reservation.clone() },
            },
            found: Found::default(),
            reached_ns: 0,
        };
        for index in 0..reader.files.len() {
            reader.refill(index)?;
        }
        Ok(reader)
    }

    /// The call that began next.
    ///
    /// # Errors
    /// A file can't be read any further.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<Call>> {
        while self.sorted.len() < MAX_SORTED {
            let started = |file: &File| file.next.as_ref().map(|call| call.start_ns);
            let waiting = self.files.iter().enumerate().filter_map(|(index, file)| Some((started(file)?, index)));
            let Some((_, index)) = waiting.min() else { break };
            self.sorted.extend(self.files.get_mut(index).and_then(|file| file.next.take()).map(Earliest));
            self.refill(index)?;
        }
        let Some(Earliest(call)) = self.sorted.pop() else { return Ok(None) };
        self.found.calls += 1;
        self.found.late += u64::from(call.start_ns < self.reached_ns);
        self.reached_ns = self.reached_ns.max(call.start_ns);
        Ok(Some(call))
    }

    /// Reads the next call of a file.
    fn refill(&mut self, index: usize) -> anyhow::Result<()> {
        let Some(file) = self.files.get_mut(index) else { return Ok(()) };
        while file.next.is_none() {
            let Some(line) = records::next(&mut file.lines)? else { break };
            self.found.lines += 1;
            let left_out = match line {
                Line::Record(record) if !self.ids.insert(&record.id) => "met before",
                Line::Record(record) => match self.rules.call(*record, &mut self.found) {
                    Ok(call) => {
                        file.next = Some(call);
                        continue;
                    }
                    Err(reason) => reason,
                },
                Line::Provisional => "provisional",
                Line::Other => "not the record of a call",
                Line::Damaged(message) => {
                    self.found.damaged_lines += 1;
                    if self.found.damaged.len() < MAX_DAMAGED {
                        self.found.damaged.push(file.lines.damaged(message));
                    }
                    "no record"
                }
            };
            *self.found.left_out.entry(left_out).or_default() += 1;
        }
        Ok(())
    }
}

impl Rules<'_> {
    /// The call of a record, or why there is none that budgets could count.
    fn call(&self, mut record: UsageRecord, found: &mut Found) -> Result<Call, &'static str> {
        let ns = |at: Timestamp| u64::try_from(at.as_nanosecond()).ok();
        let Some(start_ns) = record.ts.parse().ok().and_then(ns) else { return Err("without a time") };
        let noted = |wanted: &str| record.notes.iter().any(|note| **note == *wanted);
        if record.decision == Decision::Refused {
            return Err("refused when it was made");
        }
        // A look at work that goes on, or was charged, is no call to a budget.
        let looks = noted("charged_before") || (noted("not_finished") && record.request_model.is_none());
        if looks || Api::of_name(&record.api).is_some_and(|api| api.format().free) {
            return Err("never charged");
        }
        let passes_signed = noted("downgrade_signed");
        let end_ns = start_ns.saturating_add(record.duration_ms.unwrap_or(0).saturating_mul(1_000_000));
        let values = Values::of(&mut record, &self.keys);
        let cost = self.cost(&record, found).or(record.costs_nothing().then_some(Usd::ZERO));
        found.unpriced += u64::from(cost.is_none());
        let (estimate, cheaper) = self.estimates(&record, &values, cost, start_ns / 1_000_000_000);
        let cheaper = cheaper.filter(|_| !passes_signed);
        let writes = record.workload.as_deref().and_then(workload::writes) == Some(true);
        let tokens = record.counted_tokens();
        Ok(Call { start_ns, end_ns, values, writes, estimate, cost, tokens, cheaper, passes_signed })
    }

    /// What a call cost at the model that was asked for.
    fn cost(&self, record: &UsageRecord, found: &mut Found) -> Option<Usd> {
        let as_recorded = || {
            let paid = Usd::from_pico(record.cost_picousd?);
            let avoided = record.avoided_cost_usd.as_ref().and_then(usd).unwrap_or_default();
            Some(paid.saturating_add(avoided))
        };
        if !self.reprice || record.price_status == Some(PriceStatus::Free) {
            return as_recorded();
        }
        let table = &self.config.prices.table;
        let call = Recorded::of(record)?;
        let asked = record.downgraded_from.as_deref().and_then(|name| self.find(record, name));
        let cost = if asked.is_some() { call.cost_at(asked, table) } else { call.cost(table) };
        cost.ok().or_else(|| {
            found.priced_as_recorded += 1;
            as_recorded()
        })
    }

    fn find(&self, record: &UsageRecord, name: &str) -> Option<&Model> {
        let found = self.config.prices.table.find(name, recorded::biller(record), record.region.as_deref());
        found.map(|(model, _)| model)
    }

    /// The most a call might have cost at its own model when it began, and what it would have come to at a cheaper one.
    fn estimates(
        &self,
        record: &UsageRecord,
        values: &Values,
        cost: Option<Usd>,
        start: u64,
    ) -> (Amount, Option<Box<Cheaper>>) {
        // Where the record's model stood is not in it; most requests have it in their body.
        let late = self.config.late(false);
        let asked = Asked {
            table: &self.config.prices.table,
            reservation: &self.by_tokens,
            model: record.request_model.as_deref(),
            biller: recorded::biller(record),
            size: Size {
                text_bytes: record.input_tokens.unwrap_or(0),
                max_output_tokens: record.max_output_tokens,
                ..Size::default()
            },
            circumstances: recorded::circumstances(record, start),
            assumes_highest: &|| self.config.on_unknown_model(values, &late) == OnUnknownModel::AssumeHighest,
        };
        let bound = asked.bound(None);
        let held = record.estimated_cost_usd.as_ref().and_then(usd);
        let held = held.filter(|_| !self.reprice && record.decision != Decision::Downgraded);
        let usd = held.or(bound.usd).or(cost).unwrap_or_default();
        let amount = Amount { usd, tokens: bound.tokens(), calls: 1 };

        let cheaper = || {
            let (_, target) = self.config.downgrade(asked.model.filter(|_| self.downgrades)?)?;
            if !downgrade::fits(Api::of_name(&record.api)?, &asked, &target.to) {
                return None;
            }
            let there = asked.bound(Some(&target.to));
            let estimate = Amount { usd: there.usd.unwrap_or_default(), tokens: there.tokens(), calls: 1 };
            // Without usage it costs there what it costs here: nothing, if anything is known of it.
            let cost = match Recorded::of(record) {
                Some(call) => call.cost_at(self.find(record, &target.to), &self.config.prices.table).ok().or(cost),
                None => cost,
            };
            Some(Box::new(Cheaper { estimate, cost }))
        };
        (amount, cheaper())
    }
}

fn usd(number: &ExactNumber) -> Option<Usd> {
    Decimal::parse(number.as_str()).ok().and_then(Usd::of)
}

//! What calls that were made would cost under two price tables, from their usage records.
//!
//! What a record says of a call is in [`crate::recorded`]; it is priced by the filter's own code.

use crate::lines::{self, Line, Lines};
use crate::output::{Columns, Output, STRONG};
use crate::recorded::Recorded;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::iter;
use std::path::PathBuf;
use tollgate::money::Usd;
use tollgate::price::{NoPrice, PriceTable};
use tollgate::record::{PriceStatus, UsageRecord};

/// What the calls of a file cost.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(crate) struct Effect {
    /// Lines that were read.
    read: u64,
    /// Calls with a price in both tables, in all and by model.
    total: Costs,
    models: BTreeMap<String, Costs>,
    /// Calls that could not be priced under both, by reason.
    left_out: BTreeMap<String, u64>,
}

/// Calls and what they cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Costs {
    calls: u64,
    #[serde(serialize_with = "as_text")]
    old_usd: Usd,
    #[serde(serialize_with = "as_text")]
    new_usd: Usd,
}

fn as_text<S: serde::Serializer>(usd: &Usd, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(usd)
}

impl Costs {
    fn add(&mut self, old: Usd, new: Usd) {
        self.calls += 1;
        self.old_usd = self.old_usd.saturating_add(old);
        self.new_usd = self.new_usd.saturating_add(new);
    }

    /// Calls, old and new cost, and the difference.
    fn cells(&self) -> [String; 4] {
        let difference = Usd::from_pico(self.new_usd.pico().saturating_sub(self.old_usd.pico()));
        let sign = if difference > Usd::ZERO { "+" } else { "" };
        [self.calls.to_string(), self.old_usd.to_string(), self.new_usd.to_string(), format!("{sign}{difference}")]
    }
}

/// Prices the records in `path` under both tables.
pub(crate) fn effect(path: &PathBuf, old: &PriceTable, new: &PriceTable) -> anyhow::Result<Effect> {
    read(Lines::open(path, &lines::progress(iter::once(path)))?, old, new)
}

fn read(mut lines: Lines, old: &PriceTable, new: &PriceTable) -> anyhow::Result<Effect> {
    #[derive(Deserialize)]
    struct Kind {
        #[serde(rename = "type")]
        kind: Option<String>,
    }
    let mut effect = Effect::default();
    while let Some(line) = lines.next()? {
        effect.read += 1;
        let line = match line {
            Line::Whole(line) => line,
            Line::TooLong => &[],
        };
        match serde_json::from_slice::<Kind>(line) {
            Ok(Kind { kind: Some(kind) }) if kind == "usage" => match serde_json::from_slice::<UsageRecord>(line) {
                Ok(record) => effect.add(&record, old, new),
                Err(_) => effect.leave_out("no record"),
            },
            Ok(_) => effect.leave_out("not the record of a call"),
            Err(_) => effect.leave_out("no record"),
        }
    }
    Ok(effect)
}

impl Effect {
    fn add(&mut self, record: &UsageRecord, old: &PriceTable, new: &PriceTable) {
        if record.price_status == Some(PriceStatus::Free) {
            return self.leave_out("nothing was to pay");
        }
        let Some(call) = Recorded::of(record) else {
            return self.leave_out("no usage");
        };
        match (call.cost(old), call.cost(new)) {
            (Ok(old), Ok(new)) => {
                self.total.add(old, new);
                self.models.entry(call.name().to_owned()).or_default().add(old, new);
            }
            (Err(reason), Err(_)) => self.leave_out(&format!("{} in both tables", why(reason))),
            (Err(reason), Ok(_)) => self.leave_out(&format!("{} in the old table", why(reason))),
            (Ok(_), Err(reason)) => self.leave_out(&format!("{} in the new table", why(reason))),
        }
    }

    fn leave_out(&mut self, reason: &str) {
        *self.left_out.entry(reason.to_owned()).or_default() += 1;
    }

    /// For people.
    pub(crate) fn print(&self, output: &mut Output) -> anyhow::Result<()> {
        writeln!(output, "{STRONG}cost of the calls in USD{STRONG:#}")?;
        let mut columns = Columns::new(&[1, 2, 3, 4]).headings(["model", "calls", "old", "new", "difference"]);
        for (name, costs) in self.models.iter().chain([(&"total".to_owned(), &self.total)]) {
            let [calls, old, new, difference] = costs.cells();
            columns.row([name.clone(), calls, old, new, difference]);
        }
        output.columns("  ", columns)?;
        for (reason, count) in &self.left_out {
            writeln!(output, "  left out, {reason}: {count}")?;
        }
        Ok(())
    }
}

fn why(reason: NoPrice) -> &'static str {
    match reason {
        NoPrice::UnknownModel => "model unknown",
        NoPrice::Unpriced => "without a price",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::fs::File;
    use std::io::Cursor;
    use tollgate::config::{Config, Origin};

    fn table(models: &str) -> PriceTable {
        Config::from_json(&format!(r#"{{"prices": {{"models": [{models}]}}}}"#), Origin::Json).unwrap().prices.table
    }

    fn effect_of(lines: &[&str], old: &str, new: &str) -> anyhow::Result<Effect> {
        let lines = lines.join("\n").into_bytes();
        read(Lines::of("usage.ndjson".into(), Box::new(Cursor::new(lines))), &table(old), &table(new))
    }

    const OLD: &str = r#"{"model": "m", "rates": {"input": 1, "cached_input": "0.5", "output": 2}, "units": {"web_search_requests": "0.01"}},
        {"model": "n", "rates": {"input": 10, "output": 20}}"#;

    #[test]
    fn a_call_is_priced_from_its_counts_and_units() {
        let record = r#"{"type": "usage", "ts": "2026-11-18T12:00:00Z", "response_model": "m", "input_tokens": 1000000,
            "cached_input_tokens": 400000, "output_tokens": 500000, "units": {"web_search_requests": 3}}"#
            .replace('\n', " ");
        let new = OLD.replacen(r#""output": 2"#, r#""output": 3"#, 1);
        let effect = effect_of(&[&record, &record], OLD, &new).unwrap();
        let costs = &effect.models["m"];
        assert_eq!(costs.cells(), ["2", "3.66", "4.66", "+1"]);
        assert_eq!(&effect.total, costs);
        assert!(effect.left_out.is_empty());
    }

    #[test]
    fn iterations_are_priced_at_their_own_models() {
        let charge = |model: &str, class: &str, quantity: u64| {
            format!(
                r#"{{"model": "{model}", "class": "{class}", "quantity": {quantity}, "unit": "tokens", "rate_usd": 1, "per": 1000000, "cost_picousd": 0}}"#
            )
        };
        let charges =
            [charge("m", "input", 1_000_000), charge("m", "input", 1_000_000), charge("n", "output", 1_000_000)]
                .join(",");
        let record = format!(
            r#"{{"type": "usage", "ts": "2026-11-18T12:00:00Z", "response_model": "m", "priced_model": "m", "input_tokens": 5, "charges": [{charges}]}}"#
        );
        let effect = effect_of(&[&record], OLD, OLD).unwrap();
        assert_eq!(effect.total.cells(), ["1", "22", "22", "0"]);
    }

    #[test]
    fn a_price_counts_at_the_end_of_the_call() {
        let table = r#"{"model": "m", "rates": {"input": 1}, "effective": [{"from": "2026-12-01T00:00:00Z", "rates": {"input": 5}}]}"#;
        let record = |duration: u64| {
            format!(
                r#"{{"type": "usage", "ts": "2026-11-30T23:59:59.5Z", "duration_ms": {duration}, "request_model": "m", "input_tokens": 1000000}}"#
            )
        };
        let effect = effect_of(&[&record(0), &record(2000)], table, table).unwrap();
        assert_eq!(effect.total.cells(), ["2", "6", "6", "0"]);
    }

    #[test]
    fn what_cannot_be_priced_is_counted_by_reason() {
        let usage = |model: &str| {
            format!(
                r#"{{"type": "usage", "ts": "", "response_model": "{model}", "input_tokens": 1, "output_tokens": 1}}"#
            )
        };
        let lines = [
            r#"{"type": "budget_alert", "budget": "x"}"#.to_owned(),
            r#"{"type": "usage", "price_status": "free"}"#.to_owned(),
            r#"{"type": "usage", "response_model": "m"}"#.to_owned(),
            usage("m"),
            usage("o"),
            usage("x"),
        ];
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let new = r#"{"model": "m", "rates": {"input": 1}}, {"model": "o", "rates": {"input": 1, "output": 2}}"#;
        let effect = effect_of(&lines, OLD, new).unwrap();
        let reasons: Vec<&str> = effect.left_out.keys().map(String::as_str).collect();
        assert_eq!(
            reasons,
            [
                "model unknown in both tables",
                "model unknown in the old table",
                "no usage",
                "not the record of a call",
                "nothing was to pay",
                "without a price in the new table",
            ]
        );
        assert_eq!((effect.read, effect.total.calls), (6, 0));
    }

    #[test]
    fn a_line_that_is_no_record_is_left_out_and_counted() {
        let record = r#"{"type": "usage", "ts": "2026-11-18T12:00:00Z", "response_model": "m", "input_tokens": 1}"#;
        for broken in ["oops", "-", "[]", "7", r#"{"type": "usage", "#, r#"{"type": "usage", "input_tokens": "many"}"#]
        {
            let effect = effect_of(&[broken, record], OLD, OLD).unwrap();
            assert_eq!((effect.read, effect.total.calls), (2, 1), "{broken}");
            assert_eq!(effect.left_out, [("no record".to_owned(), 1)].into(), "{broken}");
        }
    }

    #[test]
    fn records_are_read_from_gzip_too() {
        let record =
            r#"{"type": "usage", "ts": "2026-11-18T12:00:00Z", "response_model": "m", "input_tokens": 1000000}"#;
        let path = std::env::temp_dir().join(format!("tollgate-reprice-{}.ndjson.gz", std::process::id()));
        let mut gzip = GzEncoder::new(File::create(&path).unwrap(), Compression::fast());
        gzip.write_all(record.as_bytes()).unwrap();
        gzip.finish().unwrap();
        let effect = effect(&path, &table(OLD), &table(OLD));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(effect.unwrap().total.cells(), ["1", "1", "1", "0"]);
    }
}

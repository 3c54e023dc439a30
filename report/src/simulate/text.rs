//! The outcome of a replay for people.

use super::tally::{BudgetOutcome, Outcome, ScopeOutcome, Tally};
use crate::output::{Columns, FAINT, Output, STRONG};
use std::io::Write;
use tollgate::time::rfc3339_seconds;

/// Writes the outcome.
pub(super) fn print(outcome: &Outcome<'_>, output: &mut Output) -> anyhow::Result<()> {
    let (input, total) = (outcome.input, &outcome.total);
    writeln!(output, "{STRONG}Calls{STRONG:#}")?;
    let mut rows = Columns::new(&[1]);
    if let Some((first, last)) = &outcome.period {
        writeln!(output, "  from {first} to {last}")?;
    }
    rows.row(["played", &total.calls.to_string(), &format!("cost {} USD when they were made", total.recorded_usd)]);
    rows.row(["refused", &total.refused.to_string(), &format!("of these {} USD", total.refused_usd)]);
    rows.row(["downgraded", &total.downgraded.to_string(), &format!("save {} USD", total.saved_usd)]);
    rows.row(["spent", "", &format!("{} USD", total.spent_usd)]);
    output.columns("  ", rows)?;
    let notes = [
        (input.late, "began long before the calls beside them: they count where they stand, and sorting by ts helps"),
        (input.unpriced, "have no cost: their estimates count"),
        (input.priced_as_recorded, "have no price in the new table: what they cost when they were made counts"),
    ];
    for (count, what) in notes.into_iter().filter(|(count, _)| *count > 0) {
        writeln!(output, "  {count} of them {what}")?;
    }
    for (reason, count) in &input.left_out {
        writeln!(output, "  left out, {reason}: {count}")?;
    }
    outcome.budgets.iter().try_for_each(|budget| print_budget(budget, output))
}

fn print_budget(budget: &BudgetOutcome<'_>, output: &mut Output) -> anyhow::Result<()> {
    let mode = if budget.mode == "observe" { ", only observes" } else { "" };
    let (name, window, timezone) = (budget.budget, budget.window, budget.timezone);
    writeln!(output, "\n{STRONG}Budget {name}{STRONG:#}{FAINT}, per {window} in {timezone}{mode}{FAINT:#}")?;
    if budget.all.calls == 0 {
        writeln!(output, "  no call counts here")?;
        return Ok(());
    }
    let mut rows = Columns::new(&[1, 2, 3, 4, 5, 6]).headings([
        "scope",
        "calls",
        "spent USD",
        "peak",
        "refused",
        "downgraded",
        "saved USD",
        "alerts",
        "first refused",
    ]);
    for ScopeOutcome { scope, tally } in &budget.top {
        let value = |(key, value): (&String, &String)| match value.as_str() {
            "" => format!("no {key}"),
            value => format!("{key}={value}"),
        };
        let scope: Vec<String> = scope.iter().map(value).collect();
        rows.row(cells(if scope.is_empty() { "all calls".into() } else { scope.join(" ") }, tally));
    }
    if budget.scopes != 1 {
        rows.row(cells(format!("{} scopes", budget.scopes), &budget.all));
    }
    output.columns("  ", rows)?;
    let counts = [
        (budget.all.refused_busy, "refused only for what others held at that time"),
        (budget.all.passed_over, "passed over the limit, as on_exceeded says"),
        (budget.without_scope, "refused for a value of the scope that they lack"),
    ];
    for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
        writeln!(output, "  {count} {what}")?;
    }
    Ok(())
}

fn cells(scope: String, tally: &Tally) -> [String; 9] {
    let some = |count: u64| if count == 0 { String::new() } else { count.to_string() };
    let alerts: Vec<String> = tally.alerts.iter().map(|(percent, count)| format!("{percent} %: {count}")).collect();
    let saved = if tally.downgraded == 0 { String::new() } else { tally.saved_usd.to_string() };
    [
        scope,
        tally.calls.to_string(),
        tally.spent_usd.to_string(),
        format!("{} %", tally.peak_percent),
        some(tally.refused),
        some(tally.downgraded),
        saved,
        alerts.join(", "),
        tally.first_refused.map(rfc3339_seconds).unwrap_or_default(),
    ]
}

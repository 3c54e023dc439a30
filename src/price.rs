//! Price tables: which rates a model has, and what a usage costs under them.
//!
//! A table is looked up by model name as the provider answered it, then as the caller asked for it: an exact
//! name first, then the alias pattern that fixes the most characters. A model that is not found has the status
//! `unknown_model` and no cost: a silent zero would be a bypass. Costs are lists of disjoint [`Charge`]s that
//! sum to the total; a token class without a rate of its own is charged at its parent's.

use crate::glob::Glob;
use crate::money::{self, Decimal, Per, Rate, Usd};
use crate::usage::{Class, TokenUsage};
use hashbrown::HashMap;

/// Rates per million tokens, one slot per [`Class`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rates([Option<Decimal>; Class::ALL.len()]);

impl Rates {
    /// The same with `class` at `usd` dollars per million tokens.
    pub fn set(&mut self, class: Class, usd: Decimal) {
        if let Some(slot) = self.0.get_mut(class as usize) {
            *slot = Some(usd);
        }
    }

    /// The rate of `class`, or of the nearest class it falls back to; `None` where none of them has one.
    pub fn get(&self, class: Class) -> Option<Rate> {
        let own = self.0.get(class as usize).copied().flatten();
        match (own, class.parent()) {
            (Some(usd), _) => Some(Rate { usd, per: Per::Million }),
            (None, Some(parent)) => self.get(parent),
            (None, None) => None,
        }
    }
}

/// One model of the table.
#[derive(Clone, Debug)]
pub struct Model {
    /// Who bills it, where the table says so.
    pub provider: Option<Box<str>>,
    /// Its name in the table; this is the record's `priced_model`.
    pub name: Box<str>,
    /// Other names, with `*` as a wildcard.
    pub aliases: Vec<Glob>,
    /// Dollars per million tokens.
    pub rates: Rates,
}

/// A name the table has twice.
#[derive(Debug, PartialEq, Eq)]
pub struct Ambiguous {
    /// Index of the later of the two models.
    pub model: usize,
    /// Index of the alias in it, `None` where the clash is on the model's own name.
    pub alias: Option<usize>,
    /// Index of the earlier one.
    pub earlier: usize,
}

/// All models, indexed for lookup.
#[derive(Debug, Default)]
pub struct PriceTable {
    version: Option<Box<str>>,
    models: Vec<Model>,
    exact: HashMap<Box<str>, usize>,
    /// Patterns with a wildcard, those that fix most characters first.
    patterns: Vec<(Glob, usize)>,
}

impl PriceTable {
    /// Indexes `models`.
    ///
    /// # Errors
    /// Every name or pattern that stands for two models.
    pub fn new(version: Option<Box<str>>, models: Vec<Model>) -> Result<PriceTable, Vec<Ambiguous>> {
        let mut table = PriceTable { version, ..PriceTable::default() };
        let mut clashes = Vec::new();
        for (index, model) in models.iter().enumerate() {
            if let Some(earlier) = table.exact.insert(model.name.clone(), index) {
                clashes.push(Ambiguous { model: index, alias: None, earlier });
            }
        }
        for (index, model) in models.iter().enumerate() {
            for (alias_index, alias) in model.aliases.iter().enumerate() {
                let wild = alias.as_str().contains('*');
                let earlier = if wild {
                    let twin = table.patterns.iter().find(|(other, _)| other == alias).map(|&(_, owner)| owner);
                    table.patterns.push((alias.clone(), index));
                    twin
                } else {
                    table.exact.insert(alias.as_str().into(), index)
                };
                if let Some(earlier) = earlier {
                    clashes.push(Ambiguous { model: index, alias: Some(alias_index), earlier });
                }
            }
        }
        table.patterns.sort_by_key(|(glob, _)| std::cmp::Reverse(glob.literal_bytes()));
        table.models = models;
        if clashes.is_empty() { Ok(table) } else { Err(clashes) }
    }

    /// The table's version, for the record.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Whether there is any price at all.
    pub fn is_empty(&self) -> bool {
        self.models.is_empty()
    }

    /// The model called `name`.
    pub fn find(&self, name: &str) -> Option<&Model> {
        let exact = self.exact.get(name).copied();
        let index =
            exact.or_else(|| self.patterns.iter().find(|(glob, _)| glob.matches(name)).map(|&(_, index)| index))?;
        self.models.get(index)
    }
}

/// One line of a cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// What was counted.
    pub class: Class,
    /// How much of it.
    pub quantity: u64,
    /// At which rate.
    pub rate: Rate,
    /// Quantity times rate.
    pub cost: Usd,
}

/// A cost and the lines it is the sum of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CostBreakdown {
    /// Disjoint lines.
    pub charges: Vec<Charge>,
    /// Their sum.
    pub total: Usd,
    /// True where a line or the sum exceeded what can be counted and stopped at the largest amount.
    pub saturated: bool,
}

/// Why a usage has no cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPrice {
    /// No model of the table has one of the names.
    UnknownModel,
    /// The model is in the table, without a rate for a class that was used.
    Unpriced,
}

/// What `usage` costs under `rates`.
///
/// # Errors
/// [`NoPrice::Unpriced`] where a class with tokens has no rate, not even its parent's.
pub fn cost(usage: &TokenUsage, rates: &Rates) -> Result<CostBreakdown, NoPrice> {
    let mut breakdown = CostBreakdown::default();
    for (class, quantity) in usage.buckets() {
        let rate = rates.get(class).ok_or(NoPrice::Unpriced)?;
        let cost = money::charge(quantity, rate);
        breakdown.saturated |= cost.is_none();
        let cost = cost.unwrap_or(Usd::MAX);
        breakdown.total = breakdown.total.saturating_add(cost);
        breakdown.charges.push(Charge { class, quantity, rate, cost });
    }
    Ok(breakdown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::{Rule, UsageReport};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn rates(list: &[(Class, &str)]) -> Rates {
        let mut rates = Rates::default();
        for &(class, usd) in list {
            rates.set(class, Decimal::parse(usd).unwrap());
        }
        rates
    }

    fn model(name: &str, aliases: &[&str]) -> Model {
        Model {
            provider: None,
            name: name.into(),
            aliases: aliases.iter().map(|alias| Glob::new(alias)).collect(),
            rates: rates(&[(Class::Input, "2.50"), (Class::Output, "10.00")]),
        }
    }

    fn table(models: Vec<Model>) -> PriceTable {
        PriceTable::new(None, models).unwrap()
    }

    #[test]
    fn an_exact_name_wins_over_an_alias_and_the_longest_alias_over_a_shorter() {
        let table = table(vec![
            model("gpt-4o", &["gpt-4o-*"]),
            model("gpt-4o-mini", &["gpt-4o-mini-*"]),
            model("gpt-4o-special", &[]),
        ]);
        for (asked, found) in [
            ("gpt-4o", Some("gpt-4o")),
            ("gpt-4o-2024-08-06", Some("gpt-4o")),
            ("gpt-4o-mini-2024-07-18", Some("gpt-4o-mini")),
            ("gpt-4o-special", Some("gpt-4o-special")),
            ("gpt-5", None),
            ("", None),
        ] {
            assert_eq!(table.find(asked).map(|model| &*model.name), found, "{asked}");
        }
    }

    #[test]
    fn a_name_that_stands_for_two_models_is_an_error_at_load() {
        let clashes =
            PriceTable::new(None, vec![model("a", &["x-*", "b"]), model("b", &["x-*"]), model("a", &[])]).unwrap_err();
        assert_eq!(
            clashes,
            [
                Ambiguous { model: 2, alias: None, earlier: 0 },
                Ambiguous { model: 0, alias: Some(1), earlier: 1 },
                Ambiguous { model: 1, alias: Some(0), earlier: 0 },
            ]
        );
    }

    #[test]
    fn charges_sum_to_the_cost() {
        let usage = UsageReport {
            input: Some(2006),
            cached_input: Some(1920),
            output: Some(300),
            reasoning: Some(64),
            ..Default::default()
        }
        .normalise(Rule::OpenAi);
        let rates = rates(&[(Class::Input, "2.50"), (Class::CachedInput, "1.25"), (Class::Output, "10.00")]);
        let breakdown = cost(&usage, &rates).unwrap();
        assert_eq!(breakdown.total.to_string(), "0.005615");
        let sum = breakdown.charges.iter().fold(Usd::ZERO, |sum, charge| sum.saturating_add(charge.cost));
        assert_eq!(sum, breakdown.total);
        assert_eq!(breakdown.charges.len(), 4);
    }

    #[test]
    fn a_class_without_a_rate_falls_back_to_its_parent_and_zero_is_a_rate() {
        let rates = rates(&[(Class::Input, "2"), (Class::CacheCreation, "3"), (Class::Output, "0")]);
        for (class, usd) in [
            (Class::CachedInput, "2"),
            (Class::CachedInputAudio, "2"),
            (Class::CacheCreation1h, "3"),
            (Class::InputVideo, "2"),
            (Class::Reasoning, "0"),
        ] {
            assert_eq!(rates.get(class).unwrap().usd.to_string(), usd, "{}", class.name());
        }
    }

    #[test]
    fn a_used_class_without_any_rate_leaves_the_call_unpriced() {
        let usage = UsageReport { input: Some(1), output: Some(1), ..Default::default() }.normalise(Rule::OpenAi);
        assert_eq!(cost(&usage, &rates(&[(Class::Input, "1")])), Err(NoPrice::Unpriced));
        let only_input = UsageReport { input: Some(1), ..Default::default() }.normalise(Rule::OpenAi);
        assert!(cost(&only_input, &rates(&[(Class::Input, "1")])).is_ok());
    }

    #[test]
    fn an_absurd_count_saturates_and_says_so() {
        let usage =
            UsageReport { input: Some(u64::MAX), output: Some(u64::MAX), ..Default::default() }.normalise(Rule::OpenAi);
        let rates = rates(&[(Class::Input, "18446744073709551615"), (Class::Output, "18446744073709551615")]);
        let breakdown = cost(&usage, &rates).unwrap();
        assert!(breakdown.total > Usd::ZERO);
        let huge = Rates::default();
        assert_eq!(cost(&usage, &huge), Err(NoPrice::Unpriced));
    }
}

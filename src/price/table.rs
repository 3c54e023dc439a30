//! All models, and which of them a name stands for.
//!
//! A name is looked up as it is and then with less around it ([`super::names`]); each time among exact names and
//! aliases first, then among patterns, of which the one that fixes most characters wins. Entries of the biller come
//! before entries without a provider; those of others count only while it is not known who bills.

use super::{InputOutput, Model, names};
use crate::glob::Glob;
use hashbrown::HashMap;
use std::cell::RefCell;
use std::cmp::{Ordering, Reverse};

/// Answers that are remembered; names come from callers, so their number must be bounded.
const MAX_REMEMBERED: usize = 1024;

/// Who bills a call, as far as that is known without the price table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Biller<'a> {
    /// This one: no other's prices apply, if the table has prices of this one at all.
    Known(&'a str),
    /// This one, unless the table has the model only under another.
    Likely(&'a str),
    /// Nobody said.
    #[default]
    Unknown,
}

impl<'a> Biller<'a> {
    /// The name, known or likely.
    pub fn name(self) -> Option<&'a str> {
        match self {
            Biller::Known(name) | Biller::Likely(name) => Some(name),
            Biller::Unknown => None,
        }
    }
}

/// Whether two names of providers mean the same: "google" is either of its two endpoints.
pub fn same_provider(a: &str, b: &str) -> bool {
    const GOOGLE: [&str; 2] = ["gemini", "vertex_ai"];
    a == b || (a == "google" && GOOGLE.contains(&b)) || (b == "google" && GOOGLE.contains(&a))
}

/// Whether both are Microsoft's lists: its hosts serve the models of either.
fn is_related(a: &str, b: &str) -> bool {
    matches!((a, b), ("azure", "azure_ai") | ("azure_ai", "azure"))
}

/// How a name led to its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// It is the model's name.
    Exact,
    /// By an alias, a pattern, or without a prefix or a date.
    Alias,
}

/// Which name of a call led to its model, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PricedBy {
    /// The model that answered.
    Response(Match),
    /// The model that was asked for.
    Request(Match),
    /// None did: the dearest was assumed.
    AssumedHighest,
}

impl PricedBy {
    /// The name in records.
    pub const fn name(self) -> &'static str {
        match self {
            PricedBy::Response(Match::Exact) => "response_model",
            PricedBy::Response(Match::Alias) => "response_model_alias",
            PricedBy::Request(Match::Exact) => "request_model",
            PricedBy::Request(Match::Alias) => "request_model_alias",
            PricedBy::AssumedHighest => "assumed_highest",
        }
    }
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
    /// The earlier one's pattern, where it is another that can match the same name and fixes as many characters.
    pub pattern: Option<Box<str>>,
}

/// A name of a model: its own, or one of its aliases.
#[derive(Clone, Copy, Debug)]
struct Name {
    model: u32,
    alias: Option<u32>,
}

/// All models, indexed for lookup.
#[derive(Debug, Default)]
pub struct PriceTable {
    version: Option<Box<str>>,
    models: Vec<Model>,
    /// Names and aliases without a wildcard, sorted by their text.
    exact: Vec<Name>,
    /// Aliases with a wildcard, those that fix most characters first.
    patterns: Vec<Name>,
    remembered: RefCell<HashMap<Box<str>, Found>>,
    dearest: RefCell<HashMap<Box<str>, Vec<u32>>>,
}

/// What a name led to: a model's index, and how.
type Found = Option<(u32, Match)>;

/// Which providers' entries count.
type Scope<'a> = &'a dyn Fn(Option<&str>) -> bool;

fn text(models: &[Model], name: Name) -> &str {
    let model = models.get(name.model as usize);
    let text = model.and_then(|model| match name.alias {
        None => Some(&*model.name),
        Some(alias) => model.aliases.get(alias as usize).map(Glob::as_str),
    });
    text.unwrap_or_default()
}

fn pattern(models: &[Model], name: Name) -> Option<&Glob> {
    models.get(name.model as usize)?.aliases.get(name.alias? as usize)
}

fn literal_bytes(models: &[Model], name: Name) -> usize {
    pattern(models, name).map_or(0, Glob::literal_bytes)
}

fn provider(models: &[Model], name: Name) -> Option<&str> {
    models.get(name.model as usize)?.provider.as_deref()
}

impl PriceTable {
    /// Indexes `models`.
    ///
    /// # Errors
    /// Every name or pattern that stands for two models of one provider.
    pub fn new(version: Option<Box<str>>, models: Vec<Model>) -> Result<PriceTable, Vec<Ambiguous>> {
        let (mut exact, mut patterns) = (Vec::new(), Vec::new());
        for (index, model) in (0u32..).zip(&models) {
            exact.push(Name { model: index, alias: None });
            for (alias_index, alias) in (0u32..).zip(&model.aliases) {
                let name = Name { model: index, alias: Some(alias_index) };
                if alias.is_wild() { patterns.push(name) } else { exact.push(name) }
            }
        }
        let exact_key = |name: Name| (text(&models, name), provider(&models, name), name.model);
        sort(&mut exact, &|&a, &b| exact_key(a).cmp(&exact_key(b)));
        let pattern_key = |name: Name| (Reverse(literal_bytes(&models, name)), provider(&models, name), name.model);
        sort(&mut patterns, &|&a, &b| pattern_key(a).cmp(&pattern_key(b)));

        let mut clashes = Vec::new();
        let spelling = |&name: &Name| (text(&models, name), provider(&models, name));
        for same in exact.chunk_by(|a, b| spelling(a) == spelling(b)) {
            if let Some((&first, others)) = same.split_first() {
                clashes
                    .extend(others.iter().filter(|other| other.model != first.model).map(|&b| clash(first, b, None)));
            }
        }
        let close = |a: &Name, b: &Name| {
            let key = |&name: &Name| (literal_bytes(&models, name), provider(&models, name));
            key(a) == key(b)
        };
        for group in patterns.chunk_by(close) {
            for (index, &b) in group.iter().enumerate() {
                let Some(own) = pattern(&models, b) else { continue };
                let ties = |other: &Glob| other.ties_with(own);
                let tied =
                    group.iter().take(index).find(|&&a| a.model != b.model && pattern(&models, a).is_some_and(ties));
                if let Some(&a) = tied {
                    let other = pattern(&models, a).filter(|other| *other != own);
                    clashes.push(clash(a, b, other.map(|other| other.as_str().into())));
                }
            }
        }
        let table = PriceTable { version, models, exact, patterns, ..PriceTable::default() };
        if clashes.is_empty() { Ok(table) } else { Err(clashes) }
    }

    /// The table's version, for the record.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Every model, in the order they were written.
    pub fn models(&self) -> &[Model] {
        &self.models
    }

    /// Whether there is any price at all.
    pub fn is_empty(&self) -> bool {
        self.models.is_empty()
    }

    /// The model called `name`, at an endpoint in `region`.
    pub fn find(&self, name: &str, biller: Biller<'_>, region: Option<&str>) -> Option<(&Model, Match)> {
        let kind = match biller {
            Biller::Known(_) => "=",
            Biller::Likely(_) => "~",
            Biller::Unknown => "",
        };
        let key = format!("{kind}{}\0{}\0{name}", biller.name().unwrap_or_default(), region.unwrap_or_default());
        let known = self.remembered.try_borrow().ok().and_then(|remembered| remembered.get(&*key).copied());
        let found = known.unwrap_or_else(|| {
            let found = self.search(name, biller, region);
            if let Ok(mut remembered) = self.remembered.try_borrow_mut() {
                if remembered.len() >= MAX_REMEMBERED {
                    remembered.clear();
                }
                remembered.insert(key.into(), found);
            }
            found
        });
        let (index, how) = found?;
        Some((self.models.get(index as usize)?, how))
    }

    /// The model to price a call on: of the name that answered, else of the name that was asked for.
    pub fn find_first(
        &self,
        response_model: Option<&str>,
        request_model: Option<&str>,
        biller: Biller<'_>,
        region: Option<&str>,
    ) -> Option<(&Model, PricedBy)> {
        let find = |name: Option<&str>| self.find(name?, biller, region);
        let response = find(response_model).map(|(model, how)| (model, PricedBy::Response(how)));
        let request = || find(request_model).map(|(model, how)| (model, PricedBy::Request(how)));
        // These sell Anthropic's models under names of their own, and the answers name Anthropic's. Elsewhere another
        // name in the answer is another model: behind a deployment, or in place of the one that was asked for.
        if let Some(seller) = biller.name().filter(|name| matches!(*name, "bedrock" | "vertex_ai")) {
            let is_own = |&(model, _): &(&Model, PricedBy)| {
                model.provider.as_deref().is_none_or(|provider| same_provider(provider, seller))
            };
            return response.filter(is_own).or_else(|| request().filter(is_own)).or(response).or_else(request);
        }
        response.or_else(request)
    }

    fn search(&self, name: &str, biller: Biller<'_>, region: Option<&str>) -> Found {
        let own = |provider: Option<&str>| match (provider, biller.name()) {
            (Some(provider), Some(biller)) => same_provider(provider, biller),
            _ => provider.is_none(),
        };
        let anyone = |_: Option<&str>| true;
        let related = |provider: Option<&str>| {
            provider.is_some_and(|provider| biller.name().is_some_and(|biller| is_related(provider, biller)))
        };
        let scopes: &[Scope<'_>] = match biller {
            // A name that the table does not use says nothing about whose prices apply.
            Biller::Known(biller) if self.has(biller) => &[&own, &related],
            _ => &[&own, &related, &anyone],
        };
        let regional = region.map(|region| format!("{region}/{name}"));
        for scope in scopes {
            let spelt = regional.as_deref().into_iter().chain(names::candidates(name));
            for candidate in spelt {
                if let Some(found) = self.named(candidate, *scope) {
                    let is_name = found.alias.is_none() && candidate == name;
                    return Some((found.model, if is_name { Match::Exact } else { Match::Alias }));
                }
            }
        }
        None
    }

    /// Whether it has a model of `provider`.
    fn has(&self, provider: &str) -> bool {
        self.models.iter().any(|model| model.provider.as_deref().is_some_and(|own| same_provider(own, provider)))
    }

    /// The closest entry that stands for exactly `candidate`, among the providers in `scope`.
    fn named(&self, candidate: &str, scope: Scope<'_>) -> Option<Name> {
        let models = &self.models;
        let in_scope = |name: &&Name| scope(provider(models, **name));
        let start = self.exact.partition_point(|&name| text(models, name) < candidate);
        let same = self.exact.iter().skip(start).take_while(|&&name| text(models, name) == candidate);
        // A provider's own entry comes before one for all, and that before whatever stands first in the table.
        let rank = |name: &&Name| (provider(models, **name).is_none(), name.alias.is_some(), name.model);
        let exact = same.filter(in_scope).min_by_key(rank);
        let matches = |name: &&Name| pattern(models, **name).is_some_and(|pattern| pattern.matches(candidate));
        exact.or_else(|| self.patterns.iter().filter(in_scope).find(matches)).copied()
    }

    /// Models of which one is the dearest of the biller's, whatever a call uses and whenever: those of which no other
    /// always has higher rates of both input and output. Where the biller has none, of all.
    pub fn dearest(&self, biller: Biller<'_>) -> Vec<&Model> {
        let wanted = biller.name().filter(|name| self.has(name)).unwrap_or_default();
        let known = self.dearest.try_borrow().ok().and_then(|known| known.get(wanted).cloned());
        let frontier = known.unwrap_or_else(|| {
            let frontier = self.frontier(wanted);
            if let Ok(mut known) = self.dearest.try_borrow_mut() {
                known.insert(wanted.into(), frontier.clone());
            }
            frontier
        });
        frontier.iter().filter_map(|&index| self.models.get(index as usize)).collect()
    }

    fn frontier(&self, wanted: &str) -> Vec<u32> {
        let in_scope = |model: &&Model| {
            wanted.is_empty() || model.provider.as_deref().is_none_or(|own| same_provider(own, wanted))
        };
        let all = || {
            let models = (0u32..).zip(&self.models).filter(|(_, model)| in_scope(model));
            models.filter_map(|(index, model)| Some((index, model.rate_bounds()?)))
        };
        let exceeds = |a: InputOutput, b: InputOutput| a.0 >= b.0 && a.1 >= b.1;
        // Those whose lowest rates no other's exceed: what is always cheaper than one of them is never the dearest.
        let mut dear: Vec<(InputOutput, u32)> = Vec::new();
        for (index, [low, _]) in all() {
            if !dear.iter().any(|&(other, _)| exceeds(other, low)) {
                dear.retain(|&(other, _)| !exceeds(low, other));
                dear.push((low, index));
            }
        }
        let outdone = |own: u32, high| dear.iter().any(|&(low, other)| other != own && exceeds(low, high));
        all().filter(|&(index, [_, high])| !outdone(index, high)).map(|(index, _)| index).collect()
    }
}

/// One sort for both orders: each of its own would be ten kilobytes of the module.
fn sort(names: &mut [Name], order: &dyn Fn(&Name, &Name) -> Ordering) {
    names.sort_unstable_by(order);
}

fn clash(a: Name, b: Name, pattern: Option<Box<str>>) -> Ambiguous {
    let (earlier, later) = if a.model <= b.model { (a, b) } else { (b, a) };
    Ambiguous {
        model: later.model as usize,
        alias: later.alias.map(|alias| alias as usize),
        earlier: earlier.model as usize,
        pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::Decimal;
    use crate::price::{Rates, Schedule, Terms};
    use crate::usage::Class;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn priced(provider: Option<&str>, name: &str, aliases: &[&str], input: &str, output: &str) -> Model {
        let both = [(Class::Input, input), (Class::Output, output)];
        let rates: Rates = both.map(|(class, usd)| (class, Decimal::parse(usd).unwrap())).into_iter().collect();
        Model {
            provider: provider.map(Into::into),
            name: name.into(),
            aliases: aliases.iter().map(|alias| Glob::new(alias)).collect(),
            terms: Terms { standard: Schedule { rates, ..Schedule::default() }, ..Terms::default() },
            ..Model::default()
        }
    }

    fn model(provider: Option<&str>, name: &str, aliases: &[&str]) -> Model {
        priced(provider, name, aliases, "2.50", "10.00")
    }

    fn table(models: Vec<Model>) -> PriceTable {
        PriceTable::new(None, models).unwrap()
    }

    fn shown(table: &PriceTable, name: &str, biller: Biller<'_>, region: Option<&str>) -> String {
        // Twice: what is remembered must be what was found.
        let found = [(); 2].map(|()| table.find(name, biller, region));
        let shown = found.map(|found| match found {
            Some((model, how)) => format!("{}/{} {how:?}", model.provider.as_deref().unwrap_or("-"), model.name),
            None => "none".into(),
        });
        assert_eq!(shown[0], shown[1]);
        shown[0].clone()
    }

    #[test]
    fn an_exact_name_wins_over_an_alias_and_the_closest_alias_over_others() {
        let table = table(vec![
            model(None, "gpt-4o", &["gpt-4o-*"]),
            model(None, "gpt-4o-mini", &["gpt-4o-mini-*", "small"]),
            model(None, "gpt-4o-special", &[]),
        ]);
        for (asked, found) in [
            ("gpt-4o", "-/gpt-4o Exact"),
            ("gpt-4o-2024-08-06", "-/gpt-4o Alias"),
            ("gpt-4o-mini-2024-07-18", "-/gpt-4o-mini Alias"),
            ("small", "-/gpt-4o-mini Alias"),
            ("openai/gpt-4o-mini", "-/gpt-4o-mini Alias"),
            ("gpt-4o-special", "-/gpt-4o-special Exact"),
            ("gpt-5", "none"),
            ("", "none"),
        ] {
            assert_eq!(shown(&table, asked, Biller::Unknown, None), found, "{asked}");
        }
    }

    #[test]
    fn the_billers_own_entry_wins_and_anothers_counts_only_while_nobody_said_who_bills() {
        let table = table(vec![
            model(Some("azure"), "gpt-4o", &[]),
            model(Some("openai"), "gpt-4o", &[]),
            model(None, "gpt-4o", &[]),
            model(Some("openai"), "o3", &[]),
            model(Some("google"), "gemini-2.5-pro", &[]),
        ]);
        for (name, biller, found) in [
            ("gpt-4o", Biller::Known("openai"), "openai/gpt-4o Exact"),
            ("gpt-4o", Biller::Known("azure"), "azure/gpt-4o Exact"),
            ("gpt-4o", Biller::Known("groq"), "-/gpt-4o Exact"),
            ("gpt-4o", Biller::Unknown, "-/gpt-4o Exact"),
            ("o3", Biller::Known("azure"), "none"),
            ("o3", Biller::Known("my-gateway"), "openai/o3 Exact"),
            ("o3", Biller::Likely("azure"), "openai/o3 Exact"),
            ("o3", Biller::Unknown, "openai/o3 Exact"),
            ("o3-2025-04-16", Biller::Known("openai"), "openai/o3 Alias"),
            ("gemini-2.5-pro", Biller::Known("vertex_ai"), "google/gemini-2.5-pro Exact"),
            ("gemini-2.5-pro", Biller::Known("gemini"), "google/gemini-2.5-pro Exact"),
        ] {
            assert_eq!(shown(&table, name, biller, None), found, "{name} {biller:?}");
        }
    }

    #[test]
    fn a_regions_own_entry_comes_first() {
        let table = table(vec![
            model(Some("azure"), "gpt-5.1", &[]),
            model(Some("azure"), "eu/gpt-5.1", &[]),
            model(Some("bedrock"), "anthropic.claude-haiku-4-5-v1:0", &[]),
            model(Some("bedrock"), "eu.anthropic.claude-haiku-4-5-v1:0", &[]),
        ]);
        for (name, region, found) in [
            ("gpt-5.1", Some("eu"), "azure/eu/gpt-5.1 Alias"),
            ("gpt-5.1", Some("us"), "azure/gpt-5.1 Exact"),
            ("gpt-5.1", None, "azure/gpt-5.1 Exact"),
            ("eu.anthropic.claude-haiku-4-5-v1:0", None, "bedrock/eu.anthropic.claude-haiku-4-5-v1:0 Exact"),
            ("us.anthropic.claude-haiku-4-5-v1:0", None, "bedrock/anthropic.claude-haiku-4-5-v1:0 Alias"),
        ] {
            assert_eq!(shown(&table, name, Biller::Unknown, region), found, "{name} {region:?}");
        }
    }

    #[test]
    fn a_name_that_stands_for_two_models_of_one_provider_is_an_error() {
        let ambiguous = |model, alias, earlier, pattern: Option<&str>| Ambiguous {
            model,
            alias,
            earlier,
            pattern: pattern.map(Into::into),
        };
        for (models, clashes) in [
            (vec![model(None, "a", &[]), model(None, "a", &[])], vec![ambiguous(1, None, 0, None)]),
            (vec![model(None, "a", &["b"]), model(None, "b", &[])], vec![ambiguous(1, None, 0, None)]),
            (vec![model(None, "a", &[]), model(None, "b", &["a"])], vec![ambiguous(1, Some(0), 0, None)]),
            (vec![model(None, "a", &["x-*"]), model(None, "b", &["x-*"])], vec![ambiguous(1, Some(0), 0, None)]),
            (vec![model(None, "a", &["xx*"]), model(None, "b", &["*yy"])], vec![ambiguous(1, Some(0), 0, Some("xx*"))]),
            (vec![model(Some("p"), "a", &[]), model(Some("q"), "a", &[])], vec![]),
            (vec![model(None, "a", &["a", "x-*", "x-*"])], vec![]),
            (vec![model(None, "a", &["x-*"]), model(None, "b", &["y-*"])], vec![]),
            (vec![model(None, "a", &["x-*"]), model(None, "b", &["x-*z"])], vec![]),
        ] {
            let names: Vec<_> = models.iter().map(|model| (model.name.clone(), model.aliases.clone())).collect();
            assert_eq!(PriceTable::new(None, models).err().unwrap_or_default(), clashes, "{names:?}");
        }
    }

    #[test]
    fn what_is_remembered_stays_bounded() {
        let table = table(vec![model(None, "a-*", &["a-*"])]);
        for n in 0..3 * MAX_REMEMBERED {
            assert!(table.find(&format!("a-{n}"), Biller::Unknown, None).is_some());
            assert!(table.remembered.borrow().len() <= MAX_REMEMBERED);
        }
    }

    #[test]
    fn a_model_that_is_dear_only_at_times_leaves_the_others_in() {
        let mut at_times = priced(Some("p"), "at-times", &[], "1", "1");
        at_times.later = [(1000, priced(None, "", &[], "9", "9").terms)].into();
        let names = |models: Vec<Model>| -> Vec<String> {
            table(models).dearest(Biller::Known("p")).into_iter().map(|model| model.name.as_ref().into()).collect()
        };
        let (flat, cheap) = (priced(Some("p"), "flat", &[], "4", "8"), priced(Some("p"), "cheap", &[], "1", "1"));
        assert_eq!(names(vec![at_times, flat.clone(), cheap.clone()]), ["at-times", "flat"]);
        // An alias for the dearest is no second candidate, and half the price is not the dearest.
        let twin = priced(Some("p"), "twin", &[], "4", "8");
        let halved = Model { commercial: Decimal::parse("0.5").unwrap(), ..priced(Some("p"), "half", &[], "7", "14") };
        assert_eq!(names(vec![flat, twin, halved, cheap]), ["flat"]);
    }

    #[test]
    fn the_dearest_are_those_that_no_other_exceeds() {
        let table = table(vec![
            priced(Some("p"), "cheap", &[], "1", "2"),
            priced(Some("p"), "dear-in", &[], "9", "2"),
            priced(Some("p"), "dear-out", &[], "3", "8"),
            priced(Some("q"), "dearest", &[], "99", "99"),
        ]);
        let names = |biller| table.dearest(biller).into_iter().map(|model| &*model.name).collect::<Vec<_>>();
        assert_eq!(names(Biller::Known("p")), ["dear-in", "dear-out"]);
        assert_eq!(names(Biller::Known("p")), ["dear-in", "dear-out"], "remembered");
        assert_eq!(names(Biller::Unknown), ["dearest"]);
        assert_eq!(names(Biller::Known("nobody")), ["dearest"]);
    }
}

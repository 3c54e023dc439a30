//! Rates per token class, and how those that apply to one call lie over each other.

use crate::money::{Decimal, Rate};
use crate::usage::{Class, Unit};

/// Dollars per million tokens, for the classes that have a rate. Tables of thousands of models are kept in every
/// VM, so only what is there takes room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rates(Box<[(Class, Decimal)]>);

impl FromIterator<(Class, Decimal)> for Rates {
    fn from_iter<T: IntoIterator<Item = (Class, Decimal)>>(rates: T) -> Rates {
        Rates(rates.into_iter().collect())
    }
}

impl Rates {
    /// The rate of `class` itself.
    pub fn own(&self, class: Class) -> Option<Decimal> {
        self.0.iter().find(|(own, _)| *own == class).map(|&(_, usd)| usd)
    }

    /// Every rate.
    pub fn iter(&self) -> impl Iterator<Item = (Class, Decimal)> {
        self.0.iter().copied()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Prices of things that are not tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitRates(Box<[(Unit, Rate)]>);

impl FromIterator<(Unit, Rate)> for UnitRates {
    fn from_iter<T: IntoIterator<Item = (Unit, Rate)>>(rates: T) -> UnitRates {
        UnitRates(rates.into_iter().collect())
    }
}

impl UnitRates {
    /// The price of `unit`.
    pub fn get(&self, unit: Unit) -> Option<Rate> {
        self.0.iter().find(|(own, _)| *own == unit).map(|&(_, rate)| rate)
    }

    /// Every price.
    pub fn iter(&self) -> impl Iterator<Item = (Unit, Rate)> {
        self.0.iter().copied()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The rates that apply to one call, a later layer over the ones before it, class by class.
#[derive(Clone, Debug, Default)]
pub struct Layers<'t>(Vec<&'t Rates>);

impl<'t> Layers<'t> {
    /// Lays `rates` over what is there.
    pub(super) fn lay(&mut self, rates: &'t Rates) {
        if !rates.is_empty() {
            self.0.push(rates);
        }
    }

    /// Whether no layer has a rate.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rate written for `class` itself.
    pub fn own(&self, class: Class) -> Option<Decimal> {
        self.0.iter().rev().find_map(|rates| rates.own(class))
    }

    /// The rate of `class`, or of the nearest class it falls back to; `None` where none of them has one.
    pub fn get(&self, class: Class) -> Option<Decimal> {
        std::iter::successors(Some(class), |class| class.parent()).find_map(|class| self.own(class))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn rates(list: &[(Class, &str)]) -> Rates {
        list.iter().map(|&(class, usd)| (class, Decimal::parse(usd).unwrap())).collect()
    }

    fn shown(layers: &Layers<'_>, class: Class) -> Option<String> {
        layers.get(class).map(|usd| usd.to_string())
    }

    #[test]
    fn a_class_without_a_rate_falls_back_to_its_parent_and_zero_is_a_rate() {
        let rates = rates(&[(Class::Input, "2"), (Class::CacheCreation, "3"), (Class::Output, "0")]);
        let layers = Layers(vec![&rates]);
        for (class, usd) in [
            (Class::CachedInput, "2"),
            (Class::CachedInputAudio, "2"),
            (Class::CacheCreation1h, "3"),
            (Class::CacheCreationAudio, "3"),
            (Class::InputVideo, "2"),
            (Class::Reasoning, "0"),
            (Class::OutputVideo, "0"),
        ] {
            assert_eq!(shown(&layers, class).as_deref(), Some(usd), "{}", class.name());
        }
        assert_eq!(Layers::default().get(Class::Input), None);
    }

    #[test]
    fn a_layer_replaces_the_classes_it_names_and_no_others() {
        let base = rates(&[(Class::Input, "2"), (Class::CachedInput, "1"), (Class::Output, "4")]);
        let long = rates(&[(Class::Input, "3"), (Class::Reasoning, "9")]);
        let layers = Layers(vec![&base, &long]);
        for (class, usd) in [
            (Class::Input, "3"),
            (Class::CachedInput, "1"),
            (Class::CachedInputImage, "1"),
            (Class::InputAudio, "3"),
            (Class::Output, "4"),
            (Class::Reasoning, "9"),
        ] {
            assert_eq!(shown(&layers, class).as_deref(), Some(usd), "{}", class.name());
        }
    }
}

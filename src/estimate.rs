//! The most a call may cost, before it is sent.
//!
//! Input is counted by the bytes of the request, media by a bound of their own, output by the request's own limit, else by
//! the model's, else by a default; everything at the dearest rate that may apply. A bound that is too high refuses calls
//! that would have fitted while others are under way; one that is too low lets a budget be exceeded.

mod asked;

pub use asked::Asked;

use crate::config::ReservationConfig;
use crate::money::{self, Decimal, Rate, Usd};
use crate::price::{Applied, Circumstances, Model};
use crate::usage::{Class, Unit};

/// Tokens of one image, sound or document in a request: providers scale larger images down to less than this.
pub const TOKENS_PER_MEDIUM: u64 = 2000;

/// More than any model generates: what a caller asks for beyond it is no bound.
const MAX_OUTPUT_TOKENS: u64 = 10_000_000;

/// More answers than providers give to one request.
const MAX_ANSWERS: u64 = 128;

/// What a request says about its size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Bytes that may be text.
    pub text_bytes: u64,
    /// Images, sounds and documents.
    pub media: u64,
    /// The caller's own limit on generated tokens.
    pub max_output_tokens: Option<u64>,
    /// Answers asked for.
    pub answers: u64,
    /// Characters to be spoken.
    pub characters: u64,
    /// Part of the prompt is at the provider: an earlier response, a conversation, a cache.
    pub unseen_prompt: bool,
}

/// An upper bound of tokens and cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Of the prompt.
    pub input_tokens: u64,
    /// Of all answers.
    pub output_tokens: u64,
    /// Of both, where there are prices.
    pub usd: Option<Usd>,
}

impl Estimate {
    /// Input and output.
    pub fn tokens(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}

/// The bound for a request of `size` to `model`.
pub fn estimate(
    size: &Size,
    model: Option<&Model>,
    reservation: &ReservationConfig,
    circumstances: &Circumstances<'_>,
) -> Estimate {
    let media = size.media.saturating_mul(TOKENS_PER_MEDIUM);
    let input_tokens = reservation.tokens_per_byte.times_up(size.text_bytes).saturating_add(media);
    let input_tokens = match model.and_then(|model| model.max_input_tokens) {
        // What the provider keeps of a conversation is not seen here.
        Some(most) if size.unseen_prompt => input_tokens.max(most),
        _ => input_tokens,
    };
    let most = model.and_then(|model| model.max_output_tokens);
    let asked =
        size.max_output_tokens.filter(|&asked| asked > 0).map(|asked| asked.min(most.unwrap_or(MAX_OUTPUT_TOKENS)));
    let each = asked.or(most).unwrap_or(reservation.default_max_output_tokens);
    let output_tokens = each.saturating_mul(size.answers.clamp(1, MAX_ANSWERS));
    let usd = model.map(|model| cost(size, input_tokens, output_tokens, model, circumstances));
    Estimate { input_tokens, output_tokens, usd }
}

/// The dearest that so many tokens and one request may cost.
fn cost(size: &Size, input_tokens: u64, output_tokens: u64, model: &Model, circumstances: &Circumstances<'_>) -> Usd {
    let applied = model.apply(input_tokens, circumstances);
    let multiplier = applied.multiplier.unwrap_or(Decimal::ONE);
    let [input, output] = dearest(&applied);
    let tokens = |count: u64, usd: Option<Decimal>| {
        let usd = usd.unwrap_or_default();
        money::charge(Decimal::from(count), Rate::per_million(usd), multiplier).unwrap_or(Usd::MAX)
    };
    // What the request itself says of things that are not tokens.
    let units =
        [(Unit::Requests, 1), (Unit::Images, size.answers.clamp(1, MAX_ANSWERS)), (Unit::Characters, size.characters)];
    let units = units.into_iter().filter_map(|(unit, count)| {
        money::charge(Decimal::from(count), applied.unit(unit)?, applied.commercial.unwrap_or(Decimal::ONE))
    });
    let tokens = tokens(input_tokens, input).saturating_add(tokens(output_tokens, output));
    units.fold(tokens, Usd::saturating_add)
}

/// The dearest rates that input and output of a call may have.
pub fn dearest(applied: &Applied<'_>) -> [Option<Decimal>; 2] {
    const INPUT: [Class; 6] = [
        Class::Input,
        Class::CacheCreation,
        Class::CacheCreation1h,
        Class::InputAudio,
        Class::InputImage,
        Class::InputVideo,
    ];
    const OUTPUT: [Class; 6] =
        [Class::Output, Class::Reasoning, Class::OutputAudio, Class::OutputImage, Class::OutputVideo, Class::Citation];
    [&INPUT[..], &OUTPUT[..]].map(|classes| classes.iter().filter_map(|class| applied.rates.get(*class)).max())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::price::{ContextTier, Schedule, Terms};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn model() -> Model {
        let rates =
            |list: &[(Class, &str)]| list.iter().map(|&(class, usd)| (class, Decimal::parse(usd).unwrap())).collect();
        let standard = Schedule {
            rates: rates(&[(Class::Input, "1"), (Class::CacheCreation, "1.25"), (Class::Output, "5")]),
            tiers: [ContextTier { from: 1001, rates: rates(&[(Class::Input, "2")]) }].into(),
        };
        Model { terms: Terms { standard, ..Terms::default() }, max_output_tokens: Some(64), ..Model::default() }
    }

    #[test]
    fn the_bound_is_the_dearest_the_request_may_cost() {
        let plain = Size { text_bytes: 4000, media: 0, max_output_tokens: Some(10), answers: 1, ..Size::default() };
        for (size, tokens, usd) in [
            (plain, (1000, 10), "0.0013"),
            (Size { text_bytes: 4001, ..plain }, (1001, 10), "0.002052"),
            (Size { answers: 3, ..plain }, (1000, 30), "0.0014"),
            (Size { max_output_tokens: None, ..plain }, (1000, 64), "0.00157"),
            (Size { media: 2, text_bytes: 0, ..plain }, (4000, 10), "0.00805"),
            (Size::default(), (0, 64), "0.00032"),
        ] {
            let found = estimate(&size, Some(&model()), &ReservationConfig::default(), &Circumstances::default());
            assert_eq!((found.input_tokens, found.output_tokens), tokens, "{size:?}");
            assert_eq!(found.usd.unwrap().to_string(), usd, "{size:?}");
        }
        // Whatever kind of output it turns out to be.
        for class in [Class::Reasoning, Class::OutputAudio, Class::OutputImage, Class::OutputVideo, Class::Citation] {
            let rates = [(class, Decimal::parse("7").unwrap()), (Class::Output, Decimal::parse("5").unwrap())];
            let standard = Schedule { rates: rates.into_iter().collect(), ..Schedule::default() };
            let model = Model { terms: Terms { standard, ..Terms::default() }, ..Model::default() };
            let found = estimate(&plain, Some(&model), &ReservationConfig::default(), &Circumstances::default());
            assert_eq!(found.usd.unwrap().to_string(), "0.00007", "{}", class.name());
        }
        let unknown = estimate(&plain, None, &ReservationConfig::default(), &Circumstances::default());
        assert_eq!((unknown.usd, unknown.output_tokens), (None, 10));
        let silent = Size { max_output_tokens: None, ..plain };
        let found = estimate(&silent, None, &ReservationConfig::default(), &Circumstances::default());
        assert_eq!(found.output_tokens, 4096, "neither the request nor a model says");
    }
}

//! The names a model may go by: providers, gateways and regions decorate them.

/// Prefixes of Bedrock's cross-region inference profiles.
const BEDROCK_REGIONS: [&str; 9] = ["us.", "eu.", "apac.", "jp.", "au.", "ca.", "sa.", "us-gov.", "global."];

/// The region that a Bedrock model id names: `eu` of `eu.anthropic.claude-…`, also inside an ARN.
pub fn bedrock_region(model: &str) -> Option<&'static str> {
    let last = model.rsplit('/').next().unwrap_or(model);
    let prefix = BEDROCK_REGIONS.into_iter().find(|prefix| last.starts_with(prefix))?;
    Some(prefix.trim_end_matches('.'))
}

/// What to look `name` up as, the closest first: itself, then without what is in front of it (a gateway's or provider's
/// prefix, an ARN, a Bedrock region), each also without what dates it.
pub(super) fn candidates(name: &str) -> impl Iterator<Item = &str> {
    let fronts =
        std::iter::successors(Some(name), |name| name.split_once('/').map(|(_, rest)| rest).or_else(|| bare(name)));
    fronts.flat_map(|front| std::iter::successors(Some(front), |name| undated(name)))
}

/// `name` without a Bedrock region.
fn bare(name: &str) -> Option<&str> {
    BEDROCK_REGIONS.into_iter().find_map(|prefix| name.strip_prefix(prefix))
}

/// `name` without the one suffix that says which edition it is: `-2024-08-06`, `-20251001`, `@20251001`, `-v1:0`,
/// `-001`, `-latest`.
fn undated(name: &str) -> Option<&str> {
    let digits = |text: &str, len: usize| text.len() == len && text.bytes().all(|b| b.is_ascii_digit());
    if let Some(front) = name.strip_suffix("-latest").or_else(|| name.strip_suffix("@latest")) {
        return Some(front);
    }
    if let Some((front, date)) = name.rsplit_once('@') {
        return digits(date, 8).then_some(front);
    }
    if let Some((front, version)) = name.rsplit_once("-v")
        && let Some((major, minor)) = version.split_once(':')
        && digits(major, 1)
        && digits(minor, 1)
    {
        return Some(front);
    }
    let (front, tail) = name.rsplit_once('-')?;
    if digits(tail, 8) || (digits(tail, 3) && tail.starts_with('0')) {
        return Some(front);
    }
    let mut parts = name.rsplitn(4, '-');
    let (day, month, year, front) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    (digits(day, 2) && digits(month, 2) && digits(year, 4)).then_some(front)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_name_is_looked_up_as_itself_first_and_then_with_less_and_less_around_it() {
        for (name, expected) in [
            ("gpt-4o", &["gpt-4o"][..]),
            ("gpt-4o-2024-08-06", &["gpt-4o-2024-08-06", "gpt-4o"]),
            ("openai/gpt-4o", &["openai/gpt-4o", "gpt-4o"]),
            ("azure/eu/gpt-4o", &["azure/eu/gpt-4o", "eu/gpt-4o", "gpt-4o"]),
            ("claude-sonnet-4-5-20250929", &["claude-sonnet-4-5-20250929", "claude-sonnet-4-5"]),
            ("claude-haiku-4-5@20251001", &["claude-haiku-4-5@20251001", "claude-haiku-4-5"]),
            ("claude-3-5-sonnet-latest", &["claude-3-5-sonnet-latest", "claude-3-5-sonnet"]),
            ("gemini-2.0-flash-001", &["gemini-2.0-flash-001", "gemini-2.0-flash"]),
            ("gpt-4-0613", &["gpt-4-0613"]),
            ("llama-3-405", &["llama-3-405"]),
            (
                "eu.anthropic.claude-haiku-4-5-20251001-v1:0",
                &[
                    "eu.anthropic.claude-haiku-4-5-20251001-v1:0",
                    "eu.anthropic.claude-haiku-4-5-20251001",
                    "eu.anthropic.claude-haiku-4-5",
                    "anthropic.claude-haiku-4-5-20251001-v1:0",
                    "anthropic.claude-haiku-4-5-20251001",
                    "anthropic.claude-haiku-4-5",
                ],
            ),
            (
                "arn:aws:bedrock:us-east-1:1:inference-profile/us.amazon.nova-pro-v1:0",
                &[
                    "arn:aws:bedrock:us-east-1:1:inference-profile/us.amazon.nova-pro-v1:0",
                    "arn:aws:bedrock:us-east-1:1:inference-profile/us.amazon.nova-pro",
                    "us.amazon.nova-pro-v1:0",
                    "us.amazon.nova-pro",
                    "amazon.nova-pro-v1:0",
                    "amazon.nova-pro",
                ],
            ),
            ("", &[""]),
            ("-2024-08-06", &["-2024-08-06", ""]),
        ] {
            assert_eq!(candidates(name).collect::<Vec<_>>(), expected, "{name}");
        }
    }

    #[test]
    fn a_bedrock_id_tells_its_region() {
        for (model, region) in [
            ("eu.anthropic.claude-haiku-4-5", Some("eu")),
            ("arn:aws:bedrock:us-east-1:1:inference-profile/us.amazon.nova-pro-v1:0", Some("us")),
            ("us-gov.anthropic.claude", Some("us-gov")),
            ("anthropic.claude-haiku-4-5", None),
        ] {
            assert_eq!(bedrock_region(model), region, "{model}");
        }
    }
}

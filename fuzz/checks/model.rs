//! A request that goes to another model parses to the same but for the model and the limits that were too high.

use super::input::Input;
use super::parsed;
use tollgate::rewrite::model::{Edits, replace, replace_in_form};

pub(crate) fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let variant = input.byte();
    let most = u64::from(input.byte());
    let sent = input.rest();
    let model = if variant & 1 == 0 { "small" } else { "a\"\\\n\u{1}é" };

    if let Some(edited) = replace_in_form(sent, b"multipart/form-data; boundary=xyz", "small") {
        let lines = |body: &[u8]| body.split(|&byte| byte == b'\n').count();
        assert_eq!(lines(&edited), lines(sent));
        let again = replace_in_form(&edited, b"multipart/form-data; boundary=xyz", "small");
        assert!(again.as_ref() == Some(&edited), "{}", edited.escape_ascii());
    }

    let edits = Edits { model: (variant & 2 == 0).then_some(model), max_output_tokens: Some(most) };
    let before = str::from_utf8(sent).ok().and_then(parsed::parse);
    let Some(edited) = replace(sent, &edits) else {
        // What is refused is no object, names no model or does so too often, or has a key that is no Unicode.
        let Some(parsed::Value::Object(fields)) = before else { return };
        let known = |key: &str| key == "model" || is_limit(key) || !settings(key).is_empty();
        let models = fields.iter().filter(|(key, _)| key == "model").count();
        let inner_is_read = fields.iter().all(|(key, raw)| settings(key).is_empty() || parsed::open(raw).is_some());
        let few = fields.iter().filter(|(key, _)| known(key)).count() == models && models <= 32;
        assert!(!(few && inner_is_read) || (edits.model.is_some() && models == 0), "refused without a reason");
        return;
    };
    let after = parsed::parse(str::from_utf8(&edited).expect("no text any more")).expect("no JSON any more");
    let (Some(parsed::Value::Object(before)), parsed::Value::Object(after)) = (before, after) else {
        // serde_json skips a string that is no Unicode, but does not read it.
        return;
    };
    assert_eq!(before.len(), after.len());
    for ((key, before), (same_key, after)) in before.iter().zip(&after) {
        assert_eq!(key, same_key);
        let (before, after) = (before.get(), after.get());
        if key == "model" && edits.model.is_some() {
            assert_eq!(serde_json::from_str::<String>(after).unwrap(), model);
        } else if is_limit(key) {
            assert_eq!(after, lowered(before, most));
        } else if let Some(parsed::Value::Object(inner)) =
            Some(settings(key)).filter(|limits| !limits.is_empty()).and_then(|_| parsed::parse(before))
        {
            let Some(parsed::Value::Object(inner_after)) = parsed::parse(after) else { panic!("no object any more") };
            assert_eq!(inner.len(), inner_after.len());
            for ((name, before), (same_name, after)) in inner.iter().zip(&inner_after) {
                assert_eq!(name, same_name);
                let expected = match settings(key).contains(&name.as_str()) {
                    true => lowered(before.get(), most),
                    false => before.get().to_owned(),
                };
                assert_eq!(after.get(), expected);
            }
        } else {
            assert_eq!(before, after);
        }
    }
}

fn is_limit(key: &str) -> bool {
    ["max_tokens", "max_completion_tokens", "max_output_tokens"].contains(&key)
}

/// The names of the limit in an object of settings.
fn settings(key: &str) -> &'static [&'static str] {
    match key {
        "generationConfig" | "generation_config" => &["maxOutputTokens", "max_output_tokens"],
        "inferenceConfig" => &["maxTokens", "max_new_tokens"],
        "options" => &["num_predict"],
        _ => &[],
    }
}

fn lowered(raw: &str, most: u64) -> String {
    let digits = raw.trim_start_matches('0');
    let too_high = raw.bytes().all(|byte| byte.is_ascii_digit())
        && (digits.len() > 3 || digits.parse::<u64>().is_ok_and(|limit| limit > most));
    if too_high { most.to_string() } else { raw.to_owned() }
}

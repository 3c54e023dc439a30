//! The header `retry-after`: how long a collector asks to be left alone.

use crate::time;

/// Milliseconds to wait from `now_ns` on: `120`, or `Sun, 06 Nov 2026 08:49:37 GMT`. `None` where it is neither.
pub fn millis(text: &str, now_ns: u64) -> Option<u64> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(seconds.saturating_mul(1000));
    }
    let until = time::parse_http_date(text)?.saturating_mul(1000);
    Some(until.saturating_sub(now_ns / 1_000_000))
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn seconds_and_dates_are_understood_and_nothing_else() {
        let now_ns = 784_111_770_000_000_000;
        for (text, millis) in [
            ("0", Some(0)),
            (" 7 ", Some(7000)),
            ("99999999999999999999", None),
            ("18446744073709551615", Some(u64::MAX)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7000)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", Some(0)),
            ("Sun, 06 Now 1994 08:49:37 GMT", None),
            ("Sunday, 06-Nov-94 08:49:37 GMT", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(super::millis(text, now_ns), millis, "{text}");
        }
    }
}

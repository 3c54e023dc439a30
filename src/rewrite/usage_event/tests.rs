use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const USAGE: &str = r#"{"id":"1","choices":[],"usage":{"prompt_tokens":19,"details":{"cached":[0]}},"x":"]}"}"#;

struct Filtered {
    text: Vec<u8>,
    removed: u64,
    missed: u64,
}

fn filter_in(pieces: &[&[u8]]) -> Filtered {
    let mut filter = UsageEventFilter::new();
    let mut text = Vec::new();
    for piece in pieces {
        text.extend(filter.feed(piece, false).unwrap_or(piece.to_vec()));
        assert!(filter.held_bytes() <= MAX_HELD_BYTES);
    }
    text.extend(filter.feed(b"", true).unwrap_or_default());
    Filtered { text, removed: filter.removed(), missed: filter.missed() }
}

/// Filters `text` whole and in pieces; all must agree.
fn filter(text: &str) -> (String, u64) {
    let bytes = text.as_bytes();
    let whole = filter_in(&[bytes]);
    let check = |filtered: Filtered, how: &str| {
        assert_eq!(String::from_utf8_lossy(&filtered.text), String::from_utf8_lossy(&whole.text), "{how}: {text:?}");
        assert_eq!((filtered.removed, filtered.missed), (whole.removed, whole.missed), "{how}: {text:?}");
    };
    for size in [1, 2, 3, 5, 7] {
        check(filter_in(&bytes.chunks(size).collect::<Vec<_>>()), &format!("in pieces of {size}"));
    }
    for at in 0..bytes.len() {
        let (head, tail) = bytes.split_at(at);
        check(filter_in(&[head, tail]), &format!("cut at {at}"));
    }
    (String::from_utf8(whole.text).unwrap(), whole.removed)
}

#[test]
fn the_event_goes_with_its_fields_and_one_blank_line() {
    for (before, event, after) in [
        ("data: a\n\n", "data: {}\n\n", "data: [DONE]\n\n"),
        ("data: a\r\n\r\n", "data: {}\r\n\r\n", "data: [DONE]\r\n\r\n"),
        ("data: a\r\r", "data: {}\r\r", "data: [DONE]\r\r"),
        ("data: a\n\n", "data: {}\r\r\n", "\ndata: [DONE]\n\n"),
        ("data: a\r\n\r\n", "id: 1\r\ndata: {}\r\n\n", "\ndata: [DONE]\r\n\r\n"),
        ("data: a\n\n", "data: {}\n\r", "\rdata: [DONE]\n\n"),
        ("", "data: {}\n\n", ""),
        ("\u{feff}", "data: {}\n\n", "data: b\n\n"),
        ("", "data: {}\n\n", "\n\ndata: b\n\n"),
        ("\r\n", "data:{}\n\n", ""),
        ("", "data:  {}\n\n", ""),
        ("", "event: chunk\nid: 7\ndata: {}\nretry: 1\nunknown\n\n", "data: [DONE]\n\n"),
        ("", "data\ndata: {}\ndata\n\n", "data: [DONE]\n\n"),
        (": keep-alive\n\n", "data: {}\n\n", ": keep-alive\n\n"),
        (": keep-alive\n", "data: {}\n\n", "\n"),
        ("data: a\n\n", "data: {}\n", ""),
        ("data: a\n\n", "data: {}", ""),
        ("data: a\r\r", "data: {}\r", ""),
    ] {
        let event = event.replace("{}", USAGE);
        let text = [before, &event, after].concat();
        assert_eq!(filter(&text), ([before, after].concat(), 1), "{text:?}");
    }
}

#[test]
fn data_in_several_lines_is_one_text() {
    let event = "data: {\"choices\":\ndata\ndata:[\ndata: ],\"usage\":\r\ndata: {}}\n\n";
    assert_eq!(filter(&["data: a\n\n", event, "data: b\n\n"].concat()), ("data: a\n\ndata: b\n\n".into(), 1));
}

#[test]
fn comments_in_the_event_stay() {
    let text = format!("id: 1\n: one\r\ndata: {USAGE}\r: two\n:\n\ndata: b\n\n");
    assert_eq!(filter(&text), (": one\r\n: two\n:\ndata: b\n\n".into(), 1));
    assert_eq!(filter(&format!("data: {USAGE}\n: cut")), (": cut".into(), 1));
}

#[test]
fn every_other_event_stays() {
    for data in [
        "[DONE]",
        "",
        "hello",
        "{}",
        r#"{"choices":[]}"#,
        // Azure's first event.
        r#"{"choices":[],"prompt_filter_results":[{"usage":{}}]}"#,
        r#"{"choices":[],"usage":null}"#,
        r#"{"choices":[],"usage":[]}"#,
        r#"{"choices":[],"usage":7}"#,
        r#"{"usage":{"prompt_tokens":1}}"#,
        r#"{"choices":null,"usage":{}}"#,
        r#"{"choices":{},"usage":{}}"#,
        r#"{"choices":[{"index":0,"delta":{}}],"usage":{}}"#,
        r#"{"choices":[null],"usage":{}}"#,
        r#"{"choices":[[]],"usage":{}}"#,
        r#"{"x":{"choices":[],"usage":{}}}"#,
        r#"[{"choices":[],"usage":{}}]"#,
        r#""{\"choices\":[],\"usage\":{}}""#,
        r#"{"choices":[],"usage":{}"#,
        r#"{"choices":[],"usage":{}}}"#,
        r#"{"choices":[],"usage":{}} x"#,
        // No JSON: a line ends in a word.
        "{\"choices\":[],\"usage\":{},\"x\":tr\ndata: ue}",
        // The last of two keys counts.
        r#"{"choices":[],"usage":{},"usage":null}"#,
        r#"{"choices":[],"usage":{},"choices":[0]}"#,
    ] {
        for text in [
            format!("data: {data}\n\n"),
            format!("event: x\r\ndata: {data}\r\n\r\ndata: [DONE]\r\n\r\n"),
            format!("data: {data}"),
        ] {
            assert_eq!(filter(&text), (text.clone(), 0));
        }
    }
    for text in [
        format!(": {USAGE}\n\n"),
        format!("datax: {USAGE}\n\n"),
        format!("event: {USAGE}\n\n"),
        format!(" data: {USAGE}\n\n"),
        "\n\n\n".into(),
        "id: 1\n\n".into(),
    ] {
        assert_eq!(filter(&text), (text.clone(), 0));
    }
}

#[test]
fn half_a_byte_order_mark_makes_another_field_of_data() {
    let text = [b"\xef\xbbdata: ", USAGE.as_bytes(), b"\n\n"].concat();
    for size in [1, 2, text.len()] {
        assert_eq!(filter_in(&text.chunks(size).collect::<Vec<_>>()).text, text);
    }
}

#[test]
fn the_last_of_two_keys_makes_it_the_event() {
    let event = r#"{"choices":[{"usage":1}],"usage":null,"usage":{},"\u0063hoices":[ ]}"#;
    assert_eq!(filter(&format!("data: {event}\n\n")), (String::new(), 1));
}

#[test]
fn recorded_shapes_lose_exactly_the_event() {
    for (text, events) in [
        (include_str!("../../../tests/fixtures/openai-chat-sse-usage.sse"), 1),
        (include_str!("../../../tests/fixtures/openai-chat-sse-usage-reasoning.sse"), 1),
        (include_str!("../../../tests/fixtures/azure-chat-sse-usage.sse"), 1),
        (include_str!("../../../tests/fixtures/groq-chat-sse-usage-thrice.sse"), 1),
        (include_str!("../../../tests/fixtures/openai-chat-sse-no-usage.sse"), 0),
    ] {
        let is_it = |event: &str| {
            event.starts_with("data: {") && event.contains("\"choices\":[]") && event.contains("\"usage\":{")
        };
        let expected: String = text.split_inclusive("\n\n").filter(|event| !is_it(event)).collect();
        assert_eq!(text.split_inclusive("\n\n").filter(|event| is_it(event)).count(), events);
        for size in [1, 2, 3, 5, 7, 64, 1000, 4096, text.len()] {
            let filtered = filter_in(&text.as_bytes().chunks(size).collect::<Vec<_>>());
            assert!(filtered.text == expected.as_bytes(), "in pieces of {size}");
            assert_eq!(filtered.removed, events as u64);
        }
    }
}

#[test]
fn an_event_of_more_than_64_kib_passes_as_it_comes() {
    let event = |bytes: usize| {
        let (begin, end) = ("data: {\"x\":\"", "\",\"choices\":[],\"usage\":{}}\n\n");
        [begin, &"x".repeat(bytes - begin.len() - end.len()), end].concat()
    };
    for (bytes, removed, missed) in [(MAX_HELD_BYTES, 1, 0), (MAX_HELD_BYTES + 1, 0, 1)] {
        let text = ["data: a\n\n", &event(bytes), "data: b\n\n"].concat();
        for size in [1, 7, 4096, MAX_HELD_BYTES - 1, MAX_HELD_BYTES + 1, 1 << 20] {
            let filtered = filter_in(&text.as_bytes().chunks(size).collect::<Vec<_>>());
            assert_eq!((filtered.removed, filtered.missed), (removed, missed), "{bytes} in pieces of {size}");
            let expected = if removed == 1 { "data: a\n\ndata: b\n\n" } else { &text };
            assert!(filtered.text == expected.as_bytes(), "{bytes} in pieces of {size}");
        }
    }
}

#[test]
fn whole_events_leave_with_their_chunk_and_unchanged_chunks_are_not_copied() {
    let mut filter = UsageEventFilter::new();
    assert_eq!(filter.feed(b"data: a\n\ndata: b\r\n\r\n: wait", false), None);
    assert_eq!(filter.feed(b"ing\n\n", false), None);
    assert_eq!(filter.feed(b"data: c\n\nda", false), Some(b"data: c\n\n".to_vec()));
    assert_eq!(filter.held_bytes(), 2);
    assert_eq!(filter.feed(b"ta: {", false), Some(Vec::new()));
    assert_eq!(filter.feed(b"}\r\r", false), Some(b"data: {}\r\r".to_vec()));
    assert_eq!(filter.feed(b"\ndata: e\n\n", false), None);
    assert_eq!(filter.feed(b"data: f", true), None);
}

#[test]
fn what_cannot_be_the_event_is_not_held_back() {
    // A stream whose last blank line never comes, and that ends in trailers, loses nothing.
    let mut filter = UsageEventFilter::new();
    assert_eq!(filter.feed(b"data: [DONE]\n", false), None);
    assert_eq!(filter.held_bytes(), 0);
    assert_eq!(filter.feed(b"\ndata: [D", false), None);
    assert_eq!(filter.feed(b"ONE]\n\n", false), None);
}

use super::super::MAX_HELD_BYTES;
use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use Outcome::{GaveUp, Injected, NotNeeded};
use Reason::{NotAnObject, StreamTwice, TooFarApart, WrongType};

fn edit_in(pieces: &[&[u8]]) -> (Vec<u8>, Outcome) {
    let mut injector = Injector::new();
    let mut edited = Vec::new();
    for piece in pieces {
        edited.extend(injector.feed(piece, false).unwrap_or(piece.to_vec()));
        assert!(injector.held_bytes() <= MAX_HELD_BYTES);
    }
    edited.extend(injector.feed(b"", true).unwrap_or_default());
    assert_eq!(injector.held_bytes(), 0, "everything leaves at the end");
    (edited, injector.outcome())
}

/// Edits `text` whole and in pieces; all must agree.
fn edit(text: &[u8]) -> (Vec<u8>, Outcome) {
    let whole = edit_in(&[text]);
    for size in [1, 2, 3, 5, 7] {
        let pieces: Vec<&[u8]> = text.chunks(size).collect();
        assert_eq!(edit_in(&pieces), whole, "in pieces of {size}");
    }
    for at in 0..text.len() {
        let (head, tail) = text.split_at(at);
        assert_eq!(edit_in(&[head, tail]), whole, "cut at {at}");
    }
    whole
}

/// Each row is a request, what goes out and what became of it.
fn check(rows: &[(&str, &str, Outcome)]) {
    for (text, expected, outcome) in rows {
        let (edited, became) = edit(text.as_bytes());
        assert_eq!((str::from_utf8(&edited).unwrap(), became), (*expected, *outcome), "{text}");
    }
}

/// Each row is a request that goes out as it came, and what became of it.
fn check_unchanged(rows: &[(&str, Outcome)]) {
    for (text, outcome) in rows {
        check(&[(text, text, *outcome)]);
    }
}

#[test]
fn a_stream_that_does_not_ask_is_made_to_ask() {
    check(&[
        (r#"{"stream":true}"#, r#"{"stream":true,"stream_options":{"include_usage":true}}"#, Injected),
        (
            "\u{feff} {\"model\":\"é\\u00e9\",\n\t\"stream\" : true , \"n\":1.0e+2 \r\n} \n",
            "\u{feff} {\"model\":\"é\\u00e9\",\n\t\"stream\" : true , \"n\":1.0e+2 \r\n,\
             \"stream_options\":{\"include_usage\":true}} \n",
            Injected,
        ),
        ("\r\n\t {\"stream\":true}", "\r\n\t {\"stream\":true,\"stream_options\":{\"include_usage\":true}}", Injected),
        (
            r#"{"stream":true,"stream_options":{}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
            Injected,
        ),
        (
            r#"{"stream_options": { } ,"stream":true}"#,
            r#"{"stream_options": { "include_usage":true} ,"stream":true}"#,
            Injected,
        ),
        (
            r#"{"stream":true,"stream_options":{"include_obfuscation":false , "x":[{"include_usage":true}] },"n":1}"#,
            r#"{"stream":true,"stream_options":{"include_obfuscation":false , "x":[{"include_usage":true}] ,"include_usage":true},"n":1}"#,
            Injected,
        ),
        (
            r#"{"stream_options":{"include_usage":false,"x":"}"},"messages":[{"content":"}]\"\\"}],"stream":true}"#,
            r#"{"stream_options":{"include_usage":true,"x":"}"},"messages":[{"content":"}]\"\\"}],"stream":true}"#,
            Injected,
        ),
        (
            r#"{"stream":true,"stream_options":{"include_usage": null }}"#,
            r#"{"stream":true,"stream_options":{"include_usage": true }}"#,
            Injected,
        ),
        (
            r#"{"stream":true,"stream_options": null}"#,
            r#"{"stream":true,"stream_options": {"include_usage":true}}"#,
            Injected,
        ),
        (
            r#"{"stream_options":null , "stream":true}"#,
            r#"{"stream_options":{"include_usage":true} , "stream":true}"#,
            Injected,
        ),
    ]);
}

#[test]
fn a_request_that_asks_or_does_not_stream_goes_as_it_came() {
    check_unchanged(&[
        (r#"{"stream":true,"stream_options":{"include_usage":true}}"#, NotNeeded),
        (r#"{"stream_options":{"x":0,"include_usage":true},"stream":true}"#, NotNeeded),
        (r#"{"stream":false}"#, NotNeeded),
        (r#"{"stream":false,"stream_options":null}"#, NotNeeded),
        (r#"{"stream_options":{"include_usage":false},"stream":false}"#, NotNeeded),
        (r#"{"stream_options":{"include_usage":null}}"#, NotNeeded),
        (r#"{"stream":null}"#, NotNeeded),
        (r#"{"stream":"true"}"#, NotNeeded),
        (r#"{"stream":1,"stream_options":{}}"#, NotNeeded),
        (r#"{"stream":[true]}"#, NotNeeded),
        (r#"{"stream":{"stream":true}}"#, NotNeeded),
        (r#"{"x":{"stream":true},"y":"\"stream\":true","Stream":true,"streams":true,"strea":true}"#, NotNeeded),
        ("{}", NotNeeded),
        (" { } ", NotNeeded),
    ]);
}

#[test]
fn a_value_of_another_type_is_left_to_the_provider() {
    check_unchanged(&[
        (r#"{"stream":true,"stream_options":[]}"#, GaveUp(WrongType)),
        (r#"{"stream":true,"stream_options":"null"}"#, GaveUp(WrongType)),
        (r#"{"stream":true,"stream_options":true}"#, GaveUp(WrongType)),
        (r#"{"stream_options":0,"stream":true}"#, GaveUp(WrongType)),
        (r#"{"stream":true,"stream_options":{"include_usage":1}}"#, GaveUp(WrongType)),
        (r#"{"stream":true,"stream_options":{"include_usage":"true"}}"#, GaveUp(WrongType)),
        (r#"{"stream":true,"stream_options":{"include_usage":{"include_usage":true}}}"#, GaveUp(WrongType)),
        (r#"{"stream_options":{"include_usage":12345678901234567890},"stream":true}"#, GaveUp(WrongType)),
    ]);
}

#[test]
fn keys_are_known_however_they_are_spelt() {
    check(&[
        (
            r#"{"stre\u0061m":true,"\u0073tream_option\u0073":{"include\u005Fusage":false}}"#,
            r#"{"stre\u0061m":true,"\u0073tream_option\u0073":{"include\u005Fusage":true}}"#,
            Injected,
        ),
        (
            r#"{"stream":true,"stream_options\u0000":null,"stream\/":1,"stréam":0,"stream_optionsx":null,"\u0173tream":0}"#,
            r#"{"stream":true,"stream_options\u0000":null,"stream\/":1,"stréam":0,"stream_optionsx":null,"\u0173tream":0,"stream_options":{"include_usage":true}}"#,
            Injected,
        ),
    ]);
}

#[test]
fn keys_that_stand_twice_ask_under_every_reading_that_can() {
    check(&[
        (
            r#"{"stream":true,"stream_options":{},"stream_options":null}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true},"stream_options":{"include_usage":true}}"#,
            Injected,
        ),
        (
            r#"{"stream_options":{"include_usage":true,"include_usage":false,"include_usage":null},"stream":true}"#,
            r#"{"stream_options":{"include_usage":true,"include_usage":true,"include_usage":true},"stream":true}"#,
            Injected,
        ),
        (
            r#"{"stream":true,"stream_options":{},"stream_options":[]}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true},"stream_options":[]}"#,
            Injected,
        ),
        // The client asked in the last one, so it gets the event.
        (
            r#"{"stream":true,"stream_options":{},"stream_options":{"include_usage":true}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true},"stream_options":{"include_usage":true}}"#,
            NotNeeded,
        ),
        (
            r#"{"stream":false,"stream":true}"#,
            r#"{"stream":false,"stream":true,"stream_options":{"include_usage":true}}"#,
            Injected,
        ),
        (r#"{"stream":true,"stream":false}"#, r#"{"stream":true,"stream":false}"#, NotNeeded),
        (
            r#"{"stream_options":{},"stream":true,"stream":false}"#,
            r#"{"stream_options":{"include_usage":true},"stream":true,"stream":false}"#,
            Injected,
        ),
        (
            r#"{"stream":false,"stream_options":{},"stream":true}"#,
            r#"{"stream":false,"stream_options":{},"stream":true}"#,
            GaveUp(StreamTwice),
        ),
    ]);
}

#[test]
fn what_is_no_json_object_goes_as_it_came() {
    check_unchanged(&[
        ("", GaveUp(NotAnObject)),
        ("[]", GaveUp(NotAnObject)),
        (r#"[{"stream":true}]"#, GaveUp(NotAnObject)),
        ("null", GaveUp(NotAnObject)),
        ("model=gpt&stream=true", GaveUp(NotAnObject)),
        (r#"{"stream":true"#, GaveUp(NotAnObject)),
        (r#"{"stream":true,"#, GaveUp(NotAnObject)),
        (r#"{"stream":true,}"#, GaveUp(NotAnObject)),
        (r#"{"stream":tru}"#, GaveUp(NotAnObject)),
        (r#"{"stream":true,"\x":1}"#, GaveUp(NotAnObject)),
        (r#"{"stream":true,"\u00zz":1}"#, GaveUp(NotAnObject)),
        (r#"{"stream" true}"#, GaveUp(NotAnObject)),
        (r#"{"stream":true "x":1}"#, GaveUp(NotAnObject)),
        (r#"{"stream":true,"stream_options":{"include_usage":fals}}"#, GaveUp(NotAnObject)),
        (r#"{"stream_options":{},"stream":true"#, GaveUp(NotAnObject)),
        (r#"{"stream_options":{"include_usage":false},"#, GaveUp(NotAnObject)),
        (r#"{"stream_options":nul"#, GaveUp(NotAnObject)),
        (r#"{"stream_options":{},x"#, GaveUp(NotAnObject)),
        (r#"{"stream":true,"stream_options":[}"#, GaveUp(NotAnObject)),
        (r#"{"stream":{]}"#, GaveUp(NotAnObject)),
        (r#"{'stream':true}"#, GaveUp(NotAnObject)),
    ]);
    for cut_mark in [&b"\xef\xbb{\"stream\":true}"[..], b"\xef\xbb \xbf{\"stream\":true}"] {
        assert_eq!(edit(cut_mark), (cut_mark.to_vec(), GaveUp(NotAnObject)));
    }
}

#[test]
fn what_follows_the_object_passes() {
    check(&[(
        r#"{"stream":true}{"stream":true}"#,
        r#"{"stream":true,"stream_options":{"include_usage":true}}{"stream":true}"#,
        Injected,
    )]);
}

#[test]
fn an_edit_waits_for_stream_over_64_kib_and_no_further() {
    let request = |room: usize| {
        let begin = r#"{"stream_options":{"x":1"#;
        let filler = "x".repeat(room - r#"},"messages":"","stream":true"#.len());
        [begin, r#"},"messages":""#, &filler, r#"","stream":true}"#].concat()
    };
    let fits = request(MAX_HELD_BYTES);
    let edited = fits.replacen("\"x\":1}", "\"x\":1,\"include_usage\":true}", 1);
    let too_far = request(MAX_HELD_BYTES + 1);
    for size in [1, 7, 4096, MAX_HELD_BYTES - 1, MAX_HELD_BYTES + 1, 1 << 20] {
        let pieces: Vec<&[u8]> = fits.as_bytes().chunks(size).collect();
        assert!(edit_in(&pieces) == (edited.clone().into_bytes(), Injected), "in pieces of {size}");
        let pieces: Vec<&[u8]> = too_far.as_bytes().chunks(size).collect();
        assert!(edit_in(&pieces) == (too_far.clone().into_bytes(), GaveUp(TooFarApart)), "in pieces of {size}");
    }
}

#[test]
fn a_word_that_no_longer_fits_stays() {
    let begin = r#"{"stream_options":{"#;
    for past in 0..8 {
        // Held are the closing brace and all up to the word, which goes past the limit by so many bytes.
        let filler = "x".repeat(MAX_HELD_BYTES + past - r#"},"x":"","stream_options":null"#.len());
        let text = [begin, r#"},"x":""#, &filler, r#"","stream_options":null,"stream":true}"#].concat();
        let whole = edit_in(&[text.as_bytes()]);
        for size in [1, 2, 3, 4096] {
            assert!(edit_in(&text.as_bytes().chunks(size).collect::<Vec<_>>()) == whole, "{past} in pieces of {size}");
        }
        // The word itself is held afresh when it begins behind the limit.
        let expected = if past > 4 { text.replacen("null", r#"{"include_usage":true}"#, 1) } else { text.clone() };
        assert!(whole.0 == expected.as_bytes(), "{past}");
    }
}

#[test]
fn a_word_too_long_to_be_replaced_is_not_held() {
    for stream in ["", r#""stream":true,"#] {
        let begin = ["{", stream, r#""stream_options":n"#, &"u".repeat(20)].concat();
        for size in [1, 3, 5, 100] {
            let mut injector = Injector::new();
            for piece in begin.as_bytes().chunks(size) {
                injector.feed(piece, false);
            }
            assert_eq!(injector.held_bytes(), 0, "{begin} in pieces of {size}");
        }
    }
}

#[test]
fn nothing_is_held_once_the_request_is_seen_to_be_no_json() {
    let mut injector = Injector::new();
    injector.feed(br#"{"stream_options":{},"#, false);
    assert_eq!(injector.held_bytes(), 2);
    assert_eq!(injector.feed(b"x", false), Some(b"},x".to_vec()));
    assert_eq!(injector.held_bytes(), 0);
}

#[test]
fn repeated_keys_do_not_pile_up_edits() {
    let many = [r#"{"stream_options":{"#, &r#""include_usage":false,"#.repeat(20), r#""x":0},"stream":true}"#].concat();
    let (edited, outcome) = edit(many.as_bytes());
    assert_eq!(outcome, Injected);
    assert!(serde_json::from_slice::<serde_json::Value>(&edited).unwrap()["stream_options"]["include_usage"] == true);
}

#[test]
fn a_chunk_without_an_edit_is_not_copied() {
    let mut injector = Injector::new();
    assert_eq!(injector.feed(br#"{"model":"m","messages":["#, false), None);
    assert_eq!(injector.feed(br#""hello"],"stream":true"#, false), None);
    assert!(injector.feed(b"}", false).is_some());
    assert_eq!(injector.feed(b"\n", true), None);
}

#[test]
fn nothing_is_held_once_it_is_known_whether_the_request_streams() {
    for stream in ["true", "false", "1"] {
        let mut injector = Injector::new();
        let begin = format!(r#"{{"stream":{stream},"stream_options":{{"x":0}},"messages":["#);
        injector.feed(begin.as_bytes(), false);
        assert_eq!(injector.held_bytes(), 0, "{stream}");
    }
}

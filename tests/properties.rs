//! What must hold for any input and any order of events.

use crate::support::core_driver::borrowed;
use crate::support::exchange::Headers;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::rc::Rc;
use tollgate::body::inflate::{Encoding, Inflate};
use tollgate::body::json::{Cursor, Paths, Places, Scanner, Value, container, each, key, within, within_each};
use tollgate::body::sse;
use tollgate::config::Config;
use tollgate::exchange::{Context, Ending, Event, Exchange, Route};
use tollgate::glob::Glob;
use tollgate::identity::Instance;
use tollgate::memory::MemoryHost;
use tollgate::money::{Decimal, Rate, charge};
use tollgate::usage::{Class, Rule, UsageReport};

/// Any JSON, with the keys of interest likely.
fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<f64>().prop_filter("JSON has finite numbers only", |n| n.is_finite()).prop_map(Json::from),
        any::<String>().prop_map(Json::from),
    ];
    leaf.prop_recursive(5, 64, 6, |inner| {
        let key = prop_oneof![Just("a".to_owned()), Just("b".to_owned()), Just("é\"\\".to_owned()), any::<String>()];
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Json::from),
            vec((key, inner), 0..6).prop_map(|fields| Json::Object(fields.into_iter().collect())),
        ]
    })
}

/// Looks at a, a.b, b[].a, b[][], é"\\ and, in a list at the root, at every element.
const PLACES: Places<&str> = &[
    container("a", "a", &[key("b", "a.b")]),
    within("b", &[within_each(&[key("a", "b.[].a"), each("b.[].[]")])]),
    key("é\"\\", "é\"\\"),
    each("[]"),
];
/// Followed besides: as JSON pointers.
const FOLLOWED: [&str; 6] = ["/a", "/a/b", "/a/b/a", "/b", "/b/a", "/é\"\\"];
const NAMES: &[&str] = &["a", "a.b", "b.[].a", "b.[].[]", "é\"\\", "[]"];

/// What the scanner must say of `json`, found by walking the whole document.
fn expected(json: &Json) -> Vec<String> {
    fn walk(json: &Json, at: &mut Vec<String>, found: &mut Vec<String>) {
        let here = NAMES.iter().find(|name| **name == at.join("."));
        let mut say = |what: String| found.extend(here.iter().map(|path| format!("{path}={what}")));
        match json {
            Json::Null => say("null".into()),
            Json::Bool(flag) => say(flag.to_string()),
            Json::Number(number) => say(number.to_string()),
            Json::String(text) => say(format!("{:?} {}", cut(text), text.len())),
            Json::Array(items) => {
                say("[".into());
                for item in items {
                    at.push("[]".into());
                    walk(item, at, found);
                    at.pop();
                }
                found.extend(here.iter().map(|path| format!("{path}=end")));
            }
            Json::Object(fields) => {
                say("{".into());
                for (key, value) in fields {
                    // A key is no element, and a dot in it no step, whatever it is spelt like.
                    let plain = !key.contains(['[', '.']);
                    at.push(if plain { key.clone() } else { "some other key".into() });
                    walk(value, at, found);
                    at.pop();
                }
                found.extend(here.iter().map(|path| format!("{path}=end")));
            }
        }
    }
    let mut found = Vec::new();
    walk(json, &mut Vec::new(), &mut found);
    found
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(tollgate::body::json::MAX_CAPTURE_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap()
}

fn scanned(pieces: &[&[u8]]) -> (Vec<String>, bool) {
    let mut found = Vec::new();
    let mut sink = |name: &str, value: Value<'_>| {
        let what = match value {
            Value::Null => "null".into(),
            Value::Bool(flag) => flag.to_string(),
            Value::Number(number) => number.to_owned(),
            Value::Text { text, bytes } => format!("{text:?} {bytes}"),
            Value::Piece(piece) => format!("piece {piece:?}"),
            Value::Object => "{".into(),
            Value::Array => "[".into(),
            Value::End => "end".into(),
        };
        found.push(format!("{name}={what}"));
    };
    let mut scanner = Scanner::new(PLACES);
    for piece in pieces {
        scanner.feed(piece, &mut sink);
    }
    scanner.finish(&mut sink);
    (found, scanner.is_complete())
}

/// `bytes` cut at the given places.
fn split<'b>(bytes: &'b [u8], cuts: &[prop::sample::Index]) -> Vec<&'b [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_scanner_finds_what_a_parser_finds(json in any_json(), pretty: bool, cuts in vec(any::<prop::sample::Index>(), 0..8)) {
        let text = if pretty { serde_json::to_string_pretty(&json) } else { serde_json::to_string(&json) }.unwrap();
        let (found, complete) = scanned(&split(text.as_bytes(), &cuts));
        prop_assert!(complete);
        prop_assert_eq!(found, expected(&json));
    }

    #[test]
    fn what_is_followed_beside_the_places_is_found_where_a_parser_finds_it(json in any_json(), cuts in vec(any::<prop::sample::Index>(), 0..8)) {
        let text = serde_json::to_string(&json).unwrap();
        let mut found = BTreeMap::new();
        let mut sink = |name: &'static str, value: Value<'_>| {
            if name.starts_with('/') {
                found.insert(name, format!("{value:?}"));
            }
        };
        let paths = FOLLOWED.map(|name| (name.split('/').skip(1).map(Into::into).collect::<Vec<Box<str>>>(), name));
        let paths = Rc::new(Paths::new(paths.iter().map(|(path, name)| (path.as_slice(), *name))));
        let mut scanner = Scanner::following(PLACES, Some(Cursor::new(paths)));
        for piece in split(text.as_bytes(), &cuts) {
            scanner.feed(piece, &mut sink);
        }
        scanner.finish(&mut sink);
        for name in FOLLOWED {
            // A pointer also counts elements of arrays; a path does not.
            let parent = json.pointer(name.rsplit_once('/').unwrap().0);
            let value = json.pointer(name).filter(|_| parent.is_some_and(Json::is_object));
            let shown = value.map(|value| match value {
                Json::String(text) => format!("{:?}", Value::Text { text: cut(text), bytes: text.len() as u64 }),
                Json::Number(number) => format!("{:?}", Value::Number(&number.to_string())),
                Json::Bool(flag) => format!("{:?}", Value::Bool(*flag)),
                Json::Null => "Null".into(),
                Json::Array(_) => "Array".into(),
                Json::Object(_) => "Object".into(),
            });
            prop_assert_eq!(found.get(name).cloned(), shown, "{} in {}", name, text);
        }
    }

    #[test]
    fn the_scanner_reads_any_bytes_alike_however_they_are_cut(bytes in "[\\[\\]{},:\"\\\\a0tnu e1.-]{0,60}", cuts in vec(any::<prop::sample::Index>(), 0..8)) {
        prop_assert_eq!(scanned(&[bytes.as_bytes()]), scanned(&split(bytes.as_bytes(), &cuts)));
    }

    #[test]
    fn events_come_out_alike_however_they_are_cut(text in "(data|data:|event: x|:|a|é|\r|\n|\r\n| ){0,40}", cuts in vec(any::<prop::sample::Index>(), 0..8)) {
        let read = |pieces: &[&[u8]]| {
            let (mut events, mut data) = (Vec::new(), Vec::new());
            let mut take = |part: sse::Part<'_>| match part {
                sse::Part::Data(piece) => data.extend_from_slice(piece),
                sse::Part::End => events.push(std::mem::take(&mut data)),
            };
            let mut reader = sse::Reader::default();
            for piece in pieces {
                reader.feed(piece, &mut take);
            }
            reader.finish(&mut take);
            events
        };
        prop_assert_eq!(read(&[text.as_bytes()]), read(&split(text.as_bytes(), &cuts)));
    }

    #[test]
    fn damaged_compression_never_panics(mut bytes in vec(any::<u8>(), 0..400), header: bool, cuts in vec(any::<prop::sample::Index>(), 0..4)) {
        if header {
            bytes.splice(0..0, [0x1f, 0x8b, 8]);
        }
        for encoding in [Encoding::Gzip, Encoding::Deflate] {
            let mut inflate = Inflate::new(encoding);
            for piece in split(&bytes, &cuts) {
                let _ = inflate.feed(piece, |_| {});
            }
        }
    }

    #[test]
    fn a_configuration_of_any_bytes_is_read_or_refused(bytes in vec(any::<u8>(), 0..200), json in any_json()) {
        let _ = Config::from_bytes(&bytes);
        let wrapped = serde_json::json!({"prices": json, "collector": {"cluster": "c", "headers": json}});
        if let Err(errors) = Config::from_bytes(wrapped.to_string().as_bytes()) {
            prop_assert!(!errors.is_empty());
        }
    }

    #[test]
    fn a_decimal_shows_itself_so_that_it_reads_back(digits in any::<u64>(), places in 0u8..=19) {
        let text = format!("{:0>1$}", digits, usize::from(places) + 1);
        let (whole, fraction) = text.split_at(text.len() - usize::from(places));
        let written = if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") };
        let decimal = Decimal::parse(&written).unwrap();
        prop_assert_eq!(Decimal::parse(&decimal.to_string()).unwrap(), decimal);
    }

    #[test]
    fn a_charge_is_quantity_times_rate(quantity in 0u64..1 << 40, micros in 0u64..1 << 40) {
        // Rates of up to six decimals per million tokens are whole pico-dollars per token.
        let usd = Decimal::parse(&format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)).unwrap();
        let cost = charge(Decimal::from(quantity), Rate::per_million(usd), Decimal::ONE).unwrap();
        prop_assert_eq!(cost.pico(), i128::from(quantity) * i128::from(micros));
    }

    #[test]
    fn every_token_is_in_one_class(counts in vec(prop::option::of(0u64..10_000), 14)) {
        let report = UsageReport {
            input: counts[0], cached_input: counts[1], cache_creation: counts[2], cache_creation_1h: counts[3],
            input_audio: counts[4], cached_input_audio: counts[5], input_image: counts[6], input_video: counts[7],
            output: counts[8], reasoning: counts[9], output_audio: counts[10], output_image: counts[11], total: counts[12],
            explicit_cached_input: counts[13], ..UsageReport::default()
        };
        let usage = report.normalise(Rule::OpenAi);
        let sum = |wanted: &[Class]| usage.buckets().filter(|(class, _)| wanted.contains(class)).map(|(_, n)| n).sum::<u64>();
        let output = [Class::Output, Class::Reasoning, Class::OutputAudio, Class::OutputImage];
        let input: Vec<Class> = Class::ALL.into_iter().filter(|class| !output.contains(class)).collect();
        if let Some(total) = usage.counts().input {
            prop_assert_eq!(sum(&input), total);
        }
        if let Some(total) = usage.counts().output {
            prop_assert_eq!(sum(&output), total);
        }
        prop_assert_eq!(usage.counts().normalise(Rule::OpenAi).counts().cached_input, usage.counts().cached_input);
    }

    #[test]
    fn a_glob_matches_as_a_regular_expression_would(pattern in "[ab*]{0,6}", text in "[ab]{0,8}") {
        fn naive(pattern: &[u8], text: &[u8]) -> bool {
            match (pattern.split_first(), text.split_first()) {
                (None, None) => true,
                (Some((b'*', rest)), _) => naive(rest, text) || text.split_first().is_some_and(|(_, left)| naive(pattern, left)),
                (Some((a, rest)), Some((b, left))) => a == b && naive(rest, left),
                _ => false,
            }
        }
        prop_assert_eq!(Glob::new(&pattern).matches(&text), naive(pattern.as_bytes(), text.as_bytes()));
    }

    #[test]
    fn any_order_of_events_gives_at_most_one_record_and_never_panics(steps in vec((0u8..8, any::<bool>(), vec(any::<u8>(), 0..60)), 0..24), holds in any::<bool>()) {
        let mut host = MemoryHost::default();
        let mut instance = Instance::register(&mut host, None);
        // What is held is what a budget has to see; without one, requests pass as they come.
        let holding = br#"{"metering": {"hold_request_headers": true, "cost_headers": true, "streamed_cost": "comment"}, "budgets": [{"name": "b", "limit_calls": 9, "window": "day"}]}"#;
        let config = Config::from_bytes(if holds { holding } else { b"" }).unwrap();
        let mut exchange = Exchange::new(Rc::new(config));
        let mut logged = 0;
        for (kind, end_of_stream, bytes) in &steps {
            let llm = bytes.first().is_none_or(|b| b % 4 != 0);
            let pairs: Headers = vec![
                (":method".into(), b"POST".to_vec()),
                (":path".into(), if llm { b"/v1/chat/completions".to_vec() } else { bytes.clone() }),
                (":status".into(), bytes.clone()),
                ("content-type".into(), bytes.clone()),
                ("content-encoding".into(), if *end_of_stream { b"gzip".to_vec() } else { bytes.clone() }),
                ("x-cost-team".into(), bytes.clone()),
                ("traceparent".into(), bytes.clone()),
                ("authorization".into(), bytes.clone()),
            ];
            let headers = borrowed(&pairs);
            let details = String::from_utf8_lossy(bytes);
            let event = match kind {
                0 => Event::RequestHeaders { headers: &headers, route: Route::default(), end_of_stream: *end_of_stream },
                1 => Event::RequestBody { chunk: bytes, end_of_stream: *end_of_stream },
                2 => Event::RequestTrailers,
                3 => Event::ResponseHeaders { headers: &headers, end_of_stream: *end_of_stream },
                4 => Event::ResponseBody { chunk: bytes, end_of_stream: *end_of_stream },
                5 => Event::ResponseTrailers,
                6 => Event::HeldInVain { headers: &headers },
                7 => Event::ReplyHeldInVain,
                _ => {
                    logged += 1;
                    Event::Log(Ending { code_details: Some(&details), request_headers: Some(&headers), ..Ending::default() })
                }
            };
            let open = exchange.is_open();
            exchange.on(event, &mut Context { host: &mut host, instance: &mut instance });
            if open && matches!(event, Event::Log(_)) {
                prop_assert!(!exchange.is_open());
            }
        }
        prop_assert!(host.records.len() <= 1);
        if !exchange.is_open() {
            prop_assert_eq!(instance.withheld.bytes(), 0);
        }
        if exchange.is_open() {
            prop_assert_eq!(host.records.len(), 0, "the record comes with the log callback");
            prop_assert_eq!(logged, 0);
            let log = Event::Log(Ending::default());
            exchange.on(log, &mut Context { host: &mut host, instance: &mut instance });
            prop_assert_eq!(host.records.len(), 1);
        }
        for record in &host.records {
            prop_assert!(host.provisional.iter().all(|provisional| provisional.id == record.id));
            prop_assert!(record.cost_picousd.is_none_or(|cost| cost >= 0));
        }
    }
}

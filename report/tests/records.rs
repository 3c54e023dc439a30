//! `tollgate records merge` as people call it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use flate2::{Compression, write::GzEncoder};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::Path;
use support::{Run, file, tollgate, tollgate_with};

fn id(number: u8) -> String {
    format!("0199aaaa-bbbb-7ccc-8ddd-eeeeffff00{number:02x}")
}

/// A record of the call `number`, which began in that second.
fn record(number: u8, more: &str) -> String {
    let id = id(number);
    format!(
        r#"{{"schema_version":1,"type":"usage","id":"{id}","instance":"vm","ts":"2026-11-18T12:00:{number:02}.000000Z"{more}}}"#
    )
}

/// The record of a call that ended as the VM's call `seq`. The price has digits that no float keeps.
fn ended(number: u8, seq: u8) -> String {
    record(
        number,
        &format!(
            r#","seq":{seq},"end_reason":"complete","cost_picousd":9007199254740993000001,"cost_usd":9007199254.740993000001"#
        ),
    )
}

fn provisional(number: u8, duration_ms: u16) -> String {
    record(number, &format!(r#","duration_ms":{duration_ms},"end_reason":"provisional""#))
}

fn lines(lines: &[&str]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// What is written of these lines, and the summary.
fn merged(name: &str, collector: &[&str], access_log: &[&str]) -> (String, Value) {
    let collector = file(&format!("records/{name}.ndjson"), &lines(collector));
    let access_log = file(&format!("records/{name}.log"), &lines(access_log));
    let run = tollgate(&["records", "merge", &collector, "--access-log", &access_log, "--format", "json"]);
    assert_eq!(run.code, 0, "{}", run.err);
    (run.out, serde_json::from_str(&run.err).unwrap())
}

fn counts<const N: usize>(summary: &Value, keys: [&str; N]) -> [u64; N] {
    keys.map(|key| summary.pointer(key).and_then(Value::as_u64).unwrap())
}

#[test]
fn each_call_is_written_once_and_as_it_came() {
    let alert = record(9, "").replace("usage", "budget_alert");
    let [a, b, c, d] = [1, 2, 3, 4].map(|number| ended(number, number));
    let spaced = a.replace("\":", "\": ");
    let same_time = ended(5, 5).replace("12:00:05.000000Z", "14:00:04+02:00");
    let (early, late, end) = (provisional(6, 10), provisional(6, 2000), ended(6, 6));
    let unseen = provisional(7, 0);
    type Case<'a> = (&'a str, Vec<&'a str>, Vec<&'a str>, Vec<&'a str>);
    let cases: Vec<Case<'_>> = vec![
        ("nothing", vec![], vec![], vec![]),
        ("only-collector", vec![&b, &a], vec![], vec![&a, &b]),
        ("only-log", vec![], vec![&b, &a], vec![&a, &b]),
        ("the-same", vec![&a, &b], vec![&a, &b], vec![&a, &b]),
        ("lost", vec![&a, &d], vec![&d, &c, &b, &a], vec![&a, &b, &c, &d]),
        ("sent-twice", vec![&a, &b, &a], vec![&b], vec![&a, &b]),
        ("written-in-another-way", vec![&spaced], vec![&a], vec![&spaced]),
        ("same-time-other-zone", vec![&same_time, &d], vec![&c], vec![&c, &d, &same_time]),
        ("periodic", vec![], vec![&early, &late, &end], vec![&end]),
        ("periodic-backwards", vec![], vec![&end, &late, &early], vec![&end]),
        ("provisional-at-collector", vec![&late], vec![&end], vec![&end]),
        ("provisional-in-log", vec![&end], vec![&late], vec![&end]),
        ("under-way", vec![], vec![&early, &late], vec![&late]),
        ("under-way-in-rotated-logs", vec![], vec![&late, &early], vec![&late]),
        ("vm-died", vec![&a], vec![&a, &unseen], vec![&a, &unseen]),
        ("not-about-a-call", vec![&alert, &a, &alert], vec![&a, &b], vec![&a, &b, &alert]),
    ];
    for (name, collector, access_log, expected) in cases {
        let (out, summary) = merged(name, &collector, &access_log);
        assert_eq!(out, lines(&expected), "{name}");
        assert_eq!(summary["written"], expected.len(), "{name}");
    }
}

#[test]
fn the_summary_counts_what_was_read_and_what_became_of_it() {
    let [a, b, c] = [1, 2, 3].map(|number| ended(number, number));
    let alert = record(9, "").replace("usage", "budget_alert");
    let collector = [&*a, &a, &alert, &provisional(4, 5), r#"{"message":"shipper started"}"#];
    let end = ended(4, 9);
    let access_log = ["-", "[info] starting", "{}", &a, &b, &c, &c, &end, &provisional(5, 7), &provisional(5, 8)];
    let (_, summary) = merged("summary", &collector, &access_log);
    let read = ["lines", "records", "repeated", "other_records", "other_json", "other_text"];
    let of = |source: &str| read.map(|key| summary[source][key].as_u64().unwrap());
    assert_eq!(of("collector"), [5, 4, 1, 1, 1, 0]);
    assert_eq!(of("access_log"), [10, 7, 2, 0, 1, 2]);
    assert_eq!(counts(&summary, ["/written", "/added", "/ended", "/provisional"]), [6, 3, 1, 1]);
    assert_eq!(counts(&summary, ["/unreadable/count", "/contradicting/count", "/missing/records"]), [0, 0, 5]);
    assert_eq!(summary["missing"]["gaps"], serde_json::json!([{"instance": "vm", "first_seq": 4, "last_seq": 8}]));
    assert_eq!(summary["output"], "standard output");
}

#[test]
fn people_are_told_with_places() {
    let cheaper = ended(1, 1).replace(":9007", ":8007");
    let cut = ended(3, 3).get(..70).unwrap().to_owned();
    let collector = file("records/people.ndjson", &lines(&[&ended(1, 1), "oops", &ended(5, 5)]));
    let access_log = file("records/people.log", &lines(&[&cheaper, "GET /", &cut, &ended(7, 7), &provisional(8, 1)]));
    let merge = ["records", "merge", &collector, "--access-log", &access_log];
    let run = tollgate(&merge);
    assert_eq!((run.code, &*run.out), (0, &*lines(&[&ended(1, 1), &ended(5, 5), &ended(7, 7), &provisional(8, 1)])));
    assert_eq!(
        run.err,
        format!(
            "\
from the collector   2  in 1 file
from the access log  3  in 1 file; other lines: 1 of text
added                2  that only the access log has
provisional          1  of calls whose VM died, or that were under way
unreadable           2  lines of both
contradicting        1  another record of the call: the collector's counts, or the first
missing              4  by the numbers of 1 VM
written              4  to standard output
note: {collector}:2: unreadable: not JSON
note: {access_log}:3: unreadable: EOF while parsing a string at line 1 column 70
note: {access_log}:1: contradicting: another record of the call differs in its end, tokens or cost
note: missing: instance vm, seq 2 to 4
note: missing: instance vm, seq 6
"
        )
    );
    assert_eq!(tollgate(&[&merge[..], &["--strict"]].concat()).code, 1);
    assert_eq!(
        tollgate(&["records", "merge", "--strict", "--access-log", &file("records/fine.log", &ended(1, 1))]).code,
        0
    );
}

#[test]
fn lines_too_many_to_name_are_counted() {
    let bad: Vec<String> = (0..50).map(|_| "{\"schema_version\":1}".to_owned()).collect();
    let bad: Vec<&str> = bad.iter().map(String::as_str).collect();
    let (_, summary) = merged("many", &bad, &[]);
    assert_eq!(summary["unreadable"]["count"], 50);
    assert_eq!(summary["unreadable"]["first"].as_array().unwrap().len(), 20);
}

#[test]
fn files_may_be_compressed_several_and_standard_input() {
    let records = [1, 2, 3, 4, 5].map(|number| ended(number, number));
    let pack = |name: &str, text: &str| {
        let path = file(name, "");
        let mut gzip = GzEncoder::new(fs::File::create(&path).unwrap(), Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        gzip.finish().unwrap();
        path
    };
    let first = pack("records/first.ndjson.gz", &lines(&[&records[0]]));
    let second = file("records/second.ndjson", &records[1]);
    let log = pack("records/log.gz", &lines(&[&records[2], &records[0]]));
    // As a container runtime writes it.
    let docker = serde_json::json!({"log": records[3].clone() + "\n", "stream": "stdout"}).to_string();
    let docker = file("records/docker.log", &docker);
    let input = format!("2026-11-18T12:00:06.1Z stdout F {}\n", records[4]);
    let run = tollgate_with(&["records", "merge", &first, &second, "--access-log", &log, "-", &docker], &input);
    assert_eq!((run.code, run.out), (0, lines(&records.each_ref().map(String::as_str))), "{}", run.err);
}

#[test]
fn a_file_appears_when_it_is_whole_and_an_input_is_never_written() {
    let collector = file("records/out/usage.ndjson", &ended(1, 1));
    let folder = Path::new(&collector).parent().unwrap();
    let log = file("records/out/access.log", &lines(&[&ended(1, 1), &ended(2, 2)]));
    let out = folder.join("merged.ndjson");
    let (out, link) = (out.to_str().unwrap(), folder.join("link.ndjson"));
    let _ = fs::remove_file(out);
    let merge = |to: &str, log: &str| tollgate(&["records", "merge", &collector, "--access-log", log, "-o", to]);

    let run = merge(out, &log);
    assert_eq!((run.code, &*run.out), (0, ""), "{}", run.err);
    assert!(run.err.contains(&format!("to {out}")), "{}", run.err);
    let whole = lines(&[&ended(1, 1), &ended(2, 2)]);
    assert_eq!(fs::read_to_string(out).unwrap(), whole);
    // Its own output is a collector's file like any other.
    let again = tollgate(&["records", "merge", out, "--access-log", &log]);
    assert_eq!((again.code, again.out), (0, whole.clone()));

    let refused = |run: &Run, why: &str| {
        assert!(run.code == 2 && run.err.contains(why), "{run:?}");
        let mut left: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left.iter().filter(|name| name.to_string_lossy().starts_with('.')).count(), 0, "{left:?}");
    };
    // A file that can't be read leaves what was there before.
    let broken = file("records/out/broken.gz", "");
    fs::write(&broken, [0x1f, 0x8b, 8, 0, 0]).unwrap();
    refused(&merge(out, &broken), "cannot read");
    assert_eq!(fs::read_to_string(out).unwrap(), whole);
    refused(&merge(out, "no-such.log"), "cannot read no-such.log");
    refused(&merge(&collector, &log), "usage.ndjson is an input");
    refused(&merge(&log, &log), "access.log is an input");
    refused(&merge(folder.to_str().unwrap(), &log), "is not a file");
    refused(&merge(folder.join("none/x").to_str().unwrap(), &log), "cannot create");
    refused(&tollgate(&["records", "merge", "-", "--access-log", "-"]), "once only");
    assert_eq!(tollgate(&["records", "merge"]).code, 2);
    #[cfg(unix)]
    {
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(&collector, &link).unwrap();
        refused(&merge(link.to_str().unwrap(), &log), "usage.ndjson is an input");
        assert_eq!(fs::read_to_string(&collector).unwrap(), ended(1, 1));
    }
}

//! The command as people call it.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use std::fs::File;
use std::process::{Command, Stdio};
use support::{file, tollgate, tollgate_with};

const GOOD: &str = "version: 1\ncollector: {cluster: costs}\n";

#[test]
fn it_tells_its_version() {
    let run = tollgate(&["--version"]);
    assert_eq!((run.code, run.out.as_str()), (0, concat!("tollgate ", env!("CARGO_PKG_VERSION"), "\n")));
}

#[test]
fn without_arguments_it_shows_help_and_an_unknown_one_is_refused() {
    assert!(tollgate(&[]).err.contains("Usage: tollgate"));
    let run = tollgate(&["--verison"]);
    assert_eq!(run.code, 2);
    assert!(run.err.contains("--version"), "{}", run.err);
}

#[test]
fn every_command_has_help_with_examples_and_exit_codes() {
    for command in ["check", "explain", "prices import", "prices diff", "simulate", "records merge"] {
        let arguments: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let run = tollgate(&arguments);
        assert_eq!(run.code, 0);
        for part in ["Examples:", "Exit codes: 0", &format!("tollgate {command} "), "--format", "--color"] {
            assert!(run.out.contains(part), "{part} in {}", run.out);
        }
        // What is behind the options has its own line breaks: one that is too long would be broken once more.
        let (_, text) = run.out.split_once("Examples:").unwrap();
        for pair in text.lines().collect::<Vec<_>>().windows(3) {
            let is_rest = pair.iter().all(|line| !line.is_empty()) && !pair[1].starts_with(' ') && pair[1].len() < 60;
            assert!(!is_rest, "{command}: {pair:?}");
        }
    }
    assert!(tollgate(&["--help"]).out.contains("Exit codes: 0"));
}

#[test]
fn the_exit_code_says_what_was_found() {
    let good = file("good.yaml", GOOD);
    let warned = file("warned.yaml", "version: 1\n");
    let bad = file("bad.yaml", "version: 1\ncollector:\n  flush_ms: ten\n");
    for (arguments, code) in [
        (vec!["check", &good], 0),
        (vec!["check", "--strict", &good], 0),
        (vec!["check", &warned], 0),
        (vec!["check", "--strict", &warned], 1),
        (vec!["check", &bad], 1),
        (vec!["check", "--format", "json", &bad], 1),
        (vec!["check", "no-such-file.yaml"], 2),
        (vec!["check", "--format", "xml", &good], 2),
        (vec!["check"], 2),
        (vec!["explain"], 2),
        (vec!["explain", "--config", &bad, "--path", "/v1/messages"], 1),
        (vec!["explain", "--config", &good, "--path", "/v1/messages"], 0),
        (vec!["explain", "--config", &good, "--path", "/index.html"], 1),
        (vec!["explain", "--path", "index.html"], 2),
        (vec!["explain", "--path", "/v1/messages", "--exchange", "x.json"], 2),
        (vec!["explain", "--path", "/v1/messages", "--at", "yesterday"], 2),
    ] {
        let run = tollgate(&arguments);
        assert_eq!(run.code, code, "{arguments:?}: {}{}", run.out, run.err);
    }
}

#[test]
fn an_error_says_which_file_and_where() {
    let yaml = file("broken.yaml", "version: 1\n  collector: [\n");
    let json = file("broken.json", "{\n  \"version\": 1,\n}");
    let exchange = file("broken-exchange.json", "{\n  \"request\": {\"path\": \"/\",\n   \"boddy\": 1}}");
    let bad = file("placed.yaml", "version: 1\ncollector:\n  cluster: c\n  flush_ms: ten\n");
    for (arguments, place) in [
        (["check", "no-such-file.yaml"].as_slice(), "no-such-file.yaml".into()),
        (&["check", &yaml], format!("{yaml}:2:")),
        (&["check", &json], format!("{json}:3:1: not valid JSON")),
        (&["check", &bad], format!("{bad}:4:3: error: collector.flush_ms: expected a whole number")),
        (&["explain", "--config", &bad, "--path", "/v1/messages"], format!("{bad}:4:3: collector.flush_ms: expected")),
        (&["explain"], "there is no call to explain: give it whole by --exchange, or its parts".into()),
        (&["explain", "--exchange", &exchange], format!("{exchange}:3:4: request.boddy: unknown key")),
    ] {
        let run = tollgate(arguments);
        assert!(run.err.contains(&place) || run.out.contains(&place), "{place}\n{}{}", run.out, run.err);
    }
}

#[test]
fn a_file_can_be_standard_input_and_its_language_is_recognised() {
    for (text, said) in [
        (GOOD, "<stdin>: 0 errors, 0 warnings"),
        ("\u{feff}version: 1\ncollector: {cluster: costs}\n", "<stdin>: 0 errors, 0 warnings"),
        ("{\"version\": 2,\n\"collector\": {\"cluster\": \"costs\"}}", "<stdin>:1:2: error: version"),
    ] {
        let run = tollgate_with(&["check", "-"], text);
        assert!(run.out.contains(said), "{}{}", run.out, run.err);
    }
}

#[test]
fn findings_are_a_list_for_programs() {
    let path = file("listed.yaml", "collector:\n  cluster: c\nmetering: {hash_key: k}\nverzion: 1\n");
    let run = tollgate(&["check", "--format", "json", &path]);
    let findings: Value = serde_json::from_str(&run.out).unwrap();
    let shown = |key: &str| findings.as_array().unwrap().iter().map(|f| f[key].to_string()).collect::<Vec<_>>();
    assert_eq!(shown("severity"), ["\"warning\"", "\"error\""]);
    assert_eq!(shown("path"), ["\"metering.hash_key\"", "\"verzion\""]);
    assert_eq!(shown("line"), ["3", "4"]);
    assert_eq!(shown("column"), ["12", "1"]);
    assert_eq!(shown("code"), ["\"secret_in_config_dump\"", "\"invalid\""]);
    assert!(shown("message")[1].contains("did you mean version?"));
    assert_eq!(run.err, "");
}

#[test]
fn colours_are_for_terminals_and_for_those_who_ask() {
    let bad = file("coloured.yaml", "verzion: 1\n");
    let coloured = |arguments: &[&str]| tollgate(arguments).out.contains('\u{1b}');
    assert!(!coloured(&["check", &bad]));
    assert!(!coloured(&["check", "--color", "never", &bad]));
    assert!(coloured(&["check", "--color", "always", &bad]));
    assert!(!coloured(&["check", "--color", "always", "--format", "json", &bad]));
}

#[test]
fn whoever_reads_the_output_may_stop_and_a_full_disk_is_told() {
    let mut warned = "collector: {cluster: c}\nprices:\n  models:\n".to_owned();
    for n in 0..5000 {
        warned += &format!("  - {{model: m{n}, aliases: [m{n}], rates: {{input: 1}}}}\n");
    }
    let path = file("long.yaml", &warned);
    let mut check = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    check.args(["check", &path]).stderr(Stdio::piped());
    let mut child = check.stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()));

    let Ok(full) = File::options().write(true).open("/dev/full") else { return };
    let output = check.stdout(full).spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("error: "));
}

#[test]
fn the_projects_own_configurations_have_no_errors() {
    for entry in std::fs::read_dir(support::repository().join("examples/configs")).unwrap() {
        let path = entry.unwrap().path();
        let run = tollgate(&["check", path.to_str().unwrap()]);
        assert_eq!(run.code, 0, "{}", run.out);
    }
    let run = tollgate(&["check", "--strict", "envoy/envoy.yaml"]);
    assert_eq!(run.code, 0, "{}", run.out);
}

//! Whole exchanges on several workers, however they end: the ledger has what the records say.

use crate::support::core_driver::borrowed;
use crate::support::exchange::Headers;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::rc::Rc;
use tollgate::budget::ledger::Standing;
use tollgate::config::Config;
use tollgate::exchange::{Context, Ending, Event, Exchange, Route};
use tollgate::identity::Instance;
use tollgate::memory::MemoryHost;
use tollgate::overview::Turn;
use tollgate::record::Decision;

/// How a call ends, if nobody refuses it.
#[derive(Clone, Copy, Debug)]
enum End {
    /// With so many tokens, in percent of what it may use.
    Complete(u64),
    /// Its stream is cut after some pieces.
    CutStream(usize),
    LeavesWhileSending,
    LeavesWaiting,
    NeverArrives,
    BreaksOff,
    RefusedByAnother,
    ProviderFails,
}

#[derive(Clone, Debug)]
enum Step {
    Begin {
        worker: usize,
        department: usize,
        run: usize,
        team: bool,
        max_tokens: u64,
        end: End,
    },
    End(usize),
    /// So many writes of the next step find that someone was first.
    Conflicts(u32),
    /// The next step finds the store failing.
    Fail,
}

fn any_end(most_percent: u64) -> impl Strategy<Value = End> {
    prop_oneof![
        6 => (0..=most_percent).prop_map(End::Complete),
        2 => (0..4usize).prop_map(End::CutStream),
        1 => Just(End::LeavesWhileSending),
        1 => Just(End::LeavesWaiting),
        1 => Just(End::NeverArrives),
        1 => Just(End::BreaksOff),
        1 => Just(End::RefusedByAnother),
        1 => Just(End::ProviderFails),
    ]
}

fn any_step(most_percent: u64) -> impl Strategy<Value = Step> {
    let begin = (0..3usize, 0..3usize, 0..3usize, any::<bool>(), 10..200u64, any_end(most_percent));
    prop_oneof![
        6 => begin.prop_map(|(worker, department, run, team, max_tokens, end)| {
            Step::Begin { worker, department, run, team, max_tokens, end }
        }),
        6 => any::<usize>().prop_map(Step::End),
        2 => (1..80u32).prop_map(Step::Conflicts),
        1 => Just(Step::Fail),
    ]
}

const DEPARTMENTS: [&str; 3] = ["", "sales", "support"];
const RUNS: [&str; 3] = ["", "run-1", "run-2"];

fn config() -> Config {
    let config = json!({
        "prices": {"models": [
            {"provider": "openai", "model": "gpt-4o", "rates": {"input": "1000", "output": "1000"}},
            {"provider": "openai", "model": "gpt-4o-mini", "rates": {"input": "10", "output": "10"}},
        ]},
        "metering": {"inject_include_usage": false},
        "downgrades": [{"from": "gpt-4o", "to": "gpt-4o-mini"}],
        "budgets": [
            {"name": "department", "per": ["department"], "when_missing": "share", "limit_usd": "2", "window": "month"},
            {"name": "run", "per": ["run_id"], "when_missing": "skip", "limit_usd": "0.8", "limit_calls": 9,
             "window": "lifetime", "idle_ttl_secs": 86400},
            {"name": "tokens", "limit_tokens": 5000, "window": "day", "timezone": "Europe/Berlin"},
            {"name": "watched", "per": ["team"], "when_missing": "share", "limit_usd": "0.3", "window": "month",
             "mode": "observe", "alert_at": [50, 100]},
            {"name": "sales", "match": {"department": "sales"}, "limit_usd": "0.5", "hard_limit_usd": "0.6",
             "window": "month", "on_exceeded": "downgrade"},
        ],
    });
    Config::from_bytes(config.to_string().as_bytes()).unwrap()
}

/// A call under way.
struct Open {
    worker: usize,
    exchange: Exchange,
    /// The end that it will have; its code details where the filter refused it.
    end: Result<(End, u64), &'static str>,
    /// By index of the budget, the value of the scope.
    scopes: Vec<(usize, &'static str)>,
    /// It may have held something.
    asked: bool,
}

struct Gateway {
    host: MemoryHost,
    workers: Vec<Instance>,
    config: Rc<Config>,
    open: Vec<Open>,
    /// What the records say was spent: pico-dollars, tokens, calls.
    told: BTreeMap<(usize, &'static str), (i128, u64, u64)>,
    refused: usize,
    downgraded: usize,
}

fn chat(department: &str, run: &str, team: bool) -> Headers {
    let mut headers =
        vec![(":method", "POST"), (":path", "/v1/chat/completions"), ("content-type", "application/json")];
    headers.extend(
        [("x-cost-department", department), ("x-cost-run-id", run)].iter().filter(|(_, value)| !value.is_empty()),
    );
    headers.extend(team.then_some(("x-cost-team", "a")));
    headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
}

impl Gateway {
    fn new() -> Gateway {
        let mut host = MemoryHost::default();
        let workers = (0..3).map(|_| Instance::register(&mut host, None)).collect();
        Gateway {
            host,
            workers,
            config: Rc::new(config()),
            open: Vec::new(),
            told: BTreeMap::new(),
            refused: 0,
            downgraded: 0,
        }
    }

    fn begin(
        &mut self,
        worker: usize,
        headers: &Headers,
        max_tokens: u64,
        end: End,
        scopes: Vec<(usize, &'static str)>,
    ) {
        let mut exchange = Exchange::new(Rc::clone(&self.config));
        let context = &mut Context { host: &mut self.host, instance: &mut self.workers[worker] };
        let headers = borrowed(headers);
        let event = Event::RequestHeaders { headers: &headers, route: Route::default(), end_of_stream: false };
        let mut verdict = exchange.on(event, context);
        let stream = matches!(end, End::CutStream(_));
        let body = format!(r#"{{"model":"gpt-4o","max_tokens":{max_tokens},"stream":{stream}}}"#);
        let (front, back) = body.as_bytes().split_at(20);
        let mut asked = false;
        if verdict.reply.is_none() {
            verdict = exchange.on(Event::RequestBody { chunk: front, end_of_stream: false }, context);
            if !matches!(end, End::LeavesWhileSending) {
                asked = true;
                verdict = exchange.on(Event::RequestBody { chunk: back, end_of_stream: true }, context);
            }
        }
        let end = verdict.reply.map_or(Ok((end, max_tokens)), |reply| Err(reply.details));
        self.open.push(Open { worker, exchange, end, scopes, asked });
    }

    fn end(&mut self, index: usize) {
        let Open { worker, mut exchange, end, scopes, asked } = self.open.remove(index);
        let context = &mut Context { host: &mut self.host, instance: &mut self.workers[worker] };
        let mut answer = |status: &str, content_type: &str, pieces: &[String], ends: bool| {
            let headers = vec![
                (":status".to_owned(), status.as_bytes().to_vec()),
                ("content-type".to_owned(), content_type.as_bytes().to_vec()),
            ];
            let headers = borrowed(&headers);
            exchange.on(Event::ResponseHeaders { headers: &headers, end_of_stream: false }, context);
            for piece in pieces {
                exchange.on(Event::ResponseBody { chunk: piece.as_bytes(), end_of_stream: false }, context);
            }
            if ends {
                exchange.on(Event::ResponseBody { chunk: b"", end_of_stream: true }, context);
            }
        };
        let json = "application/json";
        let details = match end {
            Err(details) => details,
            Ok((End::Complete(percent), max_tokens)) => {
                let usage = json!({"prompt_tokens": 10, "completion_tokens": max_tokens * percent / 100});
                answer("200", json, &[json!({"usage": usage}).to_string()], true);
                "via_upstream"
            }
            Ok((End::CutStream(pieces), _)) => {
                let piece = "data: {\"choices\":[{\"delta\":{\"content\":\"word\"}}]}\n\n".to_owned();
                answer("200", "text/event-stream", &vec![piece; pieces], false);
                "downstream_remote_disconnect"
            }
            Ok((End::LeavesWhileSending | End::LeavesWaiting, _)) => "downstream_remote_disconnect",
            Ok((End::NeverArrives, _)) => "upstream_reset_before_response_started{connection_failure}",
            Ok((End::BreaksOff, _)) => {
                answer("200", json, &["{\"choices\":[{\"message\":{\"content\":\"w".to_owned()], false);
                "upstream_reset_after_response_started{connection_termination}"
            }
            Ok((End::RefusedByAnother, _)) => {
                answer("403", "text/plain", &["no".to_owned()], true);
                "rbac_access_denied_matched_policy[none]"
            }
            Ok((End::ProviderFails, _)) => {
                answer("500", json, &["{\"error\":{\"message\":\"sorry\"}}".to_owned()], true);
                "via_upstream"
            }
        };
        let context = &mut Context { host: &mut self.host, instance: &mut self.workers[worker] };
        exchange.on(Event::Log(Ending { code_details: Some(details), ..Ending::default() }), context);
        let record = self.host.records.pop().expect("every call has a record");
        assert!(self.host.records.is_empty() && !exchange.is_open());
        assert_eq!(record.decision == Decision::Refused, end.is_err(), "{details}");
        let cost = record.cost_picousd.expect("every model has a price");
        let tokens = record.input_tokens.unwrap_or(0) + record.output_tokens.unwrap_or(0);
        if end.is_err() || !asked {
            assert_eq!((cost, tokens), (0, 0), "{details}");
            self.refused += usize::from(end.is_err());
            return;
        }
        self.downgraded += usize::from(record.decision == Decision::Downgraded);
        for scope in scopes {
            let (usd, all, calls) = self.told.entry(scope).or_default();
            (*usd, *all, *calls) = (*usd + cost, *all + tokens, *calls + 1);
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Conflicts(conflicts) => return self.host.conflicts = *conflicts,
            Step::Fail => return self.host.store_fails = Some(2),
            Step::End(index) if !self.open.is_empty() => self.end(index % self.open.len()),
            Step::End(_) => {}
            Step::Begin { worker, department, run, team, max_tokens, end } => {
                let (department, run) = (DEPARTMENTS[*department], RUNS[*run]);
                let mut scopes = vec![(0, department), (2, ""), (3, if *team { "a" } else { "" })];
                scopes.extend((!run.is_empty()).then_some((1, run)));
                scopes.extend((department == "sales").then_some((4, "")));
                self.begin(*worker, &chat(department, run, *team), *max_tokens, *end, scopes);
            }
        }
        (self.host.conflicts, self.host.store_fails) = (0, None);
    }

    fn end_all(&mut self) {
        (self.host.conflicts, self.host.store_fails) = (0, None);
        while !self.open.is_empty() {
            self.end(0);
        }
        for instance in &mut self.workers {
            tollgate::overview::tick(
                &self.config,
                &mut Turn::default(),
                &mut Context { host: &mut self.host, instance },
            );
        }
    }

    fn standing(&mut self, (budget, value): (usize, &str)) -> Standing {
        let budget = &self.config.budgets[budget];
        let now = self.host.now_ns / 1_000_000_000;
        let account = budget.account(budget.per.iter().map(|key| (key.clone(), value.into())).collect(), now);
        let context = &mut Context { host: &mut self.host, instance: &mut self.workers[0] };
        let (ledger, mut access) = context.ledger(&self.config, now);
        ledger.standing(&mut access, &account).unwrap()
    }

    /// The ledger has what the records say, and nothing is held any more.
    fn check(&mut self) -> BTreeMap<(usize, &'static str), (i128, u64, u64)> {
        for (scope, told) in self.told.clone() {
            let Standing { spent, held, .. } = self.standing(scope);
            assert_eq!((spent.usd.pico(), spent.tokens, spent.calls), told, "{scope:?}");
            assert!(held.is_zero(), "{scope:?}: {held:?}");
        }
        let departments = DEPARTMENTS.iter().map(|value| (0, *value));
        for scope in departments.chain(RUNS.iter().map(|value| (1, *value))) {
            if !self.told.contains_key(&scope) {
                assert_eq!(self.standing(scope), Standing::default(), "{scope:?}");
            }
        }
        self.told.clone()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_has_what_the_records_say(steps in vec(any_step(300), 1..80)) {
        let mut gateway = Gateway::new();
        steps.iter().for_each(|step| gateway.step(step));
        gateway.end_all();
        gateway.check();
    }

    #[test]
    fn no_limit_is_exceeded_by_calls_that_use_no_more_than_they_may(steps in vec(any_step(100), 1..120)) {
        let mut gateway = Gateway::new();
        steps.iter().for_each(|step| gateway.step(step));
        gateway.end_all();
        for ((budget, value), (usd, tokens, calls)) in gateway.check() {
            let (most_usd, most_tokens, most_calls) = match budget {
                0 => (2_000_000_000_000, u64::MAX, u64::MAX),
                1 => (800_000_000_000, u64::MAX, 9),
                2 => (i128::MAX, 5000, u64::MAX),
                4 => (600_000_000_000, u64::MAX, u64::MAX),
                _ => continue,
            };
            prop_assert!(usd <= most_usd && tokens <= most_tokens && calls <= most_calls, "{} {}", budget, value);
        }
    }
}

/// The steps above do reach what they are about.
#[test]
fn calls_are_refused_and_downgraded_on_the_way() {
    let mut gateway = Gateway::new();
    for n in 0..60 {
        let end = End::Complete(100);
        gateway.step(&Step::Begin { worker: n % 3, department: n % 3, run: 0, team: true, max_tokens: 100, end });
        gateway.step(&Step::End(0));
    }
    gateway.end_all();
    assert!(gateway.refused > 0 && gateway.downgraded > 0, "{} {}", gateway.refused, gateway.downgraded);
    gateway.check();
}

#[test]
fn a_scope_that_finds_no_room_is_refused_and_counted_or_passes_and_is_noted() {
    for (on_full, status) in [("refuse", Some(429)), ("admit", None)] {
        let config = json!({
            "ledger": {"max_bytes": 4 << 20, "on_full": on_full},
            "metering": {"inject_include_usage": false},
            "budgets": [{"name": "run", "per": ["run_id"], "when_missing": "skip", "limit_calls": 5, "window": "lifetime"}],
        });
        let mut gateway = Gateway::new();
        gateway.config = Rc::new(Config::from_bytes(config.to_string().as_bytes()).unwrap());
        let mut full = None;
        for n in 0..40_000 {
            let mut exchange = Exchange::new(Rc::clone(&gateway.config));
            let context = &mut Context { host: &mut gateway.host, instance: &mut gateway.workers[0] };
            let headers = chat("", &format!("0193a4f2-8e5b-7c31-9d20-{n:012}"), false);
            let headers = borrowed(&headers);
            let event = Event::RequestHeaders { headers: &headers, route: Route::default(), end_of_stream: false };
            exchange.on(event, context);
            let verdict = exchange.on(Event::RequestBody { chunk: b"{}", end_of_stream: true }, context);
            exchange.on(Event::Log(Ending { code_details: Some("x"), ..Ending::default() }), context);
            let record: Value =
                serde_json::from_slice(&gateway.host.records.pop().unwrap().to_json().unwrap()).unwrap();
            gateway.host.provisional.clear();
            let noted = record["notes"].as_array().is_some_and(|notes| notes.contains(&json!("ledger_full")));
            if verdict.reply.is_some() || noted {
                full = Some((verdict.reply.map(|reply| reply.status), record, noted));
                break;
            }
        }
        let (found, record, noted) = full.expect("it gets full");
        assert_eq!((found, noted), (status, status.is_none()), "{record}");
        let counted = gateway.host.counters.iter().any(|(name, count)| name.contains("ledger_full") && *count == 1);
        assert!(counted, "{:?}", gateway.host.counters);
        if status.is_some() {
            assert_eq!((&record["budget"], &record["error"]), (&json!("run"), &json!("budget_ledger_full")));
        }
    }
}

//! What the filter decides about calls as they come, `tollgate simulate` decides about their records, and `tollgate explain`
//! says of each.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use serde_json::{Value, json};
use std::rc::Rc;
use support::{file, tollgate_with};
use tollgate::config::Config;
use tollgate::exchange::{Context, Ending, Event, Exchange, Route};
use tollgate::http::Headers;
use tollgate::identity::Instance;
use tollgate::memory::MemoryHost;
use tollgate::record::UsageRecord;

/// 2026-11-18T00:00:00Z.
const MIDNIGHT: u64 = 1_794_960_000;

/// Tokens of every prompt.
const PROMPT: u64 = 30;

/// One call, in seconds after midnight.
#[derive(Clone, Copy)]
struct Call {
    at: u64,
    seconds: u64,
    team: Option<&'static str>,
    writes: bool,
    model: &'static str,
    path: &'static str,
    /// The request's limit on tokens.
    most: u64,
    answer: Answer,
}

#[derive(Clone, Copy)]
enum Answer {
    /// With so many tokens.
    Tokens(u64),
    /// Which says of no usage.
    Silent,
    /// The provider fails.
    Fails,
}

/// Calls are 10 seconds apart and last one, ask for at most 1000 tokens and get as many: 0.03 USD at the large model,
/// 0.003 at the small one, and a little more for the prompt.
const PLAIN: Call = Call {
    at: 0,
    seconds: 1,
    team: Some("a"),
    writes: false,
    model: "large",
    path: "/v1/chat/completions",
    most: 1000,
    answer: Answer::Tokens(1000),
};

impl Call {
    fn body(&self) -> Value {
        json!({"model": self.model, "max_tokens": self.most, "messages": [{"role": "user", "content": "w"}]})
    }
}

struct Case {
    what: &'static str,
    config: Value,
    calls: Vec<Call>,
    /// What becomes of each.
    decisions: &'static [&'static str],
}

fn config(budgets: Value, more: Value) -> Value {
    let mut config = json!({
        "metering": {"inject_include_usage": false},
        "prices": {"models": [
            {"provider": "openai", "model": "large", "rates": {"input": 10, "output": 30}},
            {"provider": "openai", "model": "small", "rates": {"input": 1, "output": 3}},
            {"provider": "mistral", "model": "foreign", "rates": {"input": 1, "output": 3}},
        ]},
        "budgets": budgets,
        "downgrades": [{"from": "large", "to": "small"}, {"from": "small", "to": "large"},
                       {"from": "lonely", "to": "foreign"}, {"from": "nameless", "to": "small"}],
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

/// The worker of a gateway, and the calls that are under way.
struct Gateway {
    config: Rc<Config>,
    host: MemoryHost,
    instance: Instance,
}

impl Gateway {
    fn new(config: &Value) -> Gateway {
        let config = Rc::new(Config::from_bytes(config.to_string().as_bytes()).unwrap());
        let mut host = MemoryHost::default();
        let instance = Instance::register(&mut host, None);
        Gateway { config, host, instance }
    }

    fn on(&mut self, exchange: &mut Exchange, at: u64, event: Event<'_>) -> bool {
        self.host.now_ns = (MIDNIGHT + at) * 1_000_000_000;
        exchange.on(event, &mut Context { host: &mut self.host, instance: &mut self.instance }).reply.is_some()
    }

    /// Begins a call; false where it is refused.
    fn begin(&mut self, exchange: &mut Exchange, call: &Call) -> bool {
        let mut headers = vec![
            (":method", "POST"),
            (":path", call.path),
            (":authority", "api.openai.com"),
            ("content-type", "application/json"),
            ("x-cost-workload", if call.writes { "agentic-write" } else { "agentic-read" }),
        ];
        headers.extend(call.team.map(|team| ("x-cost-team", team)));
        let headers: Headers<'_> = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        let event = Event::RequestHeaders { headers: &headers, route: Route::default(), end_of_stream: false };
        if self.on(exchange, call.at, event) {
            return false;
        }
        let body = call.body().to_string();
        let event = Event::RequestBody { chunk: body.as_bytes(), end_of_stream: true };
        !self.on(exchange, call.at, event)
    }

    fn end(&mut self, exchange: &mut Exchange, call: &Call, refused: bool) -> UsageRecord {
        let at = if refused { call.at } else { call.at + call.seconds };
        if !refused {
            let (status, body) = match call.answer {
                Answer::Tokens(tokens) => {
                    ("200", json!({"usage": {"prompt_tokens": PROMPT, "completion_tokens": tokens}}))
                }
                Answer::Silent => ("200", json!({"done": true})),
                Answer::Fails => ("500", json!({"error": {"message": "sorry"}})),
            };
            let headers = [(":status", status), ("content-type", "application/json")];
            let headers: Headers<'_> =
                headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
            self.on(exchange, at, Event::ResponseHeaders { headers: &headers, end_of_stream: false });
            let body = body.to_string();
            let event = Event::ResponseBody { chunk: body.as_bytes(), end_of_stream: true };
            self.on(exchange, at, event);
        }
        self.on(exchange, at, Event::Log(Ending { code_details: Some("via_upstream"), ..Ending::default() }));
        self.host.records.pop().unwrap()
    }

    /// Plays calls, and gives the record of each.
    fn play(&mut self, calls: &[Call]) -> Vec<UsageRecord> {
        let mut records: Vec<Option<UsageRecord>> = calls.iter().map(|_| None).collect();
        let mut open: Vec<(usize, Exchange)> = Vec::new();
        let end_before = |gateway: &mut Gateway, open: &mut Vec<(usize, Exchange)>, records: &mut Vec<_>, at: u64| {
            open.sort_by_key(|(index, _)| calls[*index].at + calls[*index].seconds);
            while open.first().is_some_and(|(index, _)| calls[*index].at + calls[*index].seconds <= at) {
                let (index, mut exchange) = open.remove(0);
                records[index] = Some(gateway.end(&mut exchange, &calls[index], false));
            }
        };
        for (index, call) in calls.iter().enumerate() {
            end_before(self, &mut open, &mut records, call.at);
            let mut exchange = Exchange::new(Rc::clone(&self.config));
            if self.begin(&mut exchange, call) {
                open.push((index, exchange));
            } else {
                records[index] = Some(self.end(&mut exchange, call, true));
            }
        }
        end_before(self, &mut open, &mut records, u64::MAX);
        records.into_iter().map(Option::unwrap).collect()
    }
}

/// What the filter did about a call, in words.
fn decided(record: &UsageRecord) -> String {
    let record: Value = serde_json::from_slice(&record.to_json().unwrap()).unwrap();
    let budget = record["budget"].as_str().unwrap_or_default();
    match (record["decision"].as_str().unwrap(), record["would_decide"].as_str()) {
        ("allowed", None) if budget.is_empty() => "passes".into(),
        ("allowed", None) => format!("passes over {budget}"),
        ("allowed", Some(would)) => format!("would be {would} by {budget}"),
        (decision, _) => format!("{decision} by {budget}"),
    }
}

/// What the replay did about the last of its calls, in words: what changed since the one `before`.
fn replayed(before: &Value, after: &Value) -> String {
    let number = |outcome: &Value, budget: usize, count: &str| outcome["budgets"][budget][count].as_u64().unwrap_or(0);
    let mut said = Vec::new();
    for (index, budget) in after["budgets"].as_array().unwrap().iter().enumerate() {
        let name = budget["budget"].as_str().unwrap();
        for count in ["refused", "downgraded", "passed_over"] {
            let more = number(after, index, count) - number(before, index, count);
            said.extend((more > 0).then(|| match (count, budget["mode"] == "observe") {
                ("passed_over", _) => format!("passes over {name}"),
                (_, true) => format!("would be {count} by {name}"),
                (_, false) => format!("{count} by {name}"),
            }));
        }
    }
    if said.is_empty() { "passes".into() } else { said.join(", ") }
}

/// The words for each call of a replay of the records of calls that nobody stopped.
fn simulate(case: &Case) -> Vec<String> {
    let mut observing = case.config.clone();
    for budget in observing["budgets"].as_array_mut().unwrap() {
        budget["mode"] = "observe".into();
    }
    let records = Gateway::new(&observing).play(&case.calls);
    let config = file(&format!("decisions/{}.yaml", case.what.replace(' ', "-")), &case.config.to_string());
    let mut lines = String::new();
    let mut before = Value::Null;
    let each = records.iter().map(|record| {
        lines += str::from_utf8(&record.to_json().unwrap()).unwrap();
        lines += "\n";
        let run = tollgate_with(&["simulate", "--format", "json", "--config", &config, "-"], &lines);
        assert_eq!(run.code, 0, "{}: {}", case.what, run.err);
        let after: Value = serde_json::from_str(&run.out).unwrap();
        let said = replayed(&before, &after);
        before = after;
        said
    });
    each.collect()
}

fn apart(calls: &[Call]) -> Vec<Call> {
    calls.iter().zip((0..).step_by(10)).map(|(call, at)| Call { at, ..*call }).collect()
}

fn cases() -> Vec<Case> {
    let writes = Call { writes: true, ..PLAIN };
    let of = |team| Call { team, ..PLAIN };
    let model = |model| Call { model, ..PLAIN };
    let fails = Call { answer: Answer::Fails, ..PLAIN };
    let no_format = Call { path: "/v1/some/thing", answer: Answer::Silent, ..PLAIN };
    let none = json!({});
    // Room for two calls at the large model, and for the start of a third.
    let team = |more: Value| {
        let mut budget = json!({"name": "teams", "per": ["team"], "when_missing": "share", "limit_usd": 0.07,
                                "window": "day"});
        budget.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        budget
    };
    let downgrades = json!({"limit_usd": 0.065, "on_exceeded": "downgrade", "hard_limit_usd": 0.067});
    let all = |more: Value| {
        let mut budget = team(more);
        budget["name"] = "all".into();
        budget["per"] = json!([]);
        budget
    };
    let allows = json!({"on_exceeded": "allow"});
    vec![
        Case {
            what: "a limit is reached by team",
            config: config(json!([team(none.clone())]), none.clone()),
            calls: apart(&[PLAIN, of(Some("b")), PLAIN, PLAIN, of(Some("b")), of(None)]),
            decisions: &["passes", "passes", "passes", "refused by teams", "passes", "passes"],
        },
        Case {
            what: "what others hold stands in the way until they end",
            config: config(json!([team(none.clone())]), none.clone()),
            calls: [(0, 60), (1, 60), (2, 1), (100, 1)]
                .map(|(at, seconds)| Call { at, seconds, answer: Answer::Tokens(10), ..PLAIN })
                .into(),
            decisions: &["passes", "passes", "refused by teams", "passes"],
        },
        Case {
            what: "agents that write stop and those that read pass",
            config: config(
                json!([team(json!({"on_exceeded": {"agentic_write": "block", "agentic_read": "allow"}}))]),
                none.clone(),
            ),
            calls: apart(&[PLAIN, PLAIN, writes, PLAIN]),
            decisions: &["passes", "passes", "refused by teams", "passes over teams"],
        },
        Case {
            what: "a cheaper model up to the hard limit",
            config: config(json!([team(downgrades.clone())]), none.clone()),
            calls: apart(&[PLAIN, PLAIN, PLAIN, PLAIN, PLAIN]),
            decisions: &["passes", "passes", "downgraded by teams", "downgraded by teams", "refused by teams"],
        },
        Case {
            what: "a call that fails goes to the cheaper model too",
            config: config(json!([team(downgrades.clone())]), none.clone()),
            calls: apart(&[PLAIN, PLAIN, fails, PLAIN]),
            decisions: &["passes", "passes", "downgraded by teams", "downgraded by teams"],
        },
        Case {
            what: "there is no cheaper model",
            config: config(
                json!([team(json!({"limit_usd": 0.007, "hard_limit_usd": 1, "on_exceeded": "downgrade"}))]),
                none.clone(),
            ),
            calls: apart(&[model("small"), model("small"), model("small"), model("lonely")]),
            decisions: &["passes", "passes", "refused by teams", "refused by teams"],
        },
        Case {
            what: "the strictest of two budgets decides",
            config: config(json!([team(allows.clone()), all(json!({"limit_usd": 0.1}))]), none.clone()),
            calls: apart(&[PLAIN, PLAIN, PLAIN, PLAIN, of(Some("b"))]),
            decisions: &["passes", "passes", "passes over teams", "refused by all", "refused by all"],
        },
        Case {
            what: "one budget downgrades and another has no room there",
            config: config(json!([team(downgrades), all(json!({"limit_usd": 1, "limit_calls": 3}))]), none.clone()),
            calls: apart(&[PLAIN, PLAIN, PLAIN, PLAIN]),
            decisions: &["passes", "passes", "downgraded by teams", "refused by all"],
        },
        Case {
            what: "a value is missing",
            config: config(json!([team(json!({"when_missing": "refuse"})), all(none.clone())]), none.clone()),
            calls: apart(&[of(None), PLAIN, of(None), PLAIN]),
            decisions: &["refused by teams", "passes", "refused by teams", "passes"],
        },
        Case {
            what: "a budget only observes",
            config: config(json!([team(json!({"mode": "observe"})), all(json!({"limit_usd": 0.13}))]), none.clone()),
            calls: apart(&[PLAIN, PLAIN, PLAIN, PLAIN]),
            decisions: &["passes", "passes", "would be refused by teams", "would be refused by teams"],
        },
        Case {
            what: "an unknown model counts as the dearest under a dollar budget",
            config: config(json!([team(none.clone())]), none.clone()),
            calls: apart(&[model("nameless"), model("nameless"), model("nameless"), model("small")]),
            decisions: &["passes", "passes", "refused by teams", "passes"],
        },
        Case {
            what: "what is no known call holds and then costs nothing",
            config: config(json!([team(none.clone())]), json!({"metering": {"on_unmetered": "record"}})),
            calls: apart(&[no_format; 12]),
            decisions: &["passes"; 12],
        },
    ]
}

#[test]
fn a_replay_decides_about_the_records_of_calls_as_the_filter_did_about_the_calls() {
    for case in cases() {
        let filter: Vec<String> = Gateway::new(&case.config).play(&case.calls).iter().map(decided).collect();
        assert_eq!(filter, case.decisions, "{}: the filter", case.what);
        assert_eq!(simulate(&case), filter, "{}: the replay", case.what);
    }
}

#[test]
fn an_unknown_model_is_explained_as_the_dearest_wherever_the_filter_takes_it_for_that() {
    let call = Call { model: "nameless", ..PLAIN };
    let budget = |name: &str, more: Value| {
        let mut budget = json!({"name": name, "per": ["team"], "when_missing": "share", "window": "day",
                                "limit_tokens": 1_000_000});
        budget.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        budget
    };
    let one = budget("one", json!({}));
    for (budgets, is_dearest) in [
        (json!([one]), false),
        (json!([budget("one", json!({"overrides": [{"match": {"team": "a"}, "limit_usd": 1}]}))]), true),
        (json!([budget("one", json!({"overrides": [{"match": {"team": "b"}, "limit_usd": 1}]}))]), false),
        (json!([one, budget("two", json!({"match": {"team": "b"}, "limit_usd": 1}))]), false),
        (json!([one, budget("two", json!({"mode": "observe", "limit_usd": 1}))]), false),
        // The workload is decided when the body has come, and prices are the same before.
        (json!([one, budget("two", json!({"match": {"workload": "agentic-write"}, "limit_usd": 1}))]), true),
    ] {
        let config = config(budgets, json!({}));
        let record = Gateway::new(&config).play(&[call]).remove(0);
        let held = record.estimated_cost_usd.map_or("0".to_owned(), |usd| usd.as_str().to_owned());
        assert_eq!(held != "0", is_dearest, "{config}");
        let config = file("decisions/explained.yaml", &config.to_string());
        let exchange = json!({"request": {"path": call.path, "host": "api.openai.com", "body": call.body(),
            "headers": {"x-cost-team": "a", "x-cost-workload": "agentic-read", "content-type": "application/json"}}});
        let arguments = ["explain", "--format", "json", "--config", &config, "--exchange", "-"];
        let run = tollgate_with(&arguments, &exchange.to_string());
        let account: Value = serde_json::from_str(&run.out).unwrap_or_else(|_| panic!("{run:?}"));
        assert_eq!(account["budgets"]["estimate"]["usd"], held, "{config}");
    }
}

//! Budgets over whole exchanges: holds, settlements, refusals, downgrades.

mod several;

use super::*;
use crate::overview::Turn;
use crate::reply::LocalReply;
use crate::telemetry::{LabelCap, Metric};
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// Several exchanges on one host and worker.
pub(super) struct Gateway {
    pub(super) host: MemoryHost,
    pub(super) instance: Instance,
    pub(super) config: Rc<Config>,
    /// What the configuration was read from.
    text: Value,
}

/// What became of one call.
pub(super) struct Played {
    reply: Option<LocalReply>,
    /// What the provider got.
    sent: Vec<u8>,
    record: Option<UsageRecord>,
}

impl Gateway {
    pub(super) fn new(budgets: &Value, more: &Value) -> Gateway {
        let mut config = json!({
            "prices": {"models": [
                {"provider": "openai", "model": "gpt-4o", "rates": {"input": "1000", "output": "1000"}},
                {"provider": "openai", "model": "gpt-4o-mini", "rates": {"input": "10", "output": "10"}, "max_output_tokens": 50},
            ]},
            "metering": {"inject_include_usage": false},
            "collector": {"cluster": "c"},
            "budgets": budgets,
        });
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        let mut host = MemoryHost::default();
        let instance = Instance::register(&mut host, None);
        Gateway { host, instance, config: read(&config), text: config }
    }

    /// Other sections from now on.
    pub(super) fn reconfigure(&mut self, sections: &Value) {
        for (key, value) in sections.as_object().unwrap() {
            self.text[key] = value.clone();
        }
        self.config = read(&self.text);
    }

    fn begin(&mut self, department: &str, body: &str) -> (Exchange, Played) {
        let (mut exchange, mut played) = self.announce(department);
        if played.reply.is_none() {
            self.send(&mut exchange, &mut played, body);
        }
        (exchange, played)
    }

    /// The headers of a call.
    fn announce(&mut self, department: &str) -> (Exchange, Played) {
        let mut exchange = Exchange::new(Rc::clone(&self.config));
        let mut played = Played { reply: None, sent: Vec::new(), record: None };
        let pairs = [(":method", "POST"), (":path", "/v1/chat/completions"), ("x-cost-department", department)];
        let headers = headers(if department.is_empty() { &pairs[..2] } else { &pairs }, &[]);
        let event = Event::RequestHeaders { headers: &headers, route: Route::default(), end_of_stream: false };
        let context = &mut Context { host: &mut self.host, instance: &mut self.instance };
        played.reply = exchange.on(event, context).reply;
        (exchange, played)
    }

    /// Its body.
    fn send(&mut self, exchange: &mut Exchange, played: &mut Played, body: &str) {
        let context = &mut Context { host: &mut self.host, instance: &mut self.instance };
        let verdict = exchange.on(Event::RequestBody { chunk: body.as_bytes(), end_of_stream: true }, context);
        played.sent = verdict.body.unwrap_or_else(|| body.into());
        played.reply = verdict.reply;
    }

    pub(super) fn end(&mut self, mut exchange: Exchange, answer: Option<&str>, code_details: &str) -> UsageRecord {
        let context = &mut Context { host: &mut self.host, instance: &mut self.instance };
        if let Some(answer) = answer {
            let headers = headers(&[(":status", "200"), ("content-type", "application/json")], &[]);
            exchange.on(Event::ResponseHeaders { headers: &headers, end_of_stream: false }, context);
            exchange.on(Event::ResponseBody { chunk: answer.as_bytes(), end_of_stream: true }, context);
        }
        exchange.on(Event::Log(Ending { code_details: Some(code_details), ..Ending::default() }), context);
        self.host.records.pop().unwrap()
    }

    /// A call for 10 input tokens and `tokens` output tokens at most, of which it uses `used`.
    pub(super) fn call(&mut self, department: &str, tokens: u64, used: u64) -> Played {
        let body = format!(r#"{{"model":"gpt-4o","max_tokens":{tokens}}}"#);
        let (exchange, mut played) = self.begin(department, &body);
        let answer = format!(r#"{{"model":"gpt-4o","usage":{{"prompt_tokens":10,"completion_tokens":{used}}}}}"#);
        let record = match &played.reply {
            None => self.end(exchange, Some(&answer), "via_upstream"),
            Some(reply) => self.end(exchange, None, reply.details),
        };
        played.record = Some(record);
        played
    }

    /// Spent and held by the department, in the first budget.
    pub(super) fn standing(&mut self, department: &str) -> (String, String) {
        let now = self.host.now_ns / 1_000_000_000;
        let budget = &self.config.budgets[0];
        let scope = budget.per.iter().map(|key| (key.clone(), department.into())).collect();
        let account = budget.account(scope, now);
        let context = &mut Context { host: &mut self.host, instance: &mut self.instance };
        let (ledger, mut access) = context.ledger(&self.config, now);
        let standing = ledger.standing(&mut access, &account).unwrap();
        (standing.spent.usd.to_string(), standing.held.usd.to_string())
    }
}

fn read(config: &Value) -> Rc<Config> {
    Rc::new(Config::from_bytes(config.to_string().as_bytes()).unwrap())
}

pub(super) fn month(limit_usd: &str) -> Value {
    json!({"name": "month", "per": ["department"], "when_missing": "share", "limit_usd": limit_usd, "window": "month"})
}

#[test]
fn a_match_is_put_in_the_spelling_that_values_are_recorded_in() {
    for (pattern, refused) in [
        (json!({"department": "Customer Success"}), true),
        (json!({"department": ["Sales", "Customer_*"]}), true),
        (json!({"department": "Sales"}), false),
        (json!({"workload": "agentic_read"}), true),
        // Ids are compared as they are.
        (json!({"gl_account": "GL_1"}), true),
        (json!({"gl_account": "gl-1"}), false),
    ] {
        let budget = json!([{"name": "none", "match": pattern, "limit_calls": 0, "window": "month"}]);
        let own = json!({"gl_account": {"default": "GL_1"}});
        let more = json!({"attribution": {"normalise": "lowercase_hyphen", "dimensions": own}});
        let (_, played) =
            Gateway::new(&budget, &more).begin("Customer success", r#"{"model":"gpt-4o","max_tokens":1}"#);
        assert_eq!(played.reply.is_some(), refused, "{pattern}");
    }
}

#[test]
fn a_call_holds_its_bound_and_settles_its_cost() {
    let mut gateway = Gateway::new(&json!([month("1.00")]), &json!({}));
    let body = r#"{"model":"gpt-4o","max_tokens":90,"x":"1234"}"#; // 45 bytes: 12 tokens
    let (exchange, played) = gateway.begin("sales", body);
    assert!(played.reply.is_none());
    assert_eq!(gateway.standing("sales"), ("0".into(), "0.102".into()));
    assert_eq!(gateway.standing("support"), ("0".into(), "0".into()), "every department has its own");
    let record = gateway.end(
        exchange,
        Some(r#"{"model":"gpt-4o","usage":{"prompt_tokens":10,"completion_tokens":5}}"#),
        "via_upstream",
    );
    assert_eq!(gateway.standing("sales"), ("0.015".into(), "0".into()));
    assert_eq!(record.estimated_cost_usd.unwrap().as_str(), "0.102");
    assert_eq!((record.decision, record.budget), (Decision::Allowed, None));
}

#[test]
fn what_does_not_fit_is_refused_and_what_is_held_only_for_now_may_come_again() {
    let mut gateway = Gateway::new(&json!([month("0.25")]), &json!({}));
    let body = r#"{"model":"gpt-4o","max_tokens":90}"#;
    let (first, played) = gateway.begin("sales", body);
    assert!(played.reply.is_none());
    let (second, played) = gateway.begin("sales", body);
    assert!(played.reply.is_none());
    let (third, played) = gateway.begin("sales", body);
    let busy = played.reply.unwrap();
    assert_eq!((busy.status, busy.details), (429, "tollgate_budget_busy"));
    assert!(
        busy.headers.contains(&("retry-after", "1".into()))
            && busy.headers.contains(&("x-should-retry", "true".into()))
    );
    let record = gateway.end(third, None, busy.details);
    assert_eq!((record.decision, record.budget.as_deref()), (Decision::Refused, Some("month")));
    assert_eq!((record.status, record.price_status), (Some(429), Some(PriceStatus::Free)));
    let answer = r#"{"model":"gpt-4o","usage":{"prompt_tokens":10,"completion_tokens":90}}"#;
    gateway.end(first, Some(answer), "via_upstream");
    gateway.end(second, Some(answer), "via_upstream");
    assert_eq!(gateway.standing("sales"), ("0.2".into(), "0".into()));

    let refused = gateway.call("sales", 90, 0).reply.unwrap();
    assert_eq!((refused.status, refused.details), (429, "tollgate_budget_exceeded"));
    assert!(refused.headers.contains(&("x-cost-budget", "month".into())), "{:?}", refused.headers);
    assert!(refused.headers.contains(&("x-cost-budget-resets-at", "2026-12-01T00:00:00Z".into())));
    assert!(refused.headers.contains(&("x-should-retry", "false".into())));
    assert!(refused.body.contains("0.2 of 0.25 USD spent"), "{}", refused.body);
    assert!(gateway.call("support", 90, 90).reply.is_none(), "others go on");
    assert!(gateway.call("sales", 20, 20).reply.is_none(), "what fits, fits");
}

#[test]
fn a_budget_that_is_used_up_refuses_at_the_headers() {
    let mut gateway = Gateway::new(&json!([month("0.1")]), &json!({}));
    gateway.call("sales", 80, 90);
    assert_eq!(gateway.standing("sales").0, "0.1", "what was used beyond the bound counts");
    let pairs = [(":method", "POST"), (":path", "/v1/chat/completions"), ("x-cost-department", "sales")];
    let headers = headers(&pairs, &[]);
    let mut exchange = Exchange::new(Rc::clone(&gateway.config));
    let event = Event::RequestHeaders { headers: &headers, route: Route::default(), end_of_stream: false };
    let context = &mut Context { host: &mut gateway.host, instance: &mut gateway.instance };
    assert_eq!(exchange.on(event, context).reply.unwrap().status, 429);
}

#[test]
fn a_call_goes_to_a_cheaper_model_up_to_the_hard_limit() {
    let mut budget = month("0.1");
    budget["on_exceeded"] = json!({"agentic_write": "block", "agentic_read": "downgrade"});
    budget["hard_limit_usd"] = json!("0.11");
    let downgrades = json!([{"from": "gpt-4o", "to": "gpt-4o-mini"}]);
    let mut gateway = Gateway::new(&json!([budget]), &json!({"downgrades": downgrades}));
    assert_eq!(gateway.call("sales", 80, 80).record.unwrap().decision, Decision::Allowed);
    let body = r#"{"max_tokens": 80,  "model" : "gpt-4o"}"#;
    let (exchange, played) = gateway.begin("sales", body);
    assert!(played.reply.is_none());
    assert_eq!(String::from_utf8(played.sent).unwrap(), r#"{"max_tokens": 50,  "model" : "gpt-4o-mini"}"#);
    let answer = r#"{"model":"gpt-4o-mini","usage":{"prompt_tokens":10,"completion_tokens":50}}"#;
    let record = gateway.end(exchange, Some(answer), "via_upstream");
    assert_eq!(record.decision, Decision::Downgraded);
    assert_eq!(record.downgraded_from.as_deref(), Some("gpt-4o"));
    assert_eq!(record.cost_usd.unwrap().as_str(), "0.0006");
    assert_eq!(record.avoided_cost_usd.unwrap().as_str(), "0.0594");
    assert_eq!(gateway.standing("sales").0, "0.0906");

    // An agent that writes stops.
    let (exchange, played) =
        gateway.begin("sales", r#"{"model":"gpt-4o","max_tokens":80,"tools":[{"function":{"name":"send_email"}}]}"#);
    assert_eq!(played.reply.unwrap().status, 429);
    assert_eq!(gateway.end(exchange, None, "tollgate_budget_exceeded").workload.as_deref(), Some("agentic-write"));
}

#[test]
fn a_budget_that_observes_refuses_nothing_and_says_what_it_would_do() {
    let mut budget = month("0.05");
    budget["mode"] = json!("observe");
    let mut gateway = Gateway::new(&json!([budget]), &json!({}));
    let record = gateway.call("sales", 90, 90).record.unwrap();
    assert_eq!((record.decision, record.would_decide), (Decision::Allowed, Some(Decision::Refused)));
    assert_eq!(record.budget.as_deref(), Some("month"));
    assert_eq!(gateway.standing("sales"), ("0.1".into(), "0".into()), "it counts all the same");
}

#[test]
fn a_refused_call_gives_back_what_other_budgets_held() {
    let all = json!({"name": "all", "limit_usd": "10", "window": "day"});
    let calls = json!({"name": "calls", "limit_calls": 1, "window": "hour"});
    let mut gateway = Gateway::new(&json!([all, calls]), &json!({}));
    assert!(gateway.call("sales", 10, 10).reply.is_none());
    assert_eq!(gateway.call("sales", 10, 10).reply.unwrap().status, 429);
    assert_eq!(gateway.standing("sales"), ("0.02".into(), "0".into()));
}

#[test]
fn an_alert_is_given_once_for_each_threshold() {
    let mut budget = month("0.1");
    budget["alert_at"] = json!([50, 80, 100]);
    let mut gateway = Gateway::new(&json!([budget]), &json!({}));
    for _ in 0..3 {
        gateway.call("sales", 25, 25);
    }
    let lines: Vec<Value> = gateway.host.lines.iter().map(|line| serde_json::from_slice(line).unwrap()).collect();
    let told: Vec<_> =
        lines.iter().map(|line| (line["threshold_percent"].as_u64().unwrap(), line["spent_usd"].to_string())).collect();
    assert_eq!(told, [(50, "0.07".into())], "{lines:?}");
    assert_eq!(lines[0]["type"], "budget_alert");
    assert_eq!(lines[0]["scope"]["department"], "sales");
    let alerts = Metric::BudgetAlerts { budget: "month", threshold: "50" }.stat_name(&mut LabelCap::default());
    assert_eq!(gateway.host.counter(&alerts), 1);
}

#[test]
fn an_unknown_model_costs_the_most_under_a_dollar_budget() {
    let mut gateway = Gateway::new(&json!([month("1")]), &json!({}));
    let (exchange, played) = gateway.begin("sales", r#"{"model":"acme","max_tokens":90}"#);
    assert!(played.reply.is_none());
    assert_ne!(gateway.standing("sales").1, "0");
    let answer = r#"{"model":"acme","usage":{"prompt_tokens":10,"completion_tokens":10}}"#;
    let record = gateway.end(exchange, Some(answer), "via_upstream");
    assert_eq!(
        (record.priced_by.as_deref(), record.priced_model.as_deref()),
        (Some("assumed_highest"), Some("gpt-4o"))
    );
    assert_eq!(gateway.standing("sales").0, "0.02");
}

#[test]
fn a_call_without_its_dimension_shares_skips_or_is_refused() {
    for (when_missing, status, spent) in [("share", None, "0.02"), ("skip", None, "0"), ("refuse", Some(400), "0")] {
        let mut budget = month("1");
        budget["when_missing"] = json!(when_missing);
        let mut gateway = Gateway::new(&json!([budget]), &json!({}));
        let played = gateway.call("", 10, 10);
        assert_eq!(played.reply.map(|reply| reply.status), status, "{when_missing}");
        assert_eq!(gateway.standing("").0, spent, "{when_missing}");
    }
}

#[test]
fn a_client_that_leaves_is_charged_what_is_known_or_the_estimate() {
    let mut gateway = Gateway::new(&json!([month("1")]), &json!({}));
    let (exchange, _) = gateway.begin("sales", r#"{"model":"gpt-4o","max_tokens":90}"#);
    let record = gateway.end(exchange, None, "downstream_remote_disconnect");
    assert_eq!(gateway.standing("sales"), (record.cost_usd.unwrap().as_str().into(), "0".into()));
}

/// A call whose path names the model.
fn gemini(gateway: &mut Gateway, more: &[(&str, &[u8])], body: &str) -> (Exchange, Verdict, Verdict) {
    let length = body.len().to_string();
    let pairs = [
        (":method", "POST"),
        (":path", "/v1beta/models/gpt-4o:generateContent?key=k"),
        ("x-cost-department", "sales"),
        ("content-length", &length),
    ];
    let headers = headers(&pairs, more);
    let mut exchange = Exchange::new(Rc::clone(&gateway.config));
    let context = &mut Context { host: &mut gateway.host, instance: &mut gateway.instance };
    let event = Event::RequestHeaders { headers: &headers, route: Route::default(), end_of_stream: false };
    let first = exchange.on(event, context);
    if first.reply.is_some() {
        return (exchange, first, Verdict::default());
    }
    let last = exchange.on(Event::RequestBody { chunk: body.as_bytes(), end_of_stream: true }, context);
    (exchange, first, last)
}

#[test]
fn a_model_in_the_path_is_replaced_there_while_it_still_can_be() {
    let mut budget = month("0.1");
    budget["on_exceeded"] = json!("downgrade");
    budget["hard_limit_usd"] = json!("0.2");
    let downgrades = json!([{"from": "gpt-4o", "to": "gpt-4o-mini", "supports": ["tools"]}]);
    let mut gateway = Gateway::new(&json!([budget]), &json!({"downgrades": downgrades}));
    let body = r#"{"generationConfig":{"maxOutputTokens":80},"contents":[]}"#;
    gateway.call("sales", 80, 80);
    let (exchange, first, last) = gemini(&mut gateway, &[], body);
    let path = Edit::Set(":path", "/v1beta/models/gpt-4o-mini:generateContent?key=k".into());
    assert!(first.edits.contains(&path), "{:?}", first.edits);
    let lowered = body.replace("80", "50");
    assert_eq!((last.reply, last.body.as_deref()), (None, Some(lowered.as_bytes())), "no more than it can");
    let answer = r#"{"modelVersion":"gpt-4o-mini","usageMetadata":{"promptTokenCount":10,"candidatesTokenCount":10}}"#;
    let record = gateway.end(exchange, Some(answer), "via_upstream");
    assert_eq!((record.decision, record.downgraded_from.as_deref()), (Decision::Downgraded, Some("gpt-4o")));
    assert_eq!(record.cost_usd.unwrap().as_str(), "0.0002");

    // What the body asks for may still be more than the cheaper model can do.
    let vision = r#"{"contents":[{"parts":[{"inlineData":{"mimeType":"image/png","data":"x"}}]}]}"#;
    let (exchange, first, last) = gemini(&mut gateway, &[], vision);
    assert!(first.edits.contains(&path));
    assert_eq!(last.reply.unwrap().status, 429);
    let record = gateway.end(exchange, None, "tollgate_budget_exceeded");
    assert_eq!(
        (record.decision, record.notes),
        (Decision::Refused, vec!["downgrade_misfit:vision".into(), "no_downgrade".into()])
    );

    // A signature covers the path.
    let signed: &[(&str, &[u8])] =
        &[("authorization", b"AWS4-HMAC-SHA256 Credential=x, SignedHeaders=host, Signature=y")];
    let (_, first, last) = gemini(&mut gateway, signed, body);
    assert!(!first.edits.contains(&path));
    assert_eq!(last.reply.unwrap().status, 429);
}

#[test]
fn a_model_is_no_cheaper_than_the_prompt_in_the_cache_of_the_one_asked_for() {
    for (cached, downgraded) in [
        (json!({}), true),
        (json!({"cached_input": "100"}), false),
        (json!({"cached_input": "500"}), true),
        (json!({"cached_input": "500", "explicit_cached_input": "100"}), false),
        (json!({"cached_input": "500", "explicit_cached_input": "300"}), true),
    ] {
        let mut budget = month("0.005");
        budget["on_exceeded"] = json!("downgrade");
        budget["hard_limit_usd"] = json!("0.01");
        let mut rates = json!({"input": "1000", "output": "1"});
        rates.as_object_mut().unwrap().extend(cached.as_object().unwrap().clone());
        let more = json!({"downgrades": [{"from": "gpt-4o", "to": "gpt-4o-mini"}], "prices": {"models": [
            {"model": "gpt-4o", "rates": rates},
            {"model": "gpt-4o-mini", "rates": {"input": "200", "output": "1"}}]}});
        let mut gateway = Gateway::new(&json!([budget]), &more);
        let (_, played) = gateway.begin("sales", r#"{"model":"gpt-4o","max_tokens":10}"#);
        assert_eq!(played.reply.is_none(), downgraded, "{cached}");
    }
}

#[test]
fn a_signed_call_is_refused_or_passes_over_its_limit_as_policy_says() {
    for (policy, refused) in [("refuse", true), ("pass", false)] {
        let mut budget = month("0.05");
        budget["on_exceeded"] = json!("downgrade");
        budget["hard_limit_usd"] = json!("0.2");
        let upstream = json!([{"match": {"host": "*"}, "on_signed": policy}]);
        let downgrades = json!([{"from": "gpt-4o", "to": "gpt-4o-mini"}]);
        let mut gateway = Gateway::new(&json!([budget]), &json!({"downgrades": downgrades, "upstreams": upstream}));
        let headers = headers(
            &[
                (":method", "POST"),
                (":path", "/v1/chat/completions"),
                (":authority", "h"),
                ("x-amz-content-sha256", "x"),
                ("x-cost-department", "sales"),
            ],
            &[],
        );
        let mut exchange = Exchange::new(Rc::clone(&gateway.config));
        let context = &mut Context { host: &mut gateway.host, instance: &mut gateway.instance };
        exchange
            .on(Event::RequestHeaders { headers: &headers, route: Route::default(), end_of_stream: false }, context);
        let body = br#"{"model":"gpt-4o","max_tokens":80}"#;
        let verdict = exchange.on(Event::RequestBody { chunk: body, end_of_stream: true }, context);
        assert_eq!(verdict.reply.is_some(), refused, "{policy}");
        assert!(refused || verdict.body.as_deref() == Some(body));
    }
}

#[test]
fn an_answer_says_what_is_left_where_that_is_asked_for() {
    let mut gateway = Gateway::new(&json!([month("1")]), &json!({"metering": {"cost_headers": true}}));
    let (mut exchange, _) = gateway.begin("sales", r#"{"model":"gpt-4o","max_tokens":91}"#);
    let headers = headers(&[(":status", "200"), ("content-type", "application/json")], &[]);
    let context = &mut Context { host: &mut gateway.host, instance: &mut gateway.instance };
    let verdict = exchange.on(Event::ResponseHeaders { headers: &headers, end_of_stream: false }, context);
    assert!(verdict.edits.contains(&Edit::Set("x-cost-budget-remaining-usd", "0.9".into())), "{:?}", verdict.edits);
}

#[test]
fn the_admin_endpoint_lists_grants_and_resets() {
    // printf %s secret | sha256sum
    let admin = json!({"token_sha256": "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"});
    let mut gateway = Gateway::new(&json!([month("0.1")]), &json!({"admin": admin}));
    gateway.call("sales", 80, 90);
    assert_eq!(gateway.call("sales", 10, 10).reply.unwrap().status, 429);
    let mut ask = |method: &str, path: &str, token: &str, body: &str| {
        let authorization = format!("Bearer {token}");
        let pairs = [(":method", method), (":path", path), ("authorization", &authorization)];
        let headers = headers(&pairs, &[]);
        let mut exchange = Exchange::new(Rc::clone(&gateway.config));
        let context = &mut Context { host: &mut gateway.host, instance: &mut gateway.instance };
        let end_of_stream = body.is_empty();
        let mut verdict =
            exchange.on(Event::RequestHeaders { headers: &headers, route: Route::default(), end_of_stream }, context);
        if !end_of_stream && verdict.reply.is_none() {
            let (a, b) = body.as_bytes().split_at(3);
            assert!(exchange.reads_request_body());
            exchange.on(Event::RequestBody { chunk: a, end_of_stream: false }, context);
            verdict = exchange.on(Event::RequestBody { chunk: b, end_of_stream: true }, context);
        }
        assert!(!exchange.is_open(), "no usage record");
        let reply = verdict.reply.unwrap();
        (reply.status, serde_json::from_str::<Value>(&reply.body).unwrap())
    };
    assert_eq!(ask("GET", "/.tollgate/budgets", "wrong", "").0, 401);
    assert_eq!(ask("DELETE", "/.tollgate/budgets", "secret", "").0, 405);
    assert_eq!(ask("GET", "/.tollgate/else", "secret", "").0, 404);
    let (status, list) = ask("GET", "/.tollgate/budgets", "secret", "");
    assert_eq!((status, list["scopes"].as_array().unwrap().len()), (200, 1));
    let scope = &list["scopes"][0];
    assert_eq!((&scope["budget"], &scope["scope"]), (&json!("month"), &json!({"department": "sales"})));
    assert_eq!((scope["spent_usd"].to_string(), scope["remaining_usd"].to_string()), ("0.1".into(), "0".into()));
    let grant = "/.tollgate/budgets/month/grant";
    for (body, code) in [
        (r#"{"reason":"x"}"#, "invalid_scope"),
        (r#"{"scope":{"team":"a"},"reason":"x"}"#, "invalid_scope"),
        (r#"{"scope":{"department":"sales"},"usd":"1","until":"2026-11-22T00:00:00Z","reason":" "}"#, "invalid_body"),
        (r#"{"scope":{"department":"sales"},"usd":"-1","until":"2026-11-22T00:00:00Z","reason":"x"}"#, "invalid_body"),
        (r#"{"scope":{"department":"sales"},"usd":"1","until":"2020-01-01T00:00:00Z","reason":"x"}"#, "invalid_body"),
        ("{{{", "invalid_body"),
    ] {
        let (status, answer) = ask("POST", grant, "secret", body);
        assert_eq!((status, answer["error"]["code"].as_str()), (400, Some(code)), "{body}");
    }
    let body = r#"{"scope":{"department":"sales"},"usd":"0.05","until":"2026-11-22T00:00:00Z","reason":"launch"}"#;
    let (status, granted) = ask("POST", grant, "secret", body);
    assert_eq!((status, granted["limit_usd"].to_string()), (200, "0.15".into()));
    assert_eq!(granted["granted_until"], "2026-11-22T00:00:00Z");
    assert!(gateway.call("sales", 20, 20).reply.is_none(), "there is room now");
    let record: Value = serde_json::from_slice(gateway.host.lines.last().unwrap()).unwrap();
    assert_eq!(
        (&record["type"], &record["action"], &record["reason"]),
        (&json!("admin"), &json!("grant"), &json!("launch"))
    );
    assert_eq!(
        (&record["granted_usd"], &record["granted_until"], &record["granted_calls"]),
        (&json!(0.05), &json!("2026-11-22T00:00:00Z"), &Value::Null),
        "what was granted, and until when"
    );
}

#[test]
fn what_others_hold_between_the_headers_of_a_call_and_its_body_counts() {
    let body = r#"{"model":"gpt-4o","max_tokens":90,"x":"1234"}"#;
    let mut gateway = Gateway::new(&json!([month("0.2")]), &json!({}));
    let (mut first, mut played) = gateway.announce("sales");
    let (second, other) = gateway.begin("sales", body);
    assert!(other.reply.is_none());
    gateway.send(&mut first, &mut played, body);
    assert_eq!(played.reply.unwrap().details, "tollgate_budget_busy");
    let (mut third, mut played) = gateway.announce("sales");
    let record = gateway.end(second, None, "upstream_reset_before_response_started{connection_failure}");
    assert_eq!(record.cost_picousd, Some(0));
    gateway.send(&mut third, &mut played, body);
    assert!(played.reply.is_none(), "what it saw held is held no more");
    assert_eq!(gateway.standing("sales"), ("0".into(), "0.102".into()));
}

#[test]
fn a_call_counts_in_the_window_in_which_its_body_ends() {
    let minute = json!({"name": "minute", "per": ["department"], "when_missing": "share", "limit_usd": "0.2", "window": "minute"});
    let mut gateway = Gateway::new(&json!([minute]), &json!({}));
    gateway.call("sales", 90, 90);
    for (seconds, passes) in [(59, false), (60, true)] {
        let (mut exchange, mut played) = gateway.announce("sales");
        assert!(played.reply.is_none());
        let began = gateway.host.now_ns;
        gateway.host.now_ns += seconds * 1_000_000_000;
        gateway.send(&mut exchange, &mut played, r#"{"model":"gpt-4o","max_tokens":99,"x":"1234"}"#);
        assert_eq!(played.reply.is_none(), passes, "{seconds}");
        gateway.host.now_ns = began;
    }
}

#[test]
fn how_scopes_stand_is_told_once_a_minute_by_one_worker() {
    let mut gateway = Gateway::new(&json!([month("1")]), &json!({}));
    gateway.call("sales", 10, 10);
    gateway.call("support", 10, 10);
    let mut other = Instance::register(&mut gateway.host, None);
    let mut turns = [Turn::default(), Turn::default()];
    for _ in 0..150 {
        gateway.host.now_ns += 1_000_000_000;
        for (instance, turn) in [&mut gateway.instance, &mut other].into_iter().zip(&mut turns) {
            let context = &mut Context { host: &mut gateway.host, instance };
            crate::overview::tick(&gateway.config, turn, context);
        }
    }
    let lines: Vec<Value> = gateway.host.lines.iter().map(|line| serde_json::from_slice(line).unwrap()).collect();
    let snapshots: Vec<_> = lines.iter().filter(|line| line["type"] == "budget_snapshot").collect();
    assert_eq!(snapshots.len(), 4, "two scopes, two whole minutes: {lines:?}");
    assert!(snapshots.iter().all(|line| line["spent_usd"] == 0.02), "{snapshots:?}");
}

#[test]
fn a_stream_of_twenty_minutes_keeps_its_hold_and_a_dead_worker_leaves_none() {
    let body = r#"{"model":"gpt-4o","max_tokens":30,"stream":true}"#;
    let mut gateway = Gateway::new(&json!([month("1")]), &json!({"reservation": {"lease_secs": 30}}));
    let (mut stream, _) = gateway.begin("sales", body);
    // The next two calls are of two more workers: one dies with its call, the other only looks on.
    let mut streaming = std::mem::replace(&mut gateway.instance, Instance::register(&mut gateway.host, None));
    drop(gateway.begin("support", body));
    gateway.instance = Instance::register(&mut gateway.host, None);
    let head = headers(&[(":status", "200"), ("content-type", "text/event-stream")], &[]);
    let mut context = Context { host: &mut gateway.host, instance: &mut streaming };
    let mut turn = Turn::default();
    stream.on(Event::ResponseHeaders { headers: &head, end_of_stream: false }, &mut context);
    for seconds in 1..=1200 {
        gateway.host.now_ns += 1_000_000_000;
        let mut context = Context { host: &mut gateway.host, instance: &mut streaming };
        crate::overview::tick(&gateway.config, &mut turn, &mut context);
        let event = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n".as_bytes();
        stream.on(Event::ResponseBody { chunk: event, end_of_stream: false }, &mut context);
        let (_, held) = gateway.standing("sales");
        assert_ne!(held, "0", "after {seconds} s");
        let (_, leaked) = gateway.standing("support");
        assert_eq!(leaked == "0", seconds > 30, "after {seconds} s: {leaked}");
    }
    let mut context = Context { host: &mut gateway.host, instance: &mut streaming };
    stream.on(Event::Log(Ending { code_details: Some("via_upstream"), ..Ending::default() }), &mut context);
    let cost = gateway.host.records[0].cost_usd.as_ref().map(|cost| cost.as_str().to_owned());
    assert_eq!(gateway.standing("sales"), (cost.unwrap(), "0".into()));
}

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// A call to `path` in pieces of 1 byte, to its record.
fn call(config: &str, path: &str, more: &[(&str, &[u8])], body: &str) -> UsageRecord {
    let mut bench = Bench::with(config);
    let headers = headers(&[(":method", "POST"), (":path", path)], more);
    bench.on(Event::RequestHeaders { headers: &headers, route: Route::default(), end_of_stream: false });
    for byte in body.as_bytes().chunks(1) {
        bench.on(Event::RequestBody { chunk: byte, end_of_stream: false });
    }
    bench.on(Event::RequestBody { chunk: b"", end_of_stream: true });
    bench.reply("200", REPLY);
    bench.log("via_upstream")
}

fn source<'r>(record: &'r UsageRecord, name: &str) -> Option<&'r str> {
    record.attribution_source.get(name).map(|source| &**source)
}

const BODY_SOURCES: &str = r#"{"metering": {"inject_include_usage": false}, "attribution": {"dimensions": {
    "user": {"from": [{"body": "user"}]}, "team": {"from": [{"body": "metadata.team"}]},
    "tier": {"from": [{"body": "metadata.tier"}, {"body": "tools.name"}]}}}}"#;

#[test]
fn the_body_names_an_owner_wherever_it_stands_in_it() {
    for (body, user, team, tier, notes) in [
        (
            r#"{"user":"u-1","model":"gpt-4o","metadata":{"x":[{"team":"no"}],"team":"a"}}"#,
            Some("u-1"),
            Some("a"),
            None,
            &[][..],
        ),
        (r#"{"metadata":{"team":"\u00e9","tier":7},"user":true}"#, Some("true"), Some("é"), Some("7"), &[]),
        (r#"{"user":null,"metadata":[{"team":"no"}],"tools":[{"name":"no"}]}"#, None, None, None, &[]),
        (r#"{"user":"a","user":"b","x":{"user":"no"}}"#, Some("b"), None, None, &[]),
        (
            r#"{"user":{"id":"x"},"metadata":{"team":["x"]}}"#,
            None,
            None,
            None,
            &["body user: not_text", "body metadata.team: not_text"],
        ),
        (r#"{"user":"LONG","metadata":"x"}"#, None, None, None, &["body user: too_long"]),
        (r#"{"user":"a\tb"}"#, None, None, None, &["body user: control_character"]),
        (r#"{"user":"cut off"#, None, None, None, &[]),
    ] {
        let body = body.replace("LONG", &"x".repeat(600));
        let record = call(BODY_SOURCES, "/v1/chat/completions", &[], &body);
        let tier_now = record.tags.get("tier").map(|tier| &**tier);
        assert_eq!((record.user.as_deref(), record.team.as_deref(), tier_now), (user, team, tier), "{body}");
        assert_eq!(source(&record, "user"), user.map(|_| "body"), "{body}");
        assert_eq!(record.notes.iter().map(|note| &**note).collect::<Vec<_>>(), notes, "{body}");
    }
    let form = "--b\r\nContent-Disposition: form-data; name=\"user\"\r\n\r\nu-2\r\n--b--\r\n";
    let kind: (&str, &[u8]) = ("content-type", b"multipart/form-data; boundary=b");
    let record = call(BODY_SOURCES, "/v1/audio/transcriptions", &[kind], form);
    assert_eq!((record.user.as_deref(), source(&record, "user")), (Some("u-2"), Some("body")));
}

#[test]
fn what_the_format_looks_for_is_still_found_beside_configured_places() {
    let config = r#"{"attribution": {"dimensions": {"project": {"from": [{"body": "model"}]},
        "feature": {"from": [{"body": "tools"}]}, "team": {"from": [{"body": "messages.team"}]}}}}"#;
    let body = r#"{"model":"gpt-4o","messages":[{},{}],"tools":[{"function":{"name":"send"}}]}"#;
    let record = call(config, "/v1/chat/completions", &[], body);
    assert_eq!((record.request_model.as_deref(), record.project.as_deref()), (Some("gpt-4o"), Some("gpt-4o")));
    assert_eq!(
        (record.message_count, record.tool_count, record.workload.as_deref()),
        (Some(2), Some(1), Some("agentic-write"))
    );
    assert_eq!(record.notes, ["body tools: not_text".into()]);
}

#[test]
fn the_record_says_whose_key_it_was_and_what_is_missing() {
    let config = r#"{"attribution": {"required": ["department", "tier"], "dimensions": {"tier": {"from": [{"body": "tier"}]}}}}"#;
    let key: (&str, &[u8]) = ("authorization", b"Bearer sk-unknown");
    let record = call(config, "/v1/chat/completions", &[key], "{}");
    // printf %s sk-unknown | sha256sum
    assert_eq!(record.api_key.as_deref(), Some("6eace09f299b"));
    assert_eq!(record.unattributed, ["department", "tags.tier"]);
    let record = call(config, "/v1/chat/completions", &[("x-cost-department", b"sales")], r#"{"tier":"gold"}"#);
    assert!(record.unattributed.is_empty() && record.api_key.is_none());
    let google = "/v1beta/models/gemini-2.5-flash:generateContent?key=sk-unknown";
    assert_eq!(call("{}", google, &[], "{}").api_key.as_deref(), Some("6eace09f299b"));
    assert_eq!(call("{}", "/v1/chat/completions?key=sk-unknown", &[], "{}").api_key, None);
}

#[test]
fn a_value_in_the_body_that_is_not_utf8_is_noted_as_such() {
    let mut bench = Bench::with(BODY_SOURCES);
    bench.request_headers(&[], false);
    bench.on(Event::RequestBody { chunk: b"{\"user\":\"u-\xff\"}", end_of_stream: true });
    bench.reply("200", REPLY);
    let record = bench.log("via_upstream");
    assert_eq!((record.user, record.notes), (None, vec!["body user: not_utf8".into()]));
}

#[test]
fn a_key_in_the_query_counts_on_a_path_of_google_that_nobody_knows() {
    let config = r#"{"attribution": {"keys": [{"sha256": "6eace09f299b912fba6f69532343cb57b8039869a8a1590441112e87d1e84727",
        "name": "bot", "set": {"department": "ops"}, "locked": ["department"]}]}}"#;
    let path = "/v1beta/models/veo-3.0-generate:predictLongRunning?key=sk-unknown";
    let sales = ("x-cost-department", &b"sales"[..]);
    let record = call(config, path, &[(":authority", b"generativelanguage.googleapis.com"), sales], "{}");
    assert_eq!((&*record.api, record.api_key.as_deref()), ("unrecognised", Some("bot")));
    assert_eq!(record.department.as_deref(), Some("ops"));
    // Google speaks other formats, too, behind whatever host its callers name.
    let vertex =
        "/v1/projects/p/locations/global/publishers/anthropic/models/claude-haiku-4-5:rawPredict?key=sk-unknown";
    for (path, host) in [
        ("/v1beta/openai/chat/completions?key=sk-unknown", &b"gateway.internal"[..]),
        ("/v1beta/openai/chat/completions?key=sk-unknown", b"api.openai.com"),
        ("/v1/chat/completions?key=sk-unknown", b"generativelanguage.googleapis.com"),
        (vertex, b"gateway.internal"),
    ] {
        let record = call(config, path, &[(":authority", host), sales], "{}");
        assert_eq!(record.department.as_deref(), Some("ops"), "{path} {host:?}");
    }
    // Elsewhere `key` may be anything.
    let record = call(config, "/v1/other?key=sk-unknown", &[(":authority", b"api.openai.com"), sales], "{}");
    assert_eq!((record.api_key, record.department.as_deref()), (None, Some("sales")));
}

#[test]
fn calls_without_an_owner_are_counted() {
    for (config, headers, counted) in [
        ("{}", &[][..], 1),
        ("{}", &[("x-cost-department", &b"sales"[..])], 0),
        (r#"{"attribution":{"required":["feature"]}}"#, &[("x-cost-department", b"sales")], 1),
        (r#"{"attribution":{"required":["feature"]}}"#, &[("x-cost-feature", b"f")], 0),
    ] {
        let mut bench = Bench::with(config);
        bench.request(headers, "{}");
        bench.log("via_upstream");
        assert_eq!(bench.host.counter("tollgate_unattributed_calls_total"), counted, "{config} {headers:?}");
    }
}

#[test]
fn near_duplicates_are_said_and_counted_once_each() {
    let mut bench = Bench::new();
    for (feature, session) in
        [("chatbot", "S-1"), ("Chatbot", "s-1"), ("chat-bot", "s1"), ("Chatbot", "s-1"), ("search", "x")]
    {
        bench.exchange = Exchange::new(Rc::new(Config::default()));
        bench.request(&[("x-cost-feature", feature.as_bytes()), ("x-cost-session", session.as_bytes())], "{}");
        bench.on(Event::Log(Ending::default()));
    }
    assert_eq!(bench.host.counter("tollgate_near_duplicates_total.dimension.feature"), 2);
    assert_eq!(bench.host.counter("tollgate_near_duplicates_total.dimension.session"), 0, "an id has no spellings");
    let said: Vec<_> = bench.host.log.iter().filter(|line| line.contains("nearly")).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].starts_with(r#"feature "Chatbot" is nearly "chatbot""#), "{said:?}");
}

#[test]
fn near_duplicates_of_one_dimension_do_not_keep_those_of_another_out_of_the_log() {
    let mut bench = Bench::new();
    let headers = ["x-cost-feature", "x-cost-team", "x-cost-department", "x-cost-project"];
    for n in 0..21 {
        let spelling = format!("a{}", "-".repeat(n));
        bench.exchange = Exchange::new(Rc::new(Config::default()));
        bench.request(&headers.map(|header| (header, spelling.as_bytes())), "{}");
        bench.on(Event::Log(Ending::default()));
    }
    for dimension in ["feature", "team", "department", "project"] {
        let said = bench.host.log.iter().filter(|line| line.starts_with(&format!("{dimension} "))).count();
        assert_eq!(said, 20, "{dimension}");
    }
}

#[test]
fn a_trace_id_of_another_kind_stands_in_for_a_missing_traceparent() {
    let (trace, w3c) = ("4bf92f3577b34da6a3ce929d0e0e4736", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    for (headers, trace_id, span_id) in [
        (&[("x-trace-id", &b"t-1"[..])][..], Some("t-1"), None),
        (&[("x-trace-id", b"t-1"), ("traceparent", w3c)], Some(trace), Some("00f067aa0ba902b7")),
        (&[("x-trace-id", b"t-1"), ("traceparent", b"00-0-0-0")], Some("t-1"), None),
        (&[("x-trace-id", b"a\tb")], None, None),
        (&[("x-trace-id", b"\xff")], None, None),
    ] {
        let record = call("{}", "/v1/chat/completions", headers, "{}");
        assert_eq!((record.trace_id.as_deref(), record.span_id.as_deref()), (trace_id, span_id), "{headers:?}");
    }
}

#[test]
fn a_required_workload_is_one_that_the_caller_states() {
    let config = r#"{"attribution": {"required": ["workload"]}}"#;
    let record = call(config, "/v1/chat/completions", &[], "{}");
    assert_eq!((record.workload.as_deref(), source(&record, "workload")), (Some("agentic-read"), Some("inferred")));
    assert_eq!(record.unattributed, ["workload"]);
    let record = call(config, "/v1/chat/completions", &[("x-cost-workload", b"agentic-write")], "{}");
    assert!(record.unattributed.is_empty());
}

#[test]
fn a_post_under_the_name_of_a_get_is_a_call_where_google_takes_it_for_one() {
    let over = |method: &str, path: &str, authority: &[u8]| {
        let mut bench = Bench::new();
        let more = [("x-http-method-override", &b"post"[..]), (":authority", authority), ("x-cost-team", b"t")];
        let headers = headers(&[(":method", method), (":path", path)], &more);
        bench.on(Event::RequestHeaders { headers: &headers, route: Route::default(), end_of_stream: true });
        bench.on(Event::Log(Ending::default()));
        bench.host.records.pop().map(|record| record.team.as_deref().map(str::to_owned))
    };
    let gemini = "/v1beta/models/gemini-2.5-flash:generateContent";
    assert_eq!(over("GET", gemini, b"generativelanguage.googleapis.com"), Some(Some("t".to_owned())));
    let vertex = "/v1/projects/p/locations/global/publishers/anthropic/models/claude-haiku-4-5:rawPredict";
    for path in [vertex, "/v1beta/openai/chat/completions"] {
        assert_eq!(over("GET", path, b"gateway.internal"), Some(Some("t".to_owned())), "{path}");
    }
    assert_eq!(over("GET", "/v1/chat/completions", b"api.openai.com"), None);
}

#[test]
fn baggage_that_is_overruled_is_cut_before_it_goes_on_unless_it_is_signed() {
    let config = r#"{"metering": {"inject_include_usage": false}, "attribution": {"trust_headers": "never",
        "dimensions": {"team": {"from": [{"baggage": "team"}]}}}}"#;
    let aws = b"AWS4-HMAC-SHA256 Credential=x, SignedHeaders=baggage, Signature=y";
    for path in ["/v1/chat/completions", "/v1/files"] {
        for (baggage, authorization, edits) in [
            (&b"team=a,b=c"[..], &b"Bearer x"[..], vec![Edit::Set("baggage", "b=c".into())]),
            (b"team=a", b"Bearer x", vec![Edit::Remove("baggage".into())]),
            (b"b=c", b"Bearer x", vec![]),
            (b"team=a", aws, vec![]),
        ] {
            let mut bench = Bench::with(config);
            let more = [("baggage", baggage), ("authorization", authorization)];
            let headers = headers(&[(":method", "POST"), (":path", path)], &more);
            let event = Event::RequestHeaders { headers: &headers, route: Route::default(), end_of_stream: true };
            assert_eq!(bench.on(event), edits, "{path} {baggage:?}");
        }
    }
}

const STRICT: &str = r#"{"attribution": {"required": ["department", "user"], "on_missing": "reject",
    "dimensions": {"user": {"from": [{"header": "x-cost-user"}, {"body": "user"}]}}}}"#;

/// The local reply to a call, and after how many of its two events it came.
fn refusal(bench: &mut Bench, path: &str, more: &[(&str, &[u8])], body: &str) -> Option<(LocalReply, usize)> {
    let headers = headers(&[(":method", "POST"), (":path", path)], more);
    let first = Event::RequestHeaders { headers: &headers, route: Route::default(), end_of_stream: body.is_empty() };
    let second = Event::RequestBody { chunk: body.as_bytes(), end_of_stream: true };
    [first, second].into_iter().enumerate().find_map(|(index, event)| {
        let mut context = Context { host: &mut bench.host, instance: &mut bench.instance };
        bench.exchange.on(event, &mut context).reply.map(|reply| (reply, index + 1))
    })
}

#[test]
fn a_call_without_an_owner_is_refused_as_soon_as_that_is_certain() {
    let department: (&str, &[u8]) = ("x-cost-department", b"sales");
    let missing_department = "department is missing (send the header x-cost-department)";
    let missing_user = "user is missing (send the header x-cost-user)";
    for (headers, body, says, at) in [
        (&[][..], r#"{"user":"u"}"#, missing_department.to_owned(), 1),
        (&[], "", format!("{missing_department}, {missing_user}"), 1),
        (&[department], "", missing_user.to_owned(), 1),
        (&[department], "{}", missing_user.to_owned(), 2),
    ] {
        let mut bench = Bench::with(STRICT);
        let (reply, after) = refusal(&mut bench, "/v1/messages", headers, body).expect("a refusal");
        assert_eq!((reply.status, reply.details, after), (400, "tollgate_unattributed", at), "{headers:?} {body}");
        let expected = format!(
            r#"{{"type":"error","error":{{"type":"invalid_request_error","message":"This gateway charges every call to an owner: {says}."}}}}"#
        );
        assert_eq!(reply.body, expected);
        bench.reply_headers("400", "application/json", false);
        bench.on(Event::ResponseBody { chunk: reply.body.as_bytes(), end_of_stream: true });
        let record = bench.log("tollgate_unattributed");
        assert!(reply.headers.contains(&(ID_HEADER, record.id.to_string())));
        assert_eq!((record.decision, record.status), (crate::record::Decision::Refused, Some(400)));
        assert_eq!((record.error.as_deref(), record.cost_picousd), (Some("unattributed"), Some(0)));
        assert!(!record.unattributed.is_empty());
    }
    for (headers, body) in [
        (&[department, ("x-cost-user", b"u")][..], "{}"),
        (&[department, ("x-cost-user", b"u")], ""),
        (&[department], r#"{"user":"u"}"#),
    ] {
        let mut bench = Bench::with(STRICT);
        assert_eq!(refusal(&mut bench, "/v1/messages", headers, body), None);
        assert!(bench.log("via_upstream").unattributed.is_empty());
    }
    // A WebSocket is a call too, and has no body that could name anybody.
    let mut bench = Bench::with(STRICT);
    let socket = [(":authority", &b"api.openai.com"[..]), ("upgrade", b"websocket"), department];
    let (reply, after) = refusal(&mut bench, "/v1/realtime", &socket, "").expect("a refusal");
    assert_eq!((reply.status, reply.details, after), (400, "tollgate_unattributed", 1));
    // What is no LLM call is charged to nobody.
    assert_eq!(refusal(&mut Bench::with(STRICT), "/v1/files", &[], ""), None);
}

#[test]
fn a_body_that_may_still_name_an_owner_is_held_back_until_it_has() {
    let department: (&str, &[u8]) = ("x-cost-department", b"sales");
    for (more, body, held) in [
        (&[department][..], r#"{"model":"gpt-4o","user":"u"}"#, true),
        (&[department, ("x-cost-user", b"u")], r#"{"model":"gpt-4o"}"#, false),
    ] {
        let mut bench = Bench::with(&STRICT.replacen('{', r#"{"metering": {"inject_include_usage": false}, "#, 1));
        bench.request_headers(more, false);
        let (mut sent, mut early) = (Vec::new(), 0);
        for (index, byte) in body.bytes().enumerate() {
            let event = Event::RequestBody { chunk: &[byte], end_of_stream: index + 1 == body.len() };
            let mut context = Context { host: &mut bench.host, instance: &mut bench.instance };
            let verdict = bench.exchange.on(event, &mut context);
            assert_eq!(verdict.reply, None);
            sent.extend(verdict.body.unwrap_or_else(|| vec![byte]));
            early += usize::from(index + 1 < body.len() && !sent.is_empty());
        }
        assert_eq!((early == 0, String::from_utf8(sent).unwrap()), (held, body.to_owned()));
    }
}

#[test]
fn configured_headers_are_taken_off_every_request_unless_signed_or_general() {
    let config = r#"{"metering": {"inject_include_usage": false}, "attribution": {"dimensions": {
        "team": {"from": [{"header": "x-team"}, {"header": "x-request-id"}, {"header": "helicone-property-team"}]}}}}"#;
    let aws = b"AWS4-HMAC-SHA256 Credential=x, SignedHeaders=x-team, Signature=y";
    let sent: [(&str, &[u8]); 5] = [
        ("x-team", b"a"),
        ("x-request-id", b"b"),
        ("helicone-property-team", b"c"),
        ("x-cost-user", b"u"),
        ("x-team", b"d"),
    ];
    let removed = |names: &[&str]| names.iter().map(|name| Edit::Remove(name.to_string().into())).collect::<Vec<_>>();
    for path in ["/v1/chat/completions", "/v1/files"] {
        for (authorization, names) in [
            (&b"Bearer x"[..], &["x-team", "helicone-property-team", "x-cost-user"][..]),
            (aws, &["helicone-property-team", "x-cost-user"]),
        ] {
            let mut bench = Bench::with(config);
            let more: Vec<_> = sent.into_iter().chain([("authorization", authorization)]).collect();
            let headers = headers(&[(":method", "POST"), (":path", path)], &more);
            let event = Event::RequestHeaders { headers: &headers, route: Route::default(), end_of_stream: true };
            assert_eq!(bench.on(event), removed(names), "{path}");
        }
    }
}

#[test]
fn properties_are_asked_for_by_name_and_also_serve_calls_that_another_filter_ended() {
    let config =
        r#"{"attribution": {"dimensions": {"tenant": {"from": [{"property": ["metadata", "jwt", "tenant"]}]}}}}"#;
    let properties = [Some(b"acme".to_vec())];
    let route = Route { properties: &properties, ..Route::default() };
    let headers = headers(&[(":method", "POST"), (":path", "/v1/chat/completions")], &[]);

    let mut bench = Bench::with(config);
    assert_eq!(bench.exchange.wants_properties(), ["metadata\0jwt\0tenant".into()]);
    bench.on(Event::RequestHeaders { headers: &headers, route, end_of_stream: true });
    let record = bench.log("via_upstream");
    assert_eq!(
        (record.tags.get("tenant").map(|tag| &**tag), source(&record, "tags.tenant")),
        (Some("acme"), Some("property"))
    );

    let mut bench = Bench::with(config);
    let ending = Ending { request_headers: Some(&headers), properties: &properties, ..Ending::default() };
    bench.on(Event::Log(ending));
    assert_eq!(bench.host.records[0].tags.get("tenant").map(|tag| &**tag), Some("acme"));
}

use super::*;
use crate::config::Config;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn rules(section: &str) -> Rules {
    Config::from_bytes(format!(r#"{{"attribution":{section}}}"#).as_bytes()).expect("a valid section").attribution
}

fn read(rules: &Rules, headers: &[(&str, &[u8])]) -> Attribution {
    let headers = headers.iter().map(|&(name, value)| (name.as_bytes(), value)).collect();
    Attribution::read(rules, &headers, &[], false, drop)
}

fn read_plain(headers: &[(&str, &[u8])]) -> Attribution {
    read(&Rules::default(), headers)
}

/// Every value as `place=text (origin)`, then every note.
fn shown(attribution: &Attribution) -> Vec<String> {
    let values = attribution.values();
    let mut shown: Vec<_> =
        values.map(|value| format!("{}={} ({})", value.name.place(), value.text, value.origin.name())).collect();
    shown.extend(attribution.tags.iter().map(|(name, value)| format!("tags.{name}={value} (header)")));
    shown.sort();
    shown.extend(attribution.dropped.iter().map(|dropped| format!("{}: {}", dropped.place, dropped.reason.name())));
    shown
}

#[test]
fn every_built_in_header_sets_its_dimension() {
    for (header, dimension) in dimension::HEADERS {
        let attribution = read_plain(&[(header, b"value-1")]);
        assert_eq!(attribution.get(dimension), Some("value-1"), "{header}");
        assert!(attribution.dropped.is_empty());
    }
    assert_eq!(dimension::HEADERS.len(), 17, "sixteen dimensions and the other spelling of cost centre");
    assert!(Dimension::ALL.iter().all(|own| dimension::HEADERS.iter().any(|(_, of)| of == own)));
}

#[test]
fn tags_are_the_callers_own_dimensions() {
    let attribution = read_plain(&[("x-cost-tag-customer", b"acme"), ("x-cost-tag-tier", b"gold"), ("x-other", b"no")]);
    assert_eq!(shown(&attribution), ["tags.customer=acme (header)", "tags.tier=gold (header)"]);
}

#[test]
fn a_bad_value_is_dropped_and_noted_and_the_rest_stays() {
    let long = vec![b'x'; 129];
    let name = "x-cost-team";
    for (value, reason) in [
        (&b"\xff\xfe"[..], DropReason::NotUtf8),
        (b"", DropReason::Empty),
        (b" \t ", DropReason::Empty),
        ("\u{a0}\u{3000}".as_bytes(), DropReason::Empty),
        (&long, DropReason::TooLong),
        (b"a\tb", DropReason::ControlCharacter),
        (b"a\x7f", DropReason::ControlCharacter),
        ("a\u{85}b".as_bytes(), DropReason::ControlCharacter),
    ] {
        let attribution = read_plain(&[(name, value), ("x-cost-feature", b"chat")]);
        assert_eq!(attribution.dropped, [Dropped { place: name.into(), reason }]);
        assert_eq!(attribution.get(Dimension::Team), None);
        assert_eq!(attribution.get(Dimension::Feature), Some("chat"));
    }
}

#[test]
fn the_first_of_repeated_headers_wins_in_either_spelling() {
    let attribution = read_plain(&[
        ("x-cost-cost-center", b"1"),
        ("x-cost-cost-centre", b"2"),
        ("x-cost-tag-a", b"1"),
        ("x-cost-tag-a", b"2"),
    ]);
    assert_eq!(attribution.get(Dimension::CostCentre), Some("1"));
    assert_eq!(attribution.dropped.len(), 2);
    assert!(attribution.dropped.iter().all(|dropped| dropped.reason == DropReason::Repeated));
}

#[test]
fn a_header_of_ours_that_means_nothing_is_noted() {
    let attribution = read_plain(&[("x-cost-departement", b"sales"), ("x-cost-tag-", b"x"), ("x-cost-", b"x")]);
    assert!(attribution.dropped.iter().all(|dropped| dropped.reason == DropReason::UnknownHeader));
    assert_eq!(attribution.dropped.len(), 3);
}

#[test]
fn a_thousand_tags_are_bounded_and_counted() {
    let names: Vec<String> = (0..1000).map(|n| format!("x-cost-tag-{n}")).collect();
    let headers: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"v"[..])).collect();
    let attribution = read_plain(&headers);
    assert_eq!(attribution.tags.len(), MAX_TAGS);
    assert_eq!(attribution.drop_counts[&DropReason::TooManyTags], 1000 - MAX_TAGS as u64);
    assert_eq!(attribution.dropped.len(), MAX_NOTES);
}

const EVERY_SOURCE: &str = r#"{"dimensions": {
    "team": {"from": [{"header": "X-Owner-Team"}, {"property": ["metadata", "jwt", "team"]}, {"body": "metadata.team"},
                      {"baggage": "team"}], "default": "shared"}}}"#;

#[test]
fn the_first_source_that_has_a_good_value_wins_whatever_comes_first() {
    let rules = rules(EVERY_SOURCE);
    assert_eq!(rules.properties(), ["metadata\0jwt\0team".into()]);
    let header: (&str, &[u8]) = ("x-owner-team", b"h");
    let bad: (&str, &[u8]) = ("x-owner-team", b"\xff");
    let baggage: (&str, &[u8]) = ("baggage", b"a=1, team=b%67");
    let body = |text: &str| vec![(0, Configured::Text(text.into()))];
    for (headers, property, body, expected) in [
        (&[baggage, header][..], Some(&b"p"[..]), body("b"), &["team=h (header)"][..]),
        (&[baggage, bad], Some(b"p"), body("b"), &["team=p (property)", "x-owner-team: not_utf8"]),
        (&[baggage], Some(b"p"), body("b"), &["team=p (property)"]),
        (&[baggage], Some(b"\x0a\x01x"), body("b"), &["team=b (body)", "property metadata.jwt.team: not_text"]),
        (&[baggage], None, body("b"), &["team=b (body)"]),
        (&[baggage], None, body("\n"), &["team=bg (baggage)", "body metadata.team: empty"]),
        (&[baggage], None, vec![(0, Configured::Container)], &["team=bg (baggage)", "body metadata.team: not_text"]),
        (&[baggage], None, vec![(0, Configured::TooLong)], &["team=bg (baggage)", "body metadata.team: too_long"]),
        (&[baggage, baggage], None, vec![], &["team=bg (baggage)", "baggage team: repeated"]),
        (&[], None, body("b"), &["team=b (body)"]),
        (&[], None, vec![], &["team=shared (default)"]),
        (&[("x-cost-team", b"t")], None, vec![], &["team=shared (default)", "x-cost-team: not_a_source"]),
    ] {
        let headers = headers.iter().map(|&(name, value)| (name.as_bytes(), value)).collect();
        let properties = [property.map(<[u8]>::to_vec)];
        let mut attribution = Attribution::read(&rules, &headers, &properties, false, drop);
        attribution.read_body(&rules, &body);
        assert_eq!(shown(&attribution), expected);
    }
}

#[test]
fn one_header_may_serve_several_dimensions_and_one_dimension_several_headers() {
    let rules = rules(
        r#"{"dimensions": {
            "team": {"from": [{"header": "x-team"}, {"header": "x-cost-team"}]},
            "department": {"from": [{"header": "x-team"}, {"body": "user"}]},
            "tier": {"from": [{"body": "user"}]}}}"#,
    );
    let attribution = read(&rules, &[("x-cost-team", b"b"), ("x-team", b"a")]);
    assert_eq!(shown(&attribution), ["department=a (header)", "team=a (header)"]);
    let mut attribution = read(&rules, &[("x-cost-team", b"b"), ("x-cost-tag-tier", b"x")]);
    attribution.read_body(&rules, &[(0, Configured::Text("u".into()))]);
    let expected = ["department=u (body)", "tags.tier=u (body)", "team=b (header)", "x-cost-tag-tier: not_a_source"];
    assert_eq!(shown(&attribution), expected);
}

const KEYS: &str = r#"{
    "dimensions": {"tier": {"default": "bronze"}, "team": {"from": [{"header": "x-team"}, {"header": "x-cost-team"}]}},
    "keys": [{"sha256": "7d0a5e7f5d5d1d3a5f8a6e3c2b1a0f9e8d7c6b5a493827161514131211100f0e"},
             {"sha256": "HASH", "name": "support-bot",
              "set": {"department": "customer-success", "team": "t1", "tier": "gold", "user": "bot"},
              "locked": ["department", "tier", "team"]}]}"#;

fn keys() -> Rules {
    use sha2::{Digest, Sha256};
    let hash: String = Sha256::digest("sk-1").iter().map(|byte| format!("{byte:02x}")).collect();
    rules(&KEYS.replace("HASH", &hash))
}

#[test]
fn what_a_key_sets_is_a_default_and_what_it_locks_cannot_be_overridden() {
    let key: (&str, &[u8]) = ("authorization", b"Bearer sk-1");
    let base = ["department=customer-success (key)", "tags.tier=gold (key)", "team=t1 (key)", "user=bot (key)"];
    for (headers, user, notes) in [
        (&[key][..], "user=bot (key)", &[][..]),
        (&[("x-cost-user", b"u"), key], "user=u (header)", &[]),
        (&[key, ("x-cost-department", b"customer-success")], "user=bot (key)", &[]),
        (&[("x-cost-department", b"sales"), key], "user=bot (key)", &["x-cost-department: locked"]),
        (
            &[key, ("x-cost-tag-tier", b"platinum"), ("x-team", b"a"), ("x-cost-team", b"b")],
            "user=bot (key)",
            &["x-cost-tag-tier: locked", "x-team: locked", "x-cost-team: locked"],
        ),
        (&[key, ("x-cost-department", b"\xff")], "user=bot (key)", &["x-cost-department: not_utf8"]),
    ] {
        let mut expected = base.map(str::to_owned);
        expected[3] = user.to_owned();
        let attribution = read(&keys(), headers);
        assert_eq!(attribution.api_key.as_deref(), Some("support-bot"));
        let expected: Vec<_> = expected.into_iter().chain(notes.iter().map(|note| (*note).to_owned())).collect();
        assert_eq!(shown(&attribution), expected);
        let locked = notes.iter().filter(|note| note.ends_with("locked")).count() as u64;
        assert_eq!(attribution.drop_counts.get(&DropReason::Locked).copied().unwrap_or(0), locked);
    }
    let stranger = read(&keys(), &[("x-cost-department", b"sales"), ("x-api-key", b"sk-2")]);
    assert_eq!(shown(&stranger), ["department=sales (header)", "tags.tier=bronze (default)"]);
    assert_eq!(stranger.api_key.unwrap().len(), 12);
}

#[test]
fn no_secret_is_in_what_can_be_printed() {
    let headers: [(&str, &[u8]); 3] =
        [("authorization", b"Bearer sk-1"), ("x-api-key", b"sk-2"), ("x-cost-department", b"sales")];
    let printed = format!("{:?}", read(&keys(), &headers));
    assert!(!printed.contains("sk-1") && !printed.contains("sk-2"), "{printed}");
    let rules = rules(r#"{"pseudonymise": ["user"], "pseudonym_key": "correct horse battery"}"#);
    assert!(!format!("{rules:?}").contains("horse"));
}

#[test]
fn values_are_normalised_but_ids_are_not() {
    let rules = rules(
        r#"{"normalise": "lowercase_hyphen", "dimensions": {"tier": {"default": "Gold Plus"}}, "pseudonymise": ["team"],
            "pseudonym_key": "a key of some length"}"#,
    );
    let headers: [(&str, &[u8]); 6] = [
        ("x-cost-feature", b"Chat Bot"),
        ("x-cost-session", b"JIRA-2341"),
        ("x-cost-gl-account", b"GL_64 20"),
        ("x-cost-tag-customer", b"ACME Corp"),
        ("x-cost-project", b"--"),
        ("x-cost-team", b"U-2077"),
    ];
    let expected = [
        "feature=chat-bot (header)",
        "gl_account=GL_64 20 (header)",
        "session=JIRA-2341 (header)",
        "tags.customer=acme-corp (header)",
        "tags.tier=gold-plus (default)",
        "team=96d97ca94beb557c (header)",
        "x-cost-project: empty",
    ];
    assert_eq!(shown(&read(&rules, &headers)), expected);
}

#[test]
fn the_word_of_a_caller_counts_only_where_it_is_trusted() {
    let section = |trust: &str| {
        format!(
            r#"{{"trust_headers": {trust}, "dimensions": {{
                "team": {{"from": [{{"header": "x-team"}}, {{"baggage": "team"}}, {{"body": "team"}}]}},
                "user": {{"from": [{{"property": ["user"]}}], "default": "nobody"}}}}}}"#
        )
    };
    let edge = r#"{"property": ["connection", "uri_san_peer_certificate"], "matches": ["spiffe://corp/gateway/*"]}"#;
    let trusted = &["team=a (header)", "user=u (property)", "x-cost-nothing: unknown_header"][..];
    let distrusted = &[
        "user=u (property)",
        "x-team: untrusted",
        "baggage team: untrusted",
        "x-cost-nothing: untrusted",
        "body team: untrusted",
    ];
    for (trust, peer, expected) in [
        (r#""always""#, None, trusted),
        (r#""never""#, None, distrusted),
        (edge, Some("spiffe://corp/gateway/eu"), trusted),
        (edge, Some("spiffe://corp/app"), distrusted),
        (edge, None, distrusted),
    ] {
        let rules = rules(&section(trust));
        let headers: [(&[u8], &[u8]); 3] = [(b"x-team", b"a"), (b"baggage", b"team=b"), (b"x-cost-nothing", b"c")];
        let known = |path: &str| if path == "user" { Some("u") } else { peer };
        let properties: Vec<_> =
            rules.properties().iter().map(|path| known(path).map(|value| value.as_bytes().to_vec())).collect();
        let headers = headers.into_iter().collect();
        let mut attribution = Attribution::read(&rules, &headers, &properties, false, drop);
        attribution.read_body(&rules, &[(0, Configured::Text("d".into()))]);
        assert_eq!(shown(&attribution), expected, "{trust} {peer:?}");
    }
}

#[test]
fn ours_and_aliases_are_taken_off_but_what_others_need_stays() {
    let section = |forward: bool| {
        let own =
            r#""team": {"from": [{"header": "x-team"}, {"header": "openai-project"}, {"header": "x-request-id"}]}"#;
        KEYS.replace("\"dimensions\": {", &format!("\"forward_headers\": {forward}, \"dimensions\": {{{own}, "))
            .replace(r#", "team": {"from": [{"header": "x-team"}, {"header": "x-cost-team"}]}"#, "")
            .replace("HASH", &"0123456789abcdef".repeat(4))
    };
    let nobody = Attribution::default();
    let names = ["x-cost-user", "x-cost-anything", "x-team", "openai-project", "x-request-id", "baggage", "x-other"];
    // Each is taken off once, however often it comes.
    let headers = names.iter().chain(&names).map(|name| (name.as_bytes(), &b"v"[..])).collect();
    let taken = |rules: &Rules, attribution: &Attribution| {
        let mut taken = Vec::new();
        attribution.take_off(rules, &headers, |name| taken.push(name));
        taken
    };
    assert_eq!(taken(&rules(&section(false)), &nobody), ["x-cost-user", "x-cost-anything", "x-team"]);
    assert!(taken(&rules(&section(true)), &nobody).is_empty());
    // Whose word does not count here must not look as if it did to whoever is next.
    let distrusted = Attribution { distrusted: true, ..Attribution::default() };
    assert_eq!(taken(&rules(&section(true)), &distrusted), ["x-cost-user", "x-cost-anything", "x-team"]);
    let locked = Attribution { key: Some(*keys_of(&rules(&section(true)))), ..Attribution::default() };
    assert_eq!(taken(&rules(&section(true)), &locked), ["x-team"]);
}

/// The key that sets something.
fn keys_of(rules: &Rules) -> &KeyHash {
    rules.keys.list.iter().find(|(_, key)| !key.set.is_empty()).unwrap().0
}

#[test]
fn a_call_is_refused_only_when_no_source_is_left_that_could_name_an_owner() {
    let section = |more: &str| {
        format!(
            r#"{{"required": ["department", "user"]{more},
                "dimensions": {{"user": {{"from": [{{"body": "metadata.user"}}]}}}}}}"#
        )
    };
    let rules = rules(&section(r#", "on_missing": "reject""#));
    let nothing = read(&rules, &[]);
    let missing: Vec<_> = nothing.missing(&rules).map(Name::as_str).collect();
    assert_eq!(missing, ["department", "user"]);
    let department = "department is missing (send the header x-cost-department)";
    let user = "user is missing (set metadata.user in the request's body)";
    assert_eq!(nothing.objection(&rules, true).as_deref(), Some(department));
    assert_eq!(nothing.objection(&rules, false), Some(format!("{department}, {user}").into()));
    let mut half = read(&rules, &[("x-cost-department", b"sales")]);
    assert_eq!(half.objection(&rules, true), None);
    assert_eq!(half.objection(&rules, false).as_deref(), Some(user));
    half.read_body(&rules, &[(0, Configured::Text("u".into()))]);
    assert_eq!((half.objection(&rules, false), half.missing(&rules).count()), (None, 0));
    let lenient = self::rules(&section(""));
    assert_eq!(read(&lenient, &[]).objection(&lenient, false), None);
}

#[test]
fn a_truth_value_or_a_number_that_the_host_knows_makes_a_caller_trusted_by_its_text() {
    let trusts = |matches: &str, property: Option<&[u8]>| {
        let section = format!(r#"{{"trust_headers": {{"property": ["connection", "mtls"], "matches": [{matches}]}}}}"#);
        let rules = rules(&section);
        let headers = [(&b"x-cost-team"[..], &b"t"[..])].into_iter().collect();
        let attribution = Attribution::read(&rules, &headers, &[property.map(<[u8]>::to_vec)], false, drop);
        attribution.get(Dimension::Team).is_some()
    };
    assert!(trusts(r#""true""#, Some(&[1])));
    assert!(!trusts(r#""true""#, Some(&[0])));
    assert!(!trusts(r#""true""#, None));
    assert!(trusts(r#""7""#, Some(&7.0f64.to_bits().to_le_bytes())));
    assert!(!trusts(r#""CN=*""#, Some(b"\xff\xfe")));
}

#[test]
fn an_attempt_on_a_lock_is_noted_however_much_junk_comes_before_it() {
    let names: Vec<String> = (0..40).map(|n| format!("x-cost-junk-{n}")).collect();
    let mut headers: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"v"[..])).collect();
    headers.extend([("authorization", &b"Bearer sk-1"[..]), ("x-cost-department", b"sales"), ("x-team", b"a")]);
    let attribution = read(&keys(), &headers);
    let locked: Vec<_> = attribution.dropped.iter().filter(|drop| drop.reason == DropReason::Locked).collect();
    assert_eq!(locked.iter().map(|drop| &*drop.place).collect::<Vec<_>>(), ["x-cost-department", "x-team"]);
    assert_eq!(attribution.dropped.len(), MAX_NOTES);
    assert_eq!(attribution.drop_counts[&DropReason::UnknownHeader], 40);
    // Nor do many attempts crowd each other out.
    let again: Vec<(&str, &[u8])> =
        headers.iter().copied().chain((0..40).map(|_| ("x-cost-department", &b"x"[..]))).collect();
    let attribution = read(&keys(), &again);
    assert_eq!(attribution.dropped.len(), MAX_NOTES);
    assert!(attribution.dropped.iter().any(|drop| &*drop.place == "x-team"));
}

#[test]
fn a_header_that_is_no_source_is_an_attempt_on_a_lock_too() {
    let section = KEYS.replace(r#"{"header": "x-team"}, {"header": "x-cost-team"}"#, r#"{"header": "x-team"}"#);
    let rules = rules(&section.replace("HASH", "8c7aaf1f4a5ac6c2aee3ba5e3ba5d4f2e8c9d2a7c1c8b5f8a0f0d4b3f0b9a7e1"));
    let list = &rules.keys.list;
    assert!(list.values().any(|key| !key.set.is_empty()));
    let read = |value: &[u8]| {
        let mut attribution = Attribution { key: Some(*keys_of(&rules)), ..Attribution::default() };
        attribution.put(&rules, Target { slot: Dimension::Team.slot(), rank: LOCKED }, Origin::Key, "t1");
        attribution.read_header(&rules, b"x-cost-team", None, value);
        shown(&attribution)
    };
    assert_eq!(read(b"other"), ["team=t1 (key)", "x-cost-team: locked"]);
    assert_eq!(read(b"t1"), ["team=t1 (key)"]);
    let stranger = self::read(&rules, &[("x-cost-team", b"other")]);
    assert_eq!(shown(&stranger), ["tags.tier=bronze (default)", "x-cost-team: not_a_source"]);
}

#[test]
fn baggage_goes_on_without_what_a_lock_or_distrust_overrules() {
    let section = |trust: &str| {
        let own = r#""user": {"from": [{"baggage": "user"}]}, "team": {"from": [{"baggage": "team"}]}"#;
        let keys = r#"[{"sha256": "HASH", "set": {"team": "t1", "user": "bot"}, "locked": ["team"]}]"#;
        format!(r#"{{"trust_headers": "{trust}", "dimensions": {{{own}}}, "keys": {keys}}}"#)
            .replace("HASH", "0e1d34f0a9f86d2c51d8cf1b5ab0d2a19e1c1d5f3a9a7f4c6b8e2d0c4a6b8e1f")
    };
    let known = |rules: &Rules| Attribution { key: Some(*keys_of(rules)), ..Attribution::default() };
    let distrusted = |_: &Rules| Attribution { distrusted: true, ..Attribution::default() };
    let nobody = |_: &Rules| Attribution::default();
    let all = &["trace=1, team=a;ttl=1 ,user=u", "x=y"][..];
    for (caller, headers, left) in [
        (&nobody as &dyn Fn(&Rules) -> Attribution, all, None),
        (&known, all, Some("trace=1,user=u,x=y")),
        (&distrusted, all, Some("trace=1,x=y")),
        (&distrusted, &["team=a,user=b"], Some("")),
        (&distrusted, &["team=a,", " ,x=y"], Some("x=y")),
        (&distrusted, &["team=a, ,"], Some("")),
        (&known, &["user=%61%2Cteam%3Da;p=\"x\", te%61m=a, team = a"], Some("user=%61%2Cteam%3Da;p=\"x\", te%61m=a")),
        (&known, &["user=u,teams=a"], None),
        (&distrusted, &[], None),
    ] {
        let rules = rules(&section("always"));
        let headers = headers.iter().map(|value| (&b"baggage"[..], value.as_bytes())).collect();
        assert_eq!(caller(&rules).baggage_left(&rules, &headers).as_deref(), left, "{headers:?}");
    }
    // Nor with a request that is no call here.
    let headers = [(&b"baggage"[..], &b"team=a,x=y"[..])].into_iter().collect();
    let left = |trust| Attribution::of_no_call(&rules(&section(trust)), &headers, &[], drop);
    assert_eq!((left("never").as_deref(), left("always")), (Some("x=y"), None));
}

#[test]
fn what_a_lock_or_distrust_overrules_does_not_go_on_under_another_name() {
    let section = |trust: &str| {
        KEYS.replace(
            r#""team": {"from": [{"header": "x-team"}, {"header": "x-cost-team"}]}"#,
            r#""team": {"from": [{"header": "x-team"}]}"#,
        )
        .replacen('{', &format!(r#"{{"forward_headers": true, "trust_headers": "{trust}", "#), 1)
        .replace("HASH", "0f1ad1e41a4e0c8b1b4e7de4f56a1a3b7e4ebbd1b4bd1ad2d2ae4ec0d1b2c3d4")
    };
    // A header that is no source here may well be one for the gateway behind.
    let rules = rules(&section("always"));
    let names = ["x-cost-team", "x-team", "x-cost-tag-tier", "x-cost-department", "x-cost-user", "x-cost-tag-other"];
    let headers: Headers<'_> = names.iter().map(|name| (name.as_bytes(), &b"v"[..])).collect();
    let locked = Attribution { key: Some(*keys_of(&rules)), ..Attribution::default() };
    let mut taken = Vec::new();
    locked.take_off(&rules, &headers, |name| taken.push(name));
    assert_eq!(taken, ["x-cost-team", "x-team", "x-cost-tag-tier", "x-cost-department"]);
    // Nor with a request that is no call here.
    let mut taken = Vec::new();
    Attribution::of_no_call(&self::rules(&section("never")), &headers, &[], |name| taken.push(name));
    assert_eq!(taken, names);
}

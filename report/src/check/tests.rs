use super::*;
use crate::document::{Dialect, Document};

const NOW: &str = "2026-11-21T12:00:00Z";

/// Findings as `line code path`, of a file that has a collector unless it says otherwise.
fn found(yaml: &str) -> Vec<String> {
    let document = Document::parse(yaml, Dialect::Yaml).unwrap();
    let configured = envoy::configured(&document).unwrap();
    let findings = findings(&configured, NOW.parse().unwrap());
    findings.iter().map(|finding| format!("{} {} {}", finding.line, finding.code, finding.path)).collect()
}

fn with_models(models: &str) -> String {
    format!("collector: {{cluster: c}}\nprices:\n  models:\n{models}")
}

#[test]
fn what_is_allowed_and_not_meant_is_a_warning_with_its_place() {
    let model = "  - {model: a, rates: {input: 1, output: 2}}\n";
    for (config, expected) in [
        ("version: 1".into(), vec!["1 no_collector "]),
        ("collector: {cluster: c}".into(), vec![]),
        (with_models(model), vec![]),
        (with_models("  - {model: a, rates: {}}\n"), vec!["4 model_without_rates prices.models[0]"]),
        (
            with_models("  - {model: a, aliases: [a, \"a-*\",\n    \"a-*\"], rates: {input: 1}}\n"),
            vec!["4 alias_shadowed prices.models[0].aliases[0]", "5 alias_shadowed prices.models[0].aliases[2]"],
        ),
        ("collector: {cluster: c}\nprices: {version: x}".into(), vec!["2 no_prices prices.version"]),
        (
            "collector: {cluster: c}\nprices:\n  providers: {o: {discount: 0.1}, g: {markup: 0.1}}\n  models:\n  - {provider: o, model: a, rates: {input: 1}}\n".into(),
            vec!["3 terms_without_models prices.providers.g"],
        ),
        (
            "collector:\n  cluster: c\n  headers:\n    Authorization: Bearer x\n    x-from: edge\nmetering: {hash_key: k}\n".into(),
            vec!["4 secret_in_config_dump collector.headers.Authorization", "6 secret_in_config_dump metering.hash_key"],
        ),
    ] {
        assert_eq!(found(&config), expected, "{config}");
    }
}

#[test]
fn errors_are_the_filters_own_and_hide_warnings_about_the_same_thing() {
    let config = "collector: {cluster: c, flush_ms: 1}\nprices:\n  models:\n  - model: a\n    rates: {inptu: 1}\n  - \
                  {model: b, rates: 7}\nverzion: 1\n";
    assert_eq!(
        found(config),
        [
            "1 invalid collector.flush_ms",
            "5 invalid prices.models[0].rates.inptu",
            "6 invalid prices.models[1].rates",
            "7 invalid verzion",
        ]
    );
}

fn dated(dates: &[&str]) -> Vec<String> {
    let entries: Vec<_> = dates.iter().map(|date| format!("{{from: {date:?}, rates: {{input: 1}}}}")).collect();
    let text = format!("prices: {{models: [{{model: a, rates: {{input: 1}}, effective: [{}]}}]}}", entries.join(", "));
    let root = Document::parse(&text, Dialect::Yaml).unwrap().roots.remove(0);
    let found = warnings::of(&root, NOW.parse().unwrap());
    let dates = found.iter().filter(|warning| warning.code.starts_with("effective"));
    dates.map(|warning| format!("{} {}", warning.code, warning.path)).collect()
}

#[test]
fn dates_are_ahead_and_in_order() {
    for (dates, expected) in [
        (&["2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"][..], &[][..]),
        (&["2026-01-01T00:00:00Z", "2026-12-01T00:00:00Z"], &[]),
        (&["2026-01-01T00:00:00Z"], &["effective_past prices.models[0].effective"]),
        (
            &["2027-01-01T00:00:00Z", "2026-12-01T01:00:00+01:00"],
            &["effective_order prices.models[0].effective[1].from"],
        ),
        (&["soon"], &[]),
    ] {
        assert_eq!(dated(dates), expected, "{dates:?}");
    }
}

#[test]
fn a_table_that_refuses_every_model_is_told_apart() {
    let root = Document::parse("prices: {on_unknown_model: reject}", Dialect::Yaml).unwrap().roots.remove(0);
    let found = warnings::of(&root, NOW.parse().unwrap());
    assert!(found.iter().any(|warning| warning.code == "rejects_everything"), "{found:?}");
}

#[test]
fn a_cluster_that_envoy_does_not_have_is_told() {
    let plugin = "{root_id: tollgate, vm_config: {}, configuration: {\"@type\": type.googleapis.com/google.protobuf.Struct, \
                  value: {collector: {cluster: costs}}}}";
    let envoy = |name: &str| format!("config: {plugin}\nstatic_resources: {{clusters: [{{name: {name}}}]}}");
    assert_eq!(found(&envoy("costs")), Vec::<String>::new());
    assert_eq!(found(&envoy("cost")), ["1 unknown_cluster collector.cluster"]);
}

/// A price table and a collector, so that nothing is said of these.
const PRICED: &str = "collector: {cluster: c}
metering: {on_unmetered: reject}
prices:
  models:
  - {provider: openai, model: large, aliases: [large-2*], rates: {input: 10, output: 30}}
  - {provider: openai, model: small, rates: {input: 1, output: 3}}
  - {provider: anthropic, model: other, rates: {input: 1, output: 3}}
";

/// Findings as `code path` of a configuration with this besides [`PRICED`].
fn found_of(more: &str) -> Vec<String> {
    let found = found(&format!("{PRICED}{more}"));
    found.iter().map(|line| line.split_once(' ').unwrap().1.into()).collect()
}

#[test]
fn a_budget_that_no_call_can_match_is_told() {
    let budget = |condition: &str| format!("budgets: [{{name: b, window: day, limit_usd: 9, match: {{{condition}}}}}]");
    let never = |key: &str| vec![format!("budget_never_matches budgets[0].match.{key}")];
    for (condition, expected) in [
        ("model: large", vec![]),
        ("model: [lagre, large]", vec![]),
        ("model: \"large-2026-*\"", vec![]),
        ("model: \"*\"", vec![]),
        ("model: large-2026-01-01", vec![]),
        ("model: openai/large", vec![]),
        ("model: [lagre, \"huge-*\"]", never("model")),
        ("model: []", never("model")),
        ("provider: anthropic", vec![]),
        ("provider: \"vertex*\"", vec![]),
        ("provider: antrhopic", never("provider")),
        ("api_key: 0123456789ab", vec![]),
        ("api_key: nobodys", never("api_key")),
        ("team: Any", vec![]),
    ] {
        assert_eq!(found_of(&budget(condition)), expected, "{condition}");
    }
    let attribution = "attribution:
  normalise: lowercase_hyphen
  pseudonymise: [user]
  pseudonym_key: 0123456789abcdef
  dimensions: {project: {default: As_Written}}
  keys: [{sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a09, name: batch}]
";
    for (condition, expected) in [
        ("team: customer-success", vec![]),
        ("team: Customer Success", vec![]),
        ("session: As-It-Is", vec![]),
        ("project: As_Written", vec![]),
        ("user: alice", never("user")),
        ("user: 96d97ca94beb557c", vec![]),
        ("api_key: batch", vec![]),
    ] {
        let found = found_of(&(attribution.to_owned() + &budget(condition)));
        let found: Vec<_> = found.into_iter().filter(|line| !line.contains("attribution")).collect();
        assert_eq!(found, expected, "{condition}");
    }
}

#[test]
fn a_scope_that_no_call_has_is_told() {
    let config = |dimensions: &str| {
        format!(
            "attribution: {{trust_headers: never, dimensions: {{{dimensions}}}}}\nbudgets: [{{name: b, window: day, \
             per: [workload, team], when_missing: skip, limit_usd: 9}}]"
        )
    };
    let of_property = "team: {from: [{property: [metadata, team]}]}";
    assert_eq!(found_of(&config(of_property)), Vec::<String>::new());
    assert_eq!(found_of(&config("user: {default: x}")), ["budget_without_source budgets[0].per[1]"]);
}

#[test]
fn limits_that_do_nothing_are_told() {
    let budget = |more: &str| format!("budgets: [{{name: b, window: day, {more}}}]");
    let downgrades = "\ndowngrades: [{from: large, to: small}]";
    for (config, expected) in [
        (budget("limit_usd: 0"), vec![]),
        (budget("limit_usd: \"0.0124\""), vec![]),
        // 50 tokens and 4096 at the small model.
        (budget("limit_usd: \"0.0123\""), vec!["limit_below_one_call budgets[0].limit_usd"]),
        (budget("limit_usd: \"0.1\", match: {model: large}"), vec!["limit_below_one_call budgets[0].limit_usd"]),
        (budget("limit_usd: 1, hard_limit_usd: 2"), vec!["hard_limit_unused budgets[0].hard_limit_usd"]),
        (budget("limit_usd: 1, alert_at: [50, 100]"), vec![]),
        (budget("limit_usd: 1, alert_at: [50, 101]"), vec!["alert_unreachable budgets[0].alert_at[1]"]),
        (budget("limit_usd: 1, alert_at: [150], mode: observe"), vec![]),
        (budget("limit_usd: 1, alert_at: [150], on_exceeded: allow"), vec![]),
        (
            budget("limit_usd: 1, hard_limit_usd: \"1.5\", on_exceeded: downgrade, alert_at: [150, 151]") + downgrades,
            vec!["alert_unreachable budgets[0].alert_at[1]"],
        ),
    ] {
        assert_eq!(found_of(&config), expected, "{config}");
    }
    let unpriced = "collector: {cluster: c}\nmetering: {on_unmetered: reject}\nbudgets:\n- {name: b, window: day, limit_calls: 9}\n\
                    - {name: c, window: day, limit_usd: 9}\n";
    assert_eq!(found(unpriced), ["5 budget_without_prices budgets[1].limit_usd"]);
}

#[test]
fn an_override_that_is_never_reached_is_told() {
    let config = |base: &str, overrides: &str| {
        format!(
            "budgets: [{{name: b, window: day, per: [team, user], when_missing: share, limit_usd: 9, match: {{{base}}}, \
             overrides: [{overrides}]}}]"
        )
    };
    for (base, overrides, expected) in [
        ("", "{match: {team: a}, limit_usd: 1}, {match: {team: b}, limit_usd: 2}", vec![]),
        (
            "",
            "{match: {team: \"a*\"}, limit_usd: 1}, {match: {team: [ab, ac], user: u}, limit_usd: 2}",
            vec!["override_shadowed budgets[0].overrides[1].match"],
        ),
        ("", "{match: {team: a, user: u}, limit_usd: 1}, {match: {team: a}, limit_usd: 2}", vec![]),
        (
            "team: a",
            "{match: {team: a}, limit_usd: 1}, {match: {user: u}, limit_usd: 2}",
            vec!["override_shadowed budgets[0].overrides[1].match"],
        ),
        (
            "team: a",
            "{match: {team: b}, limit_usd: 1}",
            vec!["override_never_applies budgets[0].overrides[0].match.team"],
        ),
        ("team: \"a*\"", "{match: {team: \"*b\"}, limit_usd: 1}", vec![]),
        (
            "team: \"a*\"",
            "{match: {team: \"b*\"}, limit_usd: 1}",
            vec!["override_never_applies budgets[0].overrides[0].match.team"],
        ),
    ] {
        assert_eq!(found_of(&config(base, overrides)), expected, "{base} {overrides}");
    }
}

#[test]
fn a_downgrade_that_is_never_made_is_told() {
    let budget = "budgets: [{name: b, window: day, limit_usd: 1, hard_limit_usd: 2, on_exceeded: downgrade}]\n";
    for (downgrades, expected) in [
        ("{from: large, to: small}", vec![]),
        ("{from: \"*\", to: small}", vec![]),
        ("{from: large-2026-01-01, to: small}", vec![]),
        ("{from: \"unheard-*\", to: small}", vec![]),
        ("{from: large, to: large}", vec!["downgrade_to_itself downgrades[0]"]),
        ("{from: small, to: large}", vec!["downgrade_dearer downgrades[0]"]),
        ("{from: large, to: tiny}", vec!["downgrade_without_price downgrades[0]"]),
        ("{from: huge, to: small}", vec!["downgrade_without_price downgrades[0]"]),
        ("{from: large, to: other}", vec!["downgrade_other_provider downgrades[0]"]),
        ("{from: \"la*\", to: small}, {from: large, to: small}", vec!["downgrade_shadowed downgrades[1]"]),
    ] {
        assert_eq!(found_of(&format!("{budget}downgrades: [{downgrades}]")), expected, "{downgrades}");
    }
    let unused = "budgets: [{name: b, window: day, limit_usd: 1}]\ndowngrades: [{from: large, to: small}]";
    assert_eq!(found_of(unused), ["downgrade_unused downgrades"]);
}

#[test]
fn what_goes_past_budgets_is_told() {
    let config = |more: &str, mode: &str| {
        let models = "models: [{model: a, rates: {input: 1, output: 2}}]";
        format!(
            "collector: {{cluster: c}}\nprices: {{{more}{models}}}\nbudgets: [{{name: b, window: day, limit_usd: 9, mode: {mode}}}]\n"
        )
    };
    let enforced = config("on_unknown_model: allow, ", "enforce");
    for (config, expected) in [
        (config("on_unknown_model: allow, ", "observe"), vec![]),
        (config("", "enforce") + "metering: {on_unmetered: reject}", vec![]),
        (
            enforced.clone() + "metering: {on_unmetered: allow}",
            vec!["2 unknown_model_bypass prices.on_unknown_model", "4 unmetered_bypass metering.on_unmetered"],
        ),
        (
            config("", "enforce") + "metering: {on_oversize: allow, on_unmetered: record}",
            vec!["4 oversize_refused metering.on_oversize", "4 unmetered_bypass metering.on_unmetered"],
        ),
    ] {
        assert_eq!(found(&config), expected, "{config}");
    }
    let token = format!(
        "{PRICED}admin: {{token_sha256: {}}}",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a09"
    );
    assert_eq!(found(&token), ["8 admin_without_budgets admin"]);
}

/// An Envoy configuration with a route, whose filter holds request headers.
fn holding(metering: &str, option: &str, listener: &str, route: &str) -> Vec<String> {
    found(&format!(
        "name: llm{listener}
filter_chains:
- filters:
  - typed_config:
      route_config:
        virtual_hosts:
        - routes:
          - {{name: gone, redirect: {{}}}}
          - {{name: llm, route: {{cluster: c}}{route}}}
      http_filters:
      - typed_config:
          config:
            root_id: tollgate
            vm_config: {{}}{option}
            configuration:
              \"@type\": type.googleapis.com/google.protobuf.Struct
              value:
                collector: {{cluster: c}}
                metering: {{{metering}}}
"
    ))
}

#[test]
fn holding_headers_without_what_it_needs_of_envoy_is_a_warning() {
    let (hold, option) = ("hold_request_headers: true", "\n            allow_on_headers_stop_iteration: true");
    let wide = ", request_body_buffer_limit: 8388608";
    let short = "20 hold_above_buffer_limit metering.max_request_bytes";
    for (metering, option, listener, route, expected) in [
        (hold, option, "", wide, vec![]),
        (hold, "", "", wide, vec!["19 hold_without_option metering.hold_request_headers"]),
        ("hold_request_headers: false", "", "", "", vec![]),
        (hold, option, "", "", vec![short]),
        (hold, option, "", ", request_body_buffer_limit: 8388607", vec![short]),
        (hold, option, "\nper_connection_buffer_limit_bytes: 8388608", "", vec![]),
        (hold, option, "\nper_connection_buffer_limit_bytes: 8388608", ", request_body_buffer_limit: 1", vec![]),
        (hold, option, "\nperConnectionBufferLimitBytes: 1000", ", requestBodyBufferLimit: \"8388608\"", vec![]),
        ("hold_request_headers: true, max_request_bytes: 1048576", option, "", "", vec![]),
    ] {
        assert_eq!(holding(metering, option, listener, route), expected, "{metering}{option}{listener}{route}");
    }
}

/// Findings about an Envoy with these parts, as `code path`.
fn around(log: &str, jwt: &str, route: &str, plugin: &str, config: &str) -> Vec<String> {
    let collector = if config.contains("collector") { "" } else { "collector: {cluster: c}" };
    let log = if log.starts_with('{') { log.into() } else { format!("{{log_format: {{text_format: \"{log}\"}}}}") };
    let yaml = format!(
        "\
static_resources:
  clusters: [{{name: c}}, {{name: openai}}]
  listeners:
  - filter_chains:
    - access_log: [{log}]
      route_config:
        virtual_hosts:
        - domains: [llm.gateway, \"llm.gateway:*\"]
          routes: [{{name: r, route: {{cluster: openai{route}}}}}]
      http_filters:
      - typed_config: {jwt}
      - typed_config:
          config:
            root_id: tollgate
            vm_config: {{}}
            {plugin}
            configuration:
              \"@type\": type.googleapis.com/google.protobuf.Struct
              value:
                {collector}
                {config}
"
    );
    let document = Document::parse(&yaml, Dialect::Yaml).unwrap();
    let findings = findings(&envoy::configured(&document).unwrap(), NOW.parse().unwrap());
    findings.iter().map(|finding| format!("{} {}", finding.code, finding.path)).collect()
}

#[test]
fn a_value_that_a_format_asks_for_and_the_filter_does_not_keep_is_a_warning() {
    let format = |name: &str| format!("%REQ(:PATH)% %FILTER_STATE(wasm.tollgate.{name}:PLAIN)%");
    for (name, config, expected) in [
        ("record", "", 0),
        ("cost_usd", "", 0),
        ("team", "", 1),
        ("records", "", 1),
        ("team", "access_log: {values: [team]}", 0),
        ("tags.tenant", "access_log: {values: [tags.tenant]}", 0),
        ("cost_usd", "access_log: {values: [team]}", 1),
    ] {
        let expected = vec!["unknown_logged_value access_log.values"; expected];
        assert_eq!(around(&format(name), "{}", "", "", config), expected, "{name} {config}");
    }
    let both = format("team") + &format("user");
    assert_eq!(around(&both, "{}", "", "", "").len(), 2, "each is named");
    let service = |names: &str| format!("{{common_config: {{filter_state_objects_to_log: [{names}]}}}}");
    assert_eq!(around(&service("wasm.tollgate.team, wasm.other.team"), "{}", "", "", "").len(), 1);
}

#[test]
fn records_that_nobody_takes_are_a_warning() {
    for (log, config, expected) in [
        ("%REQ(:PATH)%", "collector: null", vec!["no_collector ", "no_records "]),
        ("%FILTER_STATE(wasm.tollgate.record:PLAIN)%", "collector: null", vec!["no_collector "]),
        (
            "{common_config: {filter_state_objects_to_log: [wasm.tollgate.record]}}",
            "collector: null",
            vec!["no_collector "],
        ),
        ("%REQ(:PATH)%", "collector: {cluster: c}", vec![]),
    ] {
        assert_eq!(around(log, "{}", "", "", config), expected, "{log} {config}");
    }
}

#[test]
fn a_provider_behind_a_rewritten_host_that_no_upstream_names_is_a_warning() {
    let (to_openai, warning) = (", host_rewrite_literal: api.openai.com", vec!["host_rewritten upstreams"]);
    for (route, config, expected) in [
        ("", "", vec![]),
        (", host_rewrite_literal: backend.internal", "", vec![]),
        (to_openai, "", warning.clone()),
        (", hostRewriteLiteral: \"api.openai.com:443\"", "metering: {on_unmetered: reject}", warning.clone()),
        (to_openai, "metering: {on_unmetered: allow}", vec![]),
        (to_openai, "upstreams: [{match: {cluster: openai}, provider: openai}]", vec![]),
        (to_openai, "upstreams: [{match: {route: r}, provider: openai}]", vec![]),
        (to_openai, "upstreams: [{match: {host: llm.*}, provider: openai}]", vec![]),
        (to_openai, "upstreams: [{match: {cluster: anthropic}, provider: anthropic}]", warning),
    ] {
        assert_eq!(around("", "{}", route, "", config), expected, "{route} {config}");
    }
}

#[test]
fn a_claim_that_no_provider_of_tokens_puts_into_metadata_is_a_warning() {
    let jwt = |provider: &str| {
        format!("{{\"@type\": a/envoy.v3.JwtAuthentication, providers: {{idp: {{issuer: i{provider}}}}}}}")
    };
    let claim = |name: &str| {
        format!(
            "attribution: {{dimensions: {{team: {{from: [{{header: x-team}}, {{property: [metadata, filter_metadata, \
             envoy.filters.http.jwt_authn, {name}, team]}}]}}}}}}"
        )
    };
    let warning = vec!["token_not_in_metadata attribution.dimensions.team.from[1].property"];
    for (jwt, name, expected) in [
        (jwt(", payload_in_metadata: payload"), "payload", vec![]),
        (jwt(", payloadInMetadata: payload"), "payload", vec![]),
        (jwt(", payload_in_metadata: jwt"), "payload", warning.clone()),
        (jwt(""), "payload", warning.clone()),
        ("{}".into(), "payload", vec![]),
    ] {
        assert_eq!(around("", &jwt, "", "", &claim(name)), expected, "{jwt}");
    }
    let late = format!(
        "{{}}\n      - {{name: tollgate, config: {{root_id: tollgate, vm_config: {{}}}}}}\n      - typed_config: {}",
        jwt(", payload_in_metadata: payload")
    );
    assert!(
        around("", &late, "", "", &claim("payload")).contains(&warning[0].to_owned()),
        "behind the filter is too late"
    );
}

#[test]
fn what_waits_for_a_body_without_the_option_for_it_is_a_warning() {
    let admin = format!("admin: {{token_sha256: {}}}", "0123456789abcdef".repeat(4));
    let option = "allow_on_headers_stop_iteration: true";
    for (plugin, config, expected) in [
        ("", &*admin, vec!["admin_without_budgets admin", "change_without_option admin"]),
        (option, &*admin, vec!["admin_without_budgets admin"]),
        ("", "metering: {cost_headers: true}", vec!["cost_headers_without_option metering.cost_headers"]),
        (option, "metering: {cost_headers: true}", vec![]),
        ("", "metering: {cost_headers: false}", vec![]),
    ] {
        assert_eq!(around("", "{}", "", plugin, config), expected, "{plugin} {config}");
    }
}

//! What `tollgate explain` says of the fixtures, of each part of its input, and of calls whose cost is known.
//!
//! `UPDATE_GOLDEN=1 cargo test -p tollgate-report --test explain` writes the golden texts anew: read the difference.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

#[path = "explain/budgets.rs"]
mod budgets;
mod support;

use serde_json::{Map, Value, json};
use std::fs;
use std::path::PathBuf;
use support::{Run, file, repository, tollgate, tollgate_with};

/// Every fixture is billed at the same time, so that the texts stay the same.
const AT: &str = "2026-11-18T12:00:00Z";
const PRICES: &str = "report/tests/golden/prices.yaml";

fn fixtures() -> Vec<Value> {
    let index = fs::read(repository().join("tests/fixtures/index.json")).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    index["fixtures"].as_array().unwrap().clone()
}

/// The exchange that ends in a fixture.
fn exchange(entry: &Value) -> Value {
    let mut request = json!({
        "method": entry["method"].as_str().unwrap_or("POST"),
        "path": entry["path"],
        "headers": {"content-type": "application/json", "x-cost-department": "support"},
    });
    if let Some(host) = entry["host"].as_str() {
        request["host"] = host.into();
    }
    if let Some(form) = entry["form"].as_object() {
        let mut body = String::new();
        for (name, value) in form {
            let value = value.as_str().unwrap();
            let file = if value.starts_with('@') { "; filename=\"file\"" } else { "" };
            body += &format!("--b\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n{value}\r\n");
        }
        request["body"] = (body + "--b--\r\n").into();
        request["headers"]["content-type"] = "multipart/form-data; boundary=b".into();
    } else if request["method"] == "POST" {
        request["body"] = match &entry["request"] {
            Value::Null => json!({"model": entry["request_model"]}),
            body => body.clone(),
        };
    }
    let mut headers = entry["headers"].as_object().cloned().unwrap_or_default();
    if let Some(content_type) = entry["content_type"].as_str() {
        headers.insert("content-type".into(), content_type.into());
    }
    let body = repository().join("tests/fixtures").join(entry["file"].as_str().unwrap());
    json!({
        "request": request,
        "response": {"status": entry["status"], "headers": headers, "body_file": body},
        "at": AT,
    })
}

fn explain(exchange: &Value, more: &[&str]) -> Run {
    let mut arguments = vec!["explain", "--exchange", "-"];
    arguments.extend(more);
    tollgate_with(&arguments, &exchange.to_string())
}

/// Dollars with up to 12 places, in pico-dollars.
fn pico(usd: &str) -> i128 {
    let (whole, places) = usd.split_once('.').unwrap_or((usd, ""));
    assert!(places.len() <= 12, "{usd}");
    format!("{whole}{places:0<12}").parse().unwrap_or_else(|_| panic!("{usd} is no amount"))
}

/// The terms and the total of a text.
fn terms(text: &str) -> (Vec<i128>, Option<i128>) {
    let (mut terms, mut total) = (Vec::new(), None);
    for line in text.lines().skip_while(|line| !line.starts_with("Cost in USD")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["total", "=", amount] => total = Some(pico(amount)),
            [.., "=", amount] => terms.push(pico(amount)),
            _ => {}
        }
    }
    (terms, total)
}

#[test]
fn the_terms_of_every_fixture_add_up() {
    let (mut priced, mut seen) = (0, 0);
    for entry in fixtures() {
        let file = entry["file"].as_str().unwrap();
        let text = explain(&exchange(&entry), &["--prices", PRICES]);
        assert_eq!(text.code, 0, "{file}: {}", text.err);
        let json = explain(&exchange(&entry), &["--prices", PRICES, "--format", "json"]);
        let account: Value = serde_json::from_str(&json.out).unwrap_or_else(|error| panic!("{file}: {error}"));
        let record = &account["record"];
        assert_eq!(record["api"], entry["api"], "{file}");

        let cost = record["cost_picousd"].as_i64().map(i128::from);
        let charges = record["charges"].as_array().cloned().unwrap_or_default();
        let charges: Vec<i128> = charges.iter().map(|charge| charge["cost_picousd"].as_i64().unwrap().into()).collect();
        assert_eq!(terms(&text.out), (charges.clone(), cost), "{file}: {}", text.out);
        assert_eq!(charges.iter().sum::<i128>(), cost.unwrap_or(0), "{file}");
        // Where there is no cost, or it is nothing, a sentence says why; a model may also be free.
        let costs = cost.is_some() && record["price_status"] != "free";
        assert_eq!(account["no_cost_because"].is_null(), costs, "{file}: {account}");
        assert_eq!(account["price_entry"].is_null(), record["priced_model"].is_null(), "{file}: {account}");
        priced += usize::from(costs);
        seen += 1;
    }
    assert!(seen > 90 && priced > 30, "{priced} of {seen} have a cost");
}

#[test]
fn the_text_is_what_it_was() {
    for name in [
        "anthropic-messages-json-advisor.json",
        "anthropic-messages-sse-server-tool.sse",
        "azure-deployment-chat.json",
        "bedrock-converse-stream.bin",
        "gemini-generate-modalities.json",
        "mistral-ocr.json",
        "ollama-chat.json",
        "openai-chat-json-cached-reasoning.json",
        "openai-chat-json-unknown-model.json",
        "openai-chat-sse-no-usage.sse",
        "openai-chat-sse-usage.sse",
        "openai-error-429.json",
        "deepseek-chat.json",
        "openai-responses-background-queued.json",
        "openai-transcription-duration.json",
        "vertex-stream-jsonarray-enumints.json",
        "xai-chat-additive.json",
    ] {
        let entry = fixtures().into_iter().find(|entry| entry["file"] == name).unwrap();
        let run = explain(&exchange(&entry), &["--prices", PRICES]);
        let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.txt"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &run.out).unwrap();
        }
        assert_eq!(run.out, fs::read_to_string(&golden).unwrap_or_default(), "{name}");
    }
}

#[test]
fn whatever_changes_a_price_stands_in_its_terms() {
    let prices = file(
        "kinds.yaml",
        r#"models:
- provider: openai
  model: m
  rates: {input: "2", cached_input: "1", output: "8"}
  tiers: [{input_over: 1000, rates: {input: "4", output: "12"}}]
  service_tiers:
    flex: {multiplier: "0.5"}
    priority: {rates: {input: "3", output: "16"}}
  multipliers: {region: {eu: "1.1"}}
  off_peak: [{hours_utc: "16:30-00:30", rates: {output: "6"}}]
  discount: "0.2"
"#,
    );
    for (what, input, tier, host, hour, expected) in [
        (
            "nothing",
            1000,
            "default",
            "api",
            "12",
            [
                "input 800 tokens x 2 / 1000000 x 0.8 = 0.00128",
                "output 100 tokens x 8 / 1000000 x 0.8 = 0.00064",
                "total = 0.00208",
            ],
        ),
        (
            "a context tier",
            1001,
            "default",
            "api",
            "12",
            [
                "input 801 tokens x 4 / 1000000 x 0.8 = 0.0025632",
                "output 100 tokens x 12 / 1000000 x 0.8 = 0.00096",
                "total = 0.0036832",
            ],
        ),
        (
            "a service tier's rates",
            1000,
            "priority",
            "api",
            "12",
            [
                "input 800 tokens x 3 / 1000000 x 0.8 = 0.00192",
                "output 100 tokens x 16 / 1000000 x 0.8 = 0.00128",
                "total = 0.00336",
            ],
        ),
        (
            "off-peak hours",
            1000,
            "default",
            "api",
            "18",
            [
                "input 800 tokens x 2 / 1000000 x 0.8 = 0.00128",
                "output 100 tokens x 6 / 1000000 x 0.8 = 0.00048",
                "total = 0.00192",
            ],
        ),
        (
            "multipliers",
            1000,
            "flex",
            "eu.api",
            "12",
            [
                "input 800 tokens x 2 / 1000000 x 0.44 = 0.000704",
                "output 100 tokens x 8 / 1000000 x 0.44 = 0.000352",
                "total = 0.001144",
            ],
        ),
    ] {
        let exchange = json!({
            "request": {"path": "/v1/chat/completions", "host": format!("{host}.openai.com"), "body": {"model": "m"}},
            "response": {"body": {"model": "m", "service_tier": tier, "usage": {"prompt_tokens": input,
                "prompt_tokens_details": {"cached_tokens": 200}, "completion_tokens": 100}}},
            "at": format!("2026-11-18T{hour}:00:00Z"),
        });
        let run = explain(&exchange, &["--prices", &prices]);
        let lines: Vec<String> =
            run.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        for line in expected {
            assert!(lines.iter().any(|own| own == line), "{what}: {line} in {}", run.out);
        }
    }
}

#[test]
fn parts_of_a_call_say_the_same_as_the_whole() {
    let sent =
        file("sent.txt", "> POST /v1/chat/completions HTTP/1.1\n> Host: api.openai.com\n> X-Cost-Team: search\n>\n");
    let got = file("got.txt", "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
    let body = file("sent.json", r#"{"model": "gpt-4o", "stream": true, "stream_options": {"include_usage": true}}"#);
    let answer = "tests/fixtures/openai-chat-sse-usage.sse";
    let common = ["--prices", PRICES, "--at", AT];
    let parts = [
        [
            "explain",
            "--request-headers",
            &sent,
            "--request-body",
            &body,
            "--response-headers",
            &got,
            "--response-body",
            answer,
        ]
        .as_slice(),
        &common,
    ]
    .concat();
    let whole = json!({
        "request": {
            "path": "/v1/chat/completions",
            "headers": [["Host", "api.openai.com"], ["X-Cost-Team", "search"]],
            "body_file": body,
        },
        "response": {
            "status": 200,
            "headers": {"Content-Type": "text/event-stream"},
            "body_file": repository().join(answer),
        },
    });
    let [parts, whole] = [tollgate(&parts), explain(&whole, &common)];
    assert_eq!(parts.code, 0, "{}", parts.err);
    assert_eq!(parts.out, whole.out);
    for said in ["openai_chat (chat), told by its path", "team      search        from a header", "0.0023975"] {
        assert!(parts.out.contains(said), "{said} in {}", parts.out);
    }
}

#[test]
fn a_body_is_taken_in_whatever_form_it_is_given() {
    let answer = repository().join("tests/fixtures/openai-chat-json.json");
    let text = fs::read_to_string(&answer).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    // gzip of `{"model":"gpt-4o","usage":{"prompt_tokens":412,"completion_tokens":31}}`.
    let gzip = "H4sIAAAAAAACA6tWys1PSc1RslJKLyjRNclX0lEqLU5MT1WyqlYqKMrPLSiJL8nPTs0rVrIyMTTSUUoGCuWklmTm58HFjQ1rawHeCIRlRwAAAA==";
    for response in [
        json!({"body": value}),
        json!({"body": text}),
        json!({"body_file": answer}),
        json!({"body_base64": gzip, "headers": {"content-encoding": ["gzip"], "content-type": "application/json"}}),
        // curl --compressed writes the body decoded and the headers as they were.
        json!({"body": value, "headers": {"content-encoding": "gzip"}}),
    ] {
        let exchange =
            json!({"request": {"path": "/v1/chat/completions", "body": {"model": "gpt-4o"}}, "response": response});
        let run = explain(&exchange, &["--prices", PRICES]);
        assert_eq!(terms(&run.out).1, Some(pico("0.00134")), "{response}: {}{}", run.out, run.err);
        let decoded = response["headers"]["content-encoding"] == "gzip";
        assert_eq!(run.err.contains("is not compressed"), decoded, "{response}: {}", run.err);
    }
}

#[test]
fn attribution_says_where_it_comes_from_and_what_was_dropped() {
    let exchange = json!({
        "request": {
            "path": "/v1/messages",
            "headers": {"x-cost-team": "search", "x-cost-tag-customer": "acme", "x-cost-feature": "", "x-cost-colour": "red"},
            "body": {"model": "claude-haiku-4-5", "tools": [{"name": "delete_file"}]},
        },
    });
    let run = explain(&exchange, &[]);
    for line in [
        "team            search         from a header",
        "tags.customer   acme           from a header",
        "workload        agentic-write  inferred from the tools offered",
        "x-cost-feature  dropped        empty",
        "x-cost-colour   dropped        unknown_header",
    ] {
        assert!(run.out.lines().any(|own| own.trim() == line), "{line} in {}", run.out);
    }
}

#[test]
fn prices_may_come_from_a_file_of_their_own_and_by_date() {
    let table = "version: v2\nmodels:\n- model: gpt-4o\n  aliases: [\"gpt-4o-2*\"]\n  rates: {input: 1, output: 10}\n  effective: \
                 [{from: \"2027-01-01T00:00:00Z\", rates: {input: 3, output: 30}}]\n";
    let prices = file("own-prices.yaml", table);
    let wrapped = file("own-config.yaml", &format!("prices:\n  {}", table.trim().replace('\n', "\n  ")));
    let wrong = file("wrong-prices.yaml", "models:\n- model: gpt-4o\n  rates: {input: ten}\n");
    let call = ["explain", "--path", "/v1/chat/completions", "--response-body", "tests/fixtures/openai-chat-json.json"];
    for (prices, at, total) in [
        (&prices, "2026-12-31T23:59:59Z", "0.000722"),
        (&prices, "2027-01-01T00:00:00Z", "0.002166"),
        (&wrapped, "2026-12-31T23:59:59Z", "0.000722"),
    ] {
        let run = tollgate(
            &[call.as_slice(), &["--config", "tests/golden/config.json", "--prices", prices, "--at", at]].concat(),
        );
        assert_eq!(terms(&run.out).1, Some(pico(total)), "{}{}", run.out, run.err);
        assert!(run.out.contains(&format!("at {prices}:")), "{}", run.out);
    }
    let run = tollgate(&[call.as_slice(), &["--config", "tests/golden/config.json", "--prices", &wrong]].concat());
    assert_eq!(run.code, 1);
    assert!(run.err.contains(&format!("{wrong}:3:11: prices.models[0].rates.input")), "{}", run.err);
}

#[test]
fn what_the_filter_would_change_or_refuse_is_said() {
    let streamed = json!({
        "request": {"path": "/v1/chat/completions", "headers": {"x-cost-team": "a", "accept-encoding": "br"},
                    "body": {"model": "gpt-4o", "stream": true}},
    });
    let run = explain(&streamed, &[]);
    let line =
        "without x-cost-team, content-length; accept-encoding: identity; stream_options.include_usage set in the body";
    assert!(run.out.contains(line), "{}", run.out);

    let config = file("small.yaml", "metering: {max_request_bytes: 1024, on_oversize: refuse}\n");
    let large = json!({"request": {"path": "/v1/messages", "body": {"model": "m", "text": "x".repeat(2000)}}});
    let run = explain(&large, &["--config", &config]);
    assert!(run.out.contains("413, local_reply, error request_too_large"), "{}", run.out);
    assert!(run.out.lines().any(|line| line.split_whitespace().eq(["decision", "refused"])), "{}", run.out);
}

#[test]
fn an_upstream_may_say_what_its_calls_are() {
    let config = file(
        "upstreams.yaml",
        "upstreams:\n- match: {host: other}\n  api: cohere_chat\n- match: {cluster: llm}\n  api: openai_chat\n",
    );
    let exchange = json!({
        "request": {"path": "/infer", "body": {"model": "m"}},
        "response": {"body": {"model": "m", "usage": {"prompt_tokens": 3, "completion_tokens": 4}}},
    });
    let run = explain(&exchange, &["--config", &config, "--cluster", "llm"]);
    assert!(run.out.contains("openai_chat (chat), told by upstreams[1] of the configuration"), "{}", run.out);
}

/// The path and host of a vector's endpoint.
fn place(vector: &Value) -> (String, &'static str) {
    let model = vector["model"].as_str().unwrap();
    match (vector["provider"].as_str().unwrap(), vector["endpoint"].as_str().unwrap()) {
        ("openai", "embeddings") => ("/v1/embeddings".into(), "api.openai.com"),
        ("openai", "audio.transcriptions") => ("/v1/audio/transcriptions".into(), "api.openai.com"),
        ("openai", _) => ("/v1/chat/completions".into(), "api.openai.com"),
        ("azure", "azure ai models") => ("/models/chat/completions".into(), "acme.services.ai.azure.com"),
        ("azure", _) => (format!("/openai/deployments/{model}/chat/completions"), "acme.openai.azure.com"),
        ("anthropic", _) => ("/v1/messages".into(), "api.anthropic.com"),
        ("google", _) => (format!("/v1beta/models/{model}:generateContent"), "generativelanguage.googleapis.com"),
        ("bedrock", _) => (format!("/model/{model}/converse"), "bedrock-runtime.us-east-1.amazonaws.com"),
        ("deepseek", _) => ("/chat/completions".into(), "api.deepseek.com"),
        ("cohere", _) => ("/v2/chat".into(), "api.cohere.com"),
        ("xai", _) => ("/v1/chat/completions".into(), "api.x.ai"),
        ("dashscope", _) => ("/compatible-mode/v1/chat/completions".into(), "dashscope-intl.aliyuncs.com"),
        (provider, endpoint) => panic!("{provider} {endpoint}"),
    }
}

/// A value with the numbers that stand in strings as numbers, digit for digit, as LiteLLM writes them.
fn with_numbers(value: &Value) -> String {
    match value {
        Value::String(text) if text.parse::<f64>().is_ok() => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(with_numbers).collect::<Vec<_>>().join(",")),
        Value::Object(fields) => {
            let field = |(key, value): (&String, &Value)| format!("{}:{}", json!(key), with_numbers(value));
            format!("{{{}}}", fields.iter().map(field).collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

/// Calls with known costs, where they are at hand: `cost_vectors.json` in `$TOLLGATE_VECTORS`, else in
/// `../shared/vectors` beside the checkout.
#[test]
fn known_calls_cost_what_is_known_to_the_last_digit() {
    let named = std::env::var_os("TOLLGATE_VECTORS").map(PathBuf::from);
    let path = named.unwrap_or_else(|| repository().join("../shared/vectors")).join("cost_vectors.json");
    if !path.exists() {
        eprintln!("no vectors at hand; the fixtures and the core's own tests cover the same rules");
        return;
    }
    let vectors: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let vectors = &vectors;
    let mut wrong = Vec::new();
    assert!(vectors["vectors"].as_array().unwrap().len() >= 22, "the vectors are gone");
    for vector in vectors["vectors"].as_array().unwrap() {
        let id = vector["id"].as_str().unwrap();
        let entries = format!("{{{}:{}}}", vector["price_key"], with_numbers(&vector["prices"]));
        let source = file(&format!("vectors/{id}.json"), &entries);
        let prices = file(&format!("vectors/{id}.yaml"), "");
        let import = tollgate(&["prices", "import", "litellm", &source, "--output", &prices]);
        assert_eq!(import.code, 0, "{id}: {}", import.err);

        let (path, host) = place(vector);
        let mut response = vector["response"].clone();
        if vector["endpoint"] == "batch" {
            // The answers of a batch come in a file, which tells by itself what they are.
            response["service_tier"] = "batch".into();
        }
        let at = vector["context"]["time"].as_str().or(vectors["billing_time_default"].as_str()).unwrap();
        let exchange = json!({
            "request": {"path": path, "host": host, "body": {"model": vector["model"]}},
            "response": {"body": response},
            "at": at,
        });
        let run = explain(&exchange, &["--prices", &prices]);
        let expected = pico(vector["expected_cost_usd"].as_str().unwrap());
        if terms(&run.out).1 != Some(expected) {
            wrong.push(format!("{id}: expected {}\n{}{}", vector["expected_cost_usd"], run.out, run.err));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_exchange_that_cannot_be_understood_is_refused_with_its_place() {
    let request = json!({"path": "/v1/messages"});
    for (exchange, message) in [
        (json!({}), "<stdin>:1:1: request: is missing"),
        (json!({"request": []}), "request: expected an object"),
        (json!({"request": {"path": "/", "body": 1, "body_file": "x"}}), "request: give one of body"),
        (json!({"request": {"path": "/", "headers": "x"}}), "request.headers: expected an object, or a list of pairs"),
        (json!({"request": {"path": "/", "headers": {"a": {}}}}), "request.headers.a: expected a string"),
        (json!({"request": {"path": "/", "headers": [["a"]]}}), "request.headers[0]: expected a name and a value"),
        (json!({"request": request, "response": {"body_base64": "%"}}), "not base64"),
        (json!({"request": request, "response": {"body_file": "no-such-file"}}), "cannot read no-such-file"),
        (json!({"request": request, "response": {"statsu": 200}}), "response.statsu: unknown key; known here: status"),
        (json!({"request": request, "at": "soon"}), "at: "),
        (json!({"request": Map::new()}), "the request has no path"),
    ] {
        let run = explain(&exchange, &[]);
        assert_eq!(run.code, 2, "{exchange}: {}", run.out);
        assert!(run.err.contains(message), "{message}: {}", run.err);
    }
}

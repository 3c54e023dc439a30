use super::*;
use crate::api::RequestField;
use crate::body::json::Scanner;
use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn facts(api: Api, body: &str) -> RequestFacts {
    let mut facts = RequestFacts::default();
    let mut scanner = Scanner::<RequestField>::new(api.format().request);
    // Byte by byte: what is found must not depend on how the body came.
    for byte in body.as_bytes().chunks(1) {
        scanner.feed(byte, &mut facts);
    }
    scanner.finish(&mut facts);
    assert!(scanner.is_complete(), "{body}");
    let mut whole = RequestFacts::default();
    Scanner::<RequestField>::new(api.format().request).feed(body.as_bytes(), &mut whole);
    assert_eq!(facts, whole, "{body}");
    facts
}

fn uses(api: Api, body: &Value) -> Vec<Use> {
    facts(api, &body.to_string()).uses.iter().collect()
}

/// Each of `cases` is a body and what it uses.
fn check(api: Api, cases: &[(Value, &[Use])]) {
    for (body, expected) in cases {
        assert_eq!(uses(api, body), *expected, "{body}");
    }
}

fn message(content: Value) -> Value {
    json!({"messages": [{"role": "user", "content": content}]})
}

#[test]
fn openai_chat_tells_what_it_uses() {
    let function = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]);
    check(
        Api::OpenaiChat,
        &[
            (json!({"model": "m", "stream": true, "messages": [], "n": 1, "logprobs": false}), &[]),
            (json!({"max_completion_tokens": 5, "store": true, "user": "u", "seed": 1}), &[]),
            (json!({"max_tokens": 5}), &[Use::MaxTokens]),
            (json!({"temperature": 0}), &[Use::Sampling]),
            (json!({"top_p": null, "stop": null, "response_format": null, "tools": null, "tool_choice": null}), &[]),
            (json!({"stop": ["x"]}), &[Use::Sampling]),
            (json!({"logit_bias": {"50256": -100}}), &[Use::Sampling]),
            (json!({"tools": [], "tool_choice": "auto", "response_format": {"type": "text"}}), &[]),
            (json!({"tools": function}), &[Use::Tools]),
            (json!({"functions": [{"name": "f"}], "function_call": "auto"}), &[Use::Tools]),
            (json!({"function_call": {"name": "f"}}), &[Use::ForcedToolChoice]),
            (json!({"tools": [{"type": "custom", "custom": {"name": "f"}}]}), &[Use::Tools]),
            (json!({"tools": [{"type": "web_search"}]}), &[Use::Tools, Use::ServerTools]),
            (json!({"tool_choice": "required"}), &[Use::ForcedToolChoice]),
            (json!({"tool_choice": "none"}), &[]),
            (
                json!({"tool_choice": {"type": "function", "function": {"name": "f", "type": "auto"}}}),
                &[Use::ForcedToolChoice],
            ),
            (
                json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "text"}}}}),
                &[Use::StructuredOutput],
            ),
            (json!({"response_format": {"type": "json_object"}}), &[Use::StructuredOutput]),
            (json!({"reasoning_effort": "low"}), &[Use::Reasoning]),
            (json!({"reasoning": {"effort": "high"}}), &[Use::Reasoning]),
            (json!({"reasoning": {}, "reasoning_effort": null, "thinking": {"type": "disabled"}}), &[]),
            (json!({"verbosity": "low"}), &[Use::Verbosity]),
            (json!({"logprobs": true}), &[Use::Logprobs]),
            (json!({"top_logprobs": 3}), &[Use::Logprobs]),
            (json!({"n": 2}), &[Use::Choices]),
            (json!({"prediction": {"type": "content", "content": "x"}}), &[Use::Prediction]),
            (json!({"modalities": ["text"], "audio": null}), &[]),
            (json!({"modalities": ["text", "audio"], "audio": {"voice": "a"}}), &[Use::AudioOutput]),
            (json!({"modalities": ["image"]}), &[Use::ImageOutput]),
            (json!({"web_search_options": {}}), &[Use::ServerTools]),
            (json!({"models": ["a", "b"]}), &[Use::FallbackModels]),
            (json!({"service_tier": "auto"}), &[]),
            (json!({"service_tier": "flex"}), &[Use::ServiceTier]),
            (message(json!("{\"type\":\"image_url\"}")), &[]),
            (message(json!([{"type": "text", "text": "x", "image": {"type": "image_url"}}])), &[]),
            (message(json!([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}])), &[Use::Vision]),
            (message(json!([{"type": "input_audio", "input_audio": {"data": "AA"}}])), &[Use::Audio]),
            (message(json!([{"type": "file", "file": {"file_id": "f"}}])), &[Use::Documents]),
            (message(json!([{"type": "video_url", "video_url": {"url": "u"}}])), &[Use::Video]),
            // Only what is asked for at the top counts.
            (json!({"metadata": {"reasoning_effort": "low", "tools": [{}], "n": "2"}}), &[]),
        ],
    );
}

#[test]
fn openai_responses_tell_what_they_use() {
    let item = |item: Value| json!({"input": [item]});
    check(
        Api::OpenaiResponses,
        &[
            (json!({"model": "m", "input": "x", "max_output_tokens": 5, "include": [], "reasoning": {}}), &[]),
            (json!({"text": {"format": {"type": "text"}}, "tool_choice": "auto", "top_logprobs": null}), &[]),
            (json!({"text": {"format": {"type": "json_schema", "schema": {}}}}), &[Use::StructuredOutput]),
            (json!({"text": {"verbosity": "low"}}), &[Use::Verbosity]),
            (json!({"reasoning": {"effort": "low", "summary": null}}), &[Use::Reasoning]),
            (json!({"reasoning": {"summary": "auto"}}), &[Use::Reasoning]),
            (json!({"include": ["file_search_call.results", "reasoning.encrypted_content"]}), &[Use::Reasoning]),
            (json!({"include": ["message.output_text.logprobs"]}), &[Use::Logprobs]),
            (json!({"tools": [{"type": "function", "name": "f"}]}), &[Use::Tools]),
            (json!({"tools": [{"type": "mcp", "server_url": "u"}]}), &[Use::Tools, Use::ServerTools]),
            (json!({"tool_choice": {"type": "file_search"}}), &[Use::ForcedToolChoice]),
            (json!({"previous_response_id": "resp_1"}), &[Use::Conversation]),
            (json!({"previous_response_id": null, "conversation": null, "prompt": null}), &[]),
            (json!({"conversation": {"id": "conv_1"}}), &[Use::Conversation]),
            (json!({"conversation": "conv_1"}), &[Use::Conversation]),
            (json!({"prompt": {"id": "pmpt_1"}}), &[Use::Conversation]),
            (json!({"temperature": 0.2}), &[Use::Sampling]),
            (item(json!({"role": "user", "content": "x"})), &[]),
            (item(json!({"type": "message", "content": [{"type": "input_text", "text": "x"}]})), &[]),
            (item(json!({"content": [{"type": "input_image", "image_url": "u"}]})), &[Use::Vision]),
            (item(json!({"content": [{"type": "input_file", "file_id": "f"}]})), &[Use::Documents]),
            (item(json!({"content": [{"type": "input_audio", "input_audio": {}}]})), &[Use::Audio]),
            (item(json!({"type": "reasoning", "encrypted_content": "x"})), &[Use::ReasoningHistory]),
            (item(json!({"type": "function_call_output", "output": "x"})), &[]),
            (item(json!({"type": "function_call_output", "output": [{"type": "input_image"}]})), &[Use::Vision]),
            (item(json!({"type": "computer_call_output", "output": {"type": "computer_screenshot"}})), &[Use::Vision]),
        ],
    );
}

#[test]
fn anthropic_tells_what_it_uses() {
    let part = |part: Value| message(json!([part]));
    check(
        Api::AnthropicMessages,
        &[
            (json!({"model": "m", "max_tokens": 5, "system": [{"type": "text", "text": "image"}]}), &[]),
            (json!({"thinking": {"type": "disabled"}, "service_tier": "standard_only", "speed": "standard"}), &[]),
            (json!({"thinking": {"type": "enabled", "budget_tokens": 1024}}), &[Use::Reasoning]),
            (json!({"thinking": {"type": "adaptive"}}), &[Use::Reasoning, Use::AdaptiveThinking]),
            (json!({"output_config": {"effort": "max"}}), &[Use::Effort]),
            (json!({"output_config": {"format": {"type": "json_schema", "schema": {}}}}), &[Use::StructuredOutput]),
            (json!({"output_format": {"type": "json_schema"}}), &[Use::StructuredOutput]),
            (json!({"top_k": 5}), &[Use::Sampling]),
            (json!({"speed": "fast"}), &[Use::ServiceTier]),
            (json!({"tools": [{"name": "f", "input_schema": {"type": "object"}}]}), &[Use::Tools]),
            (json!({"tools": [{"type": "custom", "name": "f"}]}), &[Use::Tools]),
            (json!({"tools": [{"type": "web_search_20250305", "name": "s"}]}), &[Use::Tools, Use::ServerTools]),
            (json!({"mcp_servers": [{"url": "u"}]}), &[Use::ServerTools]),
            (json!({"tool_choice": {"type": "auto", "disable_parallel_tool_use": true}}), &[]),
            (json!({"tool_choice": {"type": "any"}}), &[Use::ForcedToolChoice]),
            (json!({"tool_choice": {"type": "tool", "name": "auto"}}), &[Use::ForcedToolChoice]),
            (part(json!({"type": "text", "text": "x"})), &[]),
            (part(json!({"type": "image", "source": {"type": "base64", "data": "AA"}})), &[Use::Vision]),
            (part(json!({"type": "document", "source": {"type": "url"}})), &[Use::Documents]),
            (part(json!({"type": "tool_result", "content": "x"})), &[]),
            (part(json!({"type": "tool_result", "content": [{"type": "image", "source": {}}]})), &[Use::Vision]),
            (part(json!({"type": "thinking", "thinking": "x", "signature": "y"})), &[Use::ReasoningHistory]),
            (part(json!({"type": "redacted_thinking", "data": "y"})), &[Use::ReasoningHistory]),
            (part(json!({"type": "server_tool_use", "name": "web_search"})), &[Use::ServerTools]),
            (json!({"messages": [{"role": "user"}, {"role": "assistant"}]}), &[Use::Prefill]),
            (json!({"messages": [{"role": "user"}, {"role": "assistant"}, {"role": "user"}]}), &[]),
        ],
    );
}

#[test]
fn gemini_tells_what_it_uses_in_either_spelling() {
    let settings = |settings: Value| json!({"generationConfig": settings});
    let part = |part: Value| json!({"contents": [{"role": "user", "parts": [part]}]});
    check(
        Api::GeminiGenerateContent,
        &[
            (settings(json!({"maxOutputTokens": 5, "candidateCount": 1, "responseMimeType": "text/plain"})), &[]),
            (settings(json!({"candidateCount": 3})), &[Use::Choices]),
            (settings(json!({"responseMimeType": "application/json"})), &[Use::StructuredOutput]),
            (settings(json!({"responseSchema": {"type": "OBJECT"}})), &[Use::StructuredOutput]),
            (settings(json!({"thinkingConfig": {"thinkingBudget": 0}})), &[Use::Reasoning]),
            (settings(json!({"responseLogprobs": true, "logprobs": 3})), &[Use::Logprobs]),
            (settings(json!({"responseModalities": ["TEXT", "IMAGE"]})), &[Use::ImageOutput]),
            (settings(json!({"responseModalities": ["AUDIO"], "speechConfig": {}})), &[Use::AudioOutput]),
            (settings(json!({"temperature": 1})), &[Use::Sampling]),
            (
                json!({"generation_config": {"response_schema": {}, "top_p": 1}}),
                &[Use::StructuredOutput, Use::Sampling],
            ),
            (part(json!({"text": "x"})), &[]),
            (part(json!({"inlineData": {"mimeType": "image/png", "data": "AA"}})), &[Use::Vision]),
            (part(json!({"inline_data": {"data": "AA", "mime_type": "audio/mp3"}})), &[Use::Audio]),
            (part(json!({"fileData": {"mimeType": "video/mp4", "fileUri": "u"}})), &[Use::Video]),
            (part(json!({"file_data": {"mime_type": "application/pdf"}})), &[Use::Documents]),
            (part(json!({"functionCall": {"name": "f"}, "thoughtSignature": "x"})), &[Use::ReasoningHistory]),
            (json!({"tools": [{"functionDeclarations": [{"name": "f"}]}]}), &[Use::Tools]),
            (json!({"tools": [{"function_declarations": []}, {"google_search": {}}]}), &[Use::ServerTools]),
            (json!({"tools": [{"codeExecution": {}}]}), &[Use::ServerTools]),
            (json!({"toolConfig": {"functionCallingConfig": {"mode": "AUTO"}}}), &[]),
            (json!({"toolConfig": {"functionCallingConfig": {"mode": "ANY"}}}), &[Use::ForcedToolChoice]),
            (json!({"tool_config": {"function_calling_config": {"mode": "any"}}}), &[Use::ForcedToolChoice]),
            (json!({"cachedContent": "cachedContents/c"}), &[Use::CachedContent]),
            (json!({"contents": [{"role": "model", "parts": [{"text": "x"}]}]}), &[]),
        ],
    );
    let snake =
        facts(Api::GeminiGenerateContent, r#"{"generation_config":{"max_output_tokens":7,"candidate_count":2}}"#);
    assert_eq!((snake.max_output_tokens, snake.choices), (Some(7), Some(2)));
}

#[test]
fn bedrock_tells_what_it_uses() {
    let part = |part: Value| message(json!([part]));
    check(
        Api::BedrockConverse,
        &[
            (
                json!({"inferenceConfig": {"maxTokens": 5, "stopSequences": ["x"]}, "serviceTier": {"type": "default"}}),
                &[],
            ),
            (json!({"inferenceConfig": {"topP": 0.5}}), &[Use::Sampling]),
            (json!({"serviceTier": {"type": "priority"}}), &[Use::ServiceTier]),
            (json!({"performanceConfig": {"latency": "optimized"}}), &[Use::ServiceTier]),
            (json!({"outputConfig": {"textFormat": {"type": "json_schema"}}}), &[Use::StructuredOutput]),
            (
                json!({"toolConfig": {"tools": [{"toolSpec": {"name": "f"}}], "toolChoice": {"auto": {}}}}),
                &[Use::Tools],
            ),
            (json!({"toolConfig": {"toolChoice": {"any": {}}}}), &[Use::ForcedToolChoice]),
            (json!({"toolConfig": {"toolChoice": {"tool": {"name": "f"}}}}), &[Use::ForcedToolChoice]),
            (json!({"toolConfig": {"tools": [{"systemTool": {"name": "s"}}]}}), &[Use::Tools, Use::ServerTools]),
            (
                json!({"additionalModelRequestFields": {"thinking": {"type": "enabled", "budget_tokens": 2048}}}),
                &[Use::Reasoning, Use::ModelFields],
            ),
            (part(json!({"text": "image"})), &[]),
            (part(json!({"image": {"format": "png", "source": {"bytes": "AA"}}})), &[Use::Vision]),
            (part(json!({"audio": {"format": "mp3"}})), &[Use::Audio]),
            (part(json!({"video": {"format": "mp4"}})), &[Use::Video]),
            (part(json!({"document": {"format": "pdf"}})), &[Use::Documents]),
            (part(json!({"reasoningContent": {"reasoningText": {}}})), &[Use::ReasoningHistory]),
            (json!({"messages": [{"role": "assistant", "content": [{"text": "x"}]}]}), &[Use::Prefill]),
        ],
    );
    check(
        Api::BedrockInvoke,
        &[
            (json!({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 5}), &[]),
            (json!({"thinking": {"type": "enabled"}, "top_p": 1}), &[Use::Reasoning, Use::Sampling]),
            (part(json!({"type": "image", "source": {}})), &[Use::Vision]),
            (part(json!({"image": {"format": "png"}})), &[Use::Vision]),
            (json!({"inferenceConfig": {"max_new_tokens": 5}, "toolConfig": {"tools": [{}]}}), &[Use::Tools]),
        ],
    );
}

#[test]
fn ollama_and_cohere_tell_what_they_use() {
    check(
        Api::OllamaChat,
        &[
            (json!({"model": "m", "format": "", "think": false, "options": {"temperature": 0}}), &[]),
            (json!({"format": {"type": "object"}}), &[Use::StructuredOutput]),
            (json!({"think": "high"}), &[Use::Reasoning]),
            (json!({"images": ["AA"]}), &[Use::Vision]),
            (json!({"messages": [{"images": ["AA"]}]}), &[Use::Vision]),
        ],
    );
    check(
        Api::CohereChat,
        &[
            (json!({"tool_choice": "REQUIRED"}), &[Use::ForcedToolChoice]),
            (json!({"tool_choice": "NONE", "response_format": {"type": "text"}}), &[]),
            (message(json!([{"type": "image_url", "image_url": {"url": "u"}}])), &[Use::Vision]),
            (json!({"thinking": {"type": "enabled"}}), &[Use::Reasoning]),
        ],
    );
}

#[test]
fn facts_of_cost_are_read_beside_the_uses() {
    let facts = facts(
        Api::OpenaiChat,
        r#"{"service_tier":"priority","n":3,"max_tokens":7,"thinking":{"type":"enabled","budget_tokens":9},"messages":[
            {"content":[{"type":"image_url"},{"type":"text"},{"type":"file"}]},{"content":[{"type":"input_audio"}]}]}"#,
    );
    assert_eq!(facts.service_tier.as_deref(), Some("priority"));
    assert_eq!((facts.choices, facts.max_output_tokens, facts.thinking_budget), (Some(3), Some(7), Some(9)));
    assert_eq!((facts.message_count, facts.media_count), (Some(2), Some(3)));
    let count = |api, body: Value| self::facts(api, &body.to_string()).media_count;
    let parts = json!([{"inlineData": {"mimeType": "image/png"}}, {"fileData": {}}, {"text": "x"}]);
    assert_eq!(count(Api::GeminiGenerateContent, json!({"contents": [{"parts": parts}]})), Some(2));
    assert_eq!(count(Api::BedrockConverse, message(json!([{"image": {}}, {"document": {"name": "d"}}]))), Some(2));
    assert_eq!(count(Api::BedrockConverse, message(json!([{"text": "x", "image": null}]))), None);
    assert_eq!(count(Api::AnthropicMessages, message(json!([{"type": "text"}]))), None);
}

#[test]
fn of_keys_that_stand_twice_the_last_number_counts_and_any_use() {
    let facts = facts(Api::OpenaiChat, r#"{"n":2,"n":1,"thinking":{"type":"enabled"},"thinking":{"type":"disabled"}}"#);
    assert_eq!(facts.choices, Some(1));
    assert_eq!(facts.uses.iter().collect::<Vec<_>>(), [Use::Reasoning]);
}

#[test]
fn strange_values_are_no_uses_and_no_trouble() {
    for value in ["null", "[]", "{}", "[[[]]]", "0", "\"\"", "[{\"type\":[]}]", "{\"type\":{\"type\":1}}"] {
        for api in Api::ALL {
            let keys = ["tools", "tool_choice", "thinking", "messages", "n", "response_format", "reasoning", "text"];
            let body: Vec<_> = keys.iter().map(|key| format!("\"{key}\":{value}")).collect();
            let uses = facts(api, &format!("{{{}}}", body.join(","))).uses;
            // An element of `tools` is a tool, whatever it is.
            assert_eq!(uses.without(Uses::default().with(Use::Tools)), Uses::default(), "{value}");
        }
    }
}

#[test]
fn a_request_fits_a_target_that_can_do_all_it_asks_for() {
    let body = r#"{"tools":[{}],"temperature":0,"max_tokens":5,"messages":[{"content":[{"type":"image_url"}]}],"n":2}"#;
    let request = facts(Api::OpenaiChat, body);
    let target = |more: &[Use]| {
        let plain = Capabilities::default();
        Capabilities { uses: more.iter().fold(plain.uses, |uses, &one| uses.with(one)), ..plain }
    };
    assert_eq!(misfit(&request, &target(&[])), Some(Misfit::Lacks(Use::Vision)));
    assert_eq!(misfit(&request, &target(&[Use::Vision])), Some(Misfit::Lacks(Use::Choices)));
    assert_eq!(misfit(&request, &target(&[Use::Vision, Use::Choices, Use::Audio])), None);
    // With a list of its own a target can do what stands there and nothing else.
    let listed = Capabilities { uses: Uses::default().with(Use::Vision), max_output_tokens: None };
    assert_eq!(misfit(&request, &listed), Some(Misfit::Lacks(Use::Tools)));
    assert_eq!(misfit(&RequestFacts::default(), &listed), None);
}

#[test]
fn every_use_alone_is_a_misfit_where_it_is_lacking() {
    for &one in Use::ALL {
        let request = RequestFacts { uses: Uses::default().with(one), ..RequestFacts::default() };
        let nothing = Capabilities { uses: Uses::default(), max_output_tokens: None };
        let found = misfit(&request, &nothing);
        assert_eq!(found, Some(Misfit::Lacks(one)));
        assert_eq!(found.map(Misfit::note), Some(format!("downgrade_misfit:{}", one.name())));
        let everything = Capabilities { uses: request.uses, ..nothing };
        assert_eq!(misfit(&request, &everything), None);
    }
}

#[test]
fn thinking_must_fit_into_a_lowered_limit() {
    for (limit, budget, most, fits) in [
        (Some(64_000), Some(32_000), Some(64_000), true),
        (Some(64_000), Some(32_000), Some(32_001), true),
        (Some(64_000), Some(32_000), Some(32_000), false),
        (Some(64_000), Some(32_000), Some(8_000), false),
        (Some(64_000), None, Some(8_000), true),
        (Some(64_000), Some(32_000), None, true),
        // Not lowered: the request is what it is.
        (Some(1_000), Some(32_000), Some(8_000), true),
        (None, Some(32_000), Some(8_000), true),
    ] {
        let request = RequestFacts { max_output_tokens: limit, thinking_budget: budget, ..RequestFacts::default() };
        let target = Capabilities { max_output_tokens: most, ..Capabilities::default() };
        let expected = (!fits).then_some(Misfit::ThinkingBudget);
        assert_eq!(misfit(&request, &target), expected, "{limit:?} {budget:?} {most:?}");
    }
    assert_eq!(Misfit::ThinkingBudget.note(), "downgrade_misfit:thinking_budget");
    assert!(Use::ALL.iter().all(|one| one.name() != Misfit::ThinkingBudget.name()));
}

#[test]
fn invoked_models_read_only_what_is_written_for_their_family() {
    for (from, to, alike) in [
        ("anthropic.claude-opus-4-5-20251101-v1:0", "anthropic.claude-haiku-4-5-20251001-v1:0", true),
        ("us.anthropic.claude-opus-4-5-20251101-v1:0", "anthropic.claude-haiku-4-5-20251001-v1:0", true),
        ("arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-x", "eu.anthropic.claude-y", true),
        ("anthropic.claude-opus-4-5-20251101-v1:0", "amazon.nova-lite-v1:0", false),
        ("us-gov.amazon.nova-pro-v1:0", "amazon.nova-lite-v1:0", true),
        ("amazon.nova-pro-v1:0", "amazon.titan-text-lite-v1", false),
        ("zai.glm-4.6", "zai.glm-4-flash", true),
        ("us.meta.llama3-3-70b-instruct-v1:0", "us.mistral.mistral-7b", false),
        // Who knows what is behind these.
        ("arn:aws:bedrock:us-east-1:1:application-inference-profile/abc", "anthropic.claude-y", false),
        ("abc", "abc", false),
    ] {
        assert_eq!(reads_alike(Api::BedrockInvoke, from, to), alike, "{from} {to}");
        assert_eq!(reads_alike(Api::BedrockInvoke, to, from), alike, "{to} {from}");
        assert!(reads_alike(Api::BedrockConverse, from, to));
    }
}

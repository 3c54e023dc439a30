//! Ollama's own API: lines of JSON unless `stream` is false. The last line has the counts; the prompt's is missing
//! where the prompt was cached, which means unknown, not zero.
//! Source: <https://github.com/ollama/ollama/blob/main/docs/api.md>.

use super::uses::Use;
use super::{Dialect, Format, PLAIN, ReplyField, RequestField, openai};
use crate::body::json::{Place, container_each, each, key, pieces, within};

const IMAGES: Place<RequestField> = within("images", &[each(RequestField::Media(Use::Vision))]);

/// `POST /api/chat` and `/api/generate`.
pub(super) static CHAT: Format = Format {
    name: "ollama_chat",
    operation: "chat",
    request: &[
        key("model", RequestField::Model),
        key("stream", RequestField::Stream),
        within("options", &[key("num_predict", RequestField::MaxOutputTokens)]),
        within("messages", &[container_each(RequestField::Message, &[IMAGES])]),
        IMAGES,
        openai::TOOLS,
        key("format", RequestField::Use(Use::StructuredOutput)),
        key("think", RequestField::Use(Use::Reasoning)),
        key("logprobs", RequestField::Use(Use::Logprobs)),
    ],
    reply: &[
        key("model", ReplyField::Model),
        key("done", ReplyField::Done),
        key("done_reason", ReplyField::FinishReason),
        key("error", ReplyField::Error),
        key("prompt_eval_count", ReplyField::BareCount(|usage| &mut usage.input)),
        key("eval_count", ReplyField::BareCount(|usage| &mut usage.output)),
        within("message", &[pieces("content", ReplyField::Text), pieces("thinking", ReplyField::Text)]),
        pieces("response", ReplyField::Text),
    ],
    dialect: Dialect::Ollama,
    ..PLAIN
};

/// `POST /api/embed` and `/api/embeddings`.
pub(super) static EMBED: Format = Format {
    name: "ollama_embed",
    operation: "embeddings",
    request: &[key("model", RequestField::Model)],
    reply: &[
        key("model", ReplyField::Model),
        key("prompt_eval_count", ReplyField::BareCount(|usage| &mut usage.input)),
    ],
    dialect: Dialect::Ollama,
    ..PLAIN
};

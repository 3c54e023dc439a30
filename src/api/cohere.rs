//! Cohere: chat v1 and v2, embed, rerank. `billed_units` are what is billed; `tokens` beside them count a preamble
//! that is free. Source: <https://docs.cohere.com/reference/chat>.

use super::uses::Use;
use super::{Dialect, Format, PLAIN, ReplyField, RequestField, anthropic, count, openai};
use crate::body::json::{Place, Places, container, container_each, key, pieces, within, within_each};
use crate::usage::{Rule, Unit};

pub(super) const BILLED_UNITS: Places<ReplyField> = &[
    key("input_tokens", count(|usage| &mut usage.input)),
    key("output_tokens", count(|usage| &mut usage.output)),
    key("search_units", ReplyField::Unit(Unit::SearchUnits)),
];

const BILLED: Place<ReplyField> = container("billed_units", ReplyField::Usage, BILLED_UNITS);

pub(super) const META: Place<ReplyField> = within("meta", &[BILLED]);

/// `cached_tokens` stands beside `billed_units`, of which it is a part.
const USAGE: Place<ReplyField> = within("usage", &[BILLED]);

/// `POST /v1/chat` and `/v2/chat`.
pub(super) static CHAT: Format = Format {
    name: "cohere_chat",
    operation: "chat",
    request: &[
        key("model", RequestField::Model),
        key("stream", RequestField::Stream),
        key("max_tokens", RequestField::MaxOutputTokens),
        within("messages", &[container_each(RequestField::Message, &[openai::CONTENT])]),
        openai::TOOLS,
        openai::TOOL_CHOICE,
        openai::RESPONSE_FORMAT,
        openai::TEMPERATURE,
        key("logprobs", RequestField::Use(Use::Logprobs)),
        anthropic::THINKING,
    ],
    reply: &[
        key("id", ReplyField::Id),
        key("finish_reason", ReplyField::FinishReason),
        within("message", &[within("content", &[within_each(&[pieces("text", ReplyField::Text)])])]),
        USAGE,
        META,
        key("type", ReplyField::EventType),
        within(
            "delta",
            &[
                key("finish_reason", ReplyField::FinishReason),
                USAGE,
                within("message", &[within("content", &[pieces("text", ReplyField::Text)])]),
            ],
        ),
        key("event_type", ReplyField::EventType),
        pieces("text", ReplyField::Text),
        within("response", &[key("finish_reason", ReplyField::FinishReason), META]),
    ],
    dialect: Dialect::Cohere,
    ..PLAIN
};

/// `POST /v1/embed` and `/v2/embed`.
pub(super) static EMBED: Format = Format {
    name: "cohere_embed",
    operation: "embeddings",
    request: &[key("model", RequestField::Model)],
    reply: &[
        key("id", ReplyField::Id),
        within(
            "meta",
            &[container(
                "billed_units",
                ReplyField::Usage,
                &[
                    key("input_tokens", count(|usage| &mut usage.input)),
                    key("image_tokens", count(|usage| &mut usage.input_image)),
                    key("images", ReplyField::Unit(Unit::Images)),
                ],
            )],
        ),
    ],
    rule: Rule::ImagesApart,
    dialect: Dialect::Cohere,
    ..PLAIN
};

/// `POST …/rerank`. Others took the path over (Voyage, Together) and count tokens.
pub(super) static RERANK: Format = Format {
    name: "cohere_rerank",
    operation: "rerank",
    request: &[key("model", RequestField::Model)],
    reply: &[key("id", ReplyField::Id), key("model", ReplyField::Model), META, openai::USAGE],
    dialect: Dialect::Cohere,
    ..PLAIN
};

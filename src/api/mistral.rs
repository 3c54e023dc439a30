//! Mistral's own: OCR, billed by the page. Its chat is OpenAI's.
//! Source: <https://docs.mistral.ai/api/#tag/ocr>.

use super::{Format, PLAIN, ReplyField, RequestField};
use crate::body::json::{key, within};
use crate::usage::Unit;

/// `POST /v1/ocr`.
pub(super) static OCR: Format = Format {
    name: "mistral_ocr",
    operation: "ocr",
    request: &[key("model", RequestField::Model)],
    reply: &[
        key("model", ReplyField::Model),
        within("usage_info", &[key("pages_processed", ReplyField::Unit(Unit::Pages))]),
    ],
    ..PLAIN
};

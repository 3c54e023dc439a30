//! What the command reads: files, or standard input where the name is `-`.

use crate::document::{Dialect, Document};
use anyhow::{Context, bail};
use std::fs;
use std::io::{self, Read};
use std::path::Path;

/// Largest file that is read whole: a full price table has a few MB.
const MAX_BYTES: u64 = 1 << 30;

/// The bytes of a file, or of standard input.
pub(crate) fn bytes(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin().lock().take(MAX_BYTES + 1).read_to_end(&mut bytes)
    } else {
        fs::File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
    };
    let size = read.with_context(|| format!("cannot read {}", name(path)))?;
    if u64::try_from(size).is_ok_and(|size| size > MAX_BYTES) {
        bail!("{} is larger than {} MiB", name(path), MAX_BYTES >> 20);
    }
    Ok(bytes)
}

/// The text of a file, or of standard input.
pub(crate) fn text(path: &Path) -> anyhow::Result<String> {
    let text = String::from_utf8(bytes(path)?);
    let text = text.with_context(|| format!("{} is not UTF-8 text", name(path)))?;
    // Editors on Windows write a byte order mark.
    Ok(text.strip_prefix('\u{feff}').map(String::from).unwrap_or(text))
}

/// The YAML or JSON in a file, told apart by the file's ending, else by the first character.
pub(crate) fn document(path: &Path) -> anyhow::Result<Document> {
    let text = text(path)?;
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
    let dialect = match ending.as_str() {
        "json" => Dialect::Json,
        "yaml" | "yml" => Dialect::Yaml,
        _ if text.trim_start().starts_with(['{', '[']) => Dialect::Json,
        _ => Dialect::Yaml,
    };
    Document::parse(&text, dialect).map_err(|error| anyhow::anyhow!("{}:{error}", name(path)))
}

/// How a file is called in messages.
pub(crate) fn name(path: &Path) -> String {
    if path == Path::new("-") { "<stdin>".into() } else { path.display().to_string() }
}

//! YAML to a tree.

use super::{Entry, MAX_DEPTH, Node, Position, SyntaxError, Value};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag};
use std::collections::HashMap;

/// Values that aliases may copy in one file, so that a few lines cannot ask for all memory.
const MAX_COPIED_VALUES: usize = 1_000_000;

/// The documents of `text`.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, SyntaxError> {
    let mut builder = Builder { text, parser: Parser::new_from_str(text), anchors: HashMap::new(), copied: 0 };
    let mut roots = Vec::new();
    loop {
        match builder.next()? {
            (Event::StreamEnd, _) => return Ok(roots),
            (Event::DocumentStart(_), _) => {
                let event = builder.next()?;
                roots.push(builder.node(event, 0)?);
            }
            _ => {}
        }
    }
}

type Spanned<'t> = (Event<'t>, Span);

struct Builder<'t> {
    text: &'t str,
    parser: Parser<'t, saphyr_parser::StrInput<'t>>,
    anchors: HashMap<usize, Node>,
    copied: usize,
}

impl<'t> Builder<'t> {
    fn next(&mut self) -> Result<Spanned<'t>, SyntaxError> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                Err(SyntaxError { at: position(error.marker()), message: format!("not valid YAML: {}", error.info()) })
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    /// The value that begins with `event`.
    fn node(&mut self, (event, span): Spanned<'t>, depth: usize) -> Result<Node, SyntaxError> {
        let at = position(&span.start);
        if depth > MAX_DEPTH {
            return Err(SyntaxError { at, message: format!("nested deeper than {MAX_DEPTH} levels") });
        }
        let (value, anchor) = match event {
            Event::Alias(anchor) => return self.copy(anchor, at),
            Event::Scalar(text, style, anchor, tag) => (self.scalar(&text, style, tag.as_deref(), &span), anchor),
            Event::SequenceStart(anchor, _) => {
                let mut elements = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd | Event::StreamEnd, _) => break,
                        event => elements.push(self.node(event, depth + 1)?),
                    }
                }
                (Value::List(elements), anchor)
            }
            Event::MappingStart(anchor, _) => (Value::Map(self.entries(depth)?), anchor),
            // The parser's grammar lets nothing else stand here.
            _ => (Value::Plain(String::new()), 0),
        };
        let node = Node { at, value };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn entries(&mut self, depth: usize) -> Result<Vec<Entry>, SyntaxError> {
        let mut entries = Vec::new();
        loop {
            let event = self.next()?;
            if matches!(event.0, Event::MappingEnd | Event::StreamEnd) {
                return Ok(entries);
            }
            // Envoy leaves out what is under such a key; it is where anchors are put.
            let ignored = matches!(&event.0, Event::Scalar(_, _, _, Some(tag)) if tag.suffix == "ignore");
            let key = self.node(event, depth + 1)?;
            let value = self.next()?;
            let value = self.node(value, depth + 1)?;
            match key.text() {
                _ if ignored => {}
                Some(text) => entries.push(Entry { at: key.at, key: text.into(), value }),
                None => return Err(SyntaxError { at: key.at, message: "a key must be a string".into() }),
            }
        }
    }

    /// A scalar, a string for certain where quotes or `!` say so. To Envoy any other tag makes it as good as plain.
    fn scalar(&self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: &Span) -> Value {
        let text = text.to_owned();
        match (tag, style) {
            (Some(tag), _) if !is_unspecific(tag) => Value::Plain(text),
            (None, ScalarStyle::Plain) => Value::Plain(text),
            (None, ScalarStyle::Literal) => Value::Text { block: self.first_line(span), text },
            _ => Value::Text { text, block: None },
        }
    }

    /// Where the first line of a `|` block stands; the span begins in that line.
    fn first_line(&self, span: &Span) -> Option<Position> {
        let line = span.start.line();
        let column = self.text.lines().nth(line - 1)?.chars().take_while(|&c| c == ' ').count() + 1;
        Some(Position { line, column })
    }

    /// What an alias stands for, at the place of the alias.
    fn copy(&mut self, anchor: usize, at: Position) -> Result<Node, SyntaxError> {
        let Some(node) = self.anchors.get(&anchor) else {
            return Err(SyntaxError { at, message: "an alias inside of what it stands for".into() });
        };
        self.copied = self.copied.saturating_add(size(node));
        if self.copied > MAX_COPIED_VALUES {
            return Err(SyntaxError { at, message: "aliases copy too much".into() });
        }
        Ok(Node { at, value: node.value.clone() })
    }
}

/// A `!` by itself, which says what quotes say.
fn is_unspecific(tag: &Tag) -> bool {
    [tag.handle.as_str(), tag.suffix.as_str()].concat() == "!"
}

fn size(node: &Node) -> usize {
    let below: usize = match &node.value {
        Value::Plain(_) | Value::Text { .. } => 0,
        Value::List(elements) => elements.iter().map(size).sum(),
        Value::Map(entries) => entries.iter().map(|entry| size(&entry.value)).sum(),
    };
    below.saturating_add(1)
}

fn position(marker: &Marker) -> Position {
    Position { line: marker.line(), column: marker.col() + 1 }
}

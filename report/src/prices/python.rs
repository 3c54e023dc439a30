//! Reads the data in genai-prices' `data.py`: one list of constructor calls with literals in them.
//!
//! The wheel has its prices as generated Python only. A call becomes a map of its keyword arguments, `Decimal('0.5')`
//! a number with its digits, a date or time its ISO text; that is the shape of the project's own `data.json`. Nothing
//! is run, and anything else Python can say is a syntax error.

use crate::document::{Entry, Node, Position, SyntaxError, Value};

/// Deeper nesting is refused rather than recursed into.
const MAX_DEPTH: usize = 64;

/// The value that is assigned to `providers`.
pub(crate) fn parse(text: &str) -> Result<Node, SyntaxError> {
    const NAME: &str = "\nproviders";
    let start = text.find(NAME).map(|at| at + 1);
    let value = start.and_then(|start| {
        let (head, _) = text.get(start..)?.split_once('\n')?;
        Some(start + head.find('=')? + 1)
    });
    let mut reader = Reader { text, at: value.unwrap_or_default(), line: 1, line_start: 0 };
    if value.is_none() {
        return Err(reader.error("expected a line `providers = [`"));
    }
    reader.count_lines(0);
    reader.value(0)
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    line: usize,
    line_start: usize,
}

impl<'t> Reader<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Counts the lines between `from` and where the reader stands.
    fn count_lines(&mut self, from: usize) {
        for (index, byte) in self.text.bytes().enumerate().take(self.at).skip(from) {
            if byte == b'\n' {
                self.line += 1;
                self.line_start = index + 1;
            }
        }
    }

    fn position(&self) -> Position {
        let before = self.text.get(self.line_start..self.at).unwrap_or_default();
        Position { line: self.line, column: before.chars().count() + 1 }
    }

    fn error(&self, message: &str) -> SyntaxError {
        SyntaxError { at: self.position(), message: message.into() }
    }

    fn skip_space(&mut self) {
        loop {
            let rest = self.rest();
            let comment = if rest.starts_with('#') { rest.find('\n').unwrap_or(rest.len()) } else { 0 };
            let space = rest.len() - rest.trim_start().len();
            if comment + space == 0 {
                return;
            }
            let from = self.at;
            self.at += comment.max(space);
            self.count_lines(from);
        }
    }

    fn take(&mut self, token: &str) -> bool {
        self.skip_space();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn expect(&mut self, token: &str) -> Result<(), SyntaxError> {
        if self.take(token) { Ok(()) } else { Err(self.error(&format!("expected `{token}`"))) }
    }

    /// The text as long as `accepts` does.
    fn word(&mut self, accepts: fn(char) -> bool) -> &'t str {
        let rest = self.rest();
        let end = rest.find(|c| !accepts(c)).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    fn value(&mut self, depth: usize) -> Result<Node, SyntaxError> {
        self.skip_space();
        let at = self.position();
        if depth > MAX_DEPTH {
            return Err(self.error("nested too deeply"));
        }
        let value = match self.rest().chars().next() {
            Some('[') => {
                self.at += 1;
                Value::List(self.items("]", |reader| reader.value(depth + 1))?)
            }
            Some('{') => {
                self.at += 1;
                Value::Map(self.items("}", |reader| {
                    reader.skip_space();
                    let at = reader.position();
                    let key = reader.string()?;
                    reader.expect(":")?;
                    Ok(Entry { at, key, value: reader.value(depth + 1)? })
                })?)
            }
            Some('\'' | '"') => {
                let mut text = self.string()?;
                // Strings that follow each other are one.
                while self.next_is_string() {
                    text.push_str(&self.string()?);
                }
                Value::Text { text, block: None }
            }
            Some(first) if first.is_ascii_digit() || first == '-' => {
                let number = self.word(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
                Value::Plain(number.replace('_', ""))
            }
            Some(first) if first.is_ascii_alphabetic() => {
                let name = self.word(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_'));
                match name {
                    "None" => Value::Plain("null".into()),
                    "True" => Value::Plain("true".into()),
                    "False" => Value::Plain("false".into()),
                    "datetime.UTC" => Value::Text { text: name.into(), block: None },
                    _ => {
                        self.expect("(")?;
                        self.call(name, depth)?
                    }
                }
            }
            _ => return Err(self.error("expected a value")),
        };
        Ok(Node { at, value })
    }

    fn next_is_string(&mut self) -> bool {
        self.skip_space();
        self.rest().starts_with(['\'', '"'])
    }

    fn items<T>(
        &mut self,
        end: &str,
        item: impl Fn(&mut Self) -> Result<T, SyntaxError>,
    ) -> Result<Vec<T>, SyntaxError> {
        let mut items = Vec::new();
        while !self.take(end) {
            items.push(item(self)?);
            if !self.take(",") {
                self.expect(end)?;
                break;
            }
        }
        Ok(items)
    }

    fn call(&mut self, name: &str, depth: usize) -> Result<Value, SyntaxError> {
        let arguments = self.items(")", |reader| {
            reader.skip_space();
            let at = reader.position();
            let start = reader.at;
            let key = reader.word(|c| c.is_ascii_alphanumeric() || c == '_');
            if !key.is_empty() && reader.take("=") {
                // `or_` and `and_` have their bar because Python has no such names.
                return Ok(Entry { at, key: key.trim_end_matches('_').into(), value: reader.value(depth + 1)? });
            }
            reader.at = start;
            Ok(Entry { at, key: String::new(), value: reader.value(depth + 1)? })
        })?;
        let parts =
            || arguments.iter().filter(|argument| argument.key.is_empty()).map(|argument| argument.value.text());
        let number = |part: Option<&str>| part.and_then(|part| part.parse::<u32>().ok());
        match name {
            "Decimal" => match parts().next() {
                Some(Some(digits)) => Ok(Value::Plain(digits.into())),
                _ => Err(self.error("expected the digits of a Decimal")),
            },
            "datetime.date" | "datetime.time" => {
                let numbers: Option<Vec<u32>> = parts().map(number).collect();
                let is_utc = |zone: &Entry| zone.key == "tzinfo" && zone.value.text() == Some("datetime.UTC");
                let known = arguments.iter().all(|argument| argument.key.is_empty() || is_utc(argument));
                let text = match (name, numbers.as_deref()) {
                    ("datetime.date", Some([year, month, day])) => format!("{year:04}-{month:02}-{day:02}"),
                    ("datetime.time", Some([hour, minute])) => format!("{hour:02}:{minute:02}"),
                    _ => return Err(self.error("expected a date or a time of day")),
                };
                if known { Ok(Value::Text { text, block: None }) } else { Err(self.error("expected a time in UTC")) }
            }
            _ if arguments.iter().all(|argument| !argument.key.is_empty()) => Ok(Value::Map(arguments)),
            _ => Err(self.error(&format!("expected named arguments of {name}"))),
        }
    }

    /// A string without a prefix, on one line.
    fn string(&mut self) -> Result<String, SyntaxError> {
        self.skip_space();
        let rest = self.rest();
        let mut chars = rest.char_indices();
        let Some((_, quote @ ('\'' | '"'))) = chars.next() else { return Err(self.error("expected a string")) };
        let mut text = String::new();
        while let Some((index, c)) = chars.next() {
            match c {
                _ if c == quote => {
                    self.at += index + 1;
                    return Ok(text);
                }
                '\n' => break,
                '\\' => {
                    let escaped = chars.next().map(|(_, c)| c);
                    let digits = match escaped {
                        Some('x') => 2,
                        Some('u') => 4,
                        Some('U') => 8,
                        _ => 0,
                    };
                    let plain = match escaped {
                        Some('n') => Some('\n'),
                        Some('t') => Some('\t'),
                        Some('r') => Some('\r'),
                        Some(c @ ('\\' | '\'' | '"')) => Some(c),
                        _ if digits > 0 => {
                            let code = chars
                                .by_ref()
                                .take(digits)
                                .try_fold(0, |code, (_, c)| Some(code * 16 + c.to_digit(16)?));
                            code.and_then(char::from_u32)
                        }
                        _ => None,
                    };
                    text.push(plain.ok_or_else(|| self.error("an escape this reader does not know"))?);
                }
                _ => text.push(c),
            }
        }
        Err(self.error("a string that does not end on its line"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Numbers;

    fn json(python: &str) -> Result<String, String> {
        let node =
            parse(&format!("import x\n\nproviders: list[Provider] = {python}\n")).map_err(|error| error.to_string())?;
        Ok(node.to_json(Numbers::AsWritten))
    }

    #[test]
    fn calls_become_maps_and_literals_keep_their_digits() {
        for (python, expected) in [
            ("[]", "[]"),
            ("[Provider(id='x', models=[],),]", r#"[{"id":"x","models":[]}]"#),
            ("[Tier(start=200_000, price=Decimal('0.50'))]", r#"[{"start":200000,"price":0.50}]"#),
            (
                "[C(or_=[E(equals=\"it's\")], deprecated=True, x=None)]",
                r#"[{"or":[{"equals":"it's"}],"deprecated":true,"x":null}]"#,
            ),
            ("[D(start_date=datetime.date(2026, 3, 1))]", r#"[{"start_date":"2026-03-01"}]"#),
            ("[T(start_time=datetime.time(0, 30, tzinfo=datetime.UTC))]", r#"[{"start_time":"00:30"}]"#),
            ("[P(when={'speed': 'fast'})]", r#"[{"when":{"speed":"fast"}}]"#),
            ("[  # a comment\n 'a\\\\.b' 'c\\xe9\\u20ac']", r#"["a\\.bcé€"]"#),
        ] {
            assert_eq!(json(python).as_deref(), Ok(expected), "{python}");
        }
    }

    #[test]
    fn what_is_not_data_is_refused_with_its_place() {
        for (python, error) in [
            ("[open('x')]", "3:39: expected named arguments of open"),
            ("[x]", "3:31: expected `(`"),
            ("[\n  'a\n']", "4:3: a string that does not end on its line"),
            ("[Decimal(1), datetime.time(1, 2, tzinfo=Berlin())]", "3:78: expected a time in UTC"),
            ("", "4:1: expected a value"),
        ] {
            assert_eq!(json(python), Err(error.to_owned()), "{python}");
        }
        assert!(parse("x = 1").is_err());
    }
}

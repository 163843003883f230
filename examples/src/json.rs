//! JSON: values, a strict reader with a depth limit, a writer. Numbers keep their text, so nothing is rounded.

use std::fmt::{self, Write as _};

/// Deepest nesting that is read.
pub const DEPTH_MAX: usize = 64;

/// A JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, as written.
    Number(String),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Json>),
    /// An object; the order is kept.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// An integer.
    pub fn integer(n: impl Into<i128>) -> Self {
        Self::Number(n.into().to_string())
    }

    /// An object of these fields.
    pub fn object<K: Into<String>>(fields: impl IntoIterator<Item = (K, Json)>) -> Self {
        Self::Object(fields.into_iter().map(|(k, v)| (k.into(), v)).collect())
    }

    /// An object of texts.
    pub fn texts(fields: impl IntoIterator<Item = (String, String)>) -> Self {
        Self::object(fields.into_iter().map(|(k, v)| (k, Self::Text(v))))
    }

    /// The field of that name, if this is an object that has it.
    #[must_use]
    pub fn get(&self, field: &str) -> Option<&Json> {
        match self {
            Self::Object(fields) => fields.iter().find(|(k, _)| k == field).map(|(_, v)| v),
            _ => None,
        }
    }

    /// The integer, if this is one that fits.
    #[must_use]
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Number(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// Reads one value and nothing after it. The error says where, in bytes from the start, and what.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut reader = Reader { text, at: 0 };
        let value = reader.value(0)?;
        reader.space();
        if reader.at == text.len() { Ok(value) } else { Err(reader.fault("something after the end")) }
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(b) => write!(f, "{b}"),
            Self::Number(n) => f.write_str(n),
            Self::Text(t) => write_text(f, t),
            Self::List(items) => {
                f.write_char('[')?;
                for (i, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if i == 0 { "" } else { "," })?;
                }
                f.write_char(']')
            }
            Self::Object(fields) => {
                f.write_char('{')?;
                for (i, (key, value)) in fields.iter().enumerate() {
                    f.write_str(if i == 0 { "" } else { "," })?;
                    write_text(f, key)?;
                    write!(f, ":{value}")?;
                }
                f.write_char('}')
            }
        }
    }
}

fn write_text(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            c if c < ' ' => write!(f, "\\u{:04x}", c as u32)?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn fault(&self, what: &str) -> String {
        format!("byte {}: {what}", self.at)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.text[self.at..].starts_with(word);
        if found {
            self.at += word.len();
        }
        found
    }

    fn value(&mut self, depth: usize) -> Result<Json, String> {
        if depth > DEPTH_MAX {
            return Err(self.fault("nested too deeply"));
        }
        self.space();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.list(depth),
            Some(b'"') => self.string().map(Json::Text),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ if self.take("true") => Ok(Json::Bool(true)),
            _ if self.take("false") => Ok(Json::Bool(false)),
            _ if self.take("null") => Ok(Json::Null),
            _ => Err(self.fault("a value was expected")),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, String> {
        let mut fields = Vec::new();
        self.at += 1;
        self.space();
        if self.take("}") {
            return Ok(Json::Object(fields));
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(self.fault("a field name was expected"));
            }
            let key = self.string()?;
            self.space();
            if !self.take(":") {
                return Err(self.fault("':' was expected"));
            }
            fields.push((key, self.value(depth + 1)?));
            self.space();
            if self.take("}") {
                return Ok(Json::Object(fields));
            }
            if !self.take(",") {
                return Err(self.fault("',' or '}' was expected"));
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Json, String> {
        let mut items = Vec::new();
        self.at += 1;
        self.space();
        if self.take("]") {
            return Ok(Json::List(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.space();
            if self.take("]") {
                return Ok(Json::List(items));
            }
            if !self.take(",") {
                return Err(self.fault("',' or ']' was expected"));
            }
        }
    }

    fn number(&mut self) -> Result<Json, String> {
        let start = self.at;
        self.take("-");
        let int = self.digits();
        if int == 0 || (int > 1 && self.text.as_bytes()[self.at - int] == b'0') {
            return Err(self.fault("not a number"));
        }
        if self.take(".") && self.digits() == 0 {
            return Err(self.fault("digits were expected"));
        }
        if self.take("e") || self.take("E") {
            let _signed = self.take("+") || self.take("-");
            if self.digits() == 0 {
                return Err(self.fault("digits were expected"));
            }
        }
        Ok(Json::Number(self.text[start..self.at].to_owned()))
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at - start
    }

    fn string(&mut self) -> Result<String, String> {
        let mut text = String::new();
        self.at += 1;
        loop {
            let rest = &self.text[self.at..];
            let c = rest.chars().next().ok_or_else(|| self.fault("the text does not end"))?;
            self.at += c.len_utf8();
            match c {
                '"' => return Ok(text),
                '\\' => text.push(self.escape()?),
                c if c < ' ' => return Err(self.fault("a control character in a text")),
                c => text.push(c),
            }
        }
    }

    fn escape(&mut self) -> Result<char, String> {
        let c = self.peek().ok_or_else(|| self.fault("the text does not end"))?;
        self.at += 1;
        Ok(match c {
            b'"' | b'\\' | b'/' => char::from(c),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => match self.unit()? {
                high @ 0xd800..0xdc00 if self.take("\\u") => {
                    let low = self.unit()?;
                    let pair = 0x10000 + ((high - 0xd800) << 10) + low.wrapping_sub(0xdc00);
                    let low_half = (0xdc00..0xe000).contains(&low);
                    char::from_u32(pair).filter(|_| low_half).unwrap_or(char::REPLACEMENT_CHARACTER)
                }
                unit => char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER),
            },
            _ => return Err(self.fault("an unknown escape")),
        })
    }

    fn unit(&mut self) -> Result<u32, String> {
        let digits = self.text.get(self.at..self.at + 4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let digits = digits.ok_or_else(|| self.fault("four hexadecimal digits were expected"))?;
        self.at += 4;
        u32::from_str_radix(digits, 16).map_err(|_| self.fault("four hexadecimal digits were expected"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_back() {
        for text in [
            r#"{"a":[1,-2.5e3,true,false,null],"b":{"c":"x\"\\\n"},"":[]}"#,
            "[]",
            "{}",
            "0",
            r#""é😀""#,
            "123456789012345678901234567890",
        ] {
            assert_eq!(Json::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Json::parse(r#" "\u0041\ud83d\ude00\ud800\t" "#).unwrap(), Json::text("A😀\u{fffd}\t"));
        assert_eq!(Json::text("\u{1}").to_string(), "\"\\u0001\"");
    }

    #[test]
    fn malformed_texts_are_refused() {
        let deep = "[".repeat(100_000);
        for text in [
            "",
            " ",
            "{",
            "[1,]",
            "{\"a\"}",
            "{\"a\":1,}",
            "{a:1}",
            "01",
            "1.",
            "-",
            "1e",
            "tru",
            "\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u12é\"",
            "1 2",
            "\"\n\"",
            "[1 2]",
            "\"\\ud800\\u",
            &deep,
        ] {
            assert!(Json::parse(text).is_err(), "{text:.20}");
        }
        assert!(Json::parse(&format!("{}{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX))).is_ok());
    }

    #[test]
    fn fields_and_integers() {
        let value = Json::parse(r#"{"exit":3,"x":"3","y":1.5}"#).unwrap();
        assert_eq!(value.get("exit").and_then(Json::as_integer), Some(3));
        assert_eq!(value.get("x").and_then(Json::as_integer), None);
        assert_eq!(value.get("y").and_then(Json::as_integer), None);
        assert_eq!(value.get("z"), None);
    }
}

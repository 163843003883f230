//! Where words go: results to standard output, progress to standard error. Whatever others wrote is cleaned of control
//! characters first, so that no name or message can play with the terminal.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::args::Format;
use crate::error::CliError;

/// Aligned columns.
pub mod table;
/// Colour.
pub mod style;

use style::Style;

/// Standard output and standard error.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// Colour of what is printed.
    pub style: Style,
    /// Colour of what is told meanwhile.
    pub progress_style: Style,
}

impl Output {
    /// Colour where it is wanted and can be seen.
    #[must_use]
    pub fn new(no_colour: bool) -> Self {
        Self { style: Style::of(&io::stdout(), no_colour), progress_style: Style::of(&io::stderr(), no_colour) }
    }

    /// Prints a result.
    ///
    /// # Errors
    /// When nobody reads it any more.
    pub fn print(&self, text: &str) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(CliError::Output)
    }

    /// Prints a document in a machine's form, or what `words` makes of it.
    ///
    /// # Errors
    /// When nobody reads it any more.
    pub fn document<T: Serialize>(
        &self,
        format: Format,
        document: &T,
        words: impl FnOnce(Format, Style) -> String,
    ) -> Result<(), CliError> {
        match format {
            Format::Json => self.print(&json(document)),
            Format::Yaml => self.print(&yaml(document)),
            Format::Table | Format::Wide | Format::Name => self.print(&words(format, self.style)),
        }
    }

    /// Tells what is under way. Nobody has to read it.
    pub fn tell(&self, line: &str) {
        let mut err = io::stderr().lock();
        drop(writeln!(err, "{line}"));
    }

    /// Whether results go to a terminal.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    /// Whether a person is there to be asked.
    #[must_use]
    pub fn is_interactive(&self) -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }
}

/// A document as JSON, with a line break at its end.
#[must_use]
pub fn json<T: Serialize>(document: &T) -> String {
    // What came as JSON can be written as JSON.
    serde_json::to_string_pretty(document).unwrap_or_default() + "\n"
}

/// A document as YAML, with a line break at its end.
#[must_use]
pub fn yaml<T: Serialize>(document: &T) -> String {
    let text = serde_saphyr::to_string(document).unwrap_or_default();
    text.trim_end().to_owned() + "\n"
}

/// The text without control characters: on one line, and harmless to a terminal.
#[must_use]
pub fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        // The second kind turns text around.
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || turns { clean.extend(c.escape_default()) } else { clean.push(c) }
    }
    clean
}

/// A line of a log as [`clean`] leaves it, with its tabs and its colours.
#[must_use]
pub fn clean_log(line: &str) -> String {
    let mut cleaned = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find(['\t', '\u{1b}']) {
        cleaned.push_str(&clean(&rest[..at]));
        let tail = &rest[at..];
        let kept = if tail.starts_with('\t') { 1 } else { colour(tail) };
        cleaned.push_str(&tail[..kept]);
        // An escape that is no colour is cleaned as any other character.
        let next = if kept == 0 { 1 } else { kept };
        cleaned.push_str(&clean(&tail[kept..next]));
        rest = &tail[next..];
    }
    cleaned + &clean(rest)
}

/// Length of the escape sequence at the beginning of the text if it sets a colour; otherwise 0.
fn colour(text: &str) -> usize {
    let Some(parameters) = text.strip_prefix("\u{1b}[") else { return 0 };
    let length = parameters.bytes().take_while(|b| b.is_ascii_digit() || *b == b';').count();
    if parameters[length..].starts_with('m') { 2 + length + 1 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_plays_with_the_terminal() {
        assert_eq!(clean("a\u{1b}[31mb\r\nc\u{9b}\u{202e}ü"), "a\\u{1b}[31mb\\r\\nc\\u{9b}\\u{202e}ü");
    }

    #[test]
    fn logs_keep_tabs_and_colours_alone() {
        assert_eq!(clean_log("a\tb\u{1b}[1;31mc\u{1b}[0m"), "a\tb\u{1b}[1;31mc\u{1b}[0m");
        assert_eq!(clean_log("\u{1b}[2Jx\u{1b}\u{7}\u{1b}[31"), "\\u{1b}[2Jx\\u{1b}\\u{7}\\u{1b}[31");
    }

    #[test]
    fn documents_keep_what_they_say() {
        let document = serde_json::json!({"a": {"b": ["no", 1, null, "1"]}, "c": "x: y"});
        let back: serde_json::Value = serde_saphyr::from_str(&yaml(&document)).unwrap();
        assert_eq!(back, document);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json(&document)).unwrap(), document);
    }
}

//! Colour: on terminals alone, and never where NO_COLOR is set.

use std::io::IsTerminal;

/// What a word means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    /// Nothing in particular.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// On its way, or worth a look.
    Wait,
    /// Wrong.
    Bad,
    /// Less important.
    Faint,
}

/// Whether there is colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style(bool);

impl Style {
    /// No colour.
    pub const NONE: Self = Self(false);

    /// Colour if that is a terminal and colour is not unwanted.
    pub fn of(stream: &impl IsTerminal, no_colour: bool) -> Self {
        Self(!no_colour && stream.is_terminal())
    }

    /// The text in its colour.
    #[must_use]
    pub fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            _ if !self.0 || text.is_empty() => return text.to_owned(),
            Tone::Plain => return text.to_owned(),
            Tone::Good => 32,
            Tone::Wait => 33,
            Tone::Bad => 31,
            Tone::Faint => 2,
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_there_only_if_wanted() {
        assert_eq!(Style::NONE.paint(Tone::Bad, "x"), "x");
        assert_eq!(Style(true).paint(Tone::Bad, "x"), "\u{1b}[31mx\u{1b}[0m");
        assert_eq!(Style(true).paint(Tone::Plain, "x"), "x");
    }
}

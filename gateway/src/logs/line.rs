//! One line of a log: as the cluster writes it, and as a caller reads it. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;

use super::request::Form;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When it was written.
    pub at: Timestamp,
    /// By which pod.
    pub pod: Arc<str>,
    /// What.
    pub text: String,
}

impl Line {
    /// Reads `2026-01-31T10:00:00.123456789Z text`.
    #[must_use]
    pub fn parse(pod: &Arc<str>, line: &str) -> Option<Self> {
        let (at, text) = line.split_once(' ').unwrap_or((line, ""));
        Some(Self { at: at.parse().ok()?, pod: Arc::clone(pod), text: text.to_owned() })
    }

    /// The line in this form.
    #[must_use]
    pub fn render(&self, form: Form) -> String {
        match form {
            Form::Text { timestamps: false } => format!("{}\n", self.text),
            Form::Text { timestamps: true } => format!("{} {}\n", self.at, self.text),
            Form::Events => {
                let data = json!({"timestamp": self.at.to_string(), "pod": &*self.pod, "line": self.text});
                format!("id: {}\nevent: log\ndata: {data}\n\n", self.at)
            }
        }
    }
}

/// That so many lines are missing here, in this form.
#[must_use]
pub fn render_gap(lost: u64, form: Form) -> String {
    match form {
        Form::Text { .. } => format!("--- {lost} lines are missing here: they were not read fast enough ---\n"),
        Form::Events => format!("event: gap\ndata: {}\n\n", json!({"lost": lost})),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_written() {
        let pod: Arc<str> = "p".into();
        let line = Line::parse(&pod, "2026-01-31T10:00:00.123456789Z a \"b\"\u{1}").unwrap();
        assert_eq!(line.text, "a \"b\"\u{1}");
        assert_eq!(line.render(Form::Text { timestamps: false }), "a \"b\"\u{1}\n");
        assert_eq!(line.render(Form::Text { timestamps: true }), "2026-01-31T10:00:00.123456789Z a \"b\"\u{1}\n");
        let event = line.render(Form::Events);
        assert!(event.starts_with("id: 2026-01-31T10:00:00.123456789Z\nevent: log\ndata: {"), "{event}");
        assert!(event.ends_with("}\n\n") && event.matches('\n').count() == 4, "{event}");
        assert_eq!(Line::parse(&pod, "2026-01-31T10:00:00Z").unwrap().text, "");
        assert_eq!(Line::parse(&pod, "no time"), None);
        assert_eq!(render_gap(3, Form::Events), "event: gap\ndata: {\"lost\":3}\n\n");
    }
}

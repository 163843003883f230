//! What a run gave back, from what it wrote: into its result file, or else as its last line of JSON. Pure.

use eventflow_api::invocation::{RESULT_FILE_MAX, RESULT_MAX};
use serde_json::Value;

/// How much of the end of a log is kept in the record, in bytes.
pub(super) const LOG_TAIL_MAX: usize = 16 * 1024;
/// How much of the end of a log is looked at: a result, and what may follow it.
pub(super) const LOOKED_AT_MAX: usize = RESULT_MAX + LOG_TAIL_MAX;
/// Lines looked at from the end; standard error, which comes in the same stream, may follow the result.
const LINES_MAX: usize = 50;

/// The result: what is in the file if anything is, or else the last line of the log that is a JSON object or list, or the
/// very last one if it is any JSON. A file that was cut off by its limit is no result.
pub(super) fn result(file: Option<&str>, log: &str) -> Option<String> {
    if let Some(file) = file.map(str::trim).filter(|file| !file.is_empty() && file.len() < RESULT_FILE_MAX - 4) {
        return Some(storable(file));
    }
    let mut lines = log.lines().rev().map(str::trim).filter(|line| !line.is_empty()).take(LINES_MAX).enumerate();
    let found = lines.find(|(place, line)| match serde_json::from_str::<Value>(line) {
        Ok(Value::Object(_) | Value::Array(_)) => true,
        Ok(_) => *place == 0,
        Err(_) => false,
    });
    found.map(|(_, line)| line.to_owned()).filter(|line| line.len() <= RESULT_MAX)
}

/// The last lines of a log, whole ones unless there is only one.
pub(super) fn tail(log: &str) -> Option<String> {
    let log = log.trim_end();
    if log.is_empty() {
        return None;
    }
    let from = log.len().saturating_sub(LOG_TAIL_MAX);
    let from = (from..log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(0);
    let whole = match log[from..].find('\n') {
        Some(end) if from > 0 => from + end + 1,
        _ => from,
    };
    Some(storable(&log[whole..]))
}

/// PostgreSQL has no NUL in texts.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_goes_first_unless_it_was_cut() {
        assert_eq!(result(Some("{\"a\":1}\n"), "{\"b\":2}").as_deref(), Some("{\"a\":1}"));
        assert_eq!(result(Some(" plain text\n"), "").as_deref(), Some("plain text"));
        assert_eq!(result(Some("  \n"), "{\"b\":2}").as_deref(), Some("{\"b\":2}"));
        assert_eq!(result(Some(&"x".repeat(RESULT_FILE_MAX)), "{\"b\":2}").as_deref(), Some("{\"b\":2}"));
        assert_eq!(result(Some("a\0b"), "").as_deref(), Some("a\u{fffd}b"));
    }

    #[test]
    fn the_last_line_of_json_is_the_result() {
        assert_eq!(result(None, "reading\n{\"a\":1}\n[2]\nwarning: late\n\n").as_deref(), Some("[2]"));
        assert_eq!(result(None, "reading\n42\n").as_deref(), Some("42"));
        assert_eq!(result(None, "42\nwarning: late"), None, "a number is easily written by accident");
        assert_eq!(result(None, "{\"a\":"), None);
        assert_eq!(result(None, ""), None);
        let long = format!("[\"{}\"]", "x".repeat(RESULT_MAX));
        assert_eq!(result(None, &long), None);
    }

    #[test]
    fn a_tail_begins_with_a_whole_line() {
        assert_eq!(tail("a\nb\n").as_deref(), Some("a\nb"));
        assert_eq!(tail("\n"), None);
        let log = format!("{}\n{}", "ä".repeat(LOG_TAIL_MAX), "z".repeat(100));
        assert_eq!(tail(&log).unwrap(), "z".repeat(100));
        let one = "ä".repeat(LOG_TAIL_MAX);
        assert!(tail(&one).unwrap().len() <= LOG_TAIL_MAX);
    }
}

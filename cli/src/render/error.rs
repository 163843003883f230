//! How it went wrong, every fault of every field, the call's name in the platform's logs, and what to do next.

use std::error::Error;
use std::fmt::Write;

use crate::client::{CallError, Problem};
use crate::error::CliError;
use crate::output::clean;
use crate::output::style::{Style, Tone};

/// The whole message.
#[must_use]
pub fn text(error: &CliError, style: Style) -> String {
    let mut text = format!("{} {}", style.paint(Tone::Bad, "error:"), clean(&error.to_string()));
    let mut source = match error {
        // These pass on the words of what they are made of.
        CliError::Call(_) => None,
        CliError::Config(inner) => inner.source(),
        other => other.source(),
    };
    while let Some(cause) = source {
        text = format!("{text}: {}", clean(&cause.to_string()));
        source = cause.source();
    }
    if let CliError::Call(CallError::Refused(problem)) = error {
        text.push_str(&problem_lines(problem, style));
    } else {
        text.push('\n');
    }
    if let CliError::Cases { wrong, .. } = error {
        wrong.iter().for_each(|case| text.push_str(&format!("  {}\n", clean(case))));
    }
    if let Some(next) = next(error) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} {next}", style.paint(Tone::Faint, "next:"));
    }
    text
}

fn problem_lines(problem: &Problem, style: Style) -> String {
    let mut text = format!(" ({})\n", clean(&problem.code));
    for violation in &problem.violations {
        let field = if violation.field.is_empty() { "the body" } else { &violation.field };
        let _ = writeln!(text, "  {} {}", style.paint(Tone::Wait, &clean(field)), clean(&violation.message));
    }
    if let Some(verdict) = problem.more.get("admission") {
        text.push_str(&super::admission::text(verdict));
    }
    if !problem.request_id.is_empty() {
        let id = format!("request id {}", clean(&problem.request_id));
        let _ = writeln!(text, "  {}", style.paint(Tone::Faint, &id));
    }
    text
}

/// What to do next, where the message itself does not say it.
fn next(error: &CliError) -> Option<String> {
    let next = match error {
        CliError::Call(CallError::Refused(problem)) => return next_to(problem),
        CliError::Call(CallError::Unreachable { .. } | CallError::Broken { .. } | CallError::TooLate { .. }) => {
            "is the platform up, and the URL right? `eventflow context list` shows where commands go".to_owned()
        }
        CliError::Call(CallError::Foreign { .. }) => {
            "is the URL that of an EventFlow platform? `eventflow context list` shows where commands go".to_owned()
        }
        CliError::Call(CallError::Unreadable(_)) => "is this program older than the platform?".to_owned(),
        CliError::Refused { name, .. } | CliError::Failed { name, .. } => {
            format!("`eventflow describe {name}` shows all conditions")
        }
        CliError::NotInTime { name, .. } => {
            format!("it goes on without this command; `eventflow describe {name}` shows how far it is")
        }
        CliError::Superseded(_) => "look at what is there now, and repeat if need be".to_owned(),
        _ => return None,
    };
    Some(next)
}

fn next_to(problem: &Problem) -> Option<String> {
    let next = match problem.code.as_str() {
        "unauthenticated" => "sign in with `eventflow login`; tokens expire",
        "not-found" => "`eventflow list` shows what there is",
        "no-such-route" => "is the platform older than this program, or the URL not that of its API?",
        "already-exists" => "`eventflow deploy` changes what exists",
        "quota-exceeds-tier" => "`eventflow quota` shows what there is and who holds it",
        "precondition-failed" => "run the command again",
        "invalid-fields" if problem.violations.iter().any(|v| v.field.starts_with("env.")) => {
            "values of env are texts: write `PORT: \"8080\"` in YAML"
        }
        _ => return problem.retry_after.map(|after| format!("try again in {}", humantime::format_duration(after))),
    };
    Some(next.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Violation;

    fn refused(problem: Problem) -> String {
        text(&CliError::Call(CallError::Refused(Box::new(problem))), Style::NONE)
    }

    #[test]
    fn every_fault_is_listed_with_the_request_s_name() {
        let violation = |field: &str, message: &str| Violation { field: field.into(), message: message.into() };
        let problem = Problem {
            code: "invalid-fields".into(),
            status: 422,
            detail: "2 fields are at fault; see violations.".into(),
            request_id: "r-1".into(),
            violations: vec![violation("image", "is required"), violation("env.PORT", "must be a string")],
            ..Problem::default()
        };
        let expected = "\
error: 2 fields are at fault; see violations. (invalid-fields)
  image is required
  env.PORT must be a string
  request id r-1
next: values of env are texts: write `PORT: \"8080\"` in YAML
";
        assert_eq!(refused(problem), expected);
    }

    #[test]
    fn what_to_do_next_is_said() {
        let problem = |code: &str| Problem { code: code.into(), detail: "No.".into(), ..Problem::default() };
        assert!(refused(problem("unauthenticated")).contains("eventflow login"));
        let slow = Problem { retry_after: Some(std::time::Duration::from_secs(7)), ..problem("too-many-requests") };
        assert_eq!(refused(slow), "error: No. (too-many-requests)\nnext: try again in 7s\n");
        let url = "http://127.0.0.1:1".parse().unwrap();
        let away = CliError::Call(CallError::Unreachable { url, reason: "Connection refused".into() });
        assert!(
            text(&away, Style::NONE).starts_with("error: http://127.0.0.1:1 cannot be reached: Connection refused\n")
        );
    }

    #[test]
    fn the_cause_is_told_once() {
        let source = std::io::Error::new(std::io::ErrorKind::NotFound, "No such file");
        let error = CliError::File { path: "f.yaml".into(), source };
        assert_eq!(text(&error, Style::NONE), "error: cannot read f.yaml: No such file\n");
    }

    #[test]
    fn hostile_words_stay_words() {
        let problem = Problem { code: "x".into(), detail: "a\u{1b}]0;b".into(), ..Problem::default() };
        assert!(refused(problem).contains("a\\u{1b}]0;b"));
    }
}

//! Runs of functions: a line, rows, the long form.

use std::fmt::Write;

use jiff::Timestamp;
use serde_json::Value;

use super::{admission, time};
use crate::output::style::{Style, Tone};
use crate::output::table::{Cell, Table};
use crate::output::{clean, clean_log};
use crate::view::Run;

/// What is told of a run that was asked for.
#[must_use]
pub fn started(answer: &Value) -> String {
    let run = Run::of(&answer["invocation"]);
    let admitted = answer["admission"]["verdict"] == "admitted";
    let how = if admitted { "is started" } else { "waits" };
    let verdict = admission::text(&answer["admission"]);
    format!("run {} of {} {how}\n{}", clean(&run.id), clean(&run.function), if admitted { "" } else { &verdict })
}

/// Where a run stands, in a line.
#[must_use]
pub fn stands(run: &Run) -> String {
    match run.message.as_str() {
        "" => clean(&run.phase),
        message => format!("{}: {}", clean(&run.phase), clean(message)),
    }
}

/// The result alone, to be used by another program: a text as it is, anything else as JSON.
#[must_use]
pub fn result(document: &Value) -> String {
    match &document["result"] {
        Value::Null => String::new(),
        Value::String(text) => text.lines().map(|line| clean_log(line) + "\n").collect(),
        other => crate::output::json(other),
    }
}

/// The end of a run's log.
#[must_use]
pub fn log(run: &Run) -> String {
    run.log_tail.lines().map(|line| clean_log(line) + "\n").collect()
}

/// A row per run.
#[must_use]
pub fn rows(runs: &[Run], style: Style, now: Timestamp) -> String {
    let mut table = Table::new(&["ID", "PHASE", "REASON", "ATTEMPTS", "EXIT", "QUEUED", "RAN", "AGE"]);
    for run in runs {
        let seconds = |part: &str| run.timing.get(part).map_or_else(String::new, |seconds| format!("{seconds}s"));
        table.row(vec![
            run.id.as_str().into(),
            Cell::toned(&run.phase, tone(&run.phase)),
            run.reason.as_str().into(),
            run.attempts.to_string().into(),
            run.exit_code.map(|code| code.to_string()).unwrap_or_default().into(),
            seconds("queuedSeconds").into(),
            seconds("runningSeconds").into(),
            time::age(&run.created_at, now).into(),
        ]);
    }
    table.render(style)
}

fn tone(phase: &str) -> Tone {
    match phase {
        "Succeeded" => Tone::Good,
        "Failed" => Tone::Bad,
        "Cancelled" => Tone::Faint,
        _ => Tone::Wait,
    }
}

/// All about a run.
#[must_use]
pub fn long(document: &Value, style: Style) -> String {
    let run = Run::of(document);
    let mut text = format!("Run {} of {}\n", clean(&run.id), clean(&run.function));
    // Writing to a String cannot fail.
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(text, "{name:<10} {value}");
        }
    };
    line("Phase", style.paint(tone(&run.phase), &clean(&run.phase)));
    line("Reason", clean(&run.reason));
    line("Message", clean(&run.message));
    line("Attempts", run.attempts.to_string());
    line("Exit code", run.exit_code.map(|code| code.to_string()).unwrap_or_default());
    line("Retry of", clean(&run.retry_of));
    for (name, at) in [
        ("Asked", &run.created_at),
        ("Admitted", &run.admitted_at),
        ("Started", &run.started_at),
        ("Finished", &run.finished_at),
    ] {
        line(name, if at.is_empty() { String::new() } else { clean(&time::at(at)) });
    }
    let result = result(document);
    if !result.is_empty() {
        let _ = write!(text, "\nResult\n{result}");
    }
    if !run.log_tail.is_empty() {
        let _ = write!(text, "\nLog\n{}", log(&run));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document() -> Value {
        json!({"id": "r1", "function": "job", "phase": "Failed", "reason": "ExitCode", "attempts": 2, "exitCode": 3,
            "message": "the program ended with exit code 3", "createdAt": "2026-01-01T00:00:00Z",
            "startedAt": "2026-01-01T00:00:02Z", "finishedAt": "2026-01-01T00:00:09Z", "retries": 1,
            "timing": {"queuedSeconds": 1, "startingSeconds": 1, "runningSeconds": 7}, "result": {"why": "no"},
            "logTail": "first\n\u{1b}[2Jlast"})
    }

    #[test]
    fn a_run_is_told_at_length_and_in_a_row() {
        let expected = "\
Run r1 of job
Phase      Failed
Reason     ExitCode
Message    the program ended with exit code 3
Attempts   2
Exit code  3
Asked      2026-01-01 00:00:00
Started    2026-01-01 00:00:02
Finished   2026-01-01 00:00:09

Result
{
  \"why\": \"no\"
}

Log
first
\\u{1b}[2Jlast
";
        assert_eq!(long(&document(), Style::NONE), expected);
        let rows = rows(&[Run::of(&document())], Style::NONE, "2026-01-01T00:01:00Z".parse().unwrap());
        let expected = "\
ID   PHASE    REASON     ATTEMPTS   EXIT   QUEUED   RAN   AGE
r1   Failed   ExitCode   2          3      1s       7s    60s
";
        assert_eq!(rows, expected);
    }

    #[test]
    fn a_start_says_whether_it_waits() {
        let answer = |verdict: Value| json!({"invocation": {"id": "r1", "function": "job"}, "admission": verdict});
        assert_eq!(started(&answer(json!({"verdict": "admitted", "reserved": {}}))), "run r1 of job is started\n");
        let queued = started(&answer(json!({"verdict": "queued", "position": 2, "shortfall": [], "holders": []})));
        assert!(queued.starts_with("run r1 of job waits\n") && queued.contains("place 2"), "{queued}");
    }

    #[test]
    fn a_result_can_be_used_by_another_program() {
        assert_eq!(result(&json!({"result": "done\nwell"})), "done\nwell\n");
        assert_eq!(result(&json!({"result": [1]})), "[\n  1\n]\n");
        assert_eq!(result(&json!({})), "");
    }
}

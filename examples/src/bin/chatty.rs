//! Writes `LINES_PER_SECOND` log lines (10 by default, at most 100,000), numbered from 1 without gaps, so that a
//! reader can tell whether any was lost. Every fifth goes to standard error, every tenth is JSON. `LINE_BYTES` pads
//! each to that length; `LINES` ends the writing after that many. Serves `/healthz` on `PORT` (8080 by default).

use std::io::{self, Write};
use std::time::{Duration, Instant};

use eventflow_examples::{server, settings};

fn main() -> io::Result<()> {
    let per_second = settings::value("LINES_PER_SECOND", 10u64).clamp(1, 100_000);
    let (lines, length) = (settings::value("LINES", u64::MAX), settings::value("LINE_BYTES", 0usize).min(65_536));
    std::thread::spawn(move || write_lines(per_second, lines, length));
    server::run(move |_, answer| answer.json(200, &format!("{{\"lines_per_second\":{per_second}}}")))
}

/// Keeps to the rate on average: late lines are caught up with, none is left out.
fn write_lines(per_second: u64, lines: u64, length: usize) -> io::Result<()> {
    let start = Instant::now();
    for n in 1..=lines {
        let due = Duration::from_nanos(
            u64::try_from(u128::from(n) * 1_000_000_000 / u128::from(per_second)).unwrap_or(u64::MAX),
        );
        std::thread::sleep(due.saturating_sub(start.elapsed()));
        let line = line(n, length);
        if n % 5 == 0 && n % 10 != 0 {
            io::stderr().lock().write_all(line.as_bytes())?;
        } else {
            io::stdout().lock().write_all(line.as_bytes())?;
        }
    }
    Ok(())
}

fn line(n: u64, length: usize) -> String {
    let (start, end) = if n.is_multiple_of(10) {
        (format!("{{\"seq\":{n},\"level\":\"info\",\"message\":\"chatty says something"), "\"}\n")
    } else {
        (format!("seq={n} chatty says something"), "\n")
    };
    let padding = length.saturating_sub(start.len() + end.len());
    format!("{start}{}{end}", ".".repeat(padding))
}

#[cfg(test)]
mod tests {
    use super::*;
    use eventflow_examples::json::Json;

    #[test]
    fn lines_are_numbered_padded_and_json_every_tenth() {
        assert_eq!(line(7, 0), "seq=7 chatty says something\n");
        let tenth = line(20, 100);
        assert_eq!(tenth.len(), 100);
        assert_eq!(Json::parse(tenth.trim()).unwrap().get("seq").and_then(Json::as_integer), Some(20));
    }
}

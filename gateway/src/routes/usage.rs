//! `GET /v1/usage`: what the tenant's calls came to, by steps of hours and by function, as JSON or CSV.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use eventflow_api::http::usage::{UsageReport, UsageStep};
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use jiff::Timestamp;

use super::call::Call;
use super::query::Query;
use super::{Answer, full, json};
use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::forward::metrics::Outcome;
use crate::store::{UsageQuery, UsageRow};

const HOUR: i64 = 3_600;
/// When nobody says since when.
const RANGE_DEFAULT: i64 = 24 * HOUR;
/// Longest time that is told at once.
const RANGE_MAX: i64 = 400 * 24 * HOUR;
/// Most steps that are told at once.
const STEPS_MAX: i64 = 1_000;
/// Most sums that are told at once.
const ROWS_MAX: i64 = 50_000;

/// What calls came to: `from`, `to` (a time, or how long ago), `step` (whole hours), `by=function`.
///
/// # Errors
/// Parameters that are malformed or ask for too much, a failing store.
pub async fn get(app: Arc<App>, caller: Caller, call: Call) -> Answer {
    let query = read(call.query()?, Timestamp::now())?;
    let rows = app.store.usage_list(&caller.tenant, query, ROWS_MAX + 1).await?;
    if rows.len() as i64 > ROWS_MAX {
        return Err(ApiError::malformed("That is too much for one answer. Ask for a shorter time or longer steps."));
    }
    let report = report(query, rows)?;
    if !wants_csv(call.headers()) {
        return json(StatusCode::OK, &report);
    }
    let mut response = Response::new(full(csv(&report).into_bytes()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn wants_csv(headers: &HeaderMap) -> bool {
    let mut accepts = headers.get_all(ACCEPT).iter();
    accepts.any(|value| value.to_str().is_ok_and(|value| value.to_ascii_lowercase().contains("text/csv")))
}

/// Whole hours: the one that `from` is in, up to the end of the one that `to` is in.
fn read(mut query: Query, now: Timestamp) -> Result<UsageQuery, ApiError> {
    let to = query.text("to").map(|text| time("to", &text, now)).transpose()?.unwrap_or(now.as_second());
    let from = query.text("from").map(|text| time("from", &text, now)).transpose()?;
    let step = query.text("step").map(|text| step(&text)).transpose()?.unwrap_or(HOUR);
    let by_function = match query.text("by").as_deref() {
        None => false,
        Some("function") => true,
        Some(_) => return Err(ApiError::malformed("The query parameter \"by\" can only be \"function\".")),
    };
    query.finish()?;
    let to = to.div_euclid(HOUR) * HOUR + if to.rem_euclid(HOUR) > 0 { HOUR } else { 0 };
    let from = from.map_or(to - RANGE_DEFAULT, |from| from.div_euclid(HOUR) * HOUR);
    let range = to - from;
    if range <= 0 {
        return Err(ApiError::malformed("The query parameter \"from\" must be a time before \"to\"."));
    }
    if range > RANGE_MAX {
        return Err(ApiError::malformed("From \"from\" to \"to\" there may be at most 400 days."));
    }
    if range > step * STEPS_MAX {
        let hours = (range / HOUR + STEPS_MAX - 1) / STEPS_MAX;
        let detail = format!("That would be more than {STEPS_MAX} steps; a \"step\" of {hours}h would do.");
        return Err(ApiError::malformed(detail));
    }
    Ok(UsageQuery { from, to, step, by_function })
}

/// A time, or how long ago; in seconds.
fn time(name: &str, text: &str, now: Timestamp) -> Result<i64, ApiError> {
    let ago = || now.checked_sub(humantime::parse_duration(text).ok()?).ok();
    let at = text.parse().ok().or_else(ago);
    at.map(Timestamp::as_second).ok_or_else(|| {
        ApiError::malformed(format!(
            "The query parameter {name:?} must be a time such as 2026-01-31T10:00:00Z, or how long ago, such as 7d."
        ))
    })
}

fn step(text: &str) -> Result<i64, ApiError> {
    let step = humantime::parse_duration(text).ok().map(|step: Duration| step.as_secs());
    let step = step.and_then(|step| i64::try_from(step).ok());
    let step = step.filter(|step| (HOUR..=RANGE_MAX).contains(step) && step % HOUR == 0);
    step.ok_or_else(|| {
        ApiError::malformed("The query parameter \"step\" must be whole hours, such as 1h or 1d, and at most 400d.")
    })
}

fn report(query: UsageQuery, rows: Vec<UsageRow>) -> Result<UsageReport, ApiError> {
    let text = |second| match Timestamp::from_second(second) {
        Ok(time) => Ok(time.to_string()),
        Err(error) => Err(ApiError::internal(error.to_string())),
    };
    let mut steps: Vec<UsageStep> = Vec::new();
    for row in rows {
        let from = row.from.to_string();
        if steps.last().is_none_or(|last| last.from != from || last.function != row.function) {
            steps.push(UsageStep { from, function: row.function, ..UsageStep::default() });
        }
        let Some(step) = steps.last_mut() else { continue };
        step.calls += row.calls;
        step.run_seconds += row.run_us as f64 / 1e6;
        step.bytes_out += row.bytes_out;
        step.outcomes.insert(row.outcome, row.calls);
    }
    Ok(UsageReport { from: text(query.from)?, to: text(query.to)?, step_seconds: query.step, steps })
}

/// One line per step, every outcome in a column of its own. Nothing in it needs quotes.
fn csv(report: &UsageReport) -> String {
    let outcomes = Outcome::ALL.map(Outcome::as_str);
    let mut text = format!("from,function,calls,{},run_seconds,bytes_out\n", outcomes.join(","));
    for step in &report.steps {
        // Writing to a String cannot fail.
        let _ = write!(text, "{},{},{}", step.from, step.function.as_deref().unwrap_or_default(), step.calls);
        for outcome in outcomes {
            let _ = write!(text, ",{}", step.outcomes.get(outcome).unwrap_or(&0));
        }
        let _ = writeln!(text, ",{:.6},{}", step.run_seconds, step.bytes_out);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &str) -> Result<UsageQuery, ApiError> {
        read(Query::parse(query).unwrap(), "2026-01-31T10:20:00Z".parse().unwrap())
    }

    #[test]
    fn times_become_whole_hours_within_bounds() {
        let now: Timestamp = "2026-01-31T11:00:00Z".parse().unwrap();
        let now = now.as_second();
        let day = asked("").unwrap();
        assert_eq!(day, UsageQuery { from: now - 24 * HOUR, to: now, step: HOUR, by_function: false });
        let week = asked("from=7d&step=1d&by=function").unwrap();
        assert_eq!(week, UsageQuery { from: now - HOUR - 168 * HOUR, to: now, step: 24 * HOUR, by_function: true });
        let one = asked("from=2026-01-31T09:59:59Z&to=2026-01-31T10:00:00Z").unwrap();
        assert_eq!((one.from, one.to), (now - 2 * HOUR, now - HOUR));
        for bad in [
            "from=soon",
            "to=x",
            "step=30m",
            "step=90m",
            "step=401d",
            "by=tenant",
            "colour=red",
            "from=1d&to=2d",
            "from=401d&step=1d",
            "from=100d",
        ] {
            assert!(asked(bad).is_err(), "{bad}");
        }
        assert!(asked("from=100d").unwrap_err().detail().contains("\"step\" of 3h would do"));
    }

    #[test]
    fn rows_become_steps_and_lines() {
        let row = |hour: &str, outcome: &str, calls| UsageRow {
            from: format!("2026-01-31T{hour}:00:00Z").parse().unwrap(),
            function: Some("web".into()),
            outcome: outcome.into(),
            calls,
            run_us: 1_500_000,
            bytes_out: 10,
        };
        let report =
            report(asked("").unwrap(), vec![row("09", "answered", 2), row("09", "cut", 1), row("10", "cut", 1)]);
        let report = report.unwrap();
        assert_eq!((report.steps.len(), report.steps[0].calls, report.steps[0].bytes_out), (2, 3, 20));
        let text = csv(&report);
        assert!(text.starts_with("from,function,calls,answered,function_error,"), "{text}");
        assert!(text.contains("\n2026-01-31T09:00:00Z,web,3,2,0,0,0,1,0,0,0,0,3.000000,20\n"), "{text}");
    }
}

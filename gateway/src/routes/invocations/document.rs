//! Documents of runs: what was asked for is the store's, how it stands the watch cache's, and how it ended the record's.

use eventflow_api::http::invocations::{Invocation, Timing};
use eventflow_api::invocation::{InvocationStatus, RunPhase};
use jiff::Timestamp;
use serde_json::Value;

use crate::app::App;
use crate::store::{InvocationRow, Record};

/// The document of a row.
pub fn of(app: &App, row: &InvocationRow) -> Invocation {
    match &row.record {
        Some(record) => recorded(row, record),
        None => under_way(row, app.cluster.invocation_status(&row.tenant, row.id).unwrap_or_default()),
    }
}

fn asked(row: &InvocationRow) -> Invocation {
    Invocation {
        id: row.id.to_string(),
        function: row.function.clone(),
        phase: RunPhase::Pending,
        reason: None,
        message: String::new(),
        attempts: 0,
        exit_code: None,
        timeout_seconds: row.spec.timeout_seconds,
        retries: row.spec.retries,
        retry_of: row.retry_of.map(|id| id.to_string()),
        cancel_requested: row.cancel_requested,
        created_at: row.created_at.to_string(),
        admitted_at: None,
        started_at: None,
        finished_at: None,
        timing: None,
        result: None,
        log_tail: None,
    }
}

fn recorded(row: &InvocationRow, record: &Record) -> Invocation {
    let text = |time: Option<Timestamp>| time.map(|time| time.to_string());
    Invocation {
        phase: record.phase,
        reason: record.reason,
        message: record.message.clone(),
        attempts: record.attempts,
        exit_code: record.exit_code,
        admitted_at: text(record.admitted_at),
        started_at: text(record.started_at),
        finished_at: text(Some(record.finished_at)),
        timing: Some(timing(row.created_at, record.admitted_at, record.started_at, record.finished_at)),
        result: record.result.as_deref().map(result),
        log_tail: record.log_tail.clone(),
        ..asked(row)
    }
}

/// What ended is told as over only once its record is made: what can be read then stays.
fn under_way(row: &InvocationRow, status: InvocationStatus) -> Invocation {
    let (phase, reason) = match status.phase {
        phase if phase.is_final() => (RunPhase::Running, None),
        phase => (phase, status.reason),
    };
    let (admitted_at, started_at) = (status.admitted_at, status.started_at);
    let time = |text: &Option<String>| text.as_ref().and_then(|text| text.parse().ok());
    let timing = timing(row.created_at, time(&admitted_at), time(&started_at), Timestamp::now());
    Invocation {
        phase,
        reason,
        message: status.message,
        attempts: status.attempts,
        exit_code: status.exit_code,
        admitted_at,
        started_at,
        timing: Some(timing),
        ..asked(row)
    }
}

/// What the program gave back: JSON if it is any, or else the text.
fn result(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
}

/// The time until `end`, split. Clocks of several machines are compared, so nothing is less than nothing.
fn timing(created: Timestamp, admitted: Option<Timestamp>, started: Option<Timestamp>, end: Timestamp) -> Timing {
    let seconds = |from: Timestamp, to: Timestamp| to.duration_since(from).as_secs().max(0);
    Timing {
        queued_seconds: seconds(created, admitted.unwrap_or(end)),
        starting_seconds: admitted.map_or(0, |admitted| seconds(admitted, started.unwrap_or(end))),
        running_seconds: started.map_or(0, |started| seconds(started, end)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_split_and_never_negative() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let whole = timing(at(10), Some(at(13)), Some(at(14)), at(20));
        assert_eq!((whole.queued_seconds, whole.starting_seconds, whole.running_seconds), (3, 1, 6));
        let queued = timing(at(10), None, None, at(15));
        assert_eq!((queued.queued_seconds, queued.starting_seconds, queued.running_seconds), (5, 0, 0));
        let odd = timing(at(10), Some(at(9)), Some(at(8)), at(7));
        assert_eq!((odd.queued_seconds, odd.starting_seconds, odd.running_seconds), (0, 0, 0));
    }

    #[test]
    fn a_result_is_json_or_a_text() {
        assert_eq!(result("{\"a\":1}"), serde_json::json!({"a": 1}));
        assert_eq!(result("done"), Value::from("done"));
    }
}

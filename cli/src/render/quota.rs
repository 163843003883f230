//! The quota of a tenant, and why a function is in the state it is in.

use std::fmt::Write;

use jiff::Timestamp;
use serde_json::Value;

use super::{admission, events, function};
use crate::output::clean;
use crate::output::style::{Style, Tone};
use crate::output::table::{Cell, Table};
use crate::view::{Explanation, QuotaReport};

/// Dimensions in the order in which people look for them; what a newer platform counts beyond follows.
const ORDER: [&str; 7] =
    ["cpuRequests", "memoryRequests", "cpuLimits", "memoryLimits", "pods", "persistentVolumeClaims", "functions"];

/// A row per dimension, then who waits; with `wide` what each function holds.
#[must_use]
pub fn report(document: &Value, wide: bool, style: Style) -> String {
    let report: QuotaReport = serde_json::from_value(document.clone()).unwrap_or_default();
    let mut text = format!("Tier {}\n", clean(&report.tier));
    if report.suspended {
        text.push_str(&style.paint(Tone::Bad, "The tenant is suspended: nothing runs, and nothing new is taken.\n"));
    }
    if report.over_quota {
        let over =
            "More is reserved than the quota allows, which was lowered: nothing more is admitted until enough goes.\n";
        text.push_str(&style.paint(Tone::Bad, over));
    }
    text.push('\n');
    let mut table = Table::new(&["DIMENSION", "HARD", "RESERVED", "USED"]);
    let others = report.hard.keys().map(String::as_str).filter(|name| !ORDER.contains(name));
    for dimension in ORDER.into_iter().chain(others).filter(|name| report.hard.contains_key(*name)) {
        let amount = |of: &std::collections::BTreeMap<String, String>| of.get(dimension).cloned().unwrap_or_default();
        let used = report.used.as_ref().map(amount).unwrap_or_default();
        table.row(vec![dimension.into(), amount(&report.hard).into(), amount(&report.reserved).into(), used.into()]);
    }
    text.push_str(&table.render(style));
    if !report.queued.is_empty() {
        text.push('\n');
        text.push_str(&queue(&report, style));
    }
    if wide && !report.functions.is_empty() {
        let mut table = Table::new(&["FUNCTION", "VERDICT", "WANTS", "HOLDS"]);
        for share in &report.functions {
            let held = |amounts: &Value| serde_json::from_value(amounts.clone()).map(|a| admission::amounts(&a));
            let (wants, holds) = (held(&share.wanted).unwrap_or_default(), held(&share.reserved).unwrap_or_default());
            table.row(vec![share.name.as_str().into(), share.verdict.as_str().into(), wants.into(), holds.into()]);
        }
        // Writing to a String cannot fail.
        let _ = write!(text, "\n{}", table.render(style));
    }
    text
}

fn queue(report: &QuotaReport, style: Style) -> String {
    let mut table = Table::new(&["PLACE", "QUEUED", "MISSING"]);
    for queued in &report.queued {
        let missing = queued.shortfall.iter().map(|s| format!("{} {}", s.dimension, s.missing)).collect::<Vec<_>>();
        let missing = if missing.is_empty() { "waits for its turn".to_owned() } else { missing.join(", ") };
        let place = queued.position.to_string();
        table.row(vec![place.into(), Cell::toned(&queued.name, Tone::Wait), missing.into()]);
    }
    table.render(style)
}

/// The one thing to know first, then all there is.
#[must_use]
pub fn explanation(document: &Value, style: Style, now: Timestamp) -> String {
    let told: Explanation = serde_json::from_value(document.clone()).unwrap_or_default();
    let mut text = format!("{} is {}: {}\n", clean(&told.name), clean(&told.phase), clean(&told.summary));
    // Writing to a String cannot fail.
    let verdict = admission::text(&told.admission);
    if !verdict.is_empty() {
        let _ = write!(text, "\nQuota\n{verdict}");
    }
    text.push_str(&function::timeline(&told.conditions, style, now));
    if !told.events.is_empty() {
        let _ = write!(text, "\nEvents\n{}", events::table(&told.events, style, now));
    }
    if let Some(why) = &told.events_missing {
        let _ = writeln!(text, "\nEvents: {}", clean(why));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_report_has_a_row_per_dimension_and_the_queue() {
        let report = json!({"tier": "free", "suspended": false, "overQuota": true,
            "hard": {"pods": "10", "cpuRequests": "2", "gpus": "1"}, "reserved": {"pods": "9", "cpuRequests": "1900m"},
            "used": {"pods": "9"},
            "queued": [{"name": "b", "position": 1, "shortfall": [{"dimension": "cpuRequests", "missing": "900m"}]},
                       {"name": "c", "position": 2, "shortfall": []}],
            "functions": [{"name": "a", "verdict": "admitted", "wanted": {"pods": "9"}, "reserved": {"pods": "9"}}],
            "leaving": []});
        let expected = "\
Tier free
More is reserved than the quota allows, which was lowered: nothing more is admitted until enough goes.

DIMENSION     HARD   RESERVED   USED
cpuRequests   2      1900m
pods          10     9          9
gpus          1

PLACE   QUEUED   MISSING
1       b        cpuRequests 900m
2       c        waits for its turn

FUNCTION   VERDICT    WANTS    HOLDS
a          admitted   pods 9   pods 9
";
        assert_eq!(super::report(&report, true, Style::NONE), expected);
    }

    #[test]
    fn an_explanation_starts_with_the_one_thing_to_know() {
        let now = "2026-01-01T12:00:00Z".parse().unwrap();
        let document = json!({"name": "web", "generation": 1, "phase": "Queued", "summary": "it waits for CPU.",
            "sync": "applied", "admission": {"verdict": "queued", "position": 1, "shortfall": [], "holders": []},
            "conditions": [], "eventsMissing": "the cluster cannot be asked now",
            "events": [{"at": "2026-01-01T11:59:00Z", "type": "Warning", "reason": "Failed", "message": "no",
                "object": "Pod/x", "count": 3}]});
        let expected = "\
web is Queued: it waits for CPU.

Quota
  queued at place 1

Conditions: none yet

Events
AGO   TYPE      REASON   OBJECT   TIMES   MESSAGE
60s   Warning   Failed   Pod/x    3       no

Events: the cluster cannot be asked now
";
        assert_eq!(explanation(&document, Style::NONE, now), expected);
    }
}

//! What the cluster reported of a function, and what happens, one line each.

use jiff::Timestamp;
use serde_json::Value;

use super::time;
use crate::args::Format;
use crate::client::events::Event;
use crate::output::clean;
use crate::output::style::{Style, Tone};
use crate::output::table::{Cell, Table};
use crate::view::{ClusterEvent, FunctionEvent, FunctionEvents, QuotaEvent};

/// A row per event, newest first.
#[must_use]
pub fn reported(document: &Value, style: Style, now: Timestamp) -> String {
    let reported: FunctionEvents = serde_json::from_value(document.clone()).unwrap_or_default();
    if reported.events.is_empty() {
        return "The cluster reported nothing lately; it forgets events after about an hour.\n".to_owned();
    }
    let more = if reported.more { "There may be more.\n" } else { "" };
    format!("{}{more}", table(&reported.events, style, now))
}

/// A row per event.
pub(super) fn table(events: &[ClusterEvent], style: Style, now: Timestamp) -> String {
    let mut table = Table::new(&["AGO", "TYPE", "REASON", "OBJECT", "TIMES", "MESSAGE"]);
    for event in events {
        let tone = if event.type_ == "Warning" { Tone::Wait } else { Tone::Plain };
        table.row(vec![
            time::age(&event.at, now).into(),
            Cell::toned(&event.type_, tone),
            event.reason.as_str().into(),
            event.object.as_str().into(),
            event.count.to_string().into(),
            event.message.as_str().into(),
        ]);
    }
    table.render(style)
}

/// A line of what happened; none of what concerns another function than `only`, or nobody.
#[must_use]
pub fn happening(format: Format, event: &Event, only: Option<&str>, now: Timestamp) -> Option<String> {
    let data: Value = serde_json::from_str(&event.data).ok()?;
    let words = match event.kind.as_str() {
        "function" => function(&serde_json::from_value(data.clone()).ok()?),
        "function-deleted" => format!("{} is gone", clean(data["name"].as_str()?)),
        "quota" if only.is_none() => quota(&serde_json::from_value(data.clone()).ok()?),
        _ => return None,
    };
    if only.is_some_and(|only| data["name"] != only) {
        return None;
    }
    if matches!(format, Format::Json | Format::Yaml) {
        // One document per line, which YAML is too.
        return Some(format!("{}\n", serde_json::json!({"event": event.kind, "data": data})));
    }
    Some(format!("{}  {words}\n", now.strftime("%H:%M:%S")))
}

fn function(event: &FunctionEvent) -> String {
    let generation = event.generation.map(|generation| format!(" generation {generation}")).unwrap_or_default();
    let phase = if event.deleting { "going" } else { event.phase.as_str() };
    let unmet = event.conditions.iter().find(|condition| {
        condition.status == "False" && condition.type_ != "Progressing" && !condition.message.is_empty()
    });
    let why = unmet.map(|condition| format!(": {}", clean(&condition.message))).unwrap_or_default();
    let (name, pods) = (clean(&event.name), format!("{}/{} pods ready", event.ready_replicas, event.replicas));
    format!("{name}{generation} is {}, {pods}{why}", clean(phase))
}

fn quota(event: &QuotaEvent) -> String {
    let amounts: Vec<_> = event
        .reserved
        .iter()
        .map(|(dimension, amount)| {
            let hard = event.hard.get(dimension).map(|hard| format!(" of {hard}")).unwrap_or_default();
            format!("{dimension} {amount}{hard}")
        })
        .collect();
    clean(&format!("quota: {} reserved, {} queued", amounts.join(", "), event.queued))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(format: Format, kind: &str, data: &Value, only: Option<&str>) -> Option<String> {
        let event = Event { kind: kind.to_owned(), data: data.to_string(), id: None };
        happening(format, &event, only, "2026-01-01T12:00:00Z".parse().unwrap())
    }

    #[test]
    fn what_happens_is_told_in_a_line() {
        let web = json!({"name": "web", "generation": 2, "phase": "Queued", "replicas": 1, "readyReplicas": 0,
            "conditions": [{"type": "QuotaReserved", "status": "False", "message": "waits\nfor CPU"}]});
        let told = line(Format::Table, "function", &web, None).unwrap();
        assert_eq!(told, "12:00:00  web generation 2 is Queued, 0/1 pods ready: waits\\nfor CPU\n");
        assert!(line(Format::Table, "function", &web, Some("web")).is_some());
        assert_eq!(line(Format::Table, "function", &web, Some("other")), None);
        let gone = line(Format::Table, "function-deleted", &json!({"name": "web"}), None).unwrap();
        assert_eq!(gone, "12:00:00  web is gone\n");
        let quota = json!({"hard": {"pods": "9"}, "reserved": {"pods": "3"}, "queued": 1});
        assert_eq!(
            line(Format::Table, "quota", &quota, None).unwrap(),
            "12:00:00  quota: pods 3 of 9 reserved, 1 queued\n"
        );
        assert_eq!(line(Format::Table, "quota", &quota, Some("web")), None);
        let gone = line(Format::Json, "function-deleted", &json!({"name": "web"}), None).unwrap();
        assert_eq!(gone, "{\"data\":{\"name\":\"web\"},\"event\":\"function-deleted\"}\n");
        for kind in ["ping", "synced", "of tomorrow"] {
            assert_eq!(line(Format::Table, kind, &json!({}), None), None);
        }
    }

    #[test]
    fn what_was_reported_is_a_table() {
        let now = "2026-01-01T12:00:00Z".parse().unwrap();
        let told = json!({"more": true, "events": [{"at": "2026-01-01T11:59:00Z", "type": "Warning",
            "reason": "BackOff", "message": "again", "object": "Pod/x", "count": 3}]});
        let expected = "\
AGO   TYPE      REASON    OBJECT   TIMES   MESSAGE
60s   Warning   BackOff   Pod/x    3       again
There may be more.
";
        assert_eq!(reported(&told, Style::NONE, now), expected);
        assert!(reported(&json!({"events": [], "more": false}), Style::NONE, now).contains("nothing"));
    }
}

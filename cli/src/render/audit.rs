//! The audit log, newest first.

use serde_json::Value;

use super::time;
use crate::output::style::{Style, Tone};
use crate::output::table::{Cell, Table};
use crate::view::AuditEntry;

/// A row per entry.
#[must_use]
pub fn table(entries: &[Value], wide: bool, style: Style) -> String {
    let mut heads = vec!["AT", "ACTOR", "ACTION", "TARGET", "GENERATION"];
    if wide {
        heads.extend(["REQUEST", "DETAIL"]);
    }
    let mut table = Table::new(&heads);
    for entry in entries {
        let entry: AuditEntry = serde_json::from_value(entry.clone()).unwrap_or_default();
        let mut cells: Vec<Cell> = vec![
            Cell::toned(time::at(&entry.at), Tone::Faint),
            entry.actor.into(),
            entry.action.into(),
            entry.target.into(),
            entry.generation.map(|generation| generation.to_string()).unwrap_or_default().into(),
        ];
        if wide {
            let detail = if entry.detail.is_null() { String::new() } else { entry.detail.to_string() };
            cells.extend([entry.request_id.unwrap_or_default().into(), detail.into()]);
        }
        table.row(cells);
    }
    table.render(style)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_row_per_entry() {
        let entries = [
            json!({"id": 2, "at": "2026-01-01T10:00:01.5Z", "actor": "alice", "action": "function.update", "target": "web",
                "generation": 2, "request_id": "r2", "detail": {"fields": ["image"]}}),
            json!({"id": 1, "at": "2026-01-01T10:00:00Z", "actor": "kubectl\u{1b}", "action": "function.adopt", "target": "b"}),
        ];
        let expected = "\
AT                    ACTOR           ACTION            TARGET   GENERATION   REQUEST   DETAIL
2026-01-01 10:00:01   alice           function.update   web      2            r2        {\"fields\":[\"image\"]}
2026-01-01 10:00:00   kubectl\\u{1b}   function.adopt    b
";
        assert_eq!(table(&entries, true, Style::NONE), expected);
        assert!(table(&entries, false, Style::NONE).lines().all(|line| !line.contains("r2")));
    }
}

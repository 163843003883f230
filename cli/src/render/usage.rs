//! What calls came to, a row per step and function.

use serde_json::Value;

use super::time;
use crate::output::style::Style;
use crate::output::table::Table;
use crate::view::Usage;

/// A row per step in which something was called; with `wide` how the calls ended.
#[must_use]
pub fn report(document: &Value, wide: bool, style: Style) -> String {
    let usage: Usage = serde_json::from_value(document.clone()).unwrap_or_default();
    if usage.steps.is_empty() {
        return format!("No calls ended from {} to {}.\n", time::at(&usage.from), time::at(&usage.to));
    }
    let by_function = usage.steps.iter().any(|step| step.function.is_some());
    let mut heads = vec!["FROM"];
    heads.extend(by_function.then_some("FUNCTION"));
    heads.extend(["CALLS", "ANSWERED", "RUN SECONDS", "BYTES OUT"]);
    heads.extend(wide.then_some("OTHERS"));
    let mut table = Table::new(&heads);
    for step in &usage.steps {
        let mut row = vec![time::at(&step.from).into()];
        if by_function {
            row.push(step.function.as_deref().unwrap_or_default().into());
        }
        let answered = step.outcomes.get("answered").unwrap_or(&0);
        row.extend([
            step.calls.to_string().into(),
            answered.to_string().into(),
            format!("{:.3}", step.run_seconds).into(),
            step.bytes_out.to_string().into(),
        ]);
        if wide {
            let others = step.outcomes.iter().filter(|(outcome, _)| *outcome != "answered");
            let others: Vec<_> = others.map(|(outcome, calls)| format!("{outcome} {calls}")).collect();
            row.push(others.join(", ").into());
        }
        table.row(row);
    }
    table.render(style)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_row_says_how_much_was_called() {
        let document = json!({"from": "2026-01-31T09:00:00Z", "to": "2026-01-31T11:00:00Z", "stepSeconds": 3600, "steps": [
            {"from": "2026-01-31T09:00:00Z", "function": "web", "calls": 3, "outcomes": {"answered": 2, "cut": 1},
             "runSeconds": 1.25, "bytesOut": 10}]});
        let expected = "\
FROM                  FUNCTION   CALLS   ANSWERED   RUN SECONDS   BYTES OUT   OTHERS
2026-01-31 09:00:00   web        3       2          1.250         10          cut 1
";
        assert_eq!(report(&document, true, Style::NONE), expected);
        let none = json!({"from": "2026-01-31T09:00:00Z", "to": "2026-01-31T11:00:00Z", "steps": []});
        let expected = "No calls ended from 2026-01-31 09:00:00 to 2026-01-31 11:00:00.\n";
        assert_eq!(report(&none, false, Style::NONE), expected);
    }
}

//! Functions: a row of a table each, or one at length with its conditions as a timeline.

use std::fmt::Write;

use jiff::Timestamp;
use serde_json::Value;

use super::time;
use crate::output::clean;
use crate::output::style::{Style, Tone};
use crate::output::table::{Cell, Table};
use crate::view::{Condition, Function};

/// A row per function.
#[must_use]
pub fn table(functions: &[Value], wide: bool, style: Style, now: Timestamp) -> String {
    let mut heads = vec!["NAME", "PHASE", "READY", "REASON", "IMAGE", "AGE"];
    if wide {
        heads.extend(["PORT", "GENERATION", "SYNC", "UPDATED", "ID"]);
    }
    let mut table = Table::new(&heads);
    for function in functions.iter().map(Function::of) {
        let status = &function.status;
        let mut cells: Vec<Cell> = vec![
            function.name.as_str().into(),
            Cell::toned(&status.phase, tone(&status.phase)),
            format!("{}/{}", status.ready_replicas, function.replicas).into(),
            reason(&function).into(),
            function.image.as_str().into(),
            time::age(&function.created_at, now).into(),
        ];
        if wide {
            cells.extend([
                function.port.map(|port| port.to_string()).unwrap_or_default().into(),
                function.generation.to_string().into(),
                function.sync.as_str().into(),
                time::age(&function.updated_at, now).into(),
                function.id.as_str().into(),
            ]);
        }
        table.row(cells);
    }
    table.render(style)
}

/// One line about a function.
#[must_use]
pub fn line(document: &Value) -> String {
    let function = Function::of(document);
    let ready = function.condition("Ready").map(|ready| ready.message.as_str()).unwrap_or_default();
    let about = if ready.is_empty() { String::new() } else { format!(": {}", clean(ready)) };
    format!("{} is {}{about}\n", clean(&function.name), clean(&function.status.phase))
}

/// All about a function. Values of its environment are not told: some are secrets, and screens are shared.
#[must_use]
pub fn long(document: &Value, style: Style, now: Timestamp) -> String {
    let function = Function::of(document);
    let status = &function.status;
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut fact = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "{name:<12}{value}");
        }
    };
    fact("Name", &clean(&function.name));
    fact("Namespace", &clean(&function.namespace));
    fact("Phase", &style.paint(tone(&status.phase), &clean(&status.phase)));
    fact(
        "Pods",
        &format!("{} asked for, {} exist, {} ready", function.replicas, status.replicas, status.ready_replicas),
    );
    fact("Generation", &generation(&function));
    fact("Image", &clean(&function.image));
    fact("Command", &words(&function.command));
    fact("Arguments", &words(&function.args));
    fact("Port", &function.port.map(|port| port.to_string()).unwrap_or_default());
    let resources = function.resources.iter().map(|(name, amount)| format!("{name} {amount}"));
    fact("Resources", &clean(&resources.collect::<Vec<_>>().join(", ")));
    fact("Environment", &clean(&function.env.keys().cloned().collect::<Vec<_>>().join(", ")));
    fact("Time-out", &format!("{} s", function.timeout_seconds));
    fact("Created", &ago(&function.created_at, now));
    fact("Updated", &ago(&function.updated_at, now));
    text.push_str(&timeline(&status.conditions, style, now));
    text
}

/// The conditions in the order in which they came to be as they are.
pub(super) fn timeline(conditions: &[Condition], style: Style, now: Timestamp) -> String {
    if conditions.is_empty() {
        return "\nConditions: none yet\n".to_owned();
    }
    let mut conditions: Vec<&Condition> = conditions.iter().collect();
    conditions.sort_by(|a, b| a.last_transition_time.cmp(&b.last_transition_time));
    let mut table = Table::new(&["SINCE", "AGO", "CONDITION", "STATUS", "REASON", "MESSAGE"]);
    for condition in conditions {
        // A roll-out under way is the one condition that is good news when it does not hold.
        let tone = match (condition.type_.as_str(), condition.status.as_str()) {
            ("Progressing", "True") => Tone::Wait,
            ("Progressing", _) => Tone::Plain,
            (_, "True") => Tone::Good,
            (_, "False") => Tone::Bad,
            _ => Tone::Wait,
        };
        table.row(vec![
            Cell::toned(time::at(&condition.last_transition_time), Tone::Faint),
            time::age(&condition.last_transition_time, now).into(),
            condition.type_.as_str().into(),
            Cell::toned(&condition.status, tone),
            condition.reason.as_str().into(),
            condition.message.as_str().into(),
        ]);
    }
    format!("\nConditions\n{}", table.render(style))
}

fn generation(function: &Function) -> String {
    let seen = function.status.observed_generation;
    let lag = match function.sync.as_str() {
        "pending" => ", not yet in the cluster".to_owned(),
        _ if seen < function.generation => ", not yet seen by the controller".to_owned(),
        _ => String::new(),
    };
    format!("{}{lag}", function.generation)
}

/// Why it is not as it should be; nothing if it is.
fn reason(function: &Function) -> String {
    let unmet = |type_| function.condition(type_).filter(|condition| condition.status == "False");
    let condition = unmet("Admitted").or_else(|| unmet("Ready"));
    condition.map(|condition| condition.reason.clone()).unwrap_or_default()
}

fn tone(phase: &str) -> Tone {
    match phase {
        "Running" | "Idle" => Tone::Good,
        "Failed" => Tone::Bad,
        "Suspended" => Tone::Faint,
        _ => Tone::Wait,
    }
}

fn words(words: &[String]) -> String {
    words.iter().map(|word| clean(&format!("{word:?}"))).collect::<Vec<_>>().join(" ")
}

fn ago(then: &str, now: Timestamp) -> String {
    if then.is_empty() {
        String::new()
    } else {
        clean(&format!("{} UTC ({} ago)", time::at(then), time::age(then, now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn now() -> Timestamp {
        "2026-01-01T12:00:00Z".parse().unwrap()
    }

    fn web() -> Value {
        json!({
            "name": "web", "id": "0b", "namespace": "tenant-alice", "generation": 3, "sync": "applied",
            "createdAt": "2026-01-01T10:00:00Z", "updatedAt": "2026-01-01T11:59:00.25Z",
            "image": "127.0.0.1:5000/hello:v2", "args": ["-x", "a b"], "env": {"GREETING": "s3cret"}, "replicas": 2,
            "port": 8080, "resources": {"cpuRequest": "20m"}, "timeoutSeconds": 60, "suspend": false,
            "status": {"phase": "Failed", "replicas": 1, "readyReplicas": 0, "observedGeneration": 3, "conditions": [
                {"type": "Ready", "status": "False", "reason": "ImagePullFailed", "message": "not found",
                 "lastTransitionTime": "2026-01-01T11:59:30Z"},
                {"type": "Admitted", "status": "True", "reason": "Admitted", "message": "nothing stands in the way",
                 "lastTransitionTime": "2026-01-01T10:00:01Z"}
            ]}
        })
    }

    #[test]
    fn a_row_says_what_matters() {
        let idle = json!({"name": "a", "status": {"phase": "Idle"}, "createdAt": "2026-01-01T11:59:58Z"});
        let expected = "\
NAME   PHASE    READY   REASON            IMAGE                     AGE
web    Failed   0/2     ImagePullFailed   127.0.0.1:5000/hello:v2   2h
a      Idle     0/0                                                 2s
";
        assert_eq!(table(&[web(), idle], false, Style::NONE, now()), expected);
        let wide = table(&[web()], true, Style::NONE, now());
        assert!(wide.contains("8080") && wide.contains("applied") && wide.contains("0b"), "{wide}");
    }

    #[test]
    fn at_length_the_conditions_are_a_timeline() {
        let expected = "\
Name        web
Namespace   tenant-alice
Phase       Failed
Pods        2 asked for, 1 exist, 0 ready
Generation  3
Image       127.0.0.1:5000/hello:v2
Arguments   \"-x\" \"a b\"
Port        8080
Resources   cpuRequest 20m
Environment GREETING
Time-out    60 s
Created     2026-01-01 10:00:00 UTC (2h ago)
Updated     2026-01-01 11:59:00 UTC (59s ago)

Conditions
SINCE                 AGO   CONDITION   STATUS   REASON            MESSAGE
2026-01-01 10:00:01   119m   Admitted    True     Admitted          nothing stands in the way
2026-01-01 11:59:30   30s    Ready       False    ImagePullFailed   not found
"
        .replace("AGO   ", "AGO    ");
        assert_eq!(long(&web(), Style::NONE, now()), expected);
    }

    #[test]
    fn what_is_not_there_yet_is_said() {
        let mut function = web();
        function["status"] = json!({"phase": "Pending"});
        assert!(long(&function, Style::NONE, now()).contains("3, not yet seen by the controller"));
        function["sync"] = json!("pending");
        let text = long(&function, Style::NONE, now());
        assert!(text.contains("3, not yet in the cluster") && text.contains("Conditions: none yet"), "{text}");
    }
}

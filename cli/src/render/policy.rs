//! Policies: what is in force for whom, what a revision is, what was decided.

use std::fmt::Write;

use jiff::Timestamp;
use serde_json::Value;

use super::time;
use crate::output::clean;
use crate::output::style::{Style, Tone};
use crate::output::table::{Cell, Table};

/// Digits of a digest that are shown.
const DIGEST: usize = 12;

/// The names of all policies.
#[must_use]
pub fn names(document: &Value) -> String {
    items(&document["policies"]).map(|policy| format!("{}\n", clean(&word(&policy["name"])))).collect()
}

/// A row per binding, and a row for a policy without one; with `wide` the gateways too.
#[must_use]
pub fn list(document: &Value, wide: bool, style: Style, now: Timestamp) -> String {
    let mut table = Table::new(&["POLICY", "BINDING", "FOR", "WORLD", "ORDER", "ACTIVE", "TRIAL"]);
    for policy in items(&document["policies"]) {
        let name = word(&policy["name"]);
        if items(&policy["bindings"]).next().is_none() {
            table.row(vec![name.as_str().into(), Cell::toned("not bound", Tone::Faint)]);
        }
        for binding in items(&policy["bindings"]) {
            table.row(binding_row(&name, binding));
        }
    }
    let mut text = table.render(style);
    let wanted = document["set_revision"].as_i64().unwrap_or_default();
    if wide {
        let mut gateways = Table::new(&["GATEWAY", "RUNS SET", "SEEN"]);
        for replica in items(&document["replicas"]) {
            let runs = replica["set_revision"].as_i64().unwrap_or_default();
            let tone = if runs == wanted { Tone::Good } else { Tone::Wait };
            let seen = time::age(&word(&replica["seen_at"]), now);
            gateways.row(vec![word(&replica["name"]).into(), Cell::toned(runs.to_string(), tone), seen.into()]);
        }
        // Writing to a String cannot fail.
        let _ = write!(text, "\n{}", gateways.render(style));
    }
    for problem in items(&document["replicas"]).flat_map(|replica| items(&replica["problems"])) {
        let what = format!("{}: {}", clean(&word(&problem["binding"])), clean(&word(&problem["message"])));
        let _ = writeln!(text, "{} {what}", style.paint(Tone::Bad, "cannot be put in force:"));
    }
    text
}

fn binding_row(policy: &str, binding: &Value) -> Vec<Cell> {
    let trial = &binding["trial"];
    let trial = match word(&trial["mode"]).as_str() {
        "" => String::new(),
        "canary" => format!("canary {} % of {}", word(&trial["percent"]), word(&trial["revision"])),
        mode => format!("{mode} of {}", word(&trial["revision"])),
    };
    let active = word(&binding["active"]);
    let active = if active.is_empty() { Cell::toned("none", Tone::Wait) } else { Cell::toned(active, Tone::Good) };
    vec![
        policy.into(),
        word(&binding["name"]).into(),
        scope(&binding["scope"]).into(),
        word(&binding["world"]).into(),
        word(&binding["order"]).into(),
        active,
        Cell::toned(trial, Tone::Wait),
    ]
}

/// All about a policy.
#[must_use]
pub fn long(policy: &Value, style: Style, now: Timestamp) -> String {
    let name = word(&policy["name"]);
    let mut text = format!("Policy {} (change {})\n", clean(&name), clean(&word(&policy["version"])));
    let mut bindings = Table::new(&["POLICY", "BINDING", "FOR", "WORLD", "ORDER", "ACTIVE", "TRIAL"]);
    items(&policy["bindings"]).for_each(|binding| bindings.row(binding_row(&name, binding)));
    // Writing to a String cannot fail.
    let _ = write!(text, "\nBindings\n{}", bindings.render(style));
    let mut revisions = Table::new(&["REVISION", "VERSION", "DIGEST", "STATUS", "P99", "BY", "AGE"]);
    for revision in items(&policy["revisions"]) {
        let status = word(&revision["status"]);
        let tone = if status == "accepted" { Tone::Plain } else { Tone::Bad };
        revisions.row(vec![
            word(&revision["number"]).into(),
            word(&revision["version"]).into(),
            digest(&revision["digest"]).into(),
            Cell::toned(status, tone),
            format!("{} us", word(&revision["smoke"]["p99_us"])).into(),
            word(&revision["uploaded_by"]).into(),
            time::age(&word(&revision["created_at"]), now).into(),
        ]);
    }
    let _ = write!(text, "\nRevisions\n{}", revisions.render(style));
    text
}

/// What came of an upload.
#[must_use]
pub fn uploaded(document: &Value) -> String {
    let revision = &document["revision"];
    let what = if document["created"] == Value::Bool(false) { "was there already" } else { "is uploaded" };
    let (policy, number, smoke) = (clean(&word(&document["policy"])), word(&revision["number"]), &revision["smoke"]);
    format!(
        "{policy} revision {number} ({}) {what}; {} cases, p99 {} us. Nothing is in force by that: next\n  \
         eventflow policy shadow {policy} --revision {number}\n",
        digest(&revision["digest"]),
        word(&smoke["cases"]),
        word(&smoke["p99_us"])
    )
}

/// A row per decision.
#[must_use]
pub fn decisions(decisions: &[Value], wide: bool, style: Style) -> String {
    let mut heads = vec!["AT", "TENANT", "ACTION", "FUNCTION", "BINDING", "ROLE", "VERDICT", "TIME", "WOULD BE"];
    if wide {
        heads.extend(["DIGEST", "REQUEST", "FAILURE"]);
    }
    let mut table = Table::new(&heads);
    for decision in decisions {
        let verdict = word(&decision["verdict"]);
        let tone = match verdict.as_str() {
            "allow" | "change" => Tone::Good,
            "failed" => Tone::Bad,
            _ => Tone::Wait,
        };
        let mut cells = vec![Cell::toned(time::at(&word(&decision["at"])), Tone::Faint)];
        cells.extend(
            ["tenant", "action", "function", "binding", "role"].map(|field| Cell::from(word(&decision[field]))),
        );
        cells.push(Cell::toned(verdict, tone));
        cells.push(format!("{} us", word(&decision["time_us"])).into());
        cells.push(word(&decision["would_be"]).into());
        if wide {
            cells.push(digest(&decision["digest"]).into());
            cells.extend(["request_id", "failure"].map(|field| Cell::from(word(&decision[field]))));
        }
        table.row(cells);
    }
    table.render(style)
}

/// How trials differ from what is enforced.
#[must_use]
pub fn report(document: &Value, style: Style) -> String {
    if items(&document["trials"]).next().is_none() {
        return "Nothing is tried out, or nothing was decided yet.\n".to_owned();
    }
    let mut text = String::new();
    for trial in items(&document["trials"]) {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{} ({}) since {}: {} decisions, {} differ, {} failed",
            clean(&word(&trial["binding"])),
            digest(&trial["digest"]),
            time::at(&word(&trial["since"])),
            word(&trial["decided"]),
            word(&trial["differed"]),
            word(&trial["failed"])
        );
        let examples: Vec<Value> = items(&trial["examples"]).cloned().collect();
        if !examples.is_empty() {
            text.push_str(&decisions(&examples, false, style));
        }
    }
    text
}

/// What a revision says, and what that took.
#[must_use]
pub fn evaluation(document: &Value, style: Style) -> String {
    let mut text = match document["failure"].as_str() {
        Some(failure) => format!("{} {}\n", style.paint(Tone::Bad, "failed:"), clean(failure)),
        None => format!("verdict: {}\n", clean(&word(&document["verdict"]))),
    };
    for change in items(&document["changes"]) {
        let side = |side: &str| change.get(side).map_or_else(|| "nothing".to_owned(), Value::to_string);
        let (path, before, after) = (word(&change["path"]), side("before"), side("after"));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {} {} -> {}", clean(&path), clean(&before), clean(&after));
    }
    for line in items(&document["log"]) {
        let _ = writeln!(text, "  {}: {}", clean(&word(&line["level"])), clean(&word(&line["message"])));
    }
    let (revision, time, memory) = (&document["revision"], &document["time_us"], &document["memory_bytes"]);
    let _ = writeln!(text, "revision {}, {} us, {} bytes of memory", word(revision), word(time), word(memory));
    text
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn scope(scope: &Value) -> String {
    match scope["name"].as_str() {
        Some(name) => format!("{} {name}", word(&scope["kind"])),
        None => word(&scope["kind"]),
    }
}

fn digest(digest: &Value) -> String {
    word(digest).chars().filter(char::is_ascii_hexdigit).take(DIGEST).collect()
}

/// A value without quotes.
fn word(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn now() -> Timestamp {
        "2026-01-01T12:00:00Z".parse().unwrap()
    }

    fn policy() -> Value {
        json!({"name": "replica-limit", "version": 7, "bindings": [
            {"name": "replica-limit", "world": "admission", "scope": {"kind": "everyone"}, "order": 100, "active": 2,
             "trial": {"revision": 3, "mode": "canary", "percent": 12.5}},
            {"name": "strict", "world": "admission", "scope": {"kind": "tier", "name": "free"}, "order": 50}],
            "revisions": [{"number": 3, "version": "1.1.0", "digest": "0123456789abcdef0123", "status": "accepted",
                "smoke": {"p99_us": 40, "cases": 9}, "uploaded_by": "ops", "created_at": "2026-01-01T11:00:00Z"}]})
    }

    #[test]
    fn what_is_in_force_for_whom() {
        let document = json!({"policies": [policy(), {"name": "new", "bindings": []}], "set_revision": 4, "replicas": [
            {"name": "gw-1", "set_revision": 4, "seen_at": "2026-01-01T11:59:59Z", "problems": [
                {"binding": "strict", "policy": "replica-limit", "message": "no such revision"}]}]});
        let expected = "\
POLICY          BINDING         FOR         WORLD       ORDER   ACTIVE   TRIAL
replica-limit   replica-limit   everyone    admission   100     2        canary 12.5 % of 3
replica-limit   strict          tier free   admission   50      none
new             not bound

GATEWAY   RUNS SET   SEEN
gw-1      4          1s
cannot be put in force: strict: no such revision
";
        assert_eq!(list(&document, true, Style::NONE, now()), expected);
        let text = long(&policy(), Style::NONE, now());
        assert!(text.contains("3          1.1.0     0123456789ab   accepted   40 us   ops   60m"), "{text}");
    }

    #[test]
    fn evaluations_show_what_would_change() {
        let document = json!({"revision": 3, "verdict": {"allow_with": {}}, "time_us": 12, "memory_bytes": 65536,
            "changes": [{"path": "/spec/replicas", "after": 2}], "log": [{"level": "info", "message": "hi\u{1b}"}]});
        let expected = "\
verdict: {\"allow_with\":{}}
  /spec/replicas nothing -> 2
  info: hi\\u{1b}
revision 3, 12 us, 65536 bytes of memory
";
        assert_eq!(evaluation(&document, Style::NONE), expected);
        assert!(evaluation(&json!({"failure": "trap"}), Style::NONE).starts_with("failed: trap\n"));
        assert_eq!(report(&json!({"trials": []}), Style::NONE), "Nothing is tried out, or nothing was decided yet.\n");
    }
}

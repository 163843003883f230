//! Tenants and tiers, for operators.

use std::fmt::Write;

use jiff::Timestamp;
use serde_json::Value;

use super::{function, time};
use crate::output::clean;
use crate::output::style::{Style, Tone};
use crate::output::table::{Cell, Table};
use crate::view::{Condition, Tenant, Tier};

/// A row per tenant.
#[must_use]
pub fn table(tenants: &[Value], wide: bool, style: Style, now: Timestamp) -> String {
    let mut heads = vec!["ID", "TIER", "STATE", "OWNER", "AGE"];
    if wide {
        heads.extend(["ISSUER", "NAMESPACE", "NAME"]);
    }
    let mut table = Table::new(&heads);
    for tenant in tenants {
        let tenant: Tenant = serde_json::from_value(tenant.clone()).unwrap_or_default();
        let owner = |field: &str| tenant.owner[field].as_str().unwrap_or_default().to_owned();
        let (state, tone) = state(&tenant);
        let mut cells: Vec<Cell> = vec![
            tenant.id.as_str().into(),
            tenant.tier.as_str().into(),
            Cell::toned(state, tone),
            owner("subject").into(),
            time::age(&tenant.created_at, now).into(),
        ];
        if wide {
            let name = tenant.display_name.clone().unwrap_or_default();
            cells.extend([owner("issuer").into(), tenant.namespace.as_str().into(), name.into()]);
        }
        table.row(cells);
    }
    table.render(style)
}

fn state(tenant: &Tenant) -> (String, Tone) {
    let is = |type_: &str, status: &str| {
        tenant.conditions.iter().find(|condition| condition.type_ == type_ && condition.status == status)
    };
    if tenant.suspended {
        return ("Suspended".to_owned(), Tone::Faint);
    }
    match (is("OverQuota", "True"), is("Ready", "True"), is("Ready", "False")) {
        (Some(_), ..) => ("OverQuota".to_owned(), Tone::Bad),
        (_, Some(_), _) => ("Ready".to_owned(), Tone::Good),
        (.., Some(Condition { reason, .. })) => (reason.clone(), Tone::Bad),
        _ => ("Unknown".to_owned(), Tone::Wait),
    }
}

/// All about a tenant.
#[must_use]
pub fn long(document: &Value, style: Style, now: Timestamp) -> String {
    let tenant: Tenant = serde_json::from_value(document.clone()).unwrap_or_default();
    let mut text = String::new();
    let own = |field: &str| tenant.owner[field].as_str().map(clean).unwrap_or_default();
    let (state, tone) = state(&tenant);
    let facts = [
        ("Id", clean(&tenant.id)),
        ("Name", tenant.display_name.as_deref().map(clean).unwrap_or_default()),
        ("Tier", clean(&tenant.tier)),
        (
            "Quota",
            tenant.quota.as_ref().map(|quota| format!("{} instead of the tier's", pairs(quota))).unwrap_or_default(),
        ),
        ("State", style.paint(tone, &clean(&state))),
        ("Owner", own("subject")),
        ("Issuer", own("issuer")),
        ("Namespace", clean(&tenant.namespace)),
    ];
    for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<11}{value}");
    }
    text + &function::timeline(&tenant.conditions, style, now)
}

/// A row per tier.
#[must_use]
pub fn tiers(tiers: &[Value], wide: bool, style: Style) -> String {
    let mut heads = vec!["NAME", "CPU", "MEMORY", "PODS", "FUNCTIONS", "REQUESTS/S", "TENANTS"];
    if wide {
        heads.extend(["CPU-LIMITS", "MEMORY-LIMITS", "BURST", "CONCURRENT", "REPLICAS", "TIME-OUT"]);
    }
    let mut table = Table::new(&heads);
    for document in tiers {
        let tier: Tier = serde_json::from_value(document.clone()).unwrap_or_default();
        let quota = |field: &str| Cell::from(word(&tier.quota[field]));
        let mut cells = vec![
            tier.name.as_str().into(),
            quota("cpuRequests"),
            quota("memoryRequests"),
            quota("pods"),
            quota("functions"),
            word(&document["requestsPerSecond"]).into(),
            tier.tenants.to_string().into(),
        ];
        if wide {
            let more = ["burst", "concurrentInvocations", "maxReplicasPerFunction", "maxTimeoutSeconds"];
            cells.extend([quota("cpuLimits"), quota("memoryLimits")]);
            cells.extend(more.iter().map(|field| Cell::from(word(&document[*field]))));
        }
        table.row(cells);
    }
    table.render(style)
}

fn pairs(object: &Value) -> String {
    let fields = object.as_object().into_iter().flatten();
    fields.map(|(name, value)| clean(&format!("{name} {}", word(value)))).collect::<Vec<_>>().join(", ")
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

    #[test]
    fn tenants_say_how_they_are() {
        let now = "2026-01-01T12:00:00Z".parse().unwrap();
        let ready = json!([{"type": "Ready", "status": "True", "reason": "Provisioned"}]);
        let tenants = [
            json!({"id": "alice", "namespace": "tenant-alice", "createdAt": "2026-01-01T10:00:00Z", "tier": "pro",
                "owner": {"issuer": "i", "subject": "Alice"}, "conditions": ready, "quota": {"pods": 3}}),
            json!({"id": "b", "tier": "free", "suspended": true, "createdAt": "2026-01-01T10:00:00Z"}),
            json!({"id": "c", "tier": "x", "createdAt": "2026-01-01T10:00:00Z",
                "conditions": [{"type": "Ready", "status": "False", "reason": "UnknownTier"}]}),
        ];
        let expected = "\
ID      TIER   STATE         OWNER   AGE
alice   pro    Ready         Alice   2h
b       free   Suspended             2h
c       x      UnknownTier           2h
";
        assert_eq!(table(&tenants, false, Style::NONE, now), expected);
        let text = long(&tenants[0], Style::NONE, now);
        assert!(text.contains("Quota      pods 3 instead of the tier's\n"), "{text}");
    }

    #[test]
    fn tiers_are_rows() {
        let tier = json!({"name": "free", "generation": 1, "tenants": 2, "requestsPerSecond": 20,
            "quota": {"cpuRequests": "2", "memoryRequests": "4Gi", "pods": 10, "functions": 5}});
        let expected = "\
NAME   CPU   MEMORY   PODS   FUNCTIONS   REQUESTS/S   TENANTS
free   2     4Gi      10     5           20           2
";
        assert_eq!(tiers(&[tier], false, Style::NONE), expected);
    }
}

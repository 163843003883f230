//! What is read of a QuotaLedger.

use eventflow_api::ledger::QuotaLedger;
use kube::core::DynamicObject;
use serde_json::Value;

use super::table::Seen;
use super::{Name, views};
use quota::ledger::Ledger;
use quota::packed;

/// What is read of a QuotaLedger.
#[derive(Debug, Clone, PartialEq)]
pub struct LedgerView {
    /// Who holds what, or why that cannot be told.
    pub ledger: Result<Ledger, String>,
    /// How many wait, as people are told.
    pub queued: i64,
}

/// Reads a ledger that the watch gave. Its group is the tenant of its namespace.
#[must_use]
pub fn read(object: DynamicObject) -> (Name, Seen<LedgerView>) {
    let packed = object.data.pointer("/spec/packed").and_then(Value::as_str).unwrap_or_default();
    let queued = object.data.pointer("/spec/queued").and_then(Value::as_i64).unwrap_or_default();
    let view = LedgerView { ledger: packed::decode(packed).map_err(|e| e.to_string()), queued };
    let name = Name::of(&object.metadata);
    let group = views::tenant_group(&name.namespace);
    views::seen(name, &object.metadata, group, view)
}

/// Reads a ledger that the API server answered with.
#[must_use]
pub fn see(object: &QuotaLedger) -> (Name, Seen<LedgerView>) {
    let ledger = packed::decode(&object.spec.packed).map_err(|e| e.to_string());
    let view = LedgerView { ledger, queued: object.spec.queued };
    let name = Name::of(&object.metadata);
    let group = views::tenant_group(&name.namespace);
    views::seen(name, &object.metadata, group, view)
}

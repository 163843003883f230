//! What the watch caches tell of functions and quotas, for those who watch a tenant. Pure, but for the telling.

use std::sync::Arc;

use eventflow_api::function::Function;
use eventflow_api::http::events::{FunctionEvent, FunctionGone, QuotaEvent};
use eventflow_api::ledger::{LEDGER_NAME, QuotaLedger};
use eventflow_api::names::TenantId;
use kube::ResourceExt;
use serde::Serialize;

use super::{Cluster, Inner, object, watch};
use crate::live::reader::Standing;
use crate::live::{Happening, Hub};

/// Under this word the quota stands beside functions' names, none of which can be it.
const QUOTA: &str = "/quota";

impl Inner {
    /// Tells what the watch saw of a function.
    pub(super) fn tell_function(&self, seen: &watch::Seen<Function>) {
        match seen {
            watch::Seen::Changed(function) => {
                let namespace = function.namespace().unwrap_or_default();
                self.live.tell(&namespace, &function.name_any(), function_event(function));
            }
            watch::Seen::Gone(function) => {
                let (namespace, name) = (function.namespace().unwrap_or_default(), function.name_any());
                let gone = happening("function-deleted", &FunctionGone { name: name.clone() });
                self.live.tell_gone(&namespace, &name, gone);
            }
            watch::Seen::Listed => {}
        }
    }

    /// Tells what the watch saw of a ledger.
    pub(super) fn tell_ledger(&self, seen: &watch::Seen<QuotaLedger>) {
        if let watch::Seen::Changed(ledger) = seen {
            self.live.tell(&ledger.namespace().unwrap_or_default(), QUOTA, quota_event(ledger));
        }
    }
}

impl Cluster {
    /// What happens to functions and quotas.
    #[must_use]
    pub fn live(&self) -> Arc<Hub> {
        Arc::clone(&self.inner.live)
    }

    /// How the tenant's functions and its quota stand now.
    #[must_use]
    pub fn standing(&self, id: &TenantId) -> Standing {
        let namespace = id.namespace();
        let mut functions = self.inner.functions.all(&namespace);
        functions.sort_by_key(|function| function.name_any());
        let ledger = self.inner.ledgers.get(&namespace, LEDGER_NAME);
        let functions = functions.into_iter().map(|function| function_event(&function));
        Box::new(functions.chain(ledger.into_iter().map(|ledger| quota_event(&ledger))))
    }
}

fn function_event(function: &Function) -> Happening {
    let status = object::status(function).unwrap_or_default();
    let event = FunctionEvent {
        name: function.name_any(),
        generation: object::generation(function),
        observed_generation: status.observed_generation,
        phase: status.phase,
        replicas: status.replicas,
        ready_replicas: status.ready_replicas,
        deleting: function.metadata.deletion_timestamp.is_some(),
        conditions: status.conditions,
    };
    happening("function", &event)
}

fn quota_event(ledger: &QuotaLedger) -> Happening {
    let spec = &ledger.spec;
    let event = QuotaEvent { hard: spec.hard.clone(), reserved: spec.reserved.clone(), queued: spec.queued };
    happening("quota", &event)
}

fn happening(kind: &'static str, data: &impl Serialize) -> Happening {
    // Texts and numbers alone: writing them cannot fail.
    Happening { kind, data: serde_json::to_string(data).unwrap_or_default().into() }
}

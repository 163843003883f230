//! Waiting for results. Whoever finds no place to wait in gets the id at once, as when its time is over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use eventflow_api::names::TenantId;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::routes::call::Call;
use crate::store::InvocationRow;

/// Longest wait.
const WAIT_MAX: Duration = Duration::from_secs(300);
/// Most callers of one tenant that wait at once.
const OF_TENANT_MAX: usize = 100;
/// Most callers that wait at once.
const MAX: usize = 1_000;
/// How often to look without being told: another gateway's record may come without a word here.
const LOOK: Duration = Duration::from_secs(5);

/// Callers that wait.
#[derive(Debug, Default)]
pub struct Waits(Mutex<HashMap<TenantId, usize>>);

impl Waits {
    fn enter(self: &Arc<Self>, tenant: &TenantId) -> Option<Place> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.get(tenant).copied().unwrap_or(0);
        if own >= OF_TENANT_MAX || taken.values().sum::<usize>() >= MAX {
            return None;
        }
        taken.insert(tenant.clone(), own + 1);
        Some(Place { waits: Arc::clone(self), tenant: tenant.clone() })
    }
}

/// One caller's place; free once this is dropped.
struct Place {
    waits: Arc<Waits>,
    tenant: TenantId,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.waits.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.tenant) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.tenant);
            }
        }
    }
}

/// Reads the one query parameter of a start: `wait`, nothing if it is absent.
///
/// # Errors
/// When it is no duration from 0 to 5 minutes.
pub fn read(call: &Call) -> Result<Duration, ApiError> {
    let mut query = call.query()?;
    let wait = query.text("wait");
    query.finish()?;
    let Some(text) = wait else { return Ok(Duration::ZERO) };
    let wait = humantime::parse_duration(&text).ok().filter(|wait| *wait <= WAIT_MAX);
    wait.ok_or_else(|| ApiError::malformed("The query parameter \"wait\" must be a time from 0s to 5m, such as 30s."))
}

/// Waits until the run is over and written down, at most for `wait`; the run as it is then. Ends early when the gateway
/// does.
///
/// # Errors
/// When the store fails.
pub async fn until_over(
    app: &App,
    caller: &Caller,
    row: InvocationRow,
    wait: Duration,
    mut recorded: broadcast::Receiver<Uuid>,
) -> Result<InvocationRow, ApiError> {
    let Some(_place) = app.waits.enter(&row.tenant) else { return Ok(row) };
    let (end, draining) = (Instant::now() + wait, app.draining());
    loop {
        let look = (Instant::now() + LOOK).min(end);
        let told = async {
            loop {
                match recorded.recv().await {
                    Ok(id) if id != row.id => {}
                    Ok(_) | Err(RecvError::Lagged(_)) => return,
                    // The recorder lives as long as the gateway.
                    Err(RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        let over = tokio::select! {
            told = timeout_at(look, told) => told.is_err() && look == end,
            () = draining.cancelled() => true,
        };
        let now = app.store.invocation_get(&caller.tenant, row.id).await?.unwrap_or_else(|| row.clone());
        if over || now.record.is_some() {
            return Ok(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_per_tenant() {
        let waits = Arc::new(Waits::default());
        let (a, b): (TenantId, TenantId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let held: Vec<_> = (0..OF_TENANT_MAX).map(|_| waits.enter(&a).unwrap()).collect();
        assert!(waits.enter(&a).is_none());
        assert!(waits.enter(&b).is_some());
        drop(held);
        assert!(waits.enter(&a).is_some());
        assert!(waits.0.lock().unwrap().is_empty());
    }
}

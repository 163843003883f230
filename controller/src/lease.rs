//! One leader at a time, by a Lease, as client-go does it: whoever renews it leads; whoever sees it unrenewed for
//! its whole duration, by its own clock, may take it. A lease alone proves nothing about a paused process: what
//! must never happen twice is guarded by compare-and-swap, with the number of transitions as epoch.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout};

use crate::config::LeaseConfig;
use crate::telemetry::chain;

/// How long a leader may still act: until the Lease was last renewed plus the renew deadline, by a clock that goes on
/// while the process is paused. Others take over only later.
#[derive(Debug, Clone)]
pub struct Tenure {
    renewed: Arc<Mutex<Instant>>,
    limit: Duration,
}

impl Tenure {
    /// A tenure that begins now and must be renewed within `limit`.
    #[must_use]
    pub fn new(limit: Duration) -> Self {
        Self { renewed: Arc::new(Mutex::new(Instant::now())), limit }
    }

    /// Whether the leader may still act.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.renewed.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < self.limit
    }

    fn renew(&self, at: Instant) {
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }
}

/// One candidate.
pub struct Candidate {
    api: Api<Lease>,
    identity: String,
    config: LeaseConfig,
    /// The version of the Lease last seen, and when it was first seen.
    seen: Option<(String, Instant)>,
    tenure: Tenure,
}

/// One attempt to get or keep the Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    /// Ours, in this epoch.
    Held(u64),
    /// Someone else's.
    Taken,
}

impl Candidate {
    /// A candidate for the Lease that `config` names.
    #[must_use]
    pub fn new(client: Client, config: LeaseConfig) -> Self {
        let identity = config.identity.clone().unwrap_or_else(made_up_identity);
        let tenure = Tenure::new(config.lease_renew_deadline);
        Self { api: Api::namespaced(client, &config.lease_namespace), identity, config, seen: None, tenure }
    }

    /// This candidate's name.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// How long this candidate may act, once it leads.
    #[must_use]
    pub fn tenure(&self) -> Tenure {
        self.tenure.clone()
    }

    /// Waits until the Lease is ours; gives the epoch.
    pub async fn acquire(&mut self) -> u64 {
        loop {
            let before = Instant::now();
            match timeout(self.config.lease_renew_deadline, self.attempt()).await {
                Ok(Ok(Attempt::Held(epoch))) => {
                    self.tenure.renew(before);
                    return epoch;
                }
                Ok(Ok(Attempt::Taken)) => (),
                Ok(Err(error)) => tracing::warn!(error = chain(&error), "The lease cannot be read or written"),
                Err(_) => tracing::warn!("The lease cannot be read or written in time"),
            }
            sleep(self.config.lease_retry_period).await;
        }
    }

    /// Renews the Lease until that fails for too long or someone else has it.
    pub async fn keep(&mut self) {
        let mut renewed = Instant::now();
        loop {
            sleep(self.config.lease_retry_period).await;
            let left = self.config.lease_renew_deadline.saturating_sub(renewed.elapsed());
            let before = Instant::now();
            match timeout(left, self.attempt()).await {
                Ok(Ok(Attempt::Held(_))) => {
                    renewed = before;
                    self.tenure.renew(before);
                }
                Ok(Ok(Attempt::Taken)) => return,
                Ok(Err(error)) => tracing::warn!(error = chain(&error), "The lease could not be renewed"),
                Err(_) => return,
            }
        }
    }

    /// Gives the Lease back, so that the next leader need not wait. Called once no work is under way.
    pub async fn release(&mut self) {
        let give_back = async {
            let mut lease = self.api.get(&self.config.lease_name).await?;
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() == Some(&self.identity) {
                spec.holder_identity = None;
                spec.lease_duration_seconds = Some(1);
                spec.renew_time = Some(MicroTime(Timestamp::now()));
                self.api.replace(&self.config.lease_name, &PostParams::default(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        };
        match timeout(self.config.lease_retry_period, give_back).await {
            Ok(Ok(())) => (),
            Ok(Err(error)) => tracing::warn!(error = chain(&error), "The lease could not be given back"),
            Err(_) => tracing::warn!("The lease could not be given back in time"),
        }
    }

    async fn attempt(&mut self) -> Result<Attempt, kube::Error> {
        let Some(lease) = self.api.get_opt(&self.config.lease_name).await? else {
            return self.create().await;
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().filter(|holder| !holder.is_empty());
        let ours = holder == Some(&self.identity);
        if holder.is_some() && !ours && !self.expired(&lease, &spec) {
            return Ok(Attempt::Taken);
        }
        let (now, before) = (MicroTime(Timestamp::now()), spec.lease_transitions.unwrap_or_default());
        let transitions = if ours { before } else { before.saturating_add(1) };
        let renewed = Lease {
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: Some(seconds(self.config.lease_duration)),
                acquire_time: if ours { spec.acquire_time.clone() } else { Some(now.clone()) },
                renew_time: Some(now),
                lease_transitions: Some(transitions),
                ..spec
            }),
            // With its resourceVersion: whoever else wrote meanwhile wins.
            ..lease
        };
        match self.api.replace(&self.config.lease_name, &PostParams::default(), &renewed).await {
            Ok(_) => Ok(Attempt::Held(epoch(transitions))),
            Err(kube::Error::Api(status)) if status.is_conflict() && !ours => Ok(Attempt::Taken),
            Err(error) => Err(error),
        }
    }

    async fn create(&self) -> Result<Attempt, kube::Error> {
        let now = MicroTime(Timestamp::now());
        let lease = Lease {
            metadata: ObjectMeta { name: Some(self.config.lease_name.clone()), ..ObjectMeta::default() },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: Some(seconds(self.config.lease_duration)),
                acquire_time: Some(now.clone()),
                renew_time: Some(now),
                lease_transitions: Some(1),
                ..LeaseSpec::default()
            }),
        };
        match self.api.create(&PostParams::default(), &lease).await {
            Ok(_) => Ok(Attempt::Held(epoch(1))),
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(Attempt::Taken),
            Err(error) => Err(error),
        }
    }

    /// Whether the Lease has not changed for its whole duration, by our own clock.
    fn expired(&mut self, lease: &Lease, spec: &LeaseSpec) -> bool {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let since = match &self.seen {
            Some((seen, since)) if *seen == version => *since,
            _ => {
                let now = Instant::now();
                self.seen = Some((version, now));
                now
            }
        };
        let duration = u64::try_from(spec.lease_duration_seconds.unwrap_or_default()).unwrap_or_default();
        since.elapsed() >= Duration::from_secs(duration)
    }
}

fn epoch(transitions: i32) -> u64 {
    u64::try_from(transitions).unwrap_or_default()
}

fn seconds(duration: Duration) -> i32 {
    // The API refuses a duration of 0.
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX).max(1)
}

fn made_up_identity() -> String {
    format!("controller-{}-{:08x}", std::process::id(), rand::random::<u32>())
}

//! Kubernetes Events, one per transition of `Ready` that a person would want to hear of. Sent from one task
//! behind a bounded queue: an event may get lost, but no reconcile ever waits for one.

use eventflow_api::condition::{Condition, ConditionType, Reason, find};
use eventflow_api::labels;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::telemetry::chain;
use crate::world::Name;

/// Events that may wait to be sent.
const WAITING_MAX: usize = 1024;

/// Takes events in.
#[derive(Debug, Clone)]
pub struct Events(mpsc::Sender<(ObjectReference, Event)>);

impl Events {
    /// A queue of events, and the task that sends them until the queue is dropped.
    pub fn new(client: Client, instance: &str) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, mut receiver) = mpsc::channel(WAITING_MAX);
        let reporter =
            Reporter { controller: labels::CONTROLLER_MANAGER.to_owned(), instance: Some(instance.to_owned()) };
        let recorder = Recorder::new(client, reporter);
        let task = async move {
            while let Some((regarding, event)) = receiver.recv().await {
                if let Err(error) = recorder.publish(&event, &regarding).await {
                    tracing::warn!(error = chain(&error), object.name = regarding.name, "An event could not be sent");
                }
            }
        };
        (Self(sender), task)
    }

    /// Tells what changed of a function.
    pub fn function(&self, name: &Name, uid: &str, old: &[Condition], new: &[Condition]) {
        self.tell(reference("Function", name, uid), transition(old, new));
    }

    /// Tells what changed of a tenant.
    pub fn tenant(&self, name: &Name, uid: &str, old: &[Condition], new: &[Condition]) {
        self.tell(reference("Tenant", name, uid), transition(old, new));
    }

    fn tell(&self, regarding: ObjectReference, event: Option<Event>) {
        let Some(event) = event else { return };
        if let Err(TrySendError::Full((regarding, _))) = self.0.try_send((regarding, event)) {
            tracing::warn!(object.name = regarding.name, "Too many events wait; one was dropped");
        }
    }
}

fn reference(kind: &str, name: &Name, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some(format!("{}/{}", labels::GROUP, labels::VERSION)),
        kind: Some(kind.to_owned()),
        name: Some(name.name.clone()),
        namespace: (!name.namespace.is_empty()).then(|| name.namespace.clone()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}

/// The event of a transition, if it is one that people hear of: each reason once, steps on the way not.
fn transition(old: &[Condition], new: &[Condition]) -> Option<Event> {
    let ready = find(new, ConditionType::Ready)?;
    let before = find(old, ConditionType::Ready).map(|c| c.reason);
    let quiet = matches!(
        ready.reason,
        Reason::Starting | Reason::PartlyReady | Reason::TenantNotReady | Reason::Provisioning | Reason::Terminating
    );
    if quiet || before == Some(ready.reason) {
        return None;
    }
    let normal = matches!(
        ready.reason,
        Reason::AllReady | Reason::ScaledToZero | Reason::Suspended | Reason::TenantSuspended | Reason::Provisioned
    );
    Some(Event {
        type_: if normal { EventType::Normal } else { EventType::Warning },
        reason: ready.reason.to_string(),
        note: Some(ready.message.chars().take(512).collect()),
        action: "Reconcile".to_owned(),
        secondary: None,
    })
}

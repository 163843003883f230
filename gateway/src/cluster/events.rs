//! What the cluster reported of a function, its Deployment and its pods. One bounded call to the API server: events
//! are many, and nobody asks for them but a person who wonders.

use eventflow_api::http::quota::ClusterEvent;
use eventflow_api::names::FunctionName;
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::ListParams;

use super::{Cluster, ClusterError, HANDLER_DEADLINE};
use crate::auth::Tenant;

/// Events of the namespace that are read at once.
const PAGE: u32 = 500;
/// Most pages that are read: the API server gives them in no order of time.
const PAGES_MAX: usize = 4;

/// Events, and whether there may be more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Events {
    /// Newest first.
    pub events: Vec<ClusterEvent>,
    /// Not all of them were looked at, or told.
    pub more: bool,
}

impl Cluster {
    /// What the cluster reported of the function and of what was made for it, at most so many.
    ///
    /// # Errors
    /// [`ClusterError::Unavailable`] when the API server does not answer in time.
    pub async fn function_events(
        &self,
        tenant: &Tenant,
        name: &FunctionName,
        most: usize,
    ) -> Result<Events, ClusterError> {
        let api: Api<Event> = Api::namespaced(self.inner.client.clone(), tenant.namespace());
        let listed = tokio::time::timeout(HANDLER_DEADLINE, list(&api)).await;
        let listed = listed.map_err(|elapsed| ClusterError::Unavailable(elapsed.into()))?;
        let (listed, unread) = listed.map_err(|error| ClusterError::Unavailable(error.into()))?;
        let others: Vec<String> = self.inner.functions.map(tenant.namespace(), |_| ()).into_keys().collect();
        let mut events: Vec<_> =
            listed.iter().filter(|event| is_about(event, name.as_str(), &others)).map(told).collect();
        events.sort_by(|a, b| b.at.cmp(&a.at));
        let more = unread || events.len() > most;
        events.truncate(most);
        Ok(Events { events, more })
    }
}

/// The events of the namespace, and whether there are more.
async fn list(api: &Api<Event>) -> Result<(Vec<Event>, bool), kube::Error> {
    let (mut events, mut params) = (Vec::new(), ListParams::default().limit(PAGE));
    for _ in 0..PAGES_MAX {
        let page = api.list(&params).await?;
        events.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok((events, false)),
        }
    }
    Ok((events, true))
}

/// Whether an event is about the function, or about something that was made for it and for no function of a longer
/// name.
fn is_about(event: &Event, name: &str, others: &[String]) -> bool {
    let object = event.involved_object.name.as_deref().unwrap_or_default();
    if event.involved_object.kind.as_deref() == Some("Function") {
        return object == name;
    }
    let made_for = |function: &str| {
        let rest = object.strip_prefix(eventflow_api::names::FUNCTION_PREFIX).and_then(|o| o.strip_prefix(function));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    made_for(name) && !others.iter().any(|other| other.len() > name.len() && made_for(other))
}

fn told(event: &Event) -> ClusterEvent {
    let seen = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
    let seen = seen.or(event.last_timestamp.as_ref().map(|time| time.0));
    let seen = seen.or(event.event_time.as_ref().map(|time| time.0));
    let seen = seen.or(event.metadata.creation_timestamp.as_ref().map(|time| time.0)).unwrap_or_default();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let object = &event.involved_object;
    let count = event.series.as_ref().and_then(|series| series.count).or(event.count);
    ClusterEvent {
        at: seen.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        type_: text(&event.type_),
        reason: text(&event.reason),
        message: text(&event.message),
        object: format!("{}/{}", text(&object.kind), text(&object.name)),
        count: count.unwrap_or(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn events_go_to_the_function_of_the_longest_name() {
        let about = |kind: &str, object: &str, name: &str| {
            let event = json!({"metadata": {}, "involvedObject": {"kind": kind, "name": object}});
            is_about(&serde_json::from_value(event).unwrap(), name, &["a".to_owned(), "a-b".to_owned()])
        };
        assert!(about("Function", "a", "a") && !about("Function", "a-b", "a"));
        assert!(about("Deployment", "fn-a", "a") && about("Pod", "fn-a-5d4f-x2v9p", "a"));
        assert!(about("Pod", "fn-a-b-5d4f-x2v9p", "a-b") && !about("Pod", "fn-a-b-5d4f-x2v9p", "a"));
        assert!(!about("Pod", "fn-ab-1", "a") && !about("Pod", "other", "a"));
    }
}

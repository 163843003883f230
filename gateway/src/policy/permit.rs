//! What the policies let a request do, and what they change about it. Pure.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use policy_engine::set::RateState;
use policy_engine::types::{Pair, RequestChange};

use super::request::write_rates;

/// The priority of a call that no policy ranks.
pub const PRIORITY: u8 = 5;

/// What the policies let a request do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permit {
    /// The set of policies that judged.
    pub set_revision: u64,
    /// Changes to the request, in order: headers towards the function, priority, time-out, notes.
    pub changes: Vec<RequestChange>,
    /// Counters from which tokens were taken.
    pub rates: Vec<RateState>,
}

impl Permit {
    /// Tells the caller what is left of its limits, and by which policies it was judged.
    pub fn write_headers(&self, headers: &mut HeaderMap) {
        write_rates(&self.rates, headers);
        headers.insert("eventflow-policy-revision", HeaderValue::from(self.set_revision));
    }

    /// Changes the headers towards the function, in the policies' order. The engine let none through that carry the
    /// connection, the caller's identity or the platform's word; one that cannot be written is left out.
    pub fn change_headers(&self, headers: &mut HeaderMap) {
        for change in &self.changes {
            match change {
                RequestChange::SetHeader(Pair { name, value }) => {
                    if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
                        headers.insert(name, value);
                    }
                }
                RequestChange::RemoveHeader(name) => drop(headers.remove(name.as_str())),
                RequestChange::SetPriority(_) | RequestChange::SetTimeout(_) | RequestChange::Annotate(_) => {}
            }
        }
    }

    /// How long the call may take at most, if a policy says so: the shortest counts.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        let timeouts = self.changes.iter().filter_map(|change| match change {
            RequestChange::SetTimeout(milliseconds) => Some(Duration::from_millis(u64::from(*milliseconds))),
            _ => None,
        });
        timeouts.min()
    }

    /// The rank of the call, 0 (last) to 9 (first): the last word counts.
    #[must_use]
    pub fn priority(&self) -> u8 {
        let mut ranks = self.changes.iter().rev().filter_map(|change| match change {
            RequestChange::SetPriority(priority) => Some(*priority),
            _ => None,
        });
        ranks.next().unwrap_or(PRIORITY)
    }

    /// The policies' notes about the call, in order.
    pub fn annotations(&self) -> impl Iterator<Item = &Pair> {
        self.changes.iter().filter_map(|change| match change {
            RequestChange::Annotate(note) => Some(note),
            _ => None,
        })
    }

    /// Writes the notes into the call's trace: they stand beside its id, method and route.
    pub fn trace(&self) {
        for Pair { name, value } in self.annotations() {
            tracing::info!(policy.note = name, policy.value = value, "A policy notes.");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str, value: &str) -> Pair {
        Pair { name: name.to_owned(), value: value.to_owned() }
    }

    #[test]
    fn changes_apply_in_order() {
        let permit = Permit {
            changes: vec![
                RequestChange::SetHeader(pair("x-plan", "silver")),
                RequestChange::RemoveHeader("x-debug".to_owned()),
                RequestChange::SetPriority(1),
                RequestChange::SetTimeout(900),
                RequestChange::SetHeader(pair("x-plan", "gold")),
                RequestChange::SetHeader(pair("x-late", "1")),
                RequestChange::RemoveHeader("x-late".to_owned()),
                RequestChange::SetTimeout(200),
                RequestChange::SetTimeout(500),
                RequestChange::SetPriority(7),
                RequestChange::Annotate(pair("why", "because")),
            ],
            ..Permit::default()
        };
        let mut headers = HeaderMap::new();
        headers.append("x-plan", HeaderValue::from_static("mine"));
        headers.append("x-plan", HeaderValue::from_static("mine too"));
        headers.append("x-debug", HeaderValue::from_static("1"));
        headers.append("x-own", HeaderValue::from_static("1"));
        permit.change_headers(&mut headers);
        let values = |name| headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!((values("x-plan"), values("x-own"), headers.len()), (vec!["gold"], vec!["1"], 2));
        assert_eq!((permit.timeout(), permit.priority()), (Some(Duration::from_millis(200)), 7));
        assert_eq!(permit.annotations().collect::<Vec<_>>(), [&pair("why", "because")]);
    }

    #[test]
    fn without_changes_all_is_as_it_was() {
        let (permit, mut headers) = (Permit::default(), HeaderMap::new());
        permit.change_headers(&mut headers);
        assert_eq!((headers.len(), permit.timeout(), permit.priority()), (0, None, PRIORITY));
    }
}

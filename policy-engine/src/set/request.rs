//! Requests: the changes of all policies gathered in their order; the gateway applies them when all have allowed.

use crate::run::{Call, Decision};
use crate::set::course::{Course, Docket, NotAccepted, Opinion};
use crate::set::{PolicySet, RateState, Refused, Step};
use crate::snapshot::Policy;
use crate::types::{RequestChange, RequestView, TenantView, Verdict};

/// What a set says about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestOutcome {
    /// The set's revision.
    pub revision: u64,
    /// The changes to make, in order, or why it is refused.
    pub result: Result<Vec<RequestChange>, Refused>,
    /// Counters from which tokens were taken.
    pub rates: Vec<RateState>,
    /// Who judged, in order.
    pub steps: Vec<Step>,
}

impl PolicySet {
    /// Judges a request, on the calling thread. An admission set allows everything.
    #[must_use]
    pub fn check(&self, view: &RequestView, call: &Call) -> RequestOutcome {
        let docket = Request { view, changes: Vec::new() };
        let mut course = Course { call, docket, steps: Vec::new(), rates: Vec::new() };
        let result = course.run(self);
        RequestOutcome {
            revision: self.revision,
            result: result.map(|()| course.docket.changes),
            rates: course.rates,
            steps: course.steps,
        }
    }
}

struct Request<'a> {
    view: &'a RequestView,
    changes: Vec<RequestChange>,
}

impl Docket for Request<'_> {
    type Change = Vec<RequestChange>;

    fn tenant(&self) -> &TenantView {
        &self.view.tenant
    }

    fn request_id(&self) -> &str {
        &self.view.request_id
    }

    fn ask(&self, policy: &Policy, call: &Call) -> Decision<Opinion<Self::Change>> {
        let decision = policy.check(self.view, call);
        decision.map(|verdict| match verdict {
            Verdict::Allow => Opinion::Allow,
            Verdict::AllowWith(with) => Opinion::Change(with.changes),
            Verdict::Rate(rate) => Opinion::Rate(rate),
            Verdict::Deny(denial) => Opinion::Deny(denial),
        })
    }

    fn accept(&mut self, change: Self::Change) -> Result<(), NotAccepted> {
        self.changes.extend(change);
        Ok(())
    }
}

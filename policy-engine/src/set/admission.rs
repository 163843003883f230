//! Admission: patches apply in the order of the policies, each result is validated by the caller, and what came of all
//! of them is judged once more by the same set. In that second pass nothing may change any more: a policy that would is
//! at odds with a later one or with itself, and no order of events would satisfy both.

use serde_json::Value;

use crate::counters::Lane;
use crate::patch;
use crate::run::{Call, Decision};
use crate::set::course::{Course, Docket, NotAccepted, Opinion};
use crate::set::{PolicySet, RateState, Refused, Step};
use crate::snapshot::Policy;
use crate::types::{AdmissionChanges, AdmissionVerdict, AdmissionView, Operation, TenantView};
use crate::verdict::InvalidAnswer;

/// Says whether an object is still a valid function; the text is for the operator.
pub type Validate<'a> = &'a dyn Fn(&Value) -> Result<(), String>;

/// What a set says about a change of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmissionOutcome {
    /// The set's revision.
    pub revision: u64,
    /// The object to go on with, or why it is refused.
    pub result: Result<Admitted, Refused>,
    /// Counters from which tokens were taken.
    pub rates: Vec<RateState>,
    /// Who judged, in order; of the second pass only those that refused.
    pub steps: Vec<Step>,
}

/// An object that the policies let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// As the policies changed it.
    pub object: Value,
    /// Whether they did.
    pub changed: bool,
    /// Sentences for the caller.
    pub warnings: Vec<String>,
}

impl PolicySet {
    /// Judges a change of a function, on the calling thread, which should not be one that serves requests. A request
    /// set allows everything. `view.object` must be JSON; otherwise nothing can be changed.
    #[must_use]
    pub fn admit(&self, view: &AdmissionView, validate: Validate<'_>, call: &Call) -> AdmissionOutcome {
        let before: Value = serde_json::from_str(&view.object).unwrap_or(Value::Null);
        let docket =
            Change { view: view.clone(), object: before.clone(), validate, warnings: Vec::new(), settled: false };
        let mut course = Course { call, docket, steps: Vec::new(), rates: Vec::new() };
        let mut result = course.run(self);
        let changed = course.docket.object != before;
        let (mut steps, rates) = (course.steps, course.rates);
        let mut docket = course.docket;
        if result.is_ok() && changed {
            docket.settled = true;
            // Tokens were taken in the first pass.
            let again = Call { lane: Lane::Settled, ..call.clone() };
            let mut second = Course { call: &again, docket, steps: Vec::new(), rates: Vec::new() };
            result = second.run(self);
            if result.is_err() {
                steps.extend(second.steps.pop());
            }
            docket = second.docket;
        }
        let admitted = Admitted { object: docket.object, changed, warnings: docket.warnings };
        AdmissionOutcome { revision: self.revision, result: result.map(|()| admitted), rates, steps }
    }
}

struct Change<'a> {
    /// The object in it is always the text of `object`.
    view: AdmissionView,
    object: Value,
    validate: Validate<'a>,
    warnings: Vec<String>,
    settled: bool,
}

impl Docket for Change<'_> {
    type Change = AdmissionChanges;

    fn tenant(&self) -> &TenantView {
        &self.view.tenant
    }

    fn request_id(&self) -> &str {
        &self.view.request_id
    }

    fn ask(&self, policy: &Policy, call: &Call) -> Decision<Opinion<Self::Change>> {
        let decision = policy.admit(&self.view, call);
        decision.map(|verdict| match verdict {
            AdmissionVerdict::Allow => Opinion::Allow,
            AdmissionVerdict::AllowWith(with) => Opinion::Change(with),
            AdmissionVerdict::Rate(rate) => Opinion::Rate(rate),
            AdmissionVerdict::Deny(denial) => Opinion::Deny(denial),
        })
    }

    fn accept(&mut self, change: Self::Change) -> Result<(), NotAccepted> {
        let object = patch::apply(&self.object, &change.patch).map_err(NotAccepted::Invalid)?;
        if self.settled {
            return if object == self.object { Ok(()) } else { Err(NotAccepted::Settled) };
        }
        if object != self.object {
            if !matches!(self.view.operation, Operation::Create | Operation::Update) {
                let message = "its patch changes a function that is not being written".to_owned();
                return Err(NotAccepted::Invalid(InvalidAnswer::Patch(message)));
            }
            (self.validate)(&object).map_err(|why| {
                let message = format!("the function it makes is not valid: {why}");
                NotAccepted::Invalid(InvalidAnswer::Patch(message))
            })?;
            self.view.object = object.to_string();
            self.object = object;
        }
        self.warnings.extend(change.warnings);
        Ok(())
    }
}

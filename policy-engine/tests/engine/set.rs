//! Sets: scope, order, trials, groups, failure modes, rates, patches.

use std::collections::BTreeSet;
use std::sync::Arc;

use policy_engine::counters::Lane;
use policy_engine::set::{
    Binding, Entry, Group, GroupKind, PolicySet, Published, Refused, Role, Scope, Trial, TrialMode,
};
use policy_engine::types::{AdmissionView, FailureMode, Operation, RequestView};
use policy_engine::{Call, Policy, World};
use serde_json::{Value, json};

use crate::common::{Admits, Guest, admission, builtin, call, load, request};

/// A guest that refuses everything with `status`.
fn denies(status: u16) -> Arc<Policy> {
    let check = format!(
        "(i32.store8 (i32.const 1024) (i32.const 3)) (i32.store16 (i32.const 1028) (i32.const {status}))
         (i32.store (i32.const 1032) (i32.const 16)) (i32.store (i32.const 1036) (i32.const 5)) i32.const 1024"
    );
    Arc::new(Guest { check: &check, ..Guest::default() }.policy())
}

fn allows() -> Arc<Policy> {
    Arc::new(Guest::default().policy())
}

fn traps() -> Arc<Policy> {
    Arc::new(Guest { check: "unreachable", ..Guest::default() }.policy())
}

fn configured(name: &str, world: World, settings: &Value) -> Arc<Policy> {
    Arc::new(Policy::configure(&load(&builtin(name)).unwrap(), world, settings).unwrap())
}

fn bound(name: &str, order: i32, policy: Arc<Policy>) -> Binding {
    Binding {
        name: name.into(),
        scope: Scope::Everyone,
        order,
        failure: FailureMode::Closed,
        active: Some(policy),
        trial: None,
    }
}

fn set(bindings: Vec<Binding>) -> PolicySet {
    PolicySet::new(7, World::Request, bindings.into_iter().map(Entry::One).collect()).unwrap()
}

/// Status of the refusal, or 200.
fn status(set: &PolicySet, view: &RequestView) -> u16 {
    match set.check(view, &call()).result {
        Ok(_) => 200,
        Err(Refused::Denied { denial, .. }) => denial.status,
        Err(Refused::RateLimited { .. }) => 429,
        Err(Refused::Failed { .. } | Refused::Unsettled { .. }) => 503,
    }
}

#[test]
fn the_first_refusal_in_order_ends_it() {
    let set = set(vec![bound("c", 3, denies(403)), bound("b", 2, denies(402)), bound("a", 1, allows())]);
    let outcome = set.check(&request(), &call());
    assert_eq!(outcome.revision, 7);
    assert_eq!(
        outcome.steps.iter().map(|s| (&*s.binding, s.verdict)).collect::<Vec<_>>(),
        [("a", "allow"), ("b", "deny")]
    );
    assert!(
        matches!(outcome.result, Err(Refused::Denied { binding, denial }) if &*binding == "b" && denial.status == 402)
    );
    assert_eq!(status(&self::set(vec![]), &request()), 200);
}

#[test]
fn scope_decides_whom_it_is_about() {
    let with = |scope| set(vec![Binding { scope, ..bound("a", 1, denies(403)) }]);
    let (tier, tenant) = (Scope::Tier("pro".into()), Scope::Tenant("acme".into()));
    assert_eq!((status(&with(tier.clone()), &request()), status(&with(tenant.clone()), &request())), (403, 403));
    let mut other = request();
    other.tenant.id = "other".into();
    other.tenant.tier = "free".into();
    assert_eq!((status(&with(tier), &other), status(&with(tenant), &other)), (200, 200));
}

#[test]
fn a_failing_policy_costs_what_its_binding_says() {
    let closed = set(vec![bound("a", 1, traps()), bound("b", 2, allows())]);
    assert_eq!(status(&closed, &request()), 503);
    let open = set(vec![Binding { failure: FailureMode::Open, ..bound("a", 1, traps()) }, bound("b", 2, denies(403))]);
    let outcome = open.check(&request(), &call());
    assert_eq!((outcome.steps[0].verdict, outcome.steps[1].verdict), ("failed", "deny"));
}

#[test]
fn a_shadow_is_noted_and_never_enforced() {
    let trial = |policy| Some(Trial { policy, mode: TrialMode::Shadow });
    let with = |active, policy| set(vec![Binding { active, trial: trial(policy), ..bound("a", 1, allows()) }]);
    for policy in [denies(403), traps()] {
        let outcome = with(Some(allows()), policy).check(&request(), &call());
        assert!(outcome.result.is_ok());
        assert_eq!(outcome.steps.iter().map(|s| s.role).collect::<Vec<_>>(), [Role::Active, Role::Shadow]);
        assert_eq!(outcome.steps[1].difference.as_ref().unwrap().0, "allow");
    }
    let agreed = with(Some(denies(403)), denies(403)).check(&request(), &call());
    assert_eq!(agreed.steps[1].difference, None);
    let alone = with(None, denies(403)).check(&request(), &call());
    assert!(alone.result.is_ok() && alone.steps[0].difference.is_some());
}

#[test]
fn a_canary_decides_for_its_share_and_its_tenants() {
    let canary = |basis_points, tenants: &[&str]| {
        let tenants: BTreeSet<_> = tenants.iter().map(|t| (*t).to_owned()).collect();
        let trial = Some(Trial { policy: denies(403), mode: TrialMode::Canary { basis_points, tenants } });
        set(vec![Binding { trial, ..bound("a", 1, allows()) }])
    };
    let refused = |set: &PolicySet| {
        let ids = (0..2_000).map(|i| RequestView { request_id: format!("req-{i}"), ..request() });
        ids.filter(|view| status(set, view) == 403).count()
    };
    assert_eq!(refused(&canary(0, &[])), 0);
    assert_eq!(refused(&canary(10_000, &[])), 2_000);
    // 20 % of 2,000 is 400 with a standard deviation of 18: five of them.
    let share = refused(&canary(2_000, &[]));
    assert!((310..=490).contains(&share), "{share}");
    assert_eq!(refused(&canary(0, &["acme"])), 2_000);
    let same = canary(5_000, &[]);
    assert!((0..50).all(|_| status(&same, &request()) == status(&same, &request())), "by id, not by chance");
}

#[test]
fn groups_are_all_any_or_first_match() {
    let group = |kind, members| {
        let group = Group { name: "g".into(), order: 1, kind, members };
        PolicySet::new(1, World::Request, vec![Entry::Group(group)]).unwrap()
    };
    let of = |kind, members: &[&Arc<Policy>]| {
        let members = members.iter().enumerate().map(|(i, p)| bound(&format!("m{i}"), 0, (*p).clone()));
        status(&group(kind, members.collect()), &request())
    };
    let (yes, no, broken) = (allows(), denies(403), traps());
    assert_eq!(of(GroupKind::All, &[&yes, &yes]), 200);
    assert_eq!(of(GroupKind::All, &[&yes, &no]), 403);
    assert_eq!(of(GroupKind::Any, &[&no, &yes]), 200);
    assert_eq!(of(GroupKind::Any, &[&no, &broken]), 403);
    assert_eq!(of(GroupKind::Any, &[&broken, &yes]), 200);
    assert_eq!(of(GroupKind::Any, &[]), 200);
    assert_eq!(of(GroupKind::FirstMatch, &[&yes, &no]), 200);
    // A member that is only tried out neither allows nor decides.
    let tried = Some(Trial { policy: yes.clone(), mode: TrialMode::Shadow });
    for kind in [GroupKind::All, GroupKind::Any, GroupKind::FirstMatch] {
        let shadow = Binding { active: None, trial: tried.clone(), ..bound("shadow", 0, yes.clone()) };
        assert_eq!(status(&group(kind, vec![shadow, bound("rule", 0, no.clone())]), &request()), 403, "{kind:?}");
    }
    let exception = Binding { scope: Scope::Tenant("other".into()), ..bound("x", 0, allows()) };
    let members = vec![exception, bound("rule", 0, denies(403))];
    let exceptions = group(GroupKind::FirstMatch, members);
    assert_eq!(status(&exceptions, &request()), 403);
    let mut other = request();
    other.tenant.id = "other".into();
    assert_eq!(status(&exceptions, &other), 200);
}

#[test]
fn rates_are_exact_to_the_token() {
    let policy = configured("tier-limits", World::Request, &json!({}));
    let set = set(vec![bound("limits", 1, policy)]);
    let call = call();
    let mut view = request();
    (view.tenant.limits.requests_per_second, view.tenant.limits.burst) = (1, 30);
    // A look does not count.
    let peek = Call { lane: Lane::Peek, ..call.clone() };
    assert!((0..100).all(|_| set.check(&view, &peek).result.is_ok()));
    let started = std::time::Instant::now();
    let outcomes: Vec<_> = (0..60).map(|_| set.check(&view, &call)).collect();
    let given = outcomes.iter().filter(|o| o.result.is_ok()).count();
    // The burst, and a token for each second the loop took.
    let refilled = usize::try_from(started.elapsed().as_secs()).unwrap();
    assert!((30..=30 + refilled).contains(&given), "{given}");
    assert_eq!((outcomes[0].rates[0].remaining, outcomes[0].rates[0].name.as_str()), (29, "requests"));
    let last = &outcomes[59];
    assert!(
        matches!(&last.result, Err(Refused::RateLimited { rate, .. }) if rate.retry_after_ms <= 1_000 && rate.limit == 1)
    );
    let other = Call { tenant: "other".into(), ..call };
    assert!(set.check(&view, &other).result.is_ok());
}

fn admission_set(bindings: Vec<(&str, Value)>) -> PolicySet {
    let bindings = bindings.into_iter().enumerate().map(|(i, (name, settings))| {
        let policy = configured(name, World::Admission, &settings);
        Entry::One(bound(&format!("{i}-{name}"), i as i32, policy))
    });
    PolicySet::new(1, World::Admission, bindings.collect()).unwrap()
}

fn function() -> AdmissionView {
    admission(&json!({"metadata": {"name": "f", "namespace": "tenant-acme"}, "spec": {"image": "a:1"}}))
}

#[test]
fn patches_apply_in_order_and_are_judged_again() {
    let defaults = |memory: &str| ("resource-bounds", json!({"everyone": {"defaults": {"memoryLimit": memory}}}));
    let bounds = ("resource-bounds", json!({"everyone": {"bounds": {"memoryLimit": {"max": "1Gi"}}}}));
    let good = admission_set(vec![bounds.clone(), defaults("256Mi"), ("replica-limit", json!({}))]);
    let outcome = good.admit(&function(), &|_| Ok(()), &call());
    let admitted = outcome.result.unwrap();
    assert!(admitted.changed);
    assert_eq!(admitted.object["spec"]["resources"], json!({"memoryLimit": "256Mi"}));
    // The bounds come first and saw 512Mi; what the defaults made of it is over them.
    let bad = admission_set(vec![bounds, defaults("2Gi")]);
    let refused = bad.admit(&function(), &|_| Ok(()), &call());
    assert!(matches!(refused.result, Err(Refused::Denied { binding, .. }) if &*binding == "0-resource-bounds"));
    // The first default wins; the second finds it written.
    let both = admission_set(vec![defaults("256Mi"), defaults("128Mi")]);
    let admitted = both.admit(&function(), &|_| Ok(()), &call()).result.unwrap();
    assert_eq!(admitted.object["spec"]["resources"]["memoryLimit"], "256Mi");
}

/// `resource-bounds` writes nothing into a function that is not being written; a policy that did would have failed.
#[test]
fn only_what_is_written_can_be_changed() {
    let sets = admission_set(vec![("resource-bounds", json!({"everyone": {"defaults": {"memoryLimit": "256Mi"}}}))]);
    for operation in [Operation::Delete, Operation::Invoke] {
        let view = AdmissionView { operation, ..function() };
        assert!(!sets.admit(&view, &|_| Ok(()), &call()).result.unwrap().changed);
    }
    let always = Arc::new(Admits("[{\"op\":\"add\",\"path\":\"/spec/port\",\"value\":1}]").policy());
    let set = PolicySet::new(1, World::Admission, vec![Entry::One(bound("a", 1, always))]).unwrap();
    for (operation, changes) in [(Operation::Create, true), (Operation::Delete, false), (Operation::Invoke, false)] {
        let view = AdmissionView { operation, ..function() };
        let result = set.admit(&view, &|_| Ok(()), &call()).result;
        match result {
            Ok(admitted) => assert!(changes && admitted.object["spec"]["port"] == 1),
            Err(refused) => assert!(!changes && matches!(refused, Refused::Failed { .. }), "{refused:?}"),
        }
    }
}

#[test]
fn an_invalid_result_is_the_policys_failure() {
    let set = admission_set(vec![("resource-bounds", json!({"everyone": {"defaults": {"memoryLimit": "1Gi"}}}))]);
    let refuse = |_: &Value| Err("no".to_owned());
    let outcome = set.admit(&function(), &refuse, &call());
    assert!(matches!(outcome.result, Err(Refused::Failed { .. })), "{outcome:?}");
    assert_eq!(outcome.steps[0].verdict, "failed");
}

#[test]
fn a_set_is_of_one_world() {
    assert!(PolicySet::new(1, World::Admission, vec![Entry::One(bound("a", 1, allows()))]).is_err());
}

#[test]
fn a_request_sees_one_revision_while_sets_are_swapped() {
    let sets = [(1, allows()), (2, denies(403))].map(|(revision, policy)| {
        Arc::new(PolicySet::new(revision, World::Request, vec![Entry::One(bound("a", 1, policy))]).unwrap())
    });
    let published = Published::new(set(vec![]));
    published.publish(sets[0].clone());
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..3_000 {
                        let outcome = published.current().check(&request(), &call());
                        assert_eq!(outcome.result.is_ok(), outcome.revision == 1, "{outcome:?}");
                    }
                })
            })
            .collect();
        let mut swaps = 0;
        while readers.iter().any(|reader| !reader.is_finished()) || swaps < 500 {
            published.publish(sets[(swaps + 1) % 2].clone());
            swaps += 1;
        }
    });
}

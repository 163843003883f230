//! Who waits for quota, in order, and how many of them fit now. One queue per tenant; nothing here is stored, the
//! queue is computed from the functions that want more than they hold.

use std::cmp::Reverse;
use std::time::Duration;

use eventflow_api::labels;

use crate::ledger::{Claim, Ledger};
use crate::uid::Uid;
use crate::vector::{Shortfall, Vector};

/// How long a blocked one is passed by smaller ones before it blocks those behind it.
pub const MAX_PASS_DEFAULT: Duration = Duration::from_secs(60);

/// One that wants to hold more than it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// What it wants.
    pub claim: Claim,
    /// Higher goes first.
    pub priority: i32,
    /// When the object was created, in seconds since 1970; earlier goes first.
    pub created: i64,
    /// How long it has waited for what it wants now.
    pub waited: Duration,
}

impl Waiting {
    /// What decides who is first; the uid makes it total.
    fn order(&self) -> (Reverse<i32>, i64, Uid) {
        (Reverse(self.priority), self.created, self.claim.uid)
    }
}

/// One that has to wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// Whose.
    pub uid: Uid,
    /// Its place among those that have to wait, from 1.
    pub position: usize,
    /// What is missing once everything picked has been reserved; empty if it only waits for its turn.
    pub shortfall: Vec<Shortfall>,
    /// The one before it that has waited too long to be passed.
    pub behind: Option<Uid>,
}

/// One that can never fit: more than the whole quota.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exceeding {
    /// Whose.
    pub uid: Uid,
    /// Requested and limit in each dimension that is too small.
    pub over: Vec<Shortfall>,
}

/// What becomes of those that wait.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// These fit, all together: [`Ledger::admit`] grants them.
    pub picked: Vec<Claim>,
    /// These wait, in order.
    pub blocked: Vec<Blocked>,
    /// These can never fit, and hold nobody up.
    pub exceeding: Vec<Exceeding>,
}

/// The priority that a Function's annotation [`labels::PRIORITY`] says, if it is a number in bounds; else the same as
/// everyone's.
#[must_use]
pub fn priority(annotation: Option<&str>) -> i32 {
    let number = annotation.and_then(|text| text.parse().ok());
    number.filter(|number| (-labels::PRIORITY_MAX..=labels::PRIORITY_MAX).contains(number)).unwrap_or_default()
}

/// Picks as many as fit in `ledger`, in order of (priority, creation, uid). One that does not fit may be passed by
/// those behind it until it has waited `max_pass`; from then on nobody passes it, so it is served as soon as enough
/// goes, however small and many the newcomers are. What exceeds the whole quota never queues; what needs no more than
/// it holds never waits. Each uid may come once in `waiting`.
#[must_use]
pub fn take_while_fits(ledger: &Ledger, waiting: &[Waiting], max_pass: Duration) -> Selection {
    let mut waiting: Vec<&Waiting> = waiting.iter().collect();
    waiting.sort_unstable_by_key(|w| w.order());
    let mut selection = Selection::default();
    let mut sum = *ledger.sum();
    let mut blocked = Vec::new();
    let mut behind = None;
    for Waiting { claim, waited, .. } in waiting {
        let over = claim.wants.shortfall(&Vector::ZERO, ledger.hard());
        let free = ledger.needs_nothing(claim);
        if !over.is_empty() && !free {
            selection.exceeding.push(Exceeding { uid: claim.uid, over });
        } else if let Ok(with) = ledger.sum_with(&sum, claim)
            && (free || behind.is_none())
        {
            sum = with;
            selection.picked.push(*claim);
        } else {
            blocked.push((claim, behind));
            if *waited >= max_pass {
                behind = behind.or(Some(claim.uid));
            }
        }
    }
    let tell = |(i, (claim, behind)): (usize, (&Claim, Option<Uid>))| {
        let held = ledger.held(claim.uid);
        // Never saturates: the sum includes what it holds.
        let shortfall = held.max(&claim.wants).shortfall(&sum.saturating_sub(&held), ledger.hard());
        Blocked { uid: claim.uid, position: i + 1, shortfall, behind }
    };
    selection.blocked = blocked.into_iter().enumerate().map(tell).collect();
    selection
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::tests::{claims, steps, take};
    use crate::vector::tests::vectors;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const PASS: Duration = Duration::from_secs(60);

    fn waiting(n: u128, pods: u64, created: i64, waited: u64) -> Waiting {
        let wants = Vector { pods, ..Vector::ZERO };
        let claim = Claim { uid: Uid::from_bits(n), generation: 1, wants };
        Waiting { claim, priority: 0, created, waited: Duration::from_secs(waited) }
    }

    fn room_for(pods: u64) -> Ledger {
        Ledger::new(Vector { pods, ..Vector::ZERO }, 1)
    }

    fn uids(selection: &Selection) -> [Vec<u128>; 3] {
        [
            selection.picked.iter().map(|c| c.uid.bits()).collect(),
            selection.blocked.iter().map(|b| b.uid.bits()).collect(),
            selection.exceeding.iter().map(|e| e.uid.bits()).collect(),
        ]
    }

    #[test]
    fn priority_then_age_then_uid() {
        let urgent = Waiting { priority: 5, ..waiting(9, 1, 100, 0) };
        let queue = [waiting(3, 1, 20, 0), waiting(2, 1, 20, 0), waiting(1, 1, 30, 0), urgent, waiting(4, 1, 10, 0)];
        let selection = take_while_fits(&room_for(3), &queue, PASS);
        assert_eq!(uids(&selection), [vec![9, 4, 2], vec![3, 1], vec![]]);
        assert_eq!(selection.blocked.iter().map(|b| b.position).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn a_blocked_head_is_passed_until_it_has_waited_enough() {
        let queue = |waited| [waiting(1, 4, 1, waited), waiting(2, 1, 2, 0), waiting(3, 9, 3, 99)];
        let ledger = room_for(5).admit(1, &[waiting(7, 2, 0, 0).claim]).unwrap();
        let early = take_while_fits(&ledger, &queue(59), PASS);
        assert_eq!(uids(&early), [vec![2], vec![1], vec![3]]);
        assert_eq!((early.blocked[0].shortfall[0].missing, early.blocked[0].shortfall[0].available), (2, 2));
        let late = take_while_fits(&ledger, &queue(60), PASS);
        assert_eq!(uids(&late), [vec![], vec![1, 2], vec![3]]);
        assert_eq!(
            (late.blocked[1].behind, late.blocked[1].shortfall.as_slice()),
            (Some(Uid::from_bits(1)), [].as_slice())
        );
        assert_eq!((late.exceeding[0].over[0].requested, late.exceeding[0].over[0].available), (9, 5));
    }

    #[test]
    fn what_needs_nothing_more_never_waits() {
        let ledger = room_for(5).admit(1, &[waiting(7, 4, 0, 0).claim]).unwrap();
        let lowered = ledger.with_hard(1, Vector { pods: 3, ..Vector::ZERO }).unwrap();
        let queue = [waiting(1, 3, 1, 600), waiting(7, 4, 2, 0), waiting(8, 1, 3, 0)];
        assert_eq!(uids(&take_while_fits(&lowered, &queue, PASS)), [vec![7], vec![1, 8], vec![]]);
    }

    fn queues() -> impl Strategy<Value = Vec<Waiting>> {
        let one = (claims(), -1..2i32, 0..4i64, 0..3u64);
        prop::collection::vec(one, 0..12).prop_map(|all| {
            let by_uid: BTreeMap<_, _> = all
                .into_iter()
                .map(|(claim, priority, created, minutes)| {
                    (claim.uid, Waiting { claim, priority, created, waited: Duration::from_secs(40 * minutes) })
                })
                .collect();
            by_uid.into_values().collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn whatever_is_picked_is_granted_and_order_is_kept(
            hard in vectors(12), history in prop::collection::vec(steps(), 0..8), queue in queues(),
        ) {
            let ledger = history.iter().fold(Ledger::new(hard, 1), |l, s| take(&l, s).unwrap_or(l));
            let selection = take_while_fits(&ledger, &queue, PASS);
            let after = ledger.admit(ledger.epoch(), &selection.picked).unwrap();
            prop_assert!(after.bounded_by(&ledger));
            prop_assert_eq!(selection.picked.len() + selection.blocked.len() + selection.exceeding.len(), queue.len());

            let find = |uid: Uid| queue.iter().find(|w| w.claim.uid == uid).unwrap();
            let blocked: Vec<_> = selection.blocked.iter().map(|b| find(b.uid)).collect();
            prop_assert!(blocked.is_sorted_by_key(|w| w.order()));
            if let Some(head) = blocked.first() {
                prop_assert!(after.admit(after.epoch(), &[head.claim]).is_err(), "a head that fits waits");
            }
            for (i, told) in selection.blocked.iter().enumerate() {
                let waiting = blocked[i];
                prop_assert_eq!(told.position, i + 1);
                // Whoever waits either does not fit, or has one before it that waited too long to be passed.
                let fits = after.admit(after.epoch(), &[waiting.claim]).is_ok();
                // A claim older than what is held lacks nothing and is refused until the newer object is seen.
                let stale = ledger.is_stale(&waiting.claim);
                prop_assert!(stale || fits == told.shortfall.is_empty());
                prop_assert!(!fits || told.behind.is_some());
                let overdue = blocked[..i].iter().find(|w| w.waited >= PASS).map(|w| w.claim.uid);
                prop_assert_eq!(told.behind, overdue);
            }
            for claim in &selection.picked {
                prop_assert!(!ledger.is_stale(claim) || ledger.needs_nothing(claim));
                let passed = blocked.iter().filter(|w| w.order() < find(claim.uid).order() && w.waited >= PASS);
                prop_assert!(ledger.needs_nothing(claim) || passed.count() == 0, "an overdue one was passed");
            }
            for e in &selection.exceeding {
                prop_assert!(!find(e.uid).claim.wants.fits_within(ledger.hard()) && !e.over.is_empty());
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]
        #[test]
        fn everyone_is_served_in_the_end(sizes in prop::collection::vec(1..5u64, 1..12)) {
            // Each served one ends at once; newcomers of size 1 keep coming. Overdue ones still get their turn.
            let mut queue: Vec<_> = sizes.iter().enumerate().map(|(i, s)| waiting(i as u128, *s, i as i64, 0)).collect();
            let mut ledger = room_for(4);
            for round in 0..200 {
                let oldest = *ledger.reservations().keys().next().unwrap_or(&Uid::from_bits(0));
                ledger = ledger.end(1, oldest).and_then(|ledger| ledger.release(1, oldest)).unwrap();
                queue.push(waiting(1000 + round, 1, 1000, 0));
                let picked = take_while_fits(&ledger, &queue, PASS).picked;
                ledger = ledger.admit(1, &picked).unwrap();
                queue.retain(|w| !picked.contains(&w.claim));
                queue.iter_mut().for_each(|w| w.waited += Duration::from_secs(10));
            }
            prop_assert!(queue.iter().all(|w| w.claim.uid.bits() >= 1000), "{queue:?}");
        }
    }
}

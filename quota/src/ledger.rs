//! Who holds what of a tenant's quota. A value with transitions: each takes the ledger as read and gives the ledger
//! to write back by compare-and-swap, or a refusal. Writing it back any other way breaks every promise below.
//!
//! What holds of any ledger reached by these transitions, whoever calls them in whatever order:
//! - `Ledger::sum` is the sum of the reservations, and never overflows;
//! - `Ledger::bounded_by`: in every dimension the sum is at most the larger of `hard` and the sum before;
//! - `seq` grows with every change, `epoch` never falls;
//! - a reservation never becomes smaller on behalf of an older generation than it was made for, and is released only
//!   after a change that marked it as ending.

use std::collections::BTreeMap;

use eventflow_api::admission::Dimension;

use crate::uid::Uid;
use crate::vector::{AMOUNT_MAX, Shortfall, Vector, VectorError};

/// The generation of a reservation that is being given back: newer than any of a spec.
pub const ENDING: u64 = AMOUNT_MAX;

/// What one function or run holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reservation {
    /// How much.
    pub vector: Vector,
    /// The newest generation of its spec that this was reserved for, or [`ENDING`].
    pub generation: u64,
}

impl Reservation {
    /// Whether it is being given back: it is still charged, and nothing may grow on it any more.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.generation == ENDING
    }
}

/// A wish to hold at least `wants`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Claim {
    /// Whose.
    pub uid: Uid,
    /// The generation of the spec that the wish comes from.
    pub generation: u64,
    /// How much in all, what is held already included.
    pub wants: Vector,
}

/// Something that lives, found when a ledger is rebuilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Live {
    /// Whose.
    pub uid: Uid,
    /// The generation that its Deployment was written for.
    pub generation: u64,
    /// What its Deployment may charge; none if it was never admitted.
    pub running: Option<Vector>,
}

/// A ledger rebuilt for a new epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuilt {
    /// What to write back.
    pub ledger: Ledger,
    /// Reservations of what no longer lives: to be released, each once its pods are gone.
    pub orphans: Vec<Uid>,
}

/// Why a transition was refused. The ledger is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another controller leads.
    #[error("the ledger is at epoch {ledger}, this controller at {mine}: another one leads")]
    Deposed {
        /// The ledger's epoch.
        ledger: u64,
        /// The caller's.
        mine: u64,
    },
    /// The caller's epoch has not begun: [`Ledger::rebuild`] comes first.
    #[error("the ledger is at epoch {ledger} and was not rebuilt for {mine}")]
    NotRebuilt {
        /// The ledger's epoch.
        ledger: u64,
        /// The caller's.
        mine: u64,
    },
    /// Not all of it fits.
    #[error("{uid} does not fit")]
    DoesNotFit {
        /// Whose wish.
        uid: Uid,
        /// What is missing.
        shortfall: Vec<Shortfall>,
    },
    /// The caller speaks for an older generation than the reservation was made for: its cache is stale.
    #[error("{uid} holds a reservation for generation {held}, newer than {given}")]
    StaleGeneration {
        /// Whose.
        uid: Uid,
        /// Generation of the reservation.
        held: u64,
        /// Generation given.
        given: u64,
    },
    /// It holds nothing, so there is nothing to resize.
    #[error("{0} holds no reservation")]
    NoReservation(Uid),
    /// Its reservation was not marked as ending: something may still grow on it.
    #[error("{0} was not marked as ending")]
    NotEnding(Uid),
    /// Too large to be added up.
    #[error(transparent)]
    Overflow(#[from] VectorError),
}

/// Who holds what of a tenant's quota.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ledger {
    hard: Vector,
    reservations: BTreeMap<Uid, Reservation>,
    sum: Vector,
    epoch: u64,
    seq: u64,
}

impl Ledger {
    /// A ledger nobody holds anything in.
    #[must_use]
    pub fn new(hard: Vector, epoch: u64) -> Self {
        Self { hard, reservations: BTreeMap::new(), sum: Vector::ZERO, epoch, seq: 0 }
    }

    /// A ledger of these parts, as decoded; refused if the sum overflows.
    pub fn from_parts(
        hard: Vector,
        reservations: BTreeMap<Uid, Reservation>,
        epoch: u64,
        seq: u64,
    ) -> Result<Self, VectorError> {
        let sum = reservations.values().try_fold(Vector::ZERO, |sum, r| sum.checked_add(&r.vector))?;
        Ok(Self { hard, reservations, sum, epoch, seq })
    }

    /// The hard limits.
    #[must_use]
    pub fn hard(&self) -> &Vector {
        &self.hard
    }

    /// Every reservation, by uid.
    #[must_use]
    pub fn reservations(&self) -> &BTreeMap<Uid, Reservation> {
        &self.reservations
    }

    /// All reservations together.
    #[must_use]
    pub fn sum(&self) -> &Vector {
        &self.sum
    }

    /// Counts the leaders that wrote this ledger; each begins its own by [`Ledger::rebuild`].
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Counts the changes.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// What `uid` holds; nothing if it holds no reservation.
    #[must_use]
    pub fn held(&self, uid: Uid) -> Vector {
        self.reservations.get(&uid).map_or(Vector::ZERO, |r| r.vector)
    }

    /// What everyone but `uid` holds.
    #[must_use]
    pub fn held_by_others(&self, uid: Uid) -> Vector {
        // Never saturates: the sum includes what uid holds.
        self.sum.saturating_sub(&self.held(uid))
    }

    /// Whether more is reserved than the limits allow, which were lowered.
    #[must_use]
    pub fn is_over_quota(&self) -> bool {
        !self.sum.fits_within(&self.hard)
    }

    /// Whether a Deployment of `uid` that charges `vector` may be written for `generation`: that is what was reserved
    /// for, and for nothing newer, which may be less. Only a ledger read **after** the Deployment was says so; see
    /// [`crate::fence`].
    #[must_use]
    pub fn covers(&self, uid: Uid, generation: u64, vector: &Vector) -> bool {
        let reservation = self.reservations.get(&uid);
        reservation.is_some_and(|r| r.generation == generation && vector.fits_within(&r.vector))
    }

    /// Whether the promise held between `before` and this: in every dimension the sum is at most the larger of the
    /// limit and the sum before. A limit lowered below what is held evicts nobody, and nothing is added over it.
    #[must_use]
    pub fn bounded_by(&self, before: &Self) -> bool {
        Dimension::ALL.iter().all(|d| self.sum.get(*d) <= self.hard.get(*d).max(before.sum.get(*d)))
    }

    /// Reserves every claim, or none of them. A claim makes a reservation grow to what it wants, never shrink (see
    /// [`Ledger::resize`]): while pods are replaced both sizes live. A claim that needs nothing more than is held
    /// is granted even over quota, and still records its generation, which keeps a stale controller from shrinking it.
    pub fn admit(&self, epoch: u64, claims: &[Claim]) -> Result<Self, Refusal> {
        self.check_epoch(epoch)?;
        let mut next = self.clone();
        for claim in claims {
            next.sum = next.sum_with(&next.sum, claim)?;
            let reservation =
                next.reservations.entry(claim.uid).or_insert(Reservation { vector: Vector::ZERO, generation: 0 });
            reservation.vector = reservation.vector.max(&claim.wants);
            reservation.generation = reservation.generation.max(claim.generation);
        }
        Ok(self.changed_to(next))
    }

    /// The sum once `claim` is granted too, where `sum` is what is reserved by then: this ledger's, or more if others
    /// were granted before it.
    pub fn sum_with(&self, sum: &Vector, claim: &Claim) -> Result<Vector, Refusal> {
        if self.needs_nothing(claim) {
            return Ok(*sum);
        }
        if self.is_stale(claim) {
            let held = self.reservations.get(&claim.uid).map_or(0, |r| r.generation);
            return Err(Refusal::StaleGeneration { uid: claim.uid, held, given: claim.generation });
        }
        let held = self.held(claim.uid);
        let grown = held.max(&claim.wants);
        let others = sum.checked_sub(&held)?;
        let sum = others.checked_add(&grown)?;
        if sum.fits_within(&self.hard) {
            Ok(sum)
        } else {
            Err(Refusal::DoesNotFit { uid: claim.uid, shortfall: grown.shortfall(&others, &self.hard) })
        }
    }

    /// Whether what is held is enough for `claim`.
    #[must_use]
    pub fn needs_nothing(&self, claim: &Claim) -> bool {
        let held = self.reservations.get(&claim.uid);
        held.is_some_and(|r| r.generation <= claim.generation && claim.wants.fits_within(&r.vector))
    }

    /// Whether something newer than `claim` was reserved for already, or its end was marked.
    #[must_use]
    pub fn is_stale(&self, claim: &Claim) -> bool {
        self.reservations.get(&claim.uid).is_some_and(|r| r.generation > claim.generation)
    }

    /// Whether what `uid` holds is being given back.
    #[must_use]
    pub fn is_ending(&self, uid: Uid) -> bool {
        self.reservations.get(&uid).is_some_and(Reservation::is_ending)
    }

    /// Makes a reservation exactly `vector`. To be called for a smaller one only once the pods beyond it are gone.
    pub fn resize(&self, epoch: u64, claim: &Claim) -> Result<Self, Refusal> {
        self.check_epoch(epoch)?;
        let Claim { uid, generation, wants } = *claim;
        let held = self.reservations.get(&uid).ok_or(Refusal::NoReservation(uid))?;
        if held.generation > generation {
            return Err(Refusal::StaleGeneration { uid, held: held.generation, given: generation });
        }
        let others = self.held_by_others(uid);
        let sum = others.checked_add(&wants)?;
        if !wants.fits_within(&held.vector) && !sum.fits_within(&self.hard) {
            return Err(Refusal::DoesNotFit { uid, shortfall: wants.shortfall(&others, &self.hard) });
        }
        let mut next = self.clone();
        next.reservations.insert(uid, Reservation { vector: wants, generation });
        next.sum = sum;
        Ok(self.changed_to(next))
    }

    /// Begins to take back what `uid` holds, which is gone for good: it is charged until [`Ledger::release`], but
    /// covers nothing from here on. The same ledger if it holds nothing.
    pub fn end(&self, epoch: u64, uid: Uid) -> Result<Self, Refusal> {
        self.check_epoch(epoch)?;
        let mut next = self.clone();
        if let Some(reservation) = next.reservations.get_mut(&uid) {
            reservation.generation = ENDING;
        }
        Ok(self.changed_to(next))
    }

    /// Takes back what `uid` holds; the same ledger if it holds nothing. To be called only once its Deployment and its
    /// pods were seen to be gone, **after** [`Ledger::end`] was written.
    pub fn release(&self, epoch: u64, uid: Uid) -> Result<Self, Refusal> {
        self.check_epoch(epoch)?;
        if self.reservations.get(&uid).is_some_and(|r| !r.is_ending()) {
            return Err(Refusal::NotEnding(uid));
        }
        let mut next = self.clone();
        next.sum = self.held_by_others(uid);
        next.reservations.remove(&uid);
        Ok(self.changed_to(next))
    }

    /// Changes the limits. Nobody is evicted.
    pub fn with_hard(&self, epoch: u64, hard: Vector) -> Result<Self, Refusal> {
        self.check_epoch(epoch)?;
        Ok(self.changed_to(Self { hard, ..self.clone() }))
    }

    /// Begins `epoch`, which must be a new one, with everything that lives: what runs without a reservation (the
    /// ledger was lost) gets one, even over quota, for its pods are there. Nothing is taken away here, not even from
    /// what no longer lives: that goes the way of every release, pods first.
    pub fn rebuild(&self, epoch: u64, live: &[Live]) -> Result<Rebuilt, Refusal> {
        if epoch <= self.epoch {
            return Err(Refusal::Deposed { ledger: self.epoch, mine: epoch });
        }
        let mut next = Self { epoch, ..self.clone() };
        for Live { uid, generation, running } in live {
            if let Some(vector) = *running
                && !next.reservations.contains_key(uid)
            {
                next.sum = next.sum.checked_add(&vector)?;
                next.reservations.insert(*uid, Reservation { vector, generation: *generation });
            }
        }
        let orphans = next.reservations.keys().filter(|uid| live.iter().all(|l| l.uid != **uid)).copied().collect();
        Ok(Rebuilt { ledger: self.changed_to(next), orphans })
    }

    fn check_epoch(&self, mine: u64) -> Result<(), Refusal> {
        match self.epoch {
            ledger if ledger > mine => Err(Refusal::Deposed { ledger, mine }),
            ledger if ledger < mine => Err(Refusal::NotRebuilt { ledger, mine }),
            _ => Ok(()),
        }
    }

    /// `next`, one change later than this one if it is different at all.
    fn changed_to(&self, mut next: Self) -> Self {
        if next != *self {
            next.seq = self.seq + 1;
        }
        next
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::vector::tests::vectors;
    use proptest::prelude::*;

    /// One call of a transition.
    #[derive(Debug, Clone)]
    pub(crate) enum Step {
        Admit(Vec<Claim>),
        Resize(Claim),
        End(Uid),
        Release(Uid),
        Hard(Vector),
        Rebuild(Vec<Live>),
    }

    pub(crate) fn claims() -> impl Strategy<Value = Claim> {
        (0..6u128, 1..5u64, vectors(6)).prop_map(|(n, generation, wants)| Claim {
            uid: Uid::from_bits(n),
            generation,
            wants,
        })
    }

    pub(crate) fn steps() -> impl Strategy<Value = Step> {
        let live = claims().prop_map(|c| Live {
            uid: c.uid,
            generation: c.generation,
            running: (c.generation > 1).then_some(c.wants),
        });
        prop_oneof![
            4 => prop::collection::vec(claims(), 1..4).prop_map(Step::Admit),
            2 => claims().prop_map(Step::Resize),
            2 => (0..6u128).prop_map(|n| Step::End(Uid::from_bits(n))),
            2 => (0..6u128).prop_map(|n| Step::Release(Uid::from_bits(n))),
            1 => vectors(20).prop_map(Step::Hard),
            1 => prop::collection::vec(live, 0..4).prop_map(Step::Rebuild),
        ]
    }

    pub(crate) fn take(ledger: &Ledger, step: &Step) -> Result<Ledger, Refusal> {
        let epoch = ledger.epoch();
        match step {
            Step::Admit(claims) => ledger.admit(epoch, claims),
            Step::Resize(claim) => ledger.resize(epoch, claim),
            Step::End(uid) => ledger.end(epoch, *uid),
            Step::Release(uid) => ledger.release(epoch, *uid),
            Step::Hard(hard) => ledger.with_hard(epoch, *hard),
            Step::Rebuild(live) => ledger.rebuild(epoch + 1, live).map(|r| r.ledger),
        }
    }

    fn claim(n: u128, generation: u64, pods: u64) -> Claim {
        Claim { uid: Uid::from_bits(n), generation, wants: Vector { pods, ..Vector::ZERO } }
    }

    fn room_for(pods: u64) -> Ledger {
        Ledger::new(Vector { pods, ..Vector::ZERO }, 1)
    }

    #[test]
    fn a_batch_is_reserved_whole_or_not_at_all() {
        let ledger = room_for(5).admit(1, &[claim(1, 1, 2), claim(2, 1, 3)]).unwrap();
        assert_eq!((ledger.sum().pods, ledger.seq()), (5, 1));
        let refusal = room_for(5).admit(1, &[claim(1, 1, 2), claim(2, 1, 4)]).unwrap_err();
        let Refusal::DoesNotFit { uid, shortfall } = refusal else { panic!("{refusal}") };
        assert_eq!((uid, shortfall[0].missing, shortfall[0].available), (Uid::from_bits(2), 1, 3));
    }

    #[test]
    fn only_the_leader_of_the_current_epoch_writes() {
        let ledger = room_for(5).rebuild(3, &[]).unwrap().ledger;
        assert_eq!(ledger.admit(2, &[]), Err(Refusal::Deposed { ledger: 3, mine: 2 }));
        assert_eq!(ledger.release(4, Uid::from_bits(1)), Err(Refusal::NotRebuilt { ledger: 3, mine: 4 }));
        assert!(ledger.rebuild(3, &[]).is_err());
    }

    #[test]
    fn a_stale_generation_neither_shrinks_nor_hides() {
        let ledger = room_for(5).admit(1, &[claim(1, 2, 3)]).unwrap();
        assert!(matches!(ledger.resize(1, &claim(1, 1, 1)), Err(Refusal::StaleGeneration { held: 2, given: 1, .. })));
        // A newer wish for less needs no room, yet is recorded: whoever shrinks for generation 2 must not any more.
        let newer = ledger.admit(1, &[claim(1, 3, 1)]).unwrap();
        assert_eq!((newer.sum().pods, newer.seq()), (3, 2));
        assert!(newer.resize(1, &claim(1, 2, 2)).is_err());
        let covers = |generation| newer.covers(Uid::from_bits(1), generation, &claim(1, 3, 3).wants);
        assert_eq!([2, 3, 4].map(covers), [false, true, false]);
        assert!(matches!(newer.admit(1, &[claim(1, 2, 4)]), Err(Refusal::StaleGeneration { held: 3, given: 2, .. })));
    }

    #[test]
    fn lowered_limits_evict_nobody_and_admit_nobody() {
        let ledger = room_for(5).admit(1, &[claim(1, 1, 3)]).unwrap().with_hard(1, claim(0, 0, 2).wants).unwrap();
        assert!(ledger.is_over_quota());
        assert!(ledger.admit(1, &[claim(2, 1, 1)]).is_err() && ledger.admit(1, &[claim(2, 1, 0)]).is_err());
        assert!(ledger.admit(1, &[claim(1, 2, 3)]).is_ok(), "a new version of the same size is always let in");
        assert!(ledger.resize(1, &claim(1, 1, 1)).unwrap().admit(1, &[claim(2, 1, 1)]).is_ok());
    }

    #[test]
    fn a_lost_ledger_is_rebuilt_from_what_runs() {
        let live = |n, pods: Option<u64>| Live {
            uid: Uid::from_bits(n),
            generation: 4,
            running: pods.map(|p| claim(n, 4, p).wants),
        };
        let rebuilt = room_for(2).rebuild(2, &[live(1, Some(3)), live(2, None)]).unwrap();
        assert_eq!((rebuilt.ledger.sum().pods, rebuilt.ledger.reservations().len(), rebuilt.orphans.len()), (3, 1, 0));
        let later = rebuilt.ledger.rebuild(3, &[live(2, Some(1))]).unwrap();
        assert_eq!((later.orphans, later.ledger.sum().pods), (vec![Uid::from_bits(1)], 4));
    }

    #[test]
    fn what_ends_is_charged_until_it_is_released_and_covers_nothing() {
        let ledger = room_for(5).admit(1, &[claim(1, 1, 3)]).unwrap();
        let one = Uid::from_bits(1);
        assert_eq!(ledger.release(1, one), Err(Refusal::NotEnding(one)));
        let ending = ledger.end(1, one).unwrap();
        assert_eq!((ending.sum().pods, ending.end(1, one).unwrap()), (3, ending.clone()));
        assert!(!ending.covers(one, 1, &Vector::ZERO) && ending.is_ending(one));
        assert!(ending.admit(1, &[claim(1, 9, 1)]).is_err() && ending.resize(1, &claim(1, 9, 1)).is_err());
        let once = ending.release(1, one).unwrap();
        assert_eq!((once.sum().pods, once.seq()), (0, 3));
        assert_eq!(once.release(1, one).unwrap(), once);
        assert_eq!(once.end(1, one).unwrap(), once);
    }

    #[test]
    fn overflow_is_refused() {
        let most = Vector { cpu_limits: i64::MAX as u64, ..Vector::ZERO };
        let claim = |n| Claim { uid: Uid::from_bits(n), generation: 1, wants: most };
        let ledger = Ledger::new(most, 1).admit(1, &[claim(1)]).unwrap();
        assert_eq!(ledger.admit(1, &[claim(2)]), Err(Refusal::Overflow(VectorError::TooLarge(Dimension::CpuLimits))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn no_history_breaks_a_promise(hard in vectors(20), history in prop::collection::vec(steps(), 0..20)) {
            let mut ledger = Ledger::new(hard, 1);
            for step in &history {
                let Ok(next) = take(&ledger, step) else { continue };
                let sum = next.reservations().values().try_fold(Vector::ZERO, |s, r| s.checked_add(&r.vector)).unwrap();
                prop_assert_eq!(next.sum(), &sum);
                // What a rebuild finds running is charged even over quota; nothing else may be.
                prop_assert!(matches!(step, Step::Rebuild(_)) || next.bounded_by(&ledger), "{:?}", step);
                prop_assert!(next.epoch() >= ledger.epoch());
                prop_assert_eq!(next.seq(), ledger.seq() + u64::from(next != ledger));
                let ended = ledger.reservations().iter().filter(|(uid, _)| !next.reservations().contains_key(uid));
                prop_assert!(ended.into_iter().all(|(_, r)| r.is_ending()));
                for (uid, now) in next.reservations() {
                    let before = ledger.reservations().get(uid);
                    prop_assert!(before.is_none_or(|b| now.generation >= b.generation));
                }
                ledger = next;
            }
        }
    }
}

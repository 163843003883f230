//! What must hold of a recorded history, at every version of anything.

use std::collections::{BTreeMap, HashMap, HashSet};

use quota::ledger::Ledger;
use quota::uid::Uid;
use quota::vector::Vector;

use crate::record::{Charge, Event, Told};

/// What was there at a version.
#[derive(Default)]
struct State {
    ledger: Option<Ledger>,
    /// The ledger before the one there is, or before it was lost.
    before: Option<Ledger>,
    deployments: HashMap<String, (Uid, Vector)>,
    sets: HashSet<String>,
    /// Each pod, and whether its ReplicaSet was gone already when it was made.
    pods: HashMap<String, (Charge, bool)>,
    functions: HashMap<String, Told>,
    /// Functions that were known to wait before others were made: whoever came later must not go first.
    first: BTreeMap<Uid, HashSet<Uid>>,
}

/// How much happened, so that a history in which nothing did is not taken for a good one.
#[derive(Debug, Default)]
pub struct Account {
    pub versions: usize,
    pub admissions: usize,
    pub releases: usize,
    pub waited: usize,
    /// Versions with pods that nothing is reserved for, since a ReplicaSet controller that was far behind made them of a
    /// ReplicaSet that was long gone. The garbage collector takes them, and the ResourceQuota bounds them.
    pub strays: usize,
}

/// Goes through a history; `equal` says that all functions ask for the same, so that nobody may pass anybody.
///
/// # Panics
/// At the first version at which something does not hold.
pub fn check(events: &[(u64, Event)], equal: bool) -> Account {
    let mut state = State::default();
    let mut account = Account { versions: events.len(), ..Account::default() };
    for (version, event) in events {
        match event.clone() {
            Event::Ledger(Some(next)) => state.ledger_written(*version, next, equal, &mut account),
            Event::Ledger(None) => state.ledger = None,
            Event::Deployment(name, there) => put(&mut state.deployments, name, there),
            Event::Set(uid, there) => state.set(uid, there),
            Event::Pod(name, there) => state.pod(name, there),
            Event::Function(name, there) => state.function(name, there, &mut account),
        }
        state.check(*version, &mut account);
    }
    account
}

fn put<V>(map: &mut HashMap<String, V>, name: String, there: Option<V>) {
    match there {
        Some(value) => drop(map.insert(name, value)),
        None => drop(map.remove(&name)),
    }
}

impl State {
    fn set(&mut self, uid: String, there: bool) {
        if there {
            self.sets.insert(uid);
        } else {
            self.sets.remove(&uid);
        }
    }

    fn pod(&mut self, name: String, there: Option<Charge>) {
        // One that was there before its ReplicaSet went is none.
        let known = self.pods.get(&name).map(|(_, stray)| *stray);
        let there = there.map(|pod| {
            let stray = known.unwrap_or(!self.sets.contains(&pod.set));
            (pod, stray)
        });
        put(&mut self.pods, name, there);
    }

    fn function(&mut self, name: String, there: Option<Told>, account: &mut Account) {
        if let Some(told) = there {
            let known = self.functions.get(&name).filter(|known| known.uid == told.uid);
            account.waited += usize::from(told.waits && known.is_none_or(|known| !known.waits));
            if known.is_none() {
                let waiting = self.functions.values().filter(|f| f.waits && f.created < told.created);
                self.first.insert(told.uid, waiting.map(|f| f.uid).collect());
            }
        }
        put(&mut self.functions, name, there);
    }

    fn ledger_written(&mut self, version: u64, next: Ledger, equal: bool, account: &mut Account) {
        if let Some(before) = self.ledger.as_ref().or(self.before.as_ref()) {
            assert!(next.bounded_by(before), "at {version}: over quota: {next:?} after {before:?}");
            assert!(self.ledger.is_none() || next.epoch() >= before.epoch(), "at {version}: the epoch fell");
            let news = next.reservations().keys().filter(|uid| !before.reservations().contains_key(uid));
            for uid in news.clone() {
                account.admissions += 1;
                if equal && self.ledger.is_some() {
                    self.check_order(version, *uid, &next);
                }
            }
            account.releases +=
                before.reservations().keys().filter(|uid| !next.reservations().contains_key(uid)).count();
        }
        self.before = Some(next.clone());
        self.ledger = Some(next);
    }

    /// Nobody who was known to wait when `admitted` was made waits on.
    fn check_order(&self, version: u64, admitted: Uid, next: &Ledger) {
        let first = self.first.get(&admitted).into_iter().flatten();
        let alive: HashSet<Uid> = self.functions.values().map(|f| f.uid).collect();
        for uid in first.filter(|uid| alive.contains(uid)) {
            let served = next.reservations().contains_key(uid);
            assert!(served, "at {version}: {admitted} was admitted before {uid}, which is older and waits");
        }
    }

    fn check(&self, version: u64, account: &mut Account) {
        // While it is lost nobody knows; what runs was reserved by the one before.
        let Some(ledger) = &self.ledger else { return };
        for (name, (uid, charge)) in &self.deployments {
            let held = ledger.held(*uid);
            assert!(charge.fits_within(&held), "at {version}: {name} may charge {charge:?}, {held:?} is reserved");
        }
        for (uid, charge) in self.charges(true) {
            if charge.fits_within(&ledger.held(uid)) {
                continue;
            }
            account.strays += 1;
            let (charge, held) = (self.charges(false).remove(&uid).unwrap_or(Vector::ZERO), ledger.held(uid));
            assert!(charge.fits_within(&held), "at {version}: pods of {uid} charge {charge:?}, {held:?} is reserved");
        }
    }

    /// What the pods of each function charge, with or without strays.
    fn charges(&self, strays: bool) -> HashMap<Uid, Vector> {
        let mut charges: HashMap<Uid, Vector> = HashMap::new();
        for (pod, _) in self.pods.values().filter(|(_, stray)| strays || !stray) {
            let sum = charges.entry(pod.function).or_default();
            *sum = sum.checked_add(&pod.vector).unwrap();
        }
        charges
    }
}

//! What happened lately, of every tenant, in bounded memory: at most so much of one tenant, and so much in all. What
//! is pushed out is not forgotten silently: who asks for it is told that it is gone.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Most of one tenant that is kept.
const OF_TENANT_MAX: usize = 1_000;
/// Most bytes that are kept in all.
const BYTES_MAX: usize = 32 << 20;
/// What one costs beyond its text.
const COST: usize = 128;
/// Most that are handed out at once.
const BATCH: usize = 64;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happening {
    /// What kind: `function`, `function-deleted`, `quota`.
    pub kind: &'static str,
    /// What there is to say of it, as JSON.
    pub data: Arc<str>,
}

impl Happening {
    fn cost(&self) -> usize {
        self.data.len() + COST
    }
}

/// What a reader missed is not kept any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost;

/// What happened lately.
#[derive(Debug)]
pub struct Hub {
    /// Tells this gateway's count from another's, and from its own before a restart.
    epoch: String,
    hasher: RandomState,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    tenants: HashMap<String, Lately>,
    /// In which order all of it came; what its tenant pushed out by itself may still be here.
    order: VecDeque<(String, u64)>,
    /// How many are kept.
    kept: usize,
    bytes: usize,
    /// The number of the newest.
    newest: u64,
    /// The highest number that was pushed out.
    lost: u64,
    /// What was said last of each thing, as a hash, so that what changes nothing is not told.
    said: HashMap<String, HashMap<String, u64>>,
}

/// What happened lately to one tenant's things.
#[derive(Debug)]
struct Lately {
    kept: VecDeque<(u64, Happening)>,
    /// The highest number that was pushed out.
    lost: u64,
    wake: watch::Sender<()>,
}

impl State {
    fn lately(&mut self, namespace: &str) -> &mut Lately {
        let lost = self.lost;
        let new = || Lately { kept: VecDeque::new(), lost, wake: watch::Sender::new(()) };
        self.tenants.entry(namespace.to_owned()).or_insert_with(new)
    }

    fn put(&mut self, namespace: &str, happening: Happening) {
        self.newest += 1;
        let number = self.newest;
        self.bytes += happening.cost();
        self.kept += 1;
        let lately = self.lately(namespace);
        lately.kept.push_back((number, happening));
        lately.wake.send_replace(());
        let too_many = lately.kept.len() > OF_TENANT_MAX;
        self.order.push_back((namespace.to_owned(), number));
        if too_many {
            self.push_out(namespace);
        }
        while self.bytes > BYTES_MAX {
            let Some((namespace, number)) = self.order.pop_front() else { break };
            if self.tenants.get(&namespace).is_some_and(|lately| lately.lost < number) {
                self.push_out(&namespace);
            }
        }
        if self.order.len() > 2 * self.kept + OF_TENANT_MAX {
            let tenants = &self.tenants;
            self.order.retain(|(namespace, number)| tenants.get(namespace).is_some_and(|l| l.lost < *number));
        }
    }

    /// Pushes out the tenant's oldest.
    fn push_out(&mut self, namespace: &str) {
        let Some(lately) = self.tenants.get_mut(namespace) else { return };
        let Some((number, happening)) = lately.kept.pop_front() else { return };
        lately.lost = number;
        self.lost = self.lost.max(number);
        self.kept -= 1;
        self.bytes -= happening.cost();
        self.tidy(namespace);
    }

    fn tidy(&mut self, namespace: &str) {
        let unused = |lately: &Lately| lately.kept.is_empty() && lately.wake.receiver_count() == 0;
        if self.tenants.get(namespace).is_some_and(unused) {
            self.tenants.remove(namespace);
        }
    }
}

impl Default for Hub {
    fn default() -> Self {
        Self { epoch: uuid::Uuid::new_v4().simple().to_string(), hasher: RandomState::new(), state: Mutex::default() }
    }
}

impl Hub {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says how a thing of the namespace stands, unless that was said last.
    pub fn tell(&self, namespace: &str, thing: &str, happening: Happening) {
        let hash = self.hasher.hash_one(&happening.data);
        let mut state = self.state();
        let said = state.said.entry(namespace.to_owned()).or_default();
        if said.insert(thing.to_owned(), hash) != Some(hash) {
            state.put(namespace, happening);
        }
    }

    /// Says that a thing is gone.
    pub fn tell_gone(&self, namespace: &str, thing: &str, happening: Happening) {
        let mut state = self.state();
        if let Some(said) = state.said.get_mut(namespace) {
            said.remove(thing);
            if said.is_empty() {
                state.said.remove(namespace);
            }
        }
        state.put(namespace, happening);
    }

    /// The number of the newest.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.state().newest
    }

    /// Fires when something happens there; with the place after which to read on.
    pub(super) fn listen(&self, namespace: &str) -> (watch::Receiver<()>, u64) {
        let mut state = self.state();
        let receiver = state.lately(namespace).wake.subscribe();
        (receiver, state.newest)
    }

    /// A reader is gone.
    pub(super) fn leave(&self, namespace: &str) {
        self.state().tidy(namespace);
    }

    /// What came after that number, oldest first and not all at once, and the number to go on after.
    ///
    /// # Errors
    /// Some of it is not kept any more.
    pub(super) fn after(&self, namespace: &str, number: u64) -> Result<(Vec<(u64, Happening)>, u64), Lost> {
        let state = self.state();
        let (kept, lost) = match state.tenants.get(namespace) {
            Some(lately) => (Some(&lately.kept), lately.lost),
            None => (None, state.lost),
        };
        if number < lost || number > state.newest {
            return Err(Lost);
        }
        let from = kept.map_or(0, |kept| kept.partition_point(|(of, _)| *of <= number));
        let batch: Vec<_> = kept.into_iter().flatten().skip(from).take(BATCH).cloned().collect();
        let on = match batch.last() {
            Some((last, _)) if batch.len() == BATCH => *last,
            _ => state.newest,
        };
        Ok((batch, on))
    }

    /// A place, as readers name it.
    #[must_use]
    pub fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.epoch)
    }

    /// The number of a place that a reader names; `Ok(None)` when it is one of another gateway's count.
    ///
    /// # Errors
    /// It is no place of any gateway.
    pub fn number(&self, id: &str) -> Result<Option<u64>, std::num::ParseIntError> {
        let (epoch, number) = id.split_once('-').unwrap_or((id, ""));
        let number = number.parse()?;
        Ok((epoch == self.epoch).then_some(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn happening(text: &str) -> Happening {
        Happening { kind: "function", data: text.into() }
    }

    #[test]
    fn each_tenant_reads_its_own_and_only_changes() {
        let hub = Hub::default();
        for (namespace, thing, text) in [("a", "f", "1"), ("b", "f", "2"), ("a", "f", "1"), ("a", "f", "3")] {
            hub.tell(namespace, thing, happening(text));
        }
        let (read, on) = hub.after("a", 0).unwrap();
        assert_eq!(read, [(1, happening("1")), (3, happening("3"))]);
        assert_eq!(on, 3);
        assert_eq!(hub.after("a", 1).unwrap().0, [(3, happening("3"))]);
        hub.tell_gone("a", "f", happening("gone"));
        hub.tell("a", "f", happening("3"));
        assert_eq!(hub.after("a", 3).unwrap().0.len(), 2, "what was made anew is told anew");
        assert_eq!(hub.after("a", 9), Err(Lost), "nothing came so far");
        assert_eq!(hub.after("nobody", 5).unwrap(), (vec![], 5));
    }

    #[test]
    fn a_noisy_tenant_pushes_out_its_own_alone() {
        let hub = Hub::default();
        hub.tell("quiet", "f", happening("1"));
        for n in 0..5 * OF_TENANT_MAX {
            hub.tell("noisy", "f", happening(&n.to_string()));
        }
        assert_eq!(hub.after("quiet", 0).unwrap().0.len(), 1);
        assert_eq!(hub.after("noisy", 1), Err(Lost));
        let newest = hub.newest();
        assert_eq!(hub.after("noisy", newest - 3).unwrap().0.len(), 3);
        assert_eq!(hub.after("noisy", newest - OF_TENANT_MAX as u64).unwrap().0.len(), BATCH);
        let state = hub.state();
        assert_eq!((state.kept, state.tenants["noisy"].kept.len()), (OF_TENANT_MAX + 1, OF_TENANT_MAX));
        assert!(state.order.len() <= 2 * state.kept + OF_TENANT_MAX + 1, "{}", state.order.len());
    }

    #[test]
    fn memory_is_bounded_and_what_went_is_known() {
        let hub = Hub::default();
        let long = "x".repeat(100_000);
        for n in 0..1_000 {
            hub.tell(&format!("t{n}"), "f", happening(&format!("{n}{long}")));
        }
        let state = hub.state();
        assert!(state.bytes <= BYTES_MAX && state.tenants.len() == state.kept && state.kept > 100);
        drop(state);
        assert_eq!(hub.after("t0", 0), Err(Lost));
        assert_eq!(hub.after("t999", 990).unwrap().0.len(), 1);
    }

    #[test]
    fn places_of_another_gateway_are_known_as_such() {
        let hub = Hub::default();
        assert_eq!(hub.number(&hub.id(7)), Ok(Some(7)));
        assert_eq!(hub.number(&Hub::default().id(7)), Ok(None));
        for bad in ["", "7", "x-", "x-y", "2026-01-31T10:00:00Z"] {
            assert!(hub.number(bad).is_err(), "{bad}");
        }
    }
}

//! Whether a reservation covers what is about to be written, by a ledger read now. Everyone who asks while a read is
//! under way shares the next one: a read that began before the question proves nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use eventflow_api::ledger::{LEDGER_NAME, QuotaLedger};
use kube::{Api, Client};
use quota::ledger::Ledger;
use quota::uid::Uid;
use quota::vector::Vector;

use super::{AdmissionError, call};
use crate::world::ledger::see;
use crate::world::{Change, Name, World};

/// Most namespaces whose reads are kept apart; past that, those that nobody waits for are forgotten.
const SLOTS_MAX: usize = 1_000;

/// Reads ledgers afresh.
pub struct Reader {
    client: Client,
    world: Arc<World>,
    slots: Mutex<HashMap<String, Arc<Slot>>>,
}

/// The reads of one ledger.
#[derive(Debug, Default)]
struct Slot {
    /// Reads begun, counted before each one's answer is known.
    begun: std::sync::atomic::AtomicU64,
    /// What the last one found; held while one is under way.
    last: tokio::sync::Mutex<Option<Arc<Ledger>>>,
}

impl Reader {
    /// Reads through `client`, and tells `world` what it found.
    #[must_use]
    pub fn new(client: Client, world: Arc<World>) -> Self {
        Self { client, world, slots: Mutex::default() }
    }

    /// The ledger of a namespace as it is now; nothing if there is none or it cannot be read.
    ///
    /// # Errors
    /// If the API server refuses or cannot be asked.
    pub async fn read(&self, namespace: &str) -> Result<Option<Arc<Ledger>>, AdmissionError> {
        use std::sync::atomic::Ordering::SeqCst;
        let slot = self.slot(namespace);
        let before = slot.begun.load(SeqCst);
        let mut last = slot.last.lock().await;
        if slot.begun.load(SeqCst) > before && last.is_some() {
            return Ok(last.clone());
        }
        *last = None;
        slot.begun.fetch_add(1, SeqCst);
        let api: Api<QuotaLedger> = Api::namespaced(self.client.clone(), namespace);
        let found = api.get_opt(LEDGER_NAME).await.map_err(call("read the ledger of", namespace))?;
        // Told as a watch would tell it: what others did to the ledger is work.
        let name = Name { namespace: namespace.to_owned(), name: LEDGER_NAME.to_owned() };
        match found {
            Some(found) => {
                let (name, seen) = see(&found);
                *last = seen.view.ledger.as_ref().ok().cloned().map(Arc::new);
                self.world.ledgers(Change::Applied(name, seen));
            }
            None => {
                let known = self.world.tables().ledgers.get(&name);
                if let Some(known) = known {
                    self.world.ledgers(Change::Deleted(name, known.uid.clone()));
                }
            }
        }
        Ok(last.clone())
    }

    fn slot(&self, namespace: &str) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= SLOTS_MAX && !slots.contains_key(namespace) {
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        slots.entry(namespace.to_owned()).or_default().clone()
    }
}

/// What must be reserved before a Deployment is written.
pub struct Cover<'a> {
    /// Reads the ledger.
    pub reader: &'a Reader,
    /// Where.
    pub namespace: &'a str,
    /// Whose Deployment.
    pub uid: Uid,
    /// The generation that it is written for.
    pub generation: u64,
    /// What its pods may charge then.
    pub charge: Vector,
    /// The writer's epoch.
    pub epoch: u64,
}

impl Cover<'_> {
    /// Whether a ledger of the writer's epoch, read now, covers it.
    ///
    /// # Errors
    /// If the API server refuses or cannot be asked.
    pub async fn holds(&self) -> Result<bool, AdmissionError> {
        let ledger = self.reader.read(self.namespace).await?;
        Ok(ledger.is_some_and(|ledger| {
            ledger.epoch() == self.epoch && ledger.covers(self.uid, self.generation, &self.charge)
        }))
    }
}

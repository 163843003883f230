//! What the API server holds of one kind, kept up to date by a watch. An object that cannot be read is left out and
//! logged; it never stops the rest.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::{StreamExt, pin_mut};
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

/// Wait after a failure: short, since everything is to agree within seconds of an outage's end.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// Longest wait between failures.
const BACKOFF_LAST: Duration = Duration::from_secs(3);

/// Objects by namespace (empty for cluster-scoped kinds) and name.
type Objects<K> = HashMap<String, HashMap<String, Arc<K>>>;

/// What a watch tells its observer. A list tells every object anew.
pub(super) enum Seen<K> {
    /// There is such an object, new or changed or just listed.
    Changed(Arc<K>),
    /// The object that was there is not there any more.
    Gone(Arc<K>),
    /// A list is complete.
    Listed,
}

/// The objects of one kind.
pub(super) struct Cache<K> {
    name: &'static str,
    /// Which objects are looked at.
    which: watcher::Config,
    /// Takes away what nobody reads.
    trim: fn(&mut K),
    objects: RwLock<Objects<K>>,
    listed: AtomicBool,
    /// Counts changes.
    version: watch::Sender<u64>,
}

impl<K> Cache<K> {
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            which: watcher::Config::default(),
            trim: |_| (),
            objects: RwLock::default(),
            listed: AtomicBool::new(false),
            version: watch::Sender::new(0),
        }
    }

    /// Looks at objects with these labels alone, and holds only what `trim` leaves of each.
    pub(super) fn of(mut self, selector: String, trim: fn(&mut K)) -> Self {
        self.which = self.which.labels(&selector);
        self.trim = trim;
        self
    }

    /// Looks at objects of this name alone.
    pub(super) fn named(mut self, name: &str) -> Self {
        self.which = self.which.fields(&format!("metadata.name={name}"));
        self
    }

    /// The object of that name.
    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        objects.get(namespace)?.get(name).cloned()
    }

    /// Something about each object of the namespace, by name.
    pub(super) fn map<T>(&self, namespace: &str, what: impl Fn(&K) -> T) -> HashMap<String, T> {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        let objects = objects.get(namespace).into_iter().flatten();
        objects.map(|(name, object)| (name.clone(), what(object))).collect()
    }

    /// The objects of the namespace, in no order.
    pub(super) fn all(&self, namespace: &str) -> Vec<Arc<K>> {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        objects.get(namespace).into_iter().flat_map(HashMap::values).cloned().collect()
    }

    /// How many objects there are.
    pub(super) fn count(&self) -> usize {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        objects.values().map(HashMap::len).sum()
    }

    /// Fires after every change.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Waits until a list was complete once.
    pub(super) async fn filled(&self) {
        let mut changes = self.changes();
        while !self.listed.load(Ordering::Acquire) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// The kind's name, and whether a list was complete once. An outage later does not undo that.
    pub(super) fn ready(&self) -> (&'static str, bool) {
        (self.name, self.listed.load(Ordering::Acquire))
    }
}

impl<K> Cache<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    /// Watches for ever.
    pub(super) async fn run(&self, api: Api<DeserializeGuard<K>>, observe: impl Fn(Seen<K>)) {
        let stream = watcher(api, self.which.clone());
        pin_mut!(stream);
        let mut backoff = BACKOFF_FIRST;
        let mut list: Objects<K> = HashMap::new();
        while let Some(event) = stream.next().await {
            match event {
                Ok(event) => {
                    backoff = BACKOFF_FIRST;
                    self.take(event, &mut list, &observe);
                }
                Err(error) => {
                    tracing::warn!(watch = self.name, error = %error, "A watch failed and is started again");
                    tokio::time::sleep(backoff.mul_f64(rand::random_range(0.8..1.2))).await;
                    backoff = (backoff * 2).min(BACKOFF_LAST);
                }
            }
        }
    }

    fn take(&self, event: Event<DeserializeGuard<K>>, list: &mut Objects<K>, observe: &impl Fn(Seen<K>)) {
        match event {
            Event::Init => list.clear(),
            Event::InitApply(object) => {
                if let Some(object) = self.readable(object) {
                    put(list, object);
                }
            }
            Event::InitDone => self.replace(std::mem::take(list), observe),
            Event::Apply(object) => {
                let Some(object) = self.readable(object) else { return };
                self.change(|objects| drop(put(objects, Arc::clone(&object))));
                observe(Seen::Changed(object));
            }
            Event::Delete(object) => {
                let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
                let mut gone = None;
                self.change(|objects| gone = objects.get_mut(&namespace).and_then(|inner| inner.remove(&name)));
                if let Some(gone) = gone {
                    observe(Seen::Gone(gone));
                }
            }
        }
    }

    /// Puts a complete list in the place of what was known, and tells what went meanwhile.
    fn replace(&self, list: Objects<K>, observe: &impl Fn(Seen<K>)) {
        let new: Vec<Arc<K>> = list.values().flat_map(HashMap::values).cloned().collect();
        let mut old = Objects::new();
        self.change(|objects| old = std::mem::replace(objects, list));
        self.listed.store(true, Ordering::Release);
        self.version.send_modify(|version| *version += 1);
        for object in old.values().flat_map(HashMap::values) {
            let now = self.get(&object.namespace().unwrap_or_default(), &object.name_any());
            if now.is_none_or(|now| now.uid() != object.uid()) {
                observe(Seen::Gone(Arc::clone(object)));
            }
        }
        new.into_iter().for_each(|object| observe(Seen::Changed(object)));
        observe(Seen::Listed);
    }

    fn change(&self, change: impl FnOnce(&mut Objects<K>)) {
        change(&mut self.objects.write().unwrap_or_else(PoisonError::into_inner));
        self.version.send_modify(|version| *version += 1);
    }

    fn readable(&self, object: DeserializeGuard<K>) -> Option<Arc<K>> {
        match object.0 {
            Ok(mut object) => {
                (self.trim)(&mut object);
                Some(Arc::new(object))
            }
            Err(invalid) => {
                let metadata = &invalid.metadata;
                tracing::warn!(
                    watch = self.name,
                    object.namespace = metadata.namespace,
                    object.name = metadata.name,
                    error = %invalid.error,
                    "An object cannot be read and is left out"
                );
                None
            }
        }
    }
}

fn put<K: Resource>(objects: &mut Objects<K>, object: Arc<K>) -> Option<Arc<K>> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    objects.entry(namespace).or_default().insert(name, object)
}

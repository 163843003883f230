//! When what was seen: all objects of one kind are watched, and each time one of them looks as wanted is noted.
//! The times are those of the watch event's arrival here, so they include the API server's own delay of delivery.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::{Stream, StreamExt};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// One thing that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// For the first time.
    pub first: Instant,
    /// For the last time.
    pub last: Instant,
    /// How many times.
    pub times: usize,
}

/// All that was seen so far, by name.
pub type Seen = BTreeMap<String, Sighting>;

/// A running watch; dropping it ends it.
#[derive(Debug)]
pub struct Sightings {
    seen: watch::Receiver<Seen>,
    task: JoinHandle<()>,
}

impl Drop for Sightings {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sightings {
    /// Watches all objects of a kind (of `PartialObjectMeta`, no more than metadata is sent). `wanted` gives the name
    /// under which to note one, or nothing if it does not look as wanted (yet). Objects that exist already are shown
    /// to it and count. Returns once these were all seen.
    ///
    /// # Errors
    /// When they cannot be listed within a minute.
    pub async fn start<K>(objects: Api<K>, wanted: impl FnMut(&K) -> Option<String> + Send + 'static) -> Result<Self>
    where
        K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        Self::follow(watcher::watcher(objects, watcher::Config::default()), wanted).await
    }

    async fn follow<K: Send + 'static>(
        events: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send + 'static,
        mut wanted: impl FnMut(&K) -> Option<String> + Send + 'static,
    ) -> Result<Self> {
        let (note, seen) = watch::channel(Seen::new());
        let (listed, mut is_listed) = watch::channel(false);
        let task = tokio::spawn(async move {
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                let now = Instant::now();
                match event {
                    Ok(Event::Apply(object) | Event::InitApply(object)) => {
                        if let Some(name) = wanted(&object) {
                            note.send_modify(|seen| add(seen, name, now));
                        }
                    }
                    Ok(Event::InitDone) => drop(listed.send(true)),
                    Ok(Event::Init | Event::Delete(_)) => {}
                    Err(error) => eprintln!("a watch failed and starts again: {error}"),
                }
            }
        });
        let watching = Self { seen, task };
        let listed = is_listed.wait_for(|listed| *listed);
        tokio::time::timeout(Duration::from_secs(60), listed).await.context("nothing listed within 60 s")??;
        Ok(watching)
    }

    /// All that was seen until now.
    #[must_use]
    pub fn all(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// Waits until so many different names were seen, or for `patience`; gives what was seen, complete or not.
    pub async fn at_least(&self, count: usize, patience: Duration) -> Seen {
        let mut seen = self.seen.clone();
        let enough = seen.wait_for(|seen| seen.len() >= count);
        drop(tokio::time::timeout(patience, enough).await);
        self.all()
    }

    /// Waits until `name` is seen.
    ///
    /// # Errors
    /// When it is not seen within `patience`.
    pub async fn of(&self, name: &str, patience: Duration) -> Result<Sighting> {
        let mut seen = self.seen.clone();
        let there = seen.wait_for(|seen| seen.contains_key(name));
        let there = tokio::time::timeout(patience, there).await;
        let there = there.with_context(|| format!("{name} was not seen within {patience:?}"))??;
        there.get(name).copied().context("just seen")
    }

    /// Waits until nothing new was seen for `quiet`, at most `patience`.
    pub async fn until_quiet(&self, quiet: Duration, patience: Duration) {
        let mut seen = self.seen.clone();
        let calm = async { while let Ok(Ok(())) = tokio::time::timeout(quiet, seen.changed()).await {} };
        drop(tokio::time::timeout(patience, calm).await);
    }
}

fn add(seen: &mut Seen, name: String, now: Instant) {
    let sighting = seen.entry(name).or_insert(Sighting { first: now, last: now, times: 0 });
    sighting.last = now;
    sighting.times += 1;
}

/// When the first and the last of `seen` were first seen.
#[must_use]
pub fn first_and_last(seen: &Seen) -> Option<(Instant, Instant)> {
    let firsts = || seen.values().map(|sighting| sighting.first);
    Some((firsts().min()?, firsts().max()?))
}

/// Gives the name of each object whose part at `pointer` differs from what it was when last shown: counts the writes
/// of that part, since every write is one watch event.
pub fn changes_of<K>(name: fn(&K) -> String, part: fn(&K) -> Value) -> impl FnMut(&K) -> Option<String> + Send + 'static
where
    K: 'static,
{
    let mut last = BTreeMap::new();
    move |object| {
        let (name, part) = (name(object), part(object));
        let before = last.insert(name.clone(), part.clone()).unwrap_or_default();
        (before != part).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;

    fn events(names: &[&'static str]) -> impl Stream<Item = Result<Event<&'static str>, watcher::Error>> + use<> {
        let applied: Vec<_> = names.iter().map(|name| Ok(Event::Apply(*name))).collect();
        stream::iter([Ok(Event::Init), Ok(Event::InitApply("old")), Ok(Event::InitDone)]).chain(stream::iter(applied))
    }

    #[tokio::test]
    async fn names_are_noted_with_the_times_they_came() {
        let wanted = |name: &&'static str| (*name != "other").then(|| (*name).to_owned());
        let sightings = Sightings::follow(events(&["a", "other", "b", "a"]), wanted).await.unwrap();
        let seen = sightings.at_least(3, Duration::from_secs(10)).await;
        assert_eq!(seen.keys().collect::<Vec<_>>(), ["a", "b", "old"]);
        sightings.until_quiet(Duration::from_millis(20), Duration::from_secs(10)).await;
        assert_eq!(sightings.of("a", Duration::from_secs(10)).await.unwrap().times, 2);
        assert!(sightings.of("other", Duration::from_millis(10)).await.is_err());
        let (first, last) = first_and_last(&sightings.all()).unwrap();
        assert!(first <= last);
    }

    #[test]
    fn only_changes_count_as_writes() {
        let mut changed = changes_of(|object: &(i32, i32)| object.0.to_string(), |object| Value::from(object.1));
        let seen = [(1, 5), (1, 5), (2, 5), (1, 6)].map(|object| changed(&object));
        assert_eq!(seen, [Some("1".to_owned()), None, Some("2".to_owned()), Some("1".to_owned())]);
        let mut empty = changes_of(|_: &()| String::new(), |()| Value::Null);
        assert_eq!(empty(&()), None);
    }
}

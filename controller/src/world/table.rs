//! One kind's objects as the watch and our own writes tell them. Older versions never replace newer ones of the
//! same object. Never grows beyond what exists.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::{Change, Key, Name};

/// One object, as far as it is read.
#[derive(Debug)]
pub struct Seen<V> {
    /// Identity: a new object of an old name has another one.
    pub uid: String,
    /// The version; larger is newer.
    pub resource_version: u64,
    /// What it is looked up by, and whose work a change is.
    pub group: Key,
    /// What is read of it.
    pub view: V,
}

/// One kind's objects.
#[derive(Debug)]
pub struct Table<V> {
    items: HashMap<Name, Arc<Seen<V>>>,
    groups: HashMap<Key, BTreeSet<Name>>,
    /// Names seen in the list that is under way.
    listed: Option<HashSet<Name>>,
    synced: bool,
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self { items: HashMap::new(), groups: HashMap::new(), listed: None, synced: false }
    }
}

impl<V: PartialEq> Table<V> {
    /// The object of that name.
    #[must_use]
    pub fn get(&self, name: &Name) -> Option<Arc<Seen<V>>> {
        self.items.get(name).cloned()
    }

    /// Names of a group.
    #[must_use]
    pub fn group(&self, group: &Key) -> Vec<Name> {
        self.groups.get(group).map(|names| names.iter().cloned().collect()).unwrap_or_default()
    }

    /// Objects of a group, by name.
    #[must_use]
    pub fn members(&self, group: &Key) -> Vec<(Name, Arc<Seen<V>>)> {
        let names = self.groups.get(group).into_iter().flatten();
        names.filter_map(|name| Some((name.clone(), self.items.get(name)?.clone()))).collect()
    }

    /// Objects that satisfy a condition. Reads the whole table.
    #[must_use]
    pub fn find(&self, condition: impl Fn(&Seen<V>) -> bool) -> Vec<(Name, Arc<Seen<V>>)> {
        let found = self.items.iter().filter(|(_, seen)| condition(seen));
        found.map(|(name, seen)| (name.clone(), seen.clone())).collect()
    }

    /// How many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether a list has been completed.
    #[must_use]
    pub fn synced(&self) -> bool {
        self.synced
    }

    /// Takes in a change; the groups whose work it is, none if nothing that is read changed.
    pub fn change(&mut self, change: Change<V>) -> Vec<Key> {
        let mut groups: Vec<Key> = self.take_in(change).into_iter().flat_map(|(_, groups)| groups).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// Takes in the answer to our own write of an object that others make and delete. One that is not known any more is
    /// gone: the watch was quicker than the answer, which must not bring it back.
    pub fn answered(&mut self, name: Name, seen: Seen<V>) -> Vec<Key> {
        let known = self.items.get(&name).is_some_and(|known| known.uid == seen.uid);
        if known { self.put(name, seen).map(|(_, groups)| groups).unwrap_or_default() } else { Vec::new() }
    }

    /// Takes in a change; the names of the objects that changed.
    pub fn change_named(&mut self, change: Change<V>) -> Vec<Name> {
        self.take_in(change).into_iter().map(|(name, _)| name).collect()
    }

    fn take_in(&mut self, change: Change<V>) -> Vec<(Name, Vec<Key>)> {
        match change {
            Change::Init => {
                self.listed = Some(HashSet::new());
                Vec::new()
            }
            Change::Listed(name, seen) | Change::Applied(name, seen) => {
                if let Some(listed) = &mut self.listed {
                    listed.insert(name.clone());
                }
                self.put(name, seen).into_iter().collect()
            }
            Change::Done => {
                self.synced = true;
                let Some(listed) = self.listed.take() else { return Vec::new() };
                let gone: Vec<Name> = self.items.keys().filter(|name| !listed.contains(name)).cloned().collect();
                gone.into_iter().filter_map(|name| self.remove(&name)).collect()
            }
            Change::Deleted(name, uid) => {
                let same = self.items.get(&name).is_some_and(|seen| seen.uid == uid);
                if same { self.remove(&name).into_iter().collect() } else { Vec::new() }
            }
        }
    }

    /// Puts an object in unless a newer version of it is known; the groups concerned if what is read changed.
    fn put(&mut self, name: Name, seen: Seen<V>) -> Option<(Name, Vec<Key>)> {
        let mut groups = vec![seen.group.clone()];
        if let Some(before) = self.items.get(&name) {
            let same = before.uid == seen.uid;
            if same && before.resource_version > seen.resource_version {
                return None;
            }
            if same && before.view == seen.view && before.group == seen.group {
                self.items.insert(name, Arc::new(seen));
                return None;
            }
            if before.group != seen.group {
                let old = before.group.clone();
                self.leave(&old, &name);
                groups.push(old);
            }
        }
        self.groups.entry(seen.group.clone()).or_default().insert(name.clone());
        self.items.insert(name.clone(), Arc::new(seen));
        Some((name, groups))
    }

    fn remove(&mut self, name: &Name) -> Option<(Name, Vec<Key>)> {
        let seen = self.items.remove(name)?;
        self.leave(&seen.group, name);
        Some((name.clone(), vec![seen.group.clone()]))
    }

    fn leave(&mut self, group: &Key, name: &Name) {
        if let Some(names) = self.groups.get_mut(group) {
            names.remove(name);
            if names.is_empty() {
                self.groups.remove(group);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> Name {
        Name { namespace: "n".into(), name: name.into() }
    }

    fn seen(uid: &str, version: u64, group: &str, view: u32) -> Seen<u32> {
        Seen { uid: uid.into(), resource_version: version, group: Key::Tenant(group.into()), view }
    }

    fn applied(table: &mut Table<u32>, object: &str, seen: Seen<u32>) -> Vec<Key> {
        table.change(Change::Applied(name(object), seen))
    }

    #[test]
    fn older_versions_and_equal_ones_are_no_news() {
        let mut table = Table::default();
        assert_eq!(applied(&mut table, "a", seen("u", 5, "g", 1)).len(), 1);
        assert!(applied(&mut table, "a", seen("u", 4, "g", 2)).is_empty());
        assert_eq!(table.get(&name("a")).unwrap().view, 1);
        assert!(applied(&mut table, "a", seen("u", 6, "g", 1)).is_empty());
        assert_eq!(table.get(&name("a")).unwrap().resource_version, 6);
    }

    #[test]
    fn a_new_object_of_an_old_name_is_news_and_its_predecessors_end_is_not() {
        let mut table = Table::default();
        applied(&mut table, "a", seen("u", 5, "g", 1));
        assert_eq!(applied(&mut table, "a", seen("v", 2, "g", 1)).len(), 1);
        assert!(table.change(Change::Deleted(name("a"), "u".into())).is_empty());
        assert_eq!(table.change(Change::Deleted(name("a"), "v".into())).len(), 1);
        assert!(table.is_empty() && table.group(&Key::Tenant("g".into())).is_empty());
    }

    #[test]
    fn an_answer_brings_nothing_back() {
        let mut table = Table::default();
        applied(&mut table, "a", seen("u", 5, "g", 1));
        assert_eq!(table.answered(name("a"), seen("u", 6, "g", 2)).len(), 1);
        table.change(Change::Deleted(name("a"), "u".into()));
        assert!(table.answered(name("a"), seen("u", 7, "g", 3)).is_empty() && table.is_empty());
        applied(&mut table, "a", seen("v", 8, "g", 1));
        assert!(table.answered(name("a"), seen("u", 7, "g", 3)).is_empty());
        assert_eq!(table.get(&name("a")).unwrap().uid, "v");
    }

    #[test]
    fn what_a_list_lacks_is_gone_but_not_what_was_written_meanwhile() {
        let mut table = Table::default();
        applied(&mut table, "old", seen("u", 1, "g", 1));
        table.change(Change::Init);
        table.change(Change::Listed(name("listed"), seen("v", 2, "g", 1)));
        applied(&mut table, "written", seen("w", 3, "h", 1));
        assert!(!table.synced());
        assert_eq!(table.change(Change::Done), [Key::Tenant("g".into())]);
        assert!(table.synced());
        let mut names: Vec<_> = table.items.keys().map(|n| n.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["listed", "written"]);
    }

    #[test]
    fn a_change_of_group_concerns_both() {
        let mut table = Table::default();
        applied(&mut table, "a", seen("u", 1, "g", 1));
        assert_eq!(applied(&mut table, "a", seen("u", 2, "h", 1)).len(), 2);
        assert!(table.group(&Key::Tenant("g".into())).is_empty());
        assert_eq!(table.group(&Key::Tenant("h".into())), [name("a")]);
    }
}

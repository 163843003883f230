//! Makes one object be as it should: server-side apply under one field manager, and only where something differs.
//! What others added to fields that are ours is taken out again. Never touches an object that another one
//! controls, and never deletes one but by its identity. Deployments have a way of their own: `fenced`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use eventflow_api::labels;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, ResourceExt};
use serde_json::Value;

use crate::digest::Digest;
use crate::world::child::{Child, ChildKind, ChildView, digest_of, see};
use crate::world::table::Seen;
use crate::world::{Name, World};

/// Deployments, which must not outgrow what is reserved.
pub mod fenced;
/// Jobs of runs, which must not start before they are reserved.
pub mod job;

/// Most differences remembered as not ours to mend.
const TOLERATED_MAX: usize = 10_000;

/// Attempts to write an object whole while others write it too.
const REPLACE_ATTEMPTS: usize = 5;

/// A call that failed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Of the API server, or on the way to it.
    #[error("cannot {verb} the {kind:?} {}/{}", .name.namespace, .name.name)]
    Call {
        /// What was tried.
        verb: &'static str,
        /// On which kind.
        kind: ChildKind,
        /// On which object.
        name: Name,
        /// What went wrong.
        source: Box<kube::Error>,
    },
    /// The same on an object of a run.
    #[error("cannot {verb} the {kind} {}/{}", .name.namespace, .name.name)]
    OfRun {
        /// What was tried.
        verb: &'static str,
        /// On which kind.
        kind: &'static str,
        /// On which object.
        name: Name,
        /// What went wrong.
        source: Box<kube::Error>,
    },
    /// An object could not be written as JSON.
    #[error("cannot write an object as JSON")]
    Json(#[from] serde_json::Error),
}

/// What became of an object.
#[derive(Debug, Clone)]
pub enum Applied {
    /// It is as it should be.
    InPlace(Arc<Seen<ChildView>>),
    /// An object of that name exists and is not ours.
    Foreign,
    /// One of that name is on its way out; ours follows once it is gone.
    Leaving,
}

/// Makes objects be as they should.
pub struct Applier {
    client: Client,
    world: Arc<World>,
    /// By digest of what is wanted, the digest of what the API server makes of it, where these differ for good.
    tolerated: Mutex<HashMap<Digest, Digest>>,
}

impl Applier {
    /// Writes through `client`, reads from `world`.
    #[must_use]
    pub fn new(client: Client, world: Arc<World>) -> Self {
        Self { client, world, tolerated: Mutex::default() }
    }

    /// Makes the object be as `desired`, unless one of that name is not ours.
    ///
    /// # Errors
    /// If the API server refuses or cannot be asked.
    pub async fn ensure<K: Child>(&self, desired: &K) -> Result<Applied, ApplyError> {
        let (name, wanted) = see(desired);
        let known = self.world.tables().children(K::KIND).get(&name);
        let found = match known {
            Some(known) => Some(known),
            // Not known to the watch, which selects by our label: something else may have the name.
            None if guarded(K::KIND) => self.get::<K>(&name).await?,
            None => None,
        };
        if let Some(found) = &found {
            match standing(K::KIND, found, &wanted) {
                Standing::Foreign => return Ok(Applied::Foreign),
                Standing::Former => {
                    self.delete::<K>(&name, &found.uid).await?;
                    return Ok(Applied::Leaving);
                }
                Standing::Leaving => return Ok(Applied::Leaving),
                Standing::Ours if self.agrees(wanted.view.digest, found.view.digest) => {
                    return Ok(Applied::InPlace(found.clone()));
                }
                Standing::Ours => (),
            }
        }
        self.write(desired, &name, wanted.view.digest).await.map(Applied::InPlace)
    }

    /// Deletes the object of that name if it is the one of that identity; it may be gone already.
    ///
    /// # Errors
    /// If the API server refuses or cannot be asked.
    pub async fn delete<K: Child>(&self, name: &Name, uid: &str) -> Result<(), ApplyError> {
        let same = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let params = DeleteParams::background().preconditions(same);
        match K::api(self.client.clone(), &name.namespace).delete(&name.name, &params).await {
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
            Err(source) => Err(failed::<K>("delete", name, source)),
            Ok(_) => Ok(()),
        }
    }

    async fn get<K: Child>(&self, name: &Name) -> Result<Option<Arc<Seen<ChildView>>>, ApplyError> {
        let object = K::api(self.client.clone(), &name.namespace).get_opt(&name.name).await;
        let object = object.map_err(|source| failed::<K>("get", name, source))?;
        Ok(object.map(|object| Arc::new(see(&object).1)))
    }

    async fn write<K: Child>(
        &self,
        desired: &K,
        name: &Name,
        wanted: Digest,
    ) -> Result<Arc<Seen<ChildView>>, ApplyError> {
        let api = K::api(self.client.clone(), &name.namespace);
        let params = PatchParams::apply(labels::CONTROLLER_MANAGER).force();
        let applied = api.patch(&name.name, &params, &Patch::Apply(desired)).await;
        let mut written: K = match applied {
            Ok(applied) => applied,
            // What we set may contradict what others added. Writing it whole tells whether that is all.
            Err(kube::Error::Api(status)) if status.is_invalid() => {
                let found = api.get_opt(&name.name).await.map_err(|source| failed::<K>("get", name, source))?;
                found.ok_or_else(|| failed::<K>("apply", name, kube::Error::Api(status)))?
            }
            Err(source) => return Err(failed::<K>("apply", name, source)),
        };
        let mut replaced = false;
        for _ in 0..REPLACE_ATTEMPTS {
            if replaced || digest_of(&written) == wanted {
                break;
            }
            // Applying adds and sets, but leaves what others added to our lists and maps: write it whole.
            let whole: K = serde_json::from_value(whole(&written, desired)?)?;
            written = match api.replace(&name.name, &post(), &whole).await {
                Ok(whole) => {
                    replaced = true;
                    whole
                }
                // Its status changed meanwhile, most likely.
                Err(kube::Error::Api(status)) if status.is_conflict() => {
                    api.get(&name.name).await.map_err(|source| failed::<K>("get", name, source))?
                }
                Err(source) => return Err(failed::<K>("replace", name, source)),
            };
        }
        let digest = digest_of(&written);
        if digest != wanted && replaced {
            self.tolerate(wanted, digest, &written);
        }
        self.world.record(&written);
        Ok(Arc::new(see(&written).1))
    }

    /// Whether what was found is what the API server makes of what is wanted.
    fn agrees(&self, wanted: Digest, found: Digest) -> bool {
        wanted == found || self.tolerated().get(&wanted) == Some(&found)
    }

    /// An admission webhook or a newer API server keeps changing what we write: note it, and do not fight.
    fn tolerate<K: Child>(&self, wanted: Digest, found: Digest, object: &K) {
        tracing::warn!(kind = ?K::KIND, object.name = object.name_any(), "Someone changes this object as it is written");
        let mut tolerated = self.tolerated();
        if tolerated.len() >= TOLERATED_MAX {
            tolerated.clear();
        }
        tolerated.insert(wanted, found);
    }

    fn tolerated(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Digest>> {
        self.tolerated.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose an object is.
enum Standing {
    Ours,
    Foreign,
    /// Belongs to the object that had this name before.
    Former,
    Leaving,
}

/// Kinds whose names others could have taken. What else is in a tenant's namespace is the platform's by name.
fn guarded(kind: ChildKind) -> bool {
    matches!(kind, ChildKind::Namespace | ChildKind::Deployment | ChildKind::Service)
}

fn standing(kind: ChildKind, found: &Seen<ChildView>, wanted: &Seen<ChildView>) -> Standing {
    let (found, wanted) = (&found.view, &wanted.view);
    if guarded(kind) && found.owner.as_ref().map(|o| &o.uid) != wanted.owner.as_ref().map(|o| &o.uid) {
        let same_name =
            |a: &crate::world::child::Owner, b: &crate::world::child::Owner| a.kind == b.kind && a.name == b.name;
        let former = found.owner.as_ref().zip(wanted.owner.as_ref()).is_some_and(|(a, b)| same_name(a, b));
        // A namespace is never taken away, whoever made it: it goes when its own tenant does.
        return match (former, found.deleting) {
            (true, true) => Standing::Leaving,
            (true, false) if kind != ChildKind::Namespace => Standing::Former,
            _ => Standing::Foreign,
        };
    }
    // Written for a newer spec than ours: what we know is out of date, and the watch will tell.
    let generation =
        |view: &ChildView| view.rollout.as_ref().and_then(|rollout| rollout.generation).unwrap_or_default();
    let follows = quota::fence::may_follow(generation(found), generation(wanted));
    if found.deleting || !follows { Standing::Leaving } else { Standing::Ours }
}

/// The object as it is, with everything that we decide as it should be.
fn whole<K: Child>(written: &K, desired: &K) -> Result<Value, serde_json::Error> {
    let mut merged = written.clone();
    let (meta, wanted) = (merged.meta_mut(), desired.meta());
    meta.labels.get_or_insert_default().extend(wanted.labels.clone().unwrap_or_default());
    meta.annotations.get_or_insert_default().extend(wanted.annotations.clone().unwrap_or_default());
    meta.owner_references.clone_from(&wanted.owner_references);
    let (mut whole, desired) = (serde_json::to_value(&merged)?, serde_json::to_value(desired)?);
    if let (Value::Object(whole), Value::Object(desired)) = (&mut whole, desired) {
        let kept = |field: &str| matches!(field, "apiVersion" | "kind" | "metadata" | "status");
        whole.retain(|field, _| kept(field) || desired.contains_key(field));
        for (field, value) in desired.into_iter().filter(|(field, _)| !kept(field)) {
            whole.insert(field, value);
        }
    }
    Ok(whole)
}

fn post() -> PostParams {
    PostParams { field_manager: Some(labels::CONTROLLER_MANAGER.to_owned()), dry_run: false }
}

fn failed<K: Child>(verb: &'static str, name: &Name, source: kube::Error) -> ApplyError {
    ApplyError::Call { verb, kind: K::KIND, name: name.clone(), source: Box::new(source) }
}

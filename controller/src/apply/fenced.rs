//! Writes Deployments by the rules of [`quota::fence`]: made without pods, given them under a ledger read after that,
//! and never written over what was not read. Decides nothing: whoever is overtaken looks again.

use eventflow_api::labels;
use http::header::CONTENT_TYPE;
use http::{Method, Request};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::job::marked;
use super::{Applied, Applier, ApplyError, Standing, failed, post, standing, whole};
use crate::admission::cover::Cover;
use crate::reconcile::ReconcileError;
use crate::world::Name;
use crate::world::child::{Child, ChildKind, digest_of, see};

/// Annotation on a Deployment: another one with every write of a controller.
pub const MARK: &str = "eventflow.io/mark";

impl Applier {
    /// Makes the Deployment be as `desired` if `cover` holds, unless one of that name is not ours. Nothing if it does
    /// not, or others wrote meanwhile: then everything is to be looked at again.
    ///
    /// # Errors
    /// If the API server refuses or cannot be asked.
    pub async fn deploy(&self, desired: &Deployment, cover: &Cover<'_>) -> Result<Option<Applied>, ReconcileError> {
        let (name, wanted) = see(desired);
        let Some(found) = self.world.tables().children(ChildKind::Deployment).get(&name) else {
            return self.make(desired, &name, cover).await;
        };
        match standing(ChildKind::Deployment, &found, &wanted) {
            Standing::Foreign => return Ok(Some(Applied::Foreign)),
            Standing::Leaving => return Ok(Some(Applied::Leaving)),
            Standing::Former => {
                self.delete::<Deployment>(&name, &found.uid).await?;
                return Ok(Some(Applied::Leaving));
            }
            Standing::Ours if self.agrees(wanted.view.digest, found.view.digest) => {
                return Ok(Some(Applied::InPlace(found)));
            }
            Standing::Ours => (),
        }
        let api = self.deployments(&name);
        let current = api.get_opt(&name.name).await.map_err(|source| failed::<Deployment>("get", &name, source))?;
        let fresh = current.as_ref().filter(|current| see(*current).1.view == found.view);
        let (Some(current), true) = (fresh, cover.holds().await?) else {
            self.remember(current.as_ref(), &name);
            return Ok(None);
        };
        let mut next: Deployment =
            serde_json::from_value(whole(current, desired).map_err(ApplyError::from)?).map_err(ApplyError::from)?;
        next.metadata.resource_version.clone_from(&current.metadata.resource_version);
        mark(&mut next);
        match api.replace(&name.name, &post(), &next).await {
            Ok(written) => {
                let (_, seen) = see(&written);
                if seen.view.digest != wanted.view.digest {
                    self.tolerate(wanted.view.digest, seen.view.digest, &written);
                }
                self.world.record(&written);
                Ok(Some(Applied::InPlace(seen.into())))
            }
            Err(source) => self.overtaken(&name, "replace", source).await,
        }
    }

    /// Lets a Deployment run no more than so many pods, which `cover` holds, whatever else it says.
    ///
    /// # Errors
    /// If the API server refuses or cannot be asked.
    pub async fn scale_down(&self, name: &Name, replicas: u32, cover: &Cover<'_>) -> Result<(), ReconcileError> {
        let api = self.deployments(name);
        let current = api.get_opt(&name.name).await.map_err(|source| failed::<Deployment>("get", name, source))?;
        self.remember(current.as_ref(), name);
        let Some(current) = current else { return Ok(()) };
        if !cover.holds().await? {
            return Ok(());
        }
        let annotations = json!({MARK: new_mark()});
        let patch = Patch::Merge(json!({
            "metadata": {"resourceVersion": current.metadata.resource_version, "annotations": annotations},
            "spec": {"replicas": replicas},
        }));
        let params =
            PatchParams { field_manager: Some(labels::CONTROLLER_MANAGER.to_owned()), ..PatchParams::default() };
        match api.patch(&name.name, &params, &patch).await {
            Ok(written) => self.world.record(&written),
            Err(source) => drop(self.overtaken(name, "scale", source).await?),
        }
        Ok(())
    }

    /// Marks a Deployment anew and changes nothing else: whoever read it before can no longer write it. Gives it as
    /// it is then; nothing if it is gone.
    ///
    /// # Errors
    /// If the API server refuses or cannot be asked.
    pub async fn touch(&self, deployment: &Deployment) -> Result<Option<Deployment>, ApplyError> {
        let name = Name::of(&deployment.metadata);
        let patch = Patch::Merge(json!({"metadata": {"uid": deployment.uid(), "annotations": {MARK: new_mark()}}}));
        let params =
            PatchParams { field_manager: Some(labels::CONTROLLER_MANAGER.to_owned()), ..PatchParams::default() };
        match self.deployments(&name).patch(&name.name, &params, &patch).await {
            Ok(written) => {
                self.world.record(&written);
                Ok(Some(written))
            }
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(None),
            Err(source) => Err(failed::<Deployment>("touch", &name, source)),
        }
    }

    /// Makes it without pods, then gives it those it wants.
    async fn make(
        &self,
        desired: &Deployment,
        name: &Name,
        cover: &Cover<'_>,
    ) -> Result<Option<Applied>, ReconcileError> {
        let mut born = desired.clone();
        let replicas = born.spec.as_mut().and_then(|spec| spec.replicas.replace(0)).unwrap_or_default();
        mark(&mut born);
        let api = self.deployments(name);
        let made = match api.create(&post(), &born).await {
            Ok(made) => made,
            Err(kube::Error::Api(status)) if status.is_already_exists() => return self.found(desired, name).await,
            Err(source) => return Err(failed::<Deployment>("create", name, source).into()),
        };
        self.world.record(&made);
        if replicas > 0 {
            if !cover.holds().await? {
                return Ok(None);
            }
            match self.write_if_marked(&made, name, "/spec/replicas", json!(replicas)).await {
                Ok(grown) => return Ok(self.settle(&grown, desired)),
                Err(source) => return self.overtaken(name, "give pods to", source).await,
            }
        }
        Ok(self.settle(&made, desired))
    }

    /// What was written, if it is as it should be.
    fn settle(&self, written: &Deployment, desired: &Deployment) -> Option<Applied> {
        self.world.record(written);
        let seen = see(written).1;
        self.agrees(digest_of(desired), seen.view.digest).then(|| Applied::InPlace(seen.into()))
    }

    /// Sets one field of an object that nobody of ours has written since. Its own controller, which writes its status at
    /// the same time, is in nobody's way: what is tested is the mark, not the resourceVersion.
    pub(super) async fn write_if_marked<K>(
        &self,
        made: &K,
        name: &Name,
        field: &str,
        value: Value,
    ) -> Result<K, kube::Error>
    where
        K: kube::Resource<DynamicType = ()> + DeserializeOwned,
    {
        let patch = marked(made.uid(), made.annotations().get(MARK), field, &value);
        let url = K::url_path(&(), Some(&name.namespace));
        let url = format!("{url}/{}?fieldManager={}", name.name, labels::CONTROLLER_MANAGER);
        let request = Request::builder()
            .method(Method::PATCH)
            .uri(url)
            .header(CONTENT_TYPE, "application/json-patch+json")
            .body(Value::to_string(&patch).into_bytes());
        let request =
            request.map_err(|error| kube::Error::BuildRequest(kube::core::request::Error::BuildRequest(error)))?;
        self.client.request(request).await
    }

    /// Something has the name: whose it is.
    async fn found(&self, desired: &Deployment, name: &Name) -> Result<Option<Applied>, ReconcileError> {
        let found = self.deployments(name).get_opt(&name.name).await;
        let found = found.map_err(|source| failed::<Deployment>("get", name, source))?;
        self.remember(found.as_ref(), name);
        let Some(found) = found else { return Ok(None) };
        let found = see(&found).1;
        match standing(ChildKind::Deployment, &found, &see(desired).1) {
            Standing::Foreign => Ok(Some(Applied::Foreign)),
            Standing::Leaving => Ok(Some(Applied::Leaving)),
            Standing::Former => {
                self.delete::<Deployment>(name, &found.uid).await?;
                Ok(Some(Applied::Leaving))
            }
            Standing::Ours => Ok(None),
        }
    }

    /// A write that was refused since the object is not as it was read: reads it again. Other errors stay errors.
    async fn overtaken(
        &self,
        name: &Name,
        verb: &'static str,
        source: kube::Error,
    ) -> Result<Option<Applied>, ReconcileError> {
        let stale = matches!(&source, kube::Error::Api(status)
            if status.is_conflict() || status.is_not_found() || status.code == 422);
        if !stale {
            return Err(failed::<Deployment>(verb, name, source).into());
        }
        let known = self.world.tables().children(ChildKind::Deployment).get(name);
        let before = known.and_then(|seen| seen.view.rollout.as_ref()?.mark.clone());
        let found = self.deployments(name).get_opt(&name.name).await;
        let found = found.map_err(|source| failed::<Deployment>("get", name, source))?;
        self.remember(found.as_ref(), name);
        let now = found.as_ref().and_then(|found| found.annotations().get(MARK).cloned());
        match source {
            // Malformed in the eyes of the API server, not overtaken.
            kube::Error::Api(status) if status.code == 422 && before.is_some() && before == now => {
                Err(failed::<Deployment>(verb, name, kube::Error::Api(status)).into())
            }
            _ => Ok(None),
        }
    }

    fn remember(&self, found: Option<&Deployment>, name: &Name) {
        match found {
            // What lacks our label is not watched: it is not remembered either.
            Some(found) if found.labels().contains_key(labels::MANAGED_BY) => self.world.record(found),
            _ => self.world.forget(ChildKind::Deployment, name),
        }
    }

    fn deployments(&self, name: &Name) -> Api<Deployment> {
        Deployment::api(self.client.clone(), &name.namespace)
    }
}

fn mark(deployment: &mut Deployment) {
    deployment.annotations_mut().insert(MARK.to_owned(), new_mark());
}

pub(super) fn new_mark() -> String {
    format!("{:016x}", rand::random::<u64>())
}

//! Writes Jobs of runs by the rules of [`quota::fence`], as `fenced` writes Deployments: made without leave to start,
//! given it under a ledger read after that, and never written over what was not read. Decides nothing.

use eventflow_api::labels;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::fenced::{MARK, new_mark};
use super::{Applier, ApplyError, post};
use crate::admission::cover::Cover;
use crate::reconcile::ReconcileError;
use crate::world::Name;
use crate::world::run::{JobView, job};

/// What became of a Job.
#[derive(Debug, Clone, PartialEq)]
pub enum Started {
    /// It makes its pod.
    Runs(JobView),
    /// One of that name exists and is not this run's.
    Foreign,
    /// Others wrote meanwhile, or the reservation is gone: everything is to be looked at again.
    Overtaken,
}

impl Applier {
    /// Makes the Job be there and makes it start if `cover` holds. It is never changed after that.
    ///
    /// # Errors
    /// If the API server refuses or cannot be asked.
    pub async fn start_job(&self, desired: &Job, cover: &Cover<'_>) -> Result<Started, ReconcileError> {
        let (name, wanted) = job(desired);
        let known = self.world.tables().jobs.get(&name);
        let found = match known {
            Some(known) if known.view.owner != wanted.view.owner => return Ok(Started::Foreign),
            Some(known) if known.view.deleting => return Ok(Started::Overtaken),
            Some(known) if !known.view.suspended => return Ok(Started::Runs(known.view.clone())),
            // As it is now: its mark is what the next write is bound to.
            Some(_) => self.get_job(&name).await?,
            None => Some(self.make_job(desired, &name).await?),
        };
        let Some(found) = found else {
            self.world.forget_job(&name);
            return Ok(Started::Overtaken);
        };
        let seen = job(&found).1;
        if seen.view.owner != wanted.view.owner {
            return Ok(Started::Foreign);
        }
        self.remember_job(&found);
        if seen.view.deleting || !cover.holds().await? {
            return Ok(Started::Overtaken);
        }
        match self.write_if_marked(&found, &name, "/spec/suspend", json!(false)).await {
            Ok(started) => {
                self.remember_job(&started);
                Ok(Started::Runs(job(&started).1.view))
            }
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() || status.code == 422 => {
                match self.get_job(&name).await? {
                    Some(found) => self.remember_job(&found),
                    None => self.world.forget_job(&name),
                }
                Ok(Started::Overtaken)
            }
            Err(source) => Err(failed("start", "Job", &name, source).into()),
        }
    }

    /// The Job, without leave to start; the one that has its name if there is one.
    async fn make_job(&self, desired: &Job, name: &Name) -> Result<Job, ApplyError> {
        let mut born = desired.clone();
        if let Some(spec) = &mut born.spec {
            spec.suspend = Some(true);
        }
        born.annotations_mut().insert(MARK.to_owned(), new_mark());
        match self.jobs_in(name).create(&post(), &born).await {
            Ok(made) => Ok(made),
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                let found = self.get_job(name).await?;
                found.ok_or_else(|| failed("create", "Job", name, kube::Error::Api(status)))
            }
            Err(source) => Err(failed("create", "Job", name, source)),
        }
    }

    /// The Job as the API server has it.
    ///
    /// # Errors
    /// If the API server refuses or cannot be asked.
    pub async fn get_job(&self, name: &Name) -> Result<Option<Job>, ApplyError> {
        self.jobs_in(name).get_opt(&name.name).await.map_err(|source| failed("get", "Job", name, source))
    }

    /// Deletes the Job of that name if it is the one of that identity, and its pods with it; it may be gone already.
    ///
    /// # Errors
    /// If the API server refuses or cannot be asked.
    pub async fn delete_job(&self, name: &Name, uid: &str) -> Result<(), ApplyError> {
        let same = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let params = DeleteParams::background().preconditions(same);
        match self.jobs_in(name).delete(&name.name, &params).await {
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
            Err(source) => Err(failed("delete", "Job", name, source)),
            Ok(_) => Ok(()),
        }
    }

    /// Marks a Job anew and changes nothing else: whoever read it before can no longer start it. Gives it as it is
    /// then; nothing if it is gone.
    ///
    /// # Errors
    /// If the API server refuses or cannot be asked.
    pub async fn touch_job(&self, job: &Job) -> Result<Option<Job>, ApplyError> {
        let name = Name::of(&job.metadata);
        let patch = Patch::Merge(json!({"metadata": {"uid": job.uid(), "annotations": {MARK: new_mark()}}}));
        let params =
            PatchParams { field_manager: Some(labels::CONTROLLER_MANAGER.to_owned()), ..PatchParams::default() };
        match self.jobs_in(&name).patch(&name.name, &params, &patch).await {
            Ok(written) => {
                self.remember_job(&written);
                Ok(Some(written))
            }
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(None),
            Err(source) => Err(failed("touch", "Job", &name, source)),
        }
    }

    /// Makes the object that carries an input be there; it never changes.
    ///
    /// # Errors
    /// If the API server refuses or cannot be asked.
    pub async fn carry_input(&self, input: &ConfigMap) -> Result<(), ApplyError> {
        let name = Name::of(&input.metadata);
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &name.namespace);
        match api.create(&post(), input).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            Err(source) => Err(failed("create", "ConfigMap", &name, source)),
        }
    }

    fn remember_job(&self, found: &Job) {
        let (name, seen) = job(found);
        self.world.record_job(name, seen);
    }

    fn jobs_in(&self, name: &Name) -> Api<Job> {
        Api::namespaced(self.client.clone(), &name.namespace)
    }
}

/// A patch of one field, bound to the object's identity and to the mark it was read with.
pub(super) fn marked(uid: Option<String>, mark: Option<&String>, field: &str, value: &Value) -> Value {
    let path = format!("/metadata/annotations/{}", MARK.replace('/', "~1"));
    json!([
        {"op": "test", "path": "/metadata/uid", "value": uid},
        {"op": "test", "path": path, "value": mark},
        {"op": "replace", "path": path, "value": new_mark()},
        {"op": "replace", "path": field, "value": value},
    ])
}

fn failed(verb: &'static str, kind: &'static str, name: &Name, source: kube::Error) -> ApplyError {
    ApplyError::OfRun { verb, kind, name: name.clone(), source: Box::new(source) }
}

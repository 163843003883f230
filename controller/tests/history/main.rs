//! The promises of admission, checked at every version of everything in a tenant's namespace, while fifty writers
//! create, scale and delete and something goes badly wrong: controllers paused and killed, an API server restarted,
//! objects deleted by hand. There is no kubelet, so pods are charged and never run; what a roll-out does to pods is
//! the Deployment controller's and not checked here.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../common/mod.rs"]
mod common;
mod check;
mod crew;
mod record;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use check::check;
use common::quota::api;
use common::{client, eventually, function_object, install, tenant};
use crew::Crew;
use eventflow_api::condition::{ConditionStatus, ConditionType, find};
use eventflow_api::function::Function;
use eventflow_api::ledger::QuotaLedger;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ResourceQuota;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use quota::demand::Demand;
use quota::ledger::Claim;
use quota::packed;
use quota::queue::{MAX_PASS_DEFAULT, Waiting, take_while_fits};
use record::Recording;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// One at a time: each has the whole cluster.
static ONE: Mutex<()> = Mutex::const_new(());

const WRITERS: usize = 50;
/// Functions that each of them makes, one after the other.
const FEW: usize = 4;
/// Enough to go on for well over half a minute.
const MANY: usize = 16;

/// A tenant with room for 2 CPU, writers, and what goes wrong meanwhile.
struct Story {
    client: Client,
    namespace: String,
    crew: Crew,
    recording: Recording,
    writers: JoinSet<()>,
    writing: Arc<AtomicUsize>,
    equal: bool,
}

impl Story {
    async fn begin(controllers: usize, each: usize, equal: bool) -> Self {
        let client = client().await;
        install(&client).await;
        let crew = Crew::start(&client, controllers).await;
        let quota = json!({"cpuRequests": "2", "memoryRequests": "100Gi", "cpuLimits": "100", "memoryLimits": "100Gi"});
        let (_, namespace) = tenant(&client, json!({"tier": "enterprise", "quota": quota})).await;
        let recording = Recording::start(&client, &namespace);
        let (mut writers, writing) = (JoinSet::new(), Arc::new(AtomicUsize::new(WRITERS)));
        for writer in 0..WRITERS {
            let (write, writing) = (write(client.clone(), namespace.clone(), (writer, each), equal), writing.clone());
            writers.spawn(async move {
                write.await;
                writing.fetch_sub(1, Ordering::SeqCst);
            });
        }
        Self { client, namespace, crew, recording, writers, writing, equal }
    }

    /// Waits until so many functions were admitted since the beginning, or all writers are done.
    async fn admissions(&self, count: usize) {
        eventually(&format!("{count} were admitted"), async || {
            if self.writing.load(Ordering::SeqCst) == 0 {
                return Some(());
            }
            let events = self.recording.events();
            let mut all = std::collections::HashSet::new();
            for (_, event) in &events {
                if let record::Event::Ledger(Some(ledger)) = event {
                    all.extend(ledger.reservations().keys().copied());
                }
            }
            (all.len() >= count).then_some(())
        })
        .await;
    }

    /// Waits until all is quiet, and checks the whole history.
    async fn end(mut self) {
        loop {
            self.crew.revive();
            match tokio::time::timeout(Duration::from_secs(1), self.writers.join_next()).await {
                Ok(Some(ended)) => ended.unwrap(),
                Ok(None) => break,
                Err(_) => (),
            }
        }
        let start = tokio::time::Instant::now();
        while let Err(why) = self.is_settled().await {
            self.crew.revive();
            assert!(start.elapsed() < Duration::from_secs(120), "it never comes to rest: {why}");
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        let events = self.recording.events();
        let account = check(&events, self.equal);
        println!("{account:?}");
        let enough = account.versions > 300 && account.admissions >= 20 && account.releases >= 10 && account.waited > 0;
        assert!(enough, "too little happened: {account:?}");
    }

    /// Whether what is reserved is what lives, and nothing that fits waits.
    async fn is_settled(&self) -> Result<(), String> {
        let told = |error: kube::Error| error.to_string();
        let ledger = api::<QuotaLedger>(&self.client, &self.namespace).get("ledger").await.map_err(told)?;
        let ledger = packed::decode(&ledger.spec.packed).map_err(|error| error.to_string())?;
        let functions = api::<Function>(&self.client, &self.namespace).list(&ListParams::default()).await;
        let functions = functions.map_err(told)?.items;
        let deployments = api::<Deployment>(&self.client, &self.namespace);
        let (mut held, mut waiting) = (0, Vec::new());
        for function in &functions {
            let (name, claim) = (function.name_any(), claim(function));
            let reserved = ledger.reservations().get(&claim.uid);
            held += usize::from(reserved.is_some());
            let covered = ledger.covers(claim.uid, claim.generation, &claim.wants);
            if Some(covered) != admitted(function) {
                return Err(format!(
                    "{name} is told something else than the ledger says, {reserved:?}: {:?}",
                    function.status
                ));
            }
            if !covered {
                waiting.push(waits(function, claim));
                continue;
            }
            if reserved.is_none_or(|reserved| reserved.vector != claim.wants) {
                return Err(format!("{name} holds {reserved:?} and wants {claim:?}"));
            }
            let deployment = deployments.get_opt(&format!("fn-{name}")).await.map_err(told)?;
            let replicas = deployment.and_then(|deployment| u64::try_from(deployment.spec?.replicas?).ok());
            if replicas != Some(claim.wants.pods) {
                return Err(format!("{name} has {replicas:?} replicas and wants {}", claim.wants.pods));
            }
        }
        let picked = take_while_fits(&ledger, &waiting, MAX_PASS_DEFAULT).picked;
        if held != ledger.reservations().len() || !picked.is_empty() {
            let all = ledger.reservations().len();
            return Err(format!("{held} of {all} reservations are of what lives; {picked:?} would fit"));
        }
        Ok(())
    }
}

/// A function that waits, and since when.
fn waits(function: &Function, claim: Claim) -> Waiting {
    let conditions = function.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let since = find(conditions, ConditionType::QuotaReserved).map(|c| c.last_transition_time.parse().unwrap());
    let waited = since.map_or(Duration::ZERO, |since: Timestamp| Timestamp::now().duration_since(since).unsigned_abs());
    Waiting { claim, priority: 0, created: function.creation_timestamp().unwrap().0.as_second(), waited }
}

fn claim(function: &Function) -> Claim {
    let demand = Demand::of_function(&function.spec.parse().unwrap());
    Claim {
        uid: function.uid().unwrap().parse().unwrap(),
        generation: u64::try_from(function.metadata.generation.unwrap()).unwrap(),
        wants: demand.steady().unwrap(),
    }
}

/// Whether its newest spec was said to be admitted, or not; nothing before anything was said of it.
fn admitted(function: &Function) -> Option<bool> {
    let status = function.status.as_ref().filter(|s| Some(s.observed_generation) == function.metadata.generation)?;
    find(&status.conditions, ConditionType::Admitted).map(|c| c.status == ConditionStatus::True)
}

/// Makes functions, changes their size, deletes them; the last one stays. Goes on whatever fails.
async fn write(client: Client, namespace: String, (writer, each): (usize, usize), equal: bool) {
    let functions = api::<Function>(&client, &namespace);
    for i in 0..each {
        let name = format!("w{writer}-{i}");
        let replicas = if equal { 1 } else { rand::random_range(0..4u32) };
        let cpu = if equal { 200 } else { 50 * rand::random_range(1..5u32) };
        let spec = json!({"image": "a:1", "replicas": replicas, "resources": {"cpuRequest": format!("{cpu}m")}});
        let object: Function = serde_json::from_value(function_object(&name, spec)).unwrap();
        persist(|| async { done(functions.create(&PostParams::default(), &object).await) }).await;
        pause(500).await;
        if equal {
            // Each gets its turn.
            persist(|| async { admitted(&functions.get(&name).await.ok()?).filter(|admitted| *admitted) }).await;
        } else {
            let patch = Patch::Merge(json!({"spec": {"replicas": rand::random_range(0..4u32)}}));
            persist(|| async { functions.patch(&name, &PatchParams::default(), &patch).await.ok() }).await;
            pause(1_500).await;
        }
        if equal || i + 1 < each {
            persist(|| async { done(functions.delete(&name, &DeleteParams::default()).await) }).await;
        }
    }
}

/// Whether a call was answered, now or earlier, when the answer got lost.
fn done<T>(answer: Result<T, kube::Error>) -> Option<()> {
    match answer {
        Err(kube::Error::Api(status)) if status.is_already_exists() || status.is_not_found() => Some(()),
        other => other.ok().map(drop),
    }
}

/// Tries again until something comes of it.
async fn persist<T, F: Future<Output = Option<T>>>(attempt: impl Fn() -> F) -> T {
    let start = tokio::time::Instant::now();
    loop {
        if let Some(found) = attempt().await {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(180), "a writer got nowhere");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn pause(most: u64) {
    tokio::time::sleep(Duration::from_millis(rand::random_range(0..most))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_writers_in_one_tenant() {
    let _one = ONE.lock().await;
    Story::begin(1, FEW, false).await.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equals_are_served_in_order() {
    let _one = ONE.lock().await;
    Story::begin(1, FEW, true).await.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_paused_wakes_up_beside_another() {
    let _one = ONE.lock().await;
    let mut story = Story::begin(2, MANY, false).await;
    for (admissions, pause) in [(5, Duration::from_secs(30)), (200, Duration::ZERO)] {
        story.admissions(admissions).await;
        let paused = story.crew.leader(None).await;
        story.crew.signal(&paused, "STOP");
        let wake = tokio::time::Instant::now() + pause;
        let next = story.crew.leader(Some(&paused)).await;
        story.admissions(admissions + 5).await;
        tokio::time::sleep_until(wake).await;
        let writing = story.writing.load(Ordering::SeqCst);
        story.crew.signal(&paused, "CONT");
        println!("{paused} slept while {next} led; {writing} writers go on");
        story.crew.add();
    }
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_is_killed_in_the_middle() {
    let _one = ONE.lock().await;
    let mut story = Story::begin(1, FEW, false).await;
    for admissions in [5, 25] {
        story.admissions(admissions).await;
        let leader = story.crew.leader(None).await;
        story.crew.kill(&leader);
        story.crew.add();
        story.crew.leader(Some(&leader)).await;
    }
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_server_restarts() {
    let _one = ONE.lock().await;
    let mut story = Story::begin(1, FEW, false).await;
    story.admissions(5).await;
    crew::restart_api_server().await;
    // The one there was could not renew its lease in time, and ended.
    story.crew.add();
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_deletes_what_admission_rests_on() {
    let _one = ONE.lock().await;
    let story = Story::begin(1, FEW, false).await;
    let (ledgers, deployments) =
        (api::<QuotaLedger>(&story.client, &story.namespace), api::<Deployment>(&story.client, &story.namespace));
    for admissions in [5, 15, 30] {
        story.admissions(admissions).await;
        drop(ledgers.delete("ledger", &DeleteParams::default()).await);
        let quotas = api::<ResourceQuota>(&story.client, &story.namespace);
        drop(quotas.delete("tenant-quota", &DeleteParams::default()).await);
        let some = deployments.list(&ListParams::default().limit(5)).await.unwrap().items;
        for deployment in some {
            drop(deployments.delete(&deployment.name_any(), &DeleteParams::default()).await);
        }
    }
    let (client, namespace) = (story.client.clone(), story.namespace.clone());
    story.end().await;
    let quota: Option<ResourceQuota> = api(&client, &namespace).get_opt("tenant-quota").await.unwrap();
    let hard: Value = json!(quota.unwrap().spec.unwrap().hard);
    assert_eq!(hard["requests.cpu"], "2");
}

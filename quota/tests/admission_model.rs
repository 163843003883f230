//! Every order of steps of the admission protocol, for small sizes. Controllers that each believe they lead, workers
//! within one controller, stale caches, crashes between any two writes, lost answers, functions created, scaled and
//! deleted, a quota lowered: a breadth-first search visits every state that can come of them and checks each.
//!
//! What decides is the code that runs in the controller: [`Ledger`]'s transitions, [`take_while_fits`], [`may_follow`].
//! The model adds the API server (objects, their versions and marks), pods, and the order of reads and writes. So that
//! it is known to be able to fail, it also runs protocols that are wrong on purpose and must find each of them out.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::rc::Rc;
use std::time::Duration;

use quota::fence::may_follow;
use quota::ledger::{Claim, Ledger, Live, Reservation};
use quota::queue::{MAX_PASS_DEFAULT, Selection, Waiting, take_while_fits};
use quota::uid::Uid;
use quota::vector::Vector;

/// Functions in the model.
const N: usize = 2;

/// How many of each misfortune a run may see in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Budget {
    scale: u8,
    delete: u8,
    hard: u8,
    crash: u8,
    lose: u8,
    lead: u8,
    ledger: u8,
}

/// A way in which the protocol is wrong on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Writes the ledger whatever its resourceVersion is by now.
    BlindWrite,
    /// Releases a reservation while its pods still end.
    ReleaseBeforePodsAreGone,
    /// Shrinks a reservation while the pods beyond it still end.
    ShrinkBeforePodsAreGone,
    /// Writes a Deployment whatever it has become since it was read, as an unconditional apply does.
    UnfencedDeployment,
    /// Reads the ledger before the Deployment and not after.
    LedgerReadTooEarly,
    /// Makes a Deployment with all its replicas at once, on the word of a ledger read before.
    BornWhole,
    /// Releases in one swap, without having marked the reservation as ending before looking for its pods.
    ReleaseUnmarked,
    /// Takes what is reserved for a newer generation, which may be about to shrink, as good for an older one.
    TakesNewerForOlder,
    /// Rebuilds a lost ledger without having written every Deployment first.
    RebuildUnfenced,
    /// Ends only what has a Deployment, and overlooks what was deleted before it got one.
    OverlooksUnmade,
    /// Never gives back what a smaller size leaves over.
    NeverShrinks,
}

/// A Function object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Function {
    generation: u8,
    size: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Slot {
    NotYet,
    There(Function),
    Gone,
}

impl Slot {
    fn live(self) -> Option<Function> {
        match self {
            Self::There(f) => Some(f),
            Self::NotYet | Self::Gone => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Deployment {
    generation: u8,
    size: u8,
}

/// A ledger; two that differ only in how often they were written are the same.
#[derive(Debug, Clone)]
struct Kept(Rc<Ledger>);

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        let parts = |l: &Ledger| (*l.hard(), l.epoch(), *l.sum());
        parts(&self.0) == parts(&other.0) && self.0.reservations() == other.0.reservations()
    }
}

impl Eq for Kept {}

impl Hash for Kept {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0.hard().pods, self.0.epoch()).hash(state);
        for (uid, r) in self.0.reservations() {
            (uid, r.vector.pods, r.generation).hash(state);
        }
    }
}

/// What the API server holds, and the pods that are charged.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Cluster {
    ledger: Kept,
    /// What the tier says; the ledger follows.
    hard: u8,
    /// Somebody deleted the ledger; the value in its place is never led by anyone.
    lost: bool,
    /// The lease's count of leaders.
    leaders: u64,
    functions: [Slot; N],
    deployments: [Option<Deployment>; N],
    pods: [u8; N],
}

/// What a worker is in the middle of. Whatever a later write depends on is dropped as soon as that object changes:
/// the write would be answered 409 and do nothing, so it is the same as never sending it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Task {
    Idle,
    /// Will write this over the ledger it was computed from.
    Swap {
        next: Kept,
    },
    /// Has read the ledger, will look whether the Deployment is `left` and the pods beyond that are gone, then swap.
    Observe {
        f: usize,
        left: Option<Deployment>,
        next: Kept,
    },
    /// Finds the ledger lost and wants to rebuild it: will write Deployment `f`, and the next, as they are.
    Touch {
        f: usize,
    },
    /// Will read the Deployment, or make one with no replicas.
    Read {
        f: usize,
        generation: u8,
        size: u8,
    },
    /// Has read the Deployment, will read the ledger.
    Verify {
        f: usize,
        generation: u8,
        size: u8,
    },
    /// Has read the Deployment and then the ledger, will write the Deployment.
    Write {
        f: usize,
        generation: u8,
        size: u8,
    },
}

/// A controller: what its watch told it, the epoch it leads (or thinks it does), and its workers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Process {
    view: [Slot; N],
    epoch: Option<u64>,
    workers: Vec<Task>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    cluster: Cluster,
    processes: Vec<Process>,
    budget: Budget,
}

/// What an idle worker may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    Lead,
    Sync,
    Hard,
    Admit { overdue: bool },
    Deploy(usize),
    Shrink(usize),
    End(usize),
    Release(usize),
}

const JOBS: [Job; 13] = [
    Job::Lead,
    Job::Sync,
    Job::Hard,
    Job::Admit { overdue: false },
    Job::Admit { overdue: true },
    Job::Deploy(0),
    Job::Deploy(1),
    Job::Shrink(0),
    Job::Shrink(1),
    Job::End(0),
    Job::End(1),
    Job::Release(0),
    Job::Release(1),
];

/// One step, for the account of how a violation came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Begin(usize, usize, Job),
    GoOn(usize, usize),
    /// A write whose answer got lost, after it was applied or before.
    Lost(usize, usize, bool),
    Crash(usize),
    Create(usize),
    Scale(usize, u8),
    DeleteFunction(usize),
    LowerHard,
    DeleteLedger,
    Pods(usize),
    Collect(usize),
}

fn uid(f: usize) -> Uid {
    Uid::from_bits(f as u128 + 1)
}

fn demand(size: u8) -> Vector {
    Vector { pods: size.into(), functions: 1, ..Vector::ZERO }
}

fn hard(pods: u8) -> Vector {
    Vector { pods: pods.into(), functions: N as u64, ..Vector::ZERO }
}

fn claim(f: usize, generation: u8, size: u8) -> Claim {
    Claim { uid: uid(f), generation: generation.into(), wants: demand(size) }
}

fn follows(found: Deployment, generation: u8) -> bool {
    may_follow(found.generation.into(), generation.into())
}

/// Those of `view` that want more than they hold, or hold it for an older generation.
fn waiting(ledger: &Ledger, view: &[Slot; N], overdue: bool) -> Vec<Waiting> {
    let waited = if overdue { MAX_PASS_DEFAULT } else { Duration::ZERO };
    let wants = view.iter().enumerate().filter_map(|(f, slot)| slot.live().map(|l| claim(f, l.generation, l.size)));
    wants
        .filter(|c| !ledger.covers(c.uid, c.generation, &c.wants) && !ledger.is_stale(c))
        .map(|claim| Waiting { claim, priority: 0, created: 0, waited })
        .collect()
}

impl State {
    fn new(workers: &[usize], hard_pods: u8, budget: Budget) -> Self {
        let cluster = Cluster {
            ledger: Kept(Rc::new(Ledger::new(hard(hard_pods), 0))),
            hard: hard_pods,
            lost: false,
            leaders: 0,
            functions: [Slot::NotYet; N],
            deployments: [None; N],
            pods: [0; N],
        };
        let process = |n: &usize| Process { view: [Slot::NotYet; N], epoch: None, workers: vec![Task::Idle; *n] };
        Self { cluster, processes: workers.iter().map(process).collect(), budget }
    }

    fn ledger(&self) -> &Ledger {
        &self.cluster.ledger.0
    }

    /// Writes the ledger. Everyone who computed something from the old one has to begin again.
    fn write_ledger(&mut self, next: Kept, fault: Fault) {
        self.cluster.ledger = next;
        self.cluster.lost = false;
        for task in self.processes.iter_mut().flat_map(|p| &mut p.workers) {
            if fault != Fault::BlindWrite && matches!(task, Task::Swap { .. } | Task::Observe { .. }) {
                *task = Task::Idle;
            }
        }
    }

    /// Writes or deletes a Deployment. Everyone who read the old one has to begin again.
    fn write_deployment(&mut self, which: usize, deployment: Option<Deployment>, fault: Fault) {
        self.cluster.deployments[which] = deployment;
        for task in self.processes.iter_mut().flat_map(|p| &mut p.workers) {
            if fault != Fault::UnfencedDeployment
                && matches!(task, Task::Verify { f, .. } | Task::Write { f, .. } if *f == which)
            {
                *task = Task::Idle;
            }
        }
    }

    /// What an idle worker makes of `job`; nothing if there is nothing to do.
    fn begin(&self, p: usize, w: usize, job: Job, fault: Fault) -> Option<Self> {
        let process = &self.processes[p];
        let mut next = self.clone();
        let Some(epoch) = process.epoch else {
            return if job == Job::Lead && w == 0 { self.begin_leading(p, fault) } else { None };
        };
        if job == Job::Sync {
            next.processes[p].view = self.cluster.functions;
            return Some(next);
        }
        if let Job::Deploy(f) = job {
            return self.begin_deploy(p, w, f, fault);
        }
        match self.ledger().epoch() {
            // Whoever reads the ledger learns that another one leads.
            ledger if ledger > epoch => {
                next.processes[p].epoch = None;
                return (job == Job::Hard).then_some(next);
            }
            // It was lost, or is one that an older leader rebuilt.
            ledger if ledger < epoch => {
                next.start_rebuild(p, w, fault);
                return (job == Job::Hard).then_some(next);
            }
            _ => (),
        }
        let swap = |ledger: Ledger| Task::Swap { next: Kept(Rc::new(ledger)) };
        let live = |f: usize| process.view[f].live();
        next.processes[p].workers[w] = match job {
            Job::Hard if *self.ledger().hard() != hard(self.cluster.hard) => {
                swap(self.ledger().with_hard(epoch, hard(self.cluster.hard)).ok()?)
            }
            Job::Admit { overdue } => {
                let waiting = waiting(self.ledger(), &process.view, overdue);
                let Selection { picked, .. } = take_while_fits(self.ledger(), &waiting, MAX_PASS_DEFAULT);
                if picked.is_empty() {
                    return None;
                }
                swap(self.ledger().admit(epoch, &picked).expect("what is picked fits"))
            }
            Job::Shrink(f) if fault != Fault::NeverShrinks => self.begin_shrink(live(f)?, f, epoch)?,
            Job::End(f) if process.view[f] == Slot::Gone => self.begin_end(f, epoch, fault)?,
            Job::Release(f) if process.view[f] == Slot::Gone => self.begin_release(f, epoch, fault)?,
            _ => return None,
        };
        Some(next)
    }

    /// Has got the lease, reads everything afresh and will write the ledger of a new epoch.
    fn begin_leading(&self, p: usize, fault: Fault) -> Option<Self> {
        let mut next = self.clone();
        next.budget.lead = self.budget.lead.checked_sub(1)?;
        next.cluster.leaders += 1;
        next.processes[p].epoch = Some(next.cluster.leaders);
        next.start_rebuild(p, 0, fault);
        Some(next)
    }

    /// Reads the ledger of an older epoch, or finds it lost: then every Deployment is written first.
    fn start_rebuild(&mut self, p: usize, w: usize, fault: Fault) {
        if self.cluster.lost && fault != Fault::RebuildUnfenced {
            self.processes[p].workers[w] = Task::Touch { f: 0 };
        } else {
            self.plan_rebuild(p, w);
        }
    }

    /// Reads everything and computes the ledger of the process' epoch. What runs is what a Deployment asks for and
    /// what is still ending of what it asked for before.
    fn plan_rebuild(&mut self, p: usize, w: usize) {
        let live = |f: usize| {
            let (deployment, pods) = (self.cluster.deployments[f], self.cluster.pods[f]);
            let size = deployment.map_or(0, |d| d.size).max(pods);
            let generation = deployment.map_or(0, |d| d.generation.into());
            Live { uid: uid(f), generation, running: (size > 0).then(|| demand(size)) }
        };
        let live: Vec<_> = (0..N).map(live).collect();
        let Some(Ok(rebuilt)) = self.processes[p].epoch.map(|epoch| self.ledger().rebuild(epoch, &live)) else {
            return;
        };
        self.processes[p].view = self.cluster.functions;
        self.processes[p].workers[w] = Task::Swap { next: Kept(Rc::new(rebuilt.ledger)) };
    }

    /// Decides to make the Deployment what the function asks for.
    fn begin_deploy(&self, p: usize, w: usize, f: usize, fault: Fault) -> Option<Self> {
        let Function { generation, size } = self.processes[p].view[f].live()?;
        let wanted = Deployment { generation, size };
        let covered = self.ledger().covers(uid(f), generation.into(), &demand(size));
        let looks_early = matches!(fault, Fault::LedgerReadTooEarly | Fault::BornWhole);
        let useful = self.cluster.deployments[f] != Some(wanted) && (covered || !looks_early);
        let mut next = self.clone();
        next.processes[p].workers[w] = Task::Read { f, generation, size };
        useful.then_some(next)
    }

    /// Reads the Deployment, or makes one with no replicas; what to do with it then.
    fn read_deployment(&mut self, f: usize, [generation, size]: [u8; 2], fault: Fault) -> Task {
        match self.cluster.deployments[f] {
            Some(d) if d == (Deployment { generation, size }) || !follows(d, generation) => return Task::Idle,
            Some(_) => {}
            None if fault == Fault::BornWhole => {
                self.write_deployment(f, Some(Deployment { generation, size }), fault);
                return Task::Idle;
            }
            None => self.write_deployment(f, Some(Deployment { generation, size: 0 }), fault),
        }
        match fault {
            Fault::LedgerReadTooEarly => Task::Write { f, generation, size },
            _ => Task::Verify { f, generation, size },
        }
    }

    fn begin_shrink(&self, live: Function, f: usize, epoch: u64) -> Option<Task> {
        let Function { generation, size } = live;
        let held = self.ledger().reservations().get(&uid(f))?;
        let shrinks = held.generation == u64::from(generation) && held.vector.pods > u64::from(size);
        let next = self.ledger().resize(epoch, &claim(f, generation, size)).ok().filter(|_| shrinks)?;
        Some(Task::Observe { f, left: Some(Deployment { generation, size }), next: Kept(Rc::new(next)) })
    }

    fn begin_end(&self, f: usize, epoch: u64, fault: Fault) -> Option<Task> {
        let ending = self.ledger().reservations().get(&uid(f))?.is_ending();
        let overlooked = fault == Fault::OverlooksUnmade && self.cluster.deployments[f].is_none();
        let next = self.ledger().end(epoch, uid(f)).ok()?;
        let needed = !ending && !overlooked && fault != Fault::ReleaseUnmarked;
        needed.then(|| Task::Swap { next: Kept(Rc::new(next)) })
    }

    fn begin_release(&self, f: usize, epoch: u64, fault: Fault) -> Option<Task> {
        let ending = match fault {
            Fault::ReleaseUnmarked => &self.ledger().end(epoch, uid(f)).ok()?,
            _ => self.ledger(),
        };
        let next = ending.release(epoch, uid(f)).ok().filter(|next| next != ending)?;
        Some(Task::Observe { f, left: None, next: Kept(Rc::new(next)) })
    }

    /// The next step of a worker that is in the middle of something.
    fn go_on(&self, p: usize, w: usize, fault: Fault) -> Option<Self> {
        let mut next = self.clone();
        let task = std::mem::replace(&mut next.processes[p].workers[w], Task::Idle);
        match task {
            Task::Idle => return None,
            Task::Swap { next: ledger } => next.write_ledger(ledger, fault),
            Task::Observe { f, left, next: ledger } => {
                if self.is_down_to(f, left, fault) {
                    next.processes[p].workers[w] = Task::Swap { next: ledger };
                }
            }
            Task::Touch { f } if f < N => {
                next.write_deployment(f, self.cluster.deployments[f], fault);
                next.processes[p].workers[w] = Task::Touch { f: f + 1 };
            }
            Task::Touch { .. } => {
                if self.cluster.lost {
                    next.plan_rebuild(p, w);
                }
            }
            Task::Read { f, generation, size } => {
                next.processes[p].workers[w] = next.read_deployment(f, [generation, size], fault);
            }
            Task::Verify { f, generation, size } => {
                let leads = self.processes[p].epoch == Some(self.ledger().epoch());
                let newer = |r: &Reservation| {
                    !r.is_ending() && r.generation > generation.into() && demand(size).fits_within(&r.vector)
                };
                let newer = self.ledger().reservations().get(&uid(f)).is_some_and(newer);
                let covered = self.ledger().covers(uid(f), generation.into(), &demand(size));
                if leads && (covered || (newer && fault == Fault::TakesNewerForOlder)) {
                    next.processes[p].workers[w] = Task::Write { f, generation, size };
                }
            }
            Task::Write { f, generation, size } => {
                let may = self.cluster.deployments[f].is_some_and(|d| follows(d, generation));
                if may || fault == Fault::UnfencedDeployment {
                    next.write_deployment(f, Some(Deployment { generation, size }), fault);
                }
            }
        }
        Some(next)
    }

    /// Whether the Deployment is `left` and the pods beyond that are gone.
    fn is_down_to(&self, f: usize, left: Option<Deployment>, fault: Fault) -> bool {
        let early = match left {
            None => fault == Fault::ReleaseBeforePodsAreGone,
            Some(_) => fault == Fault::ShrinkBeforePodsAreGone,
        };
        let there = self.cluster.deployments[f];
        there == left && (early || self.cluster.pods[f] <= left.map_or(0, |d| d.size))
    }

    /// What the world does: tenants, operators, kubelets, the garbage collector, and misfortune.
    fn world(&self, out: &mut Vec<(Step, Self)>, fault: Fault) {
        let mut push = |step, change: &dyn Fn(&mut Self) -> Option<()>| {
            let mut next = self.clone();
            if change(&mut next).is_some() && next != *self {
                out.push((step, next));
            }
        };
        for f in 0..N {
            let function = self.cluster.functions[f];
            if function == Slot::NotYet {
                let new = Function { generation: 1, size: f as u8 + 1 };
                push(Step::Create(f), &|s| {
                    s.cluster.functions[f] = Slot::There(new);
                    Some(())
                });
            }
            if let Some(live) = function.live() {
                let size = 3 - live.size;
                push(Step::Scale(f, size), &|s| {
                    s.budget.scale = s.budget.scale.checked_sub(1)?;
                    s.cluster.functions[f] = Slot::There(Function { generation: live.generation + 1, size });
                    Some(())
                });
                push(Step::DeleteFunction(f), &|s| {
                    s.budget.delete = s.budget.delete.checked_sub(1)?;
                    s.cluster.functions[f] = Slot::Gone;
                    Some(())
                });
            }
            push(Step::Pods(f), &|s| {
                s.cluster.pods[f] = s.cluster.deployments[f].map_or(0, |d| d.size);
                Some(())
            });
            push(Step::Collect(f), &|s| s.collect(f, fault));
        }
        push(Step::LowerHard, &|s| {
            s.budget.hard = s.budget.hard.checked_sub(1)?;
            s.cluster.hard -= 1;
            Some(())
        });
        push(Step::DeleteLedger, &|s| {
            s.budget.ledger = s.budget.ledger.checked_sub(1)?;
            s.write_ledger(Kept(Rc::new(Ledger::new(hard(s.cluster.hard), 0))), Fault::None);
            s.cluster.lost = true;
            Some(())
        });
        for p in 0..self.processes.len() {
            push(Step::Crash(p), &|s| {
                s.budget.crash = s.budget.crash.checked_sub(1)?;
                let workers = vec![Task::Idle; s.processes[p].workers.len()];
                s.processes[p] = Process { view: [Slot::NotYet; N], epoch: None, workers };
                Some(())
            });
        }
    }

    /// Deletes the Deployment of a function that is gone, as the garbage collector and the controller do.
    fn collect(&mut self, f: usize, fault: Fault) -> Option<()> {
        let orphan = self.cluster.functions[f] == Slot::Gone && self.cluster.deployments[f].is_some();
        orphan.then(|| self.write_deployment(f, None, fault))
    }

    /// Every state that one step leads to.
    fn successors(&self, fault: Fault) -> Vec<(Step, Self)> {
        let mut out = Vec::new();
        self.world(&mut out, fault);
        for p in 0..self.processes.len() {
            for (w, task) in self.processes[p].workers.iter().enumerate() {
                match task {
                    Task::Idle => {
                        let begun =
                            JOBS.iter().filter_map(|j| Some((Step::Begin(p, w, *j), self.begin(p, w, *j, fault)?)));
                        out.extend(begun);
                    }
                    _ => out.extend(self.go_on(p, w, fault).map(|s| (Step::GoOn(p, w), s))),
                }
                if let (Task::Swap { next }, Some(lose)) = (task, self.budget.lose.checked_sub(1)) {
                    let mut dropped = self.clone();
                    dropped.budget.lose = lose;
                    dropped.processes[p].workers[w] = Task::Idle;
                    let mut applied = dropped.clone();
                    applied.write_ledger(next.clone(), fault);
                    out.extend([(Step::Lost(p, w, false), dropped), (Step::Lost(p, w, true), applied)]);
                }
            }
        }
        out
    }

    /// What must hold in every state.
    fn check(&self) -> Result<(), String> {
        if self.cluster.lost {
            return Ok(());
        }
        for f in 0..N {
            let held = self.ledger().held(uid(f)).pods;
            if u64::from(self.cluster.pods[f]) > held {
                return Err(format!("{} pods of function {f} are charged, {held} reserved", self.cluster.pods[f]));
            }
            let Some(deployment) = self.cluster.deployments[f] else { continue };
            if u64::from(deployment.size) > held {
                return Err(format!(
                    "the Deployment of function {f} has {} replicas, {held} reserved",
                    deployment.size
                ));
            }
        }
        Ok(())
    }

    /// What must hold of a step: nothing is reserved over the limit that was not reserved before.
    fn check_step(&self, before: &Self) -> Result<(), String> {
        // Nobody knows what a lost ledger held.
        if before.cluster.lost || self.ledger().bounded_by(before.ledger()) {
            Ok(())
        } else {
            Err(format!("over quota: {:?}", self.ledger()))
        }
    }

    /// Lets one healthy controller and the cluster run undisturbed until nothing changes any more, and says what is
    /// wrong then.
    fn settle(&self, fault: Fault) -> Result<(), String> {
        let lead = Budget { scale: 0, delete: 0, hard: 0, crash: 0, lose: 0, lead: 1, ledger: 0 };
        let mut state = Self { cluster: self.cluster.clone(), ..Self::new(&[1], 0, lead) };
        for _ in 0..40 {
            let before = state.cluster.clone();
            for job in JOBS {
                if let Some(begun) = state.begin(0, 0, job, fault) {
                    state = begun;
                }
                while let Some(on) = state.go_on(0, 0, fault) {
                    state = on;
                }
                for f in 0..N {
                    let _ = state.collect(f, fault);
                    state.cluster.pods[f] = state.cluster.deployments[f].map_or(0, |d| d.size);
                }
            }
            if state.cluster == before {
                return state.check_settled();
            }
        }
        Err("never comes to rest".to_owned())
    }

    /// What must hold once all is quiet: what is reserved is what lives, and nothing that fits waits.
    fn check_settled(&self) -> Result<(), String> {
        let waiting = waiting(self.ledger(), &self.cluster.functions, true);
        let Selection { picked, .. } = take_while_fits(self.ledger(), &waiting, MAX_PASS_DEFAULT);
        if !picked.is_empty() {
            return Err(format!("{picked:?} would fit and waits"));
        }
        for f in 0..N {
            let (held, deployment) = (self.ledger().reservations().get(&uid(f)), self.cluster.deployments[f]);
            match self.cluster.functions[f] {
                Slot::There(l) if waiting.iter().all(|w| w.claim.uid != uid(f)) => {
                    let all = Some(Deployment { generation: l.generation, size: l.size });
                    let exact = held.is_some_and(|r| r.vector == demand(l.size)) && deployment == all;
                    if !exact {
                        return Err(format!("function {f} was admitted and is not run: {held:?} {deployment:?} {l:?}"));
                    }
                }
                Slot::There(_) => {}
                Slot::NotYet | Slot::Gone if held.is_some() || deployment.is_some() => {
                    return Err(format!("function {f} is gone and leaves {held:?} {deployment:?}"));
                }
                Slot::NotYet | Slot::Gone => {}
            }
        }
        Ok(())
    }
}

/// What a search found.
struct Report {
    states: usize,
    settled: usize,
    violation: Option<String>,
}

/// Visits every state reachable from `start`, nearest first, until one violates something.
fn search(start: State, fault: Fault) -> Report {
    let hasher = RandomState::new();
    let mut steps: Vec<(u32, Option<Step>)> = vec![(0, None)];
    let mut visited = HashSet::from([key(&hasher, &start)]);
    let mut settled = HashSet::new();
    let mut queue = VecDeque::from([(0u32, start)]);
    while let Some((index, state)) = queue.pop_front() {
        if settled.insert(settling_key(&hasher, &state.cluster))
            && let Err(what) = state.settle(fault)
        {
            let what = format!("after all is quiet: {what}\n{:?}", state.cluster);
            return Report::violated(&steps, settled.len(), index, &what);
        }
        for (step, next) in state.successors(fault) {
            if !visited.insert(key(&hasher, &next)) {
                continue;
            }
            steps.push((index, Some(step)));
            let at = (steps.len() - 1) as u32;
            if let Err(what) = next.check().and_then(|()| next.check_step(&state)) {
                return Report::violated(&steps, settled.len(), at, &what);
            }
            queue.push_back((at, next));
        }
    }
    Report { states: visited.len(), settled: settled.len(), violation: None }
}

/// Two states that differ only in which controller is called which are the same. 64 bits: among a million states the
/// chance that any two are mistaken for each other is one in thirty million.
fn key(hasher: &RandomState, state: &State) -> u64 {
    let mut processes: Vec<u64> = state.processes.iter().map(|p| hasher.hash_one(p)).collect();
    processes.sort_unstable();
    hasher.hash_one((&state.cluster, state.budget, processes))
}

/// How a cluster settles does not depend on how often a leader changed.
fn settling_key(hasher: &RandomState, cluster: &Cluster) -> u64 {
    let ledger = &cluster.ledger.0;
    let same_epoch =
        Ledger::from_parts(*ledger.hard(), ledger.reservations().clone(), 0, 0).expect("it was summed before");
    hasher.hash_one(&Cluster { ledger: Kept(Rc::new(same_epoch)), leaders: 0, ..cluster.clone() })
}

impl Report {
    fn violated(steps: &[(u32, Option<Step>)], settled: usize, mut at: u32, what: &str) -> Self {
        let mut path = Vec::new();
        while let (before, Some(step)) = &steps[at as usize] {
            path.push(format!("  {step:?}"));
            at = *before;
        }
        path.reverse();
        Self { states: steps.len(), settled, violation: Some(format!("{what}\nafter\n{}", path.join("\n"))) }
    }
}

const NONE: Budget = Budget { scale: 0, delete: 0, hard: 0, crash: 0, lose: 0, lead: 1, ledger: 0 };

/// Room for two pods; the functions want one and two.
fn start(workers: &[usize], budget: Budget) -> State {
    State::new(workers, 2, budget)
}

fn nothing_goes_wrong(workers: &[usize], budget: Budget) {
    let Report { states, settled, violation } = search(start(workers, budget), Fault::None);
    println!("workers {workers:?}, {budget:?}: {states} states, {settled} distinct clusters left to settle");
    assert!(violation.is_none(), "{}", violation.unwrap_or_default());
}

#[test]
fn one_controller_that_crashes_and_loses_answers() {
    nothing_goes_wrong(&[1], Budget { scale: 1, delete: 2, hard: 1, crash: 1, lose: 1, lead: 2, ..NONE });
}

#[test]
fn two_workers_of_one_controller() {
    nothing_goes_wrong(&[2], Budget { scale: 1, delete: 1, hard: 1, lose: 1, ..NONE });
}

#[test]
fn two_controllers_that_both_believe_they_lead() {
    nothing_goes_wrong(&[1, 1], Budget { scale: 1, delete: 1, lead: 2, ..NONE });
}

#[test]
fn two_controllers_a_lost_answer_and_a_lowered_quota() {
    nothing_goes_wrong(&[1, 1], Budget { hard: 1, lose: 1, lead: 2, ..NONE });
}

#[test]
fn two_controllers_one_of_which_crashes() {
    nothing_goes_wrong(&[1, 1], Budget { delete: 1, crash: 1, lead: 3, ..NONE });
}

#[test]
fn a_ledger_deleted_by_hand_under_two_controllers() {
    nothing_goes_wrong(&[1, 1], Budget { lead: 3, ledger: 1, ..NONE });
}

/// Finds `fault` out at a size at which the right protocol does nothing wrong.
fn is_found_out(fault: Fault, workers: &[usize], budget: Budget) -> String {
    nothing_goes_wrong(workers, budget);
    let Report { states, violation, .. } = search(start(workers, budget), fault);
    let violation = violation.unwrap_or_else(|| panic!("{fault:?} went unnoticed in {states} states"));
    println!("{fault:?} found out in {states} states: {violation}");
    violation
}

#[test]
fn a_ledger_written_without_compare_and_swap_is_found_out() {
    let violation = is_found_out(Fault::BlindWrite, &[2], Budget { scale: 1, ..NONE });
    assert!(violation.starts_with("the Deployment of function 0 has 1 replicas, 0 reserved"));
}

#[test]
fn giving_back_before_the_pods_are_gone_is_found_out() {
    let violation = is_found_out(Fault::ReleaseBeforePodsAreGone, &[1], Budget { delete: 1, ..NONE });
    assert!(violation.starts_with("1 pods of function 0 are charged, 0 reserved"));
    let violation = is_found_out(Fault::ShrinkBeforePodsAreGone, &[1], Budget { scale: 1, ..NONE });
    assert!(violation.starts_with("2 pods of function 1 are charged, 1 reserved"));
}

#[test]
fn a_deployment_written_without_a_fence_is_found_out() {
    for fault in [Fault::UnfencedDeployment, Fault::LedgerReadTooEarly, Fault::BornWhole, Fault::ReleaseUnmarked] {
        let violation = is_found_out(fault, &[2], Budget { delete: 1, ..NONE });
        assert!(violation.starts_with("the Deployment of function 0 has 1 replicas, 0 reserved"));
    }
    let paused = is_found_out(Fault::UnfencedDeployment, &[1, 1], Budget { delete: 1, lead: 2, ..NONE });
    assert!(paused.starts_with("the Deployment of function 0 has 1 replicas, 0 reserved"));
    let older = is_found_out(Fault::TakesNewerForOlder, &[2], Budget { scale: 1, delete: 1, ..NONE });
    assert!(older.starts_with("the Deployment of function 1 has 2 replicas, 1 reserved"));
}

#[test]
fn a_rebuild_without_a_fence_is_found_out() {
    let violation = is_found_out(Fault::RebuildUnfenced, &[1, 1], Budget { lead: 2, ledger: 1, ..NONE });
    assert!(violation.starts_with("the Deployment of function 0 has 1 replicas, 0 reserved"));
}

#[test]
fn what_is_left_over_is_found_out() {
    let leak = is_found_out(Fault::OverlooksUnmade, &[1], Budget { delete: 1, ..NONE });
    assert!(leak.starts_with("after all is quiet: function 0 is gone and leaves"));
    let rest = is_found_out(Fault::NeverShrinks, &[1], Budget { scale: 1, ..NONE });
    assert!(rest.starts_with("after all is quiet: function 1 was admitted and is not run"));
}

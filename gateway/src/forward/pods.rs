//! The pods that functions answer at, how busy each is, and the connections kept to them. Filled by the watch of the
//! cluster; never asks it anything.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::exchange::Upload;

/// How long a connection without a request is kept: less than the five seconds after which common servers close it,
/// since a request may cross the closing and is then lost.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// Most connections without a request kept to one pod.
const IDLE_CONNECTIONS_MAX: usize = 64;
/// Longest wait for a pod to accept a connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// How long a pod that took no connection is used only for want of others.
const SHUNNED: Duration = Duration::from_secs(1);
/// With more pods than these, the better one of two is taken instead of the best of all.
const COMPARED_MAX: usize = 8;
/// Largest head of an answer, in bytes.
pub(super) const ANSWER_HEAD_MAX: usize = 64 * 1024;
/// Most fields of an answer's head.
const ANSWER_FIELDS_MAX: usize = 128;

/// A connection to a pod. Cut when this is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<Upload>,
    task: AbortHandle,
}

impl Connection {
    pub(super) fn sender(&mut self) -> &mut SendRequest<Upload> {
        &mut self.sender
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The pods of every function.
#[derive(Debug, Default)]
pub struct Table {
    functions: RwLock<HashMap<String, HashMap<String, Arc<Pods>>>>,
    /// Counts changes.
    version: watch::Sender<u64>,
}

impl Table {
    /// Says where a function answers from now on; what is known of pods that stay is kept.
    pub fn set(&self, namespace: &str, function: &str, addresses: &[SocketAddr]) {
        let mut functions = self.functions.write().unwrap_or_else(PoisonError::into_inner);
        let old = functions.get(namespace).and_then(|functions| functions.get(function)).cloned();
        let old = old.as_ref().map_or(&[][..], |pods| &pods.pods);
        let known = |address| old.iter().find(|pod| pod.address == address).cloned();
        let pods: Vec<Arc<Pod>> =
            addresses.iter().map(|address| known(*address).unwrap_or_else(|| Arc::new(Pod::new(*address)))).collect();
        old.iter().filter(|pod| !addresses.contains(&pod.address)).for_each(|pod| pod.retire());
        if !pods.is_empty() {
            let pods = Arc::new(Pods { pods, turn: AtomicUsize::new(0) });
            functions.entry(namespace.to_owned()).or_default().insert(function.to_owned(), pods);
        } else if let Some(inner) = functions.get_mut(namespace) {
            inner.remove(function);
            if inner.is_empty() {
                functions.remove(namespace);
            }
        }
        drop(functions);
        self.version.send_modify(|version| *version += 1);
    }

    /// Fires after every change.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Where a function answers. `None` when no pod of it is ready.
    #[must_use]
    pub fn get(&self, namespace: &str, function: &str) -> Option<Arc<Pods>> {
        self.functions.read().unwrap_or_else(PoisonError::into_inner).get(namespace)?.get(function).cloned()
    }

    /// Closes connections that had no request for too long, for ever.
    pub async fn tidy(&self) {
        let mut ticks = tokio::time::interval(IDLE_MAX / 4);
        loop {
            ticks.tick().await;
            let functions = self.functions.read().unwrap_or_else(PoisonError::into_inner);
            functions.values().flat_map(HashMap::values).flat_map(|pods| &pods.pods).for_each(|pod| pod.tidy());
        }
    }
}

/// The pods of one function.
#[derive(Debug)]
pub struct Pods {
    pods: Vec<Arc<Pod>>,
    turn: AtomicUsize,
}

impl Pods {
    /// Where they are.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.pods.iter().map(|pod| pod.address).collect()
    }

    /// Whether there is a pod besides those tried.
    pub(super) fn has_other_than(&self, tried: &[SocketAddr]) -> bool {
        self.pods.iter().any(|pod| !tried.contains(&pod.address))
    }

    /// The least busy pod that was not tried yet. It counts as one busier until the load is dropped.
    pub(super) fn pick(&self, tried: &[SocketAddr]) -> Option<Load> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let count = self.pods.len();
        let fresh = |pod: &&Arc<Pod>| !tried.contains(&pod.address);
        let pod = if count > COMPARED_MAX && tried.is_empty() {
            let two = [rand::random_range(0..count), rand::random_range(0..count)];
            two.into_iter().map(|at| &self.pods[at]).min_by_key(|pod| pod.business())
        } else {
            // Each starts the comparison at another pod, so that equals take turns.
            let order = (0..count).map(|step| &self.pods[(turn.wrapping_add(step)) % count]);
            order.filter(fresh).min_by_key(|pod| pod.business())
        };
        pod.map(|pod| Load::on(Arc::clone(pod)))
    }
}

/// One request on a pod; over when this is dropped.
#[derive(Debug)]
pub(super) struct Load(Arc<Pod>);

impl Load {
    fn on(pod: Arc<Pod>) -> Self {
        pod.under_way.fetch_add(1, Ordering::Relaxed);
        Self(pod)
    }

    pub(super) fn pod(&self) -> &Arc<Pod> {
        &self.0
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One pod.
#[derive(Debug)]
pub(super) struct Pod {
    address: SocketAddr,
    under_way: AtomicUsize,
    /// Until when it is used only for want of others, in milliseconds of [`since_start`].
    shunned: AtomicU64,
    /// It is no pod of its function any more.
    retired: AtomicBool,
    idle: Mutex<Vec<(Connection, Instant)>>,
}

impl Pod {
    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            under_way: AtomicUsize::new(0),
            shunned: AtomicU64::new(0),
            retired: AtomicBool::new(false),
            idle: Mutex::default(),
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What makes another pod the better choice.
    fn business(&self) -> (bool, usize) {
        (self.shunned.load(Ordering::Relaxed) > since_start(), self.under_way.load(Ordering::Relaxed))
    }

    /// Prefers other pods for a moment.
    pub(super) fn shun(&self) {
        self.shunned.store(since_start() + SHUNNED.as_millis() as u64, Ordering::Relaxed);
    }

    /// A kept connection that was open a moment ago.
    pub(super) fn kept(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((connection, since)) = idle.pop() {
            if connection.sender.is_ready() && since.elapsed() < IDLE_MAX {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection whose answer has been read to its end.
    pub(super) fn keep(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.retired.load(Ordering::Relaxed) && idle.len() < IDLE_CONNECTIONS_MAX && !connection.sender.is_closed()
        {
            idle.push((connection, Instant::now()));
        }
    }

    /// A new connection.
    pub(super) async fn connect(&self) -> Result<Connection, ConnectError> {
        let stream = tokio::time::timeout(CONNECT_DEADLINE, TcpStream::connect(self.address));
        let stream = stream.await.map_err(|_| ConnectError::Deadline)?.map_err(ConnectError::Refused)?;
        // Requests are written whole; waiting to fill packets only delays them.
        let _ = stream.set_nodelay(true);
        let mut builder = http1::Builder::new();
        builder.max_header_size(ANSWER_HEAD_MAX).max_buf_size(ANSWER_HEAD_MAX * 2).max_headers(ANSWER_FIELDS_MAX);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(ConnectError::Handshake)?;
        // How it ends is told to whoever waits for an answer on it.
        let task = tokio::spawn(connection.with_upgrades()).abort_handle();
        Ok(Connection { sender, task })
    }

    fn tidy(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(connection, since)| since.elapsed() < IDLE_MAX && !connection.sender.is_closed());
    }

    fn retire(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        self.retired.store(true, Ordering::Relaxed);
        idle.clear();
    }
}

/// Why a pod took no connection. Not a byte of a request was sent.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No answer at all.
    #[error("no connection within {} s", CONNECT_DEADLINE.as_secs())]
    Deadline,
    /// The system says no.
    #[error("no connection")]
    Refused(#[source] std::io::Error),
    /// The connection closed at once.
    #[error("the connection closed at once")]
    Handshake(#[source] hyper::Error),
}

/// Milliseconds since the first use.
fn since_start() -> u64 {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    START.elapsed().as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        ([10, 0, 0, 1], port).into()
    }

    #[test]
    fn the_least_busy_pod_is_taken_and_equals_take_turns() {
        let table = Table::default();
        table.set("ns", "f", &[address(1), address(2), address(3)]);
        let pods = table.get("ns", "f").unwrap();
        let first: Vec<Load> = (0..3).map(|_| pods.pick(&[]).unwrap()).collect();
        let mut ports: Vec<u16> = first.iter().map(|load| load.pod().address().port()).collect();
        ports.sort_unstable();
        assert_eq!(ports, [1, 2, 3]);
        let mut first = first.into_iter();
        let freed = first.next().unwrap().pod().address();
        assert_eq!(pods.pick(&[]).unwrap().pod().address(), freed);
        assert!(pods.pick(&[address(1), address(2), address(3)]).is_none());
    }

    #[test]
    fn a_pod_that_takes_no_connection_is_the_last_choice() {
        let table = Table::default();
        table.set("ns", "f", &[address(1), address(2)]);
        let pods = table.get("ns", "f").unwrap();
        pods.pods[0].shun();
        let loads: Vec<Load> = (0..5).map(|_| pods.pick(&[]).unwrap()).collect();
        assert!(loads.iter().all(|load| load.pod().address() == address(2)));
        assert_eq!(pods.pick(&[address(2)]).unwrap().pod().address(), address(1));
    }

    #[test]
    fn what_is_known_of_a_pod_outlives_a_change() {
        let table = Table::default();
        table.set("ns", "f", &[address(1), address(2)]);
        let load = table.get("ns", "f").unwrap().pick(&[address(1)]).unwrap();
        table.set("ns", "f", &[address(2), address(3)]);
        let pods = table.get("ns", "f").unwrap();
        assert!(Arc::ptr_eq(load.pod(), &pods.pods[0]));
        table.set("ns", "f", &[]);
        assert!(table.get("ns", "f").is_none() && table.functions.read().unwrap().is_empty());
        assert!(load.pod().retired.load(Ordering::Relaxed));
    }

    #[test]
    fn many_pods_share_the_load() {
        let table = Table::default();
        let addresses: Vec<SocketAddr> = (1..=50).map(address).collect();
        table.set("ns", "f", &addresses);
        let pods = table.get("ns", "f").unwrap();
        let loads: Vec<Load> = (0..500).map(|_| pods.pick(&[]).unwrap()).collect();
        let busiest = pods.pods.iter().map(|pod| pod.under_way.load(Ordering::Relaxed)).max().unwrap();
        assert!(busiest < 20, "{busiest} of {} on one of 50", loads.len());
    }
}

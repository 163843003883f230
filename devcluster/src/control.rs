//! The socket on which a supervisor is asked how it is, and told to stop or to renew. Whoever answers there is alive, so
//! no process id is ever kept in a file.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    thread,
};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What the supervisor knows about itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    /// What it is doing; empty once everything runs.
    pub step: String,
    /// Its process namespace, to find its processes from outside.
    pub namespace: String,
    /// Everything it runs, in the order of its start.
    pub components: Vec<ComponentReport>,
}

/// One component.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ComponentReport {
    /// Its name.
    pub name: String,
    /// Whether it runs.
    pub up: bool,
    /// Its process id in the supervisor's process namespace.
    pub pid: u32,
    /// Where it serves.
    pub address: String,
    /// How often it was started again.
    pub restarts: u32,
}

/// What the supervisor is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Stop everything and end.
    Stop,
    /// Run the newest programs.
    Renew,
}

/// An order and where its outcome goes: empty, or what went wrong.
pub type Delivered = (Order, Sender<String>);

/// The supervisor's end of the socket.
#[derive(Debug)]
pub struct Desk {
    report: Arc<Mutex<Report>>,
    /// Orders in the order they came.
    pub orders: Receiver<Delivered>,
}

impl Desk {
    /// Opens the socket in the data folder.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn open(data: &Path) -> Result<Self> {
        let path = socket(data);
        // A socket nobody answers on is what a killed supervisor leaves.
        drop(fs::remove_file(&path));
        let listener = UnixListener::bind(&path).map_err(Error::io(format!("open {}", path.display())))?;
        let report = Arc::new(Mutex::new(Report::default()));
        let (sender, orders) = mpsc::channel();
        let shared = Arc::clone(&report);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shared, sender) = (Arc::clone(&shared), sender.clone());
                // An order may take long, and must not keep a question waiting.
                thread::spawn(move || answer(stream, &shared, &sender));
            }
        });
        Ok(Self { report, orders })
    }

    /// Changes what the supervisor says about itself.
    pub fn report(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

fn answer(stream: UnixStream, report: &Mutex<Report>, orders: &Sender<Delivered>) -> Option<()> {
    let mut question = String::new();
    BufReader::new(stream.try_clone().ok()?).read_line(&mut question).ok()?;
    let text = match question.trim() {
        "status" => {
            let report = report.lock().unwrap_or_else(PoisonError::into_inner).clone();
            serde_json::to_string(&report).ok()?
        }
        // While still starting nobody reads orders, and there is nothing worth ending in order.
        "stop" if !report.lock().unwrap_or_else(PoisonError::into_inner).step.is_empty() => std::process::exit(0),
        "stop" => deliver(Order::Stop, orders)?,
        "renew" => deliver(Order::Renew, orders)?,
        other => format!("unknown order `{other}`"),
    };
    (&stream).write_all(text.as_bytes()).ok()
}

fn deliver(order: Order, orders: &Sender<Delivered>) -> Option<String> {
    let (sender, outcome) = mpsc::channel();
    orders.send((order, sender)).ok()?;
    outcome.recv().ok()
}

/// Asks the supervisor of a data folder; `None` when none runs.
///
/// # Errors
/// When it runs and gives no sensible answer.
pub fn status(data: &Path) -> Result<Option<Report>> {
    let Some(text) = ask(data, "status")? else { return Ok(None) };
    // Ending while it was asked is the same as having ended.
    Ok(serde_json::from_str(&text).ok())
}

/// Tells the supervisor to stop everything, and returns when it has ended. Does nothing when none runs.
///
/// # Errors
/// When it does not do so.
pub fn stop(data: &Path) -> Result<()> {
    drop(ask(data, "stop")?);
    Ok(())
}

/// Tells the supervisor to run the newest programs.
///
/// # Errors
/// When none runs, or it says what went wrong.
pub fn renew(data: &Path) -> Result<()> {
    match ask(data, "renew")?.as_deref() {
        Some("") => Ok(()),
        Some(reason) => Err(Error::Precondition(reason.to_owned())),
        None => Err(Error::Precondition("the development cluster has just stopped: run `make up` again".to_owned())),
    }
}

fn ask(data: &Path, question: &str) -> Result<Option<String>> {
    let path = socket(data);
    let mut stream = match UnixStream::connect(&path) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(Error::Precondition("the development cluster was started by root: use sudo".to_owned()));
        }
        Err(error) => return Err(Error::Io { action: format!("connect to {}", path.display()), source: error }),
    };
    let mut answer = String::new();
    let exchanged = writeln!(stream, "{question}").and_then(|()| stream.read_to_string(&mut answer));
    match exchanged {
        Ok(_) => Ok(Some(answer)),
        // It ended while it was asked.
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => Ok(None),
        Err(error) => Err(Error::Io { action: format!("ask {}", path.display()), source: error }),
    }
}

fn socket(data: &Path) -> PathBuf {
    data.join("control.sock")
}

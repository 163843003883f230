//! Running programs: short ones to their end, and components that stay, with their log, their readiness and their end.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

use crate::error::{Error, Result};

/// How long a component may take to answer. Seconds are usual; the rest is for a machine that is busy with other work.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// How often readiness is asked for.
const POLL: Duration = Duration::from_millis(100);
/// How much of a log's end is shown.
const TAIL_BYTES: u64 = 4096;

/// Runs a program to its end and returns what it wrote to its standard output.
///
/// # Errors
/// When it cannot be started or ends with a failure; the error holds the end of its output.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().map_err(Error::io(format!("run `{}`", shown(command))))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let mut text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if text.is_empty() {
        stdout.trim().clone_into(&mut text);
    }
    Err(Error::Command { command: shown(command), status: output.status, output: text })
}

/// Runs a program to its end, its output going where ours goes.
///
/// # Errors
/// When it cannot be started or ends with a failure.
pub fn run_shown(command: &mut Command) -> Result<()> {
    let status = command.status().map_err(Error::io(format!("run `{}`", shown(command))))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Command { command: shown(command), status, output: "its output is above".to_owned() })
}

/// Runs a program to its end for its effect alone, whatever the end: clean-up of what may be gone already.
pub fn run_quietly(program: &str, arguments: &[&str]) {
    let command = &mut Command::new(program);
    drop(command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status());
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// A program that runs as long as the cluster does.
#[derive(Debug)]
pub struct Component {
    /// What people call it, and its log's file name.
    pub name: &'static str,
    /// Where it serves, or an empty string.
    pub address: String,
    /// How often it was started again.
    pub restarts: u32,
    command: Command,
    child: Child,
    log: PathBuf,
    program_changed: Option<SystemTime>,
    /// When it may be started again after it ended.
    resume: Option<Instant>,
}

impl Component {
    /// Starts the program, its output appended to `<logs>/<name>.log`.
    ///
    /// # Errors
    /// When the log cannot be opened or the program cannot be started.
    pub fn start(name: &'static str, address: String, mut command: Command, logs: &Path) -> Result<Self> {
        let log = logs.join(format!("{name}.log"));
        let child = spawn(&mut command, &log)?;
        let program_changed = modified(&command);
        Ok(Self { name, address, restarts: 0, command, child, log, program_changed, resume: None })
    }

    /// The process id, as seen in the cluster's own process namespace.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it runs; `None` when it does, else how it ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Asks `probe` until it agrees.
    ///
    /// # Errors
    /// When the program ends meanwhile or does not get ready in time; both with the last lines of its log.
    pub fn wait_ready(&mut self, mut probe: impl FnMut() -> Result<(), String>) -> Result<()> {
        let started = Instant::now();
        loop {
            let Err(reason) = probe() else { return Ok(()) };
            let (name, log) = (self.name.to_owned(), self.log.clone());
            if let Some(status) = self.ended() {
                let tail = tail(&log);
                return Err(Error::Died { name, status, log, tail });
            }
            if started.elapsed() > READY_WITHIN {
                let tail = tail(&log);
                return Err(Error::NotReady { name, seconds: READY_WITHIN.as_secs(), reason, log, tail });
            }
            thread::sleep(POLL);
        }
    }

    /// Starts the program again if it has ended, later and later the more often it does.
    pub fn revive(&mut self) {
        if self.ended().is_none() {
            return;
        }
        let now = Instant::now();
        match self.resume {
            None => self.resume = Some(now + Duration::from_secs(1 << self.restarts.min(5))),
            Some(resume) if resume <= now => {
                self.restarts += 1;
                self.resume = None;
                self.program_changed = modified(&self.command);
                if let Ok(child) = spawn(&mut self.command, &self.log) {
                    self.child = child;
                }
            }
            Some(_) => {}
        }
    }

    /// Whether the program's file is another one than when it was started.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        modified(&self.command) != self.program_changed
    }

    /// Asks the program to end with SIGTERM, waits for at most `grace`, then kills it.
    pub fn stop(&mut self, grace: Duration) {
        if self.ended().is_some() {
            return;
        }
        if let Some(pid) = i32::try_from(self.pid()).ok().and_then(rustix::process::Pid::from_raw) {
            let _gone_already = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let started = Instant::now();
        while self.ended().is_none() && started.elapsed() < grace {
            thread::sleep(POLL);
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Stops the program and starts it again from the file as it is now.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart(&mut self, grace: Duration) -> Result<()> {
        self.stop(grace);
        self.child = spawn(&mut self.command, &self.log)?;
        self.program_changed = modified(&self.command);
        Ok(())
    }
}

fn spawn(command: &mut Command, log: &Path) -> Result<Child> {
    let open = || OpenOptions::new().create(true).append(true).open(log);
    let (out, err) = (open(), open());
    let opened = out.and_then(|out| Ok((out, err?)));
    let (out, err) = opened.map_err(Error::io(format!("open {}", log.display())))?;
    command.stdin(Stdio::null()).stdout(out).stderr(err);
    let action = format!("start `{}`", command.get_program().to_string_lossy());
    command.spawn().map_err(Error::io(action))
}

fn modified(command: &Command) -> Option<SystemTime> {
    fs::metadata(command.get_program()).and_then(|metadata| metadata.modified()).ok()
}

/// The last lines of a log, as much as fits a screen.
#[must_use]
pub fn tail(log: &Path) -> String {
    let mut text = Vec::new();
    if let Ok(mut file) = File::open(log) {
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        drop(file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES))));
        drop(file.read_to_end(&mut text));
    }
    String::from_utf8_lossy(&text).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(script: &str, folder: &str) -> Component {
        let logs = std::env::temp_dir().join(format!("devcluster-process-{folder}-{}", std::process::id()));
        fs::create_dir_all(&logs).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Component::start("sh", String::new(), command, &logs).unwrap()
    }

    #[test]
    fn a_failed_program_is_shown_with_what_it_said() {
        let error = run(Command::new("sh").args(["-c", "echo no such moon >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("no such moon") && text.contains("exit status: 3"), "{text}");
    }

    #[test]
    fn a_component_that_dies_early_is_named_with_the_end_of_its_log() {
        let mut component = component("echo last words; exit 1", "dies");
        let error = component.wait_ready(|| Err("nobody listens".to_owned())).unwrap_err();
        assert!(matches!(&error, Error::Died { name, tail, .. } if name == "sh" && tail == "last words"), "{error}");
        fs::remove_dir_all(component.log.parent().unwrap()).unwrap();
    }

    #[test]
    fn stopping_ends_a_component_that_ignores_the_question() {
        let mut component = component("trap '' TERM; echo up; while :; do sleep 0.1; done", "stops");
        let log = component.log.clone();
        component.wait_ready(|| if tail(&log) == "up" { Ok(()) } else { Err("not yet".to_owned()) }).unwrap();
        component.stop(Duration::from_millis(200));
        assert!(component.ended().is_some());
        fs::remove_dir_all(log.parent().unwrap()).unwrap();
    }
}

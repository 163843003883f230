//! Namespaces that hold a cluster's processes and mounts, so that when their first process ends all of them are gone,
//! whatever ended it.

use std::{
    fs,
    path::Path,
    process::{Command, ExitStatus},
};

use rustix::process::{WaitOptions, wait};

use crate::error::{Error, Result};

/// A command that runs this very program with `arguments` in namespaces of its own for mounts and processes and, if
/// `network` is set, for the network. Killing the started process ends everything in them.
///
/// # Errors
/// When the path of this program cannot be found.
pub fn command(network: bool, arguments: &[String]) -> Result<Command> {
    let this = std::env::current_exe().map_err(Error::io("find this program"))?;
    // `unshare` ends with whoever started it unless it was detached, and takes the first process with it.
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    if network {
        command.arg("--net");
    }
    command.arg("--").arg(&this).arg("init").arg(&this).args(arguments);
    Ok(command)
}

/// The life of the first process of the namespaces: it runs `command`, buries orphans, and ends with `command`.
///
/// # Errors
/// When the command cannot be started.
pub fn init(command: &[String]) -> Result<u8> {
    let [program, arguments @ ..] = command else {
        return Err(Error::Precondition("`init` needs a command: it is for internal use".to_owned()));
    };
    let child = Command::new(program).args(arguments).spawn().map_err(Error::io(format!("start {program}")))?;
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get().cast_unsigned() == child.id() => {
                let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
                return Ok(u8::try_from(code.unwrap_or(1)).unwrap_or(1));
            }
            // An orphan, or an interrupted wait.
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Error::Io { action: "wait for a process".to_owned(), source: error.into() }),
        }
    }
}

/// What a shell would report for the way a process ended.
#[must_use]
pub fn exit_code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

/// A name for this process namespace that can be compared with `/proc/<pid>/ns/pid` of any process.
#[must_use]
pub fn process_namespace() -> String {
    fs::read_link("/proc/self/ns/pid").map(|link| link.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The processes of a namespace as this process sees them: id here, id there.
#[must_use]
pub fn processes_in(namespace: &str) -> Vec<(u32, u32)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    ids.filter_map(|id| {
        let folder = Path::new("/proc").join(id.to_string());
        let link = fs::read_link(folder.join("ns/pid")).ok()?;
        if link.to_string_lossy() != namespace {
            return None;
        }
        let status = fs::read_to_string(folder.join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        Some((id, line.split_whitespace().last()?.parse().ok()?))
    })
    .collect()
}

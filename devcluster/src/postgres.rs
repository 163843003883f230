//! A private PostgreSQL from the distribution's binaries, on a loopback port.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{
    error::{Error, Result},
    layout::{Layout, create_folder, loopback, write},
    process::{Component, run},
};

/// The oldest major version that will do.
pub const OLDEST: u32 = 15;
/// Whom PostgreSQL runs as when we are root, which it refuses to run as: the user of the distribution's package.
const USER: &str = "postgres";

/// The folder of the newest installed PostgreSQL's programs, if there is one that is new enough.
#[must_use]
pub fn installed() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let versions = versions.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let folder = |version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin"));
    versions.filter(|&version| version >= OLDEST && folder(version).join("initdb").exists()).max().map(folder)
}

/// PostgreSQL while its data folder is being made, which takes a second or two that others can use.
#[derive(Debug)]
pub struct Initialising {
    programs: PathBuf,
    identity: Option<(u32, u32)>,
    password: String,
    initdb: Option<Child>,
}

/// Begins to make the data folder if it is not there yet.
///
/// # Errors
/// When PostgreSQL or its user is missing or a folder cannot be made.
pub fn initialise(layout: &Layout) -> Result<Initialising> {
    let programs = installed().ok_or_else(|| {
        Error::Precondition(format!(
            "PostgreSQL {OLDEST} or newer is not installed: run `apt-get install --no-install-recommends postgresql`"
        ))
    })?;
    let identity = if rustix::process::geteuid().is_root() { Some(identity_of(USER)?) } else { None };
    let password = password(&layout.data.join("postgres-password"))?;
    let folder = layout.data.join("postgres");
    create_folder(&folder, 0o700)?;
    let mut initialising = Initialising { programs, identity, password, initdb: None };
    if folder.join("complete").exists() {
        return Ok(initialising);
    }
    // Whatever an interrupted run left there is of no use.
    fs::remove_dir_all(&folder).map_err(Error::io(format!("empty {}", folder.display())))?;
    create_folder(&folder, 0o700)?;
    let password_file = folder.join("password");
    write(&password_file, &initialising.password)?;
    if let Some((user, group)) = identity {
        for path in [&folder, &password_file] {
            chown(path, Some(user), Some(group)).map_err(Error::io(format!("give {} away", path.display())))?;
        }
    }
    let log = File::create(layout.logs().join("initdb.log")).map_err(Error::io("make the log of initdb"))?;
    let mut command = initialising.as_user(&layout.component(&initialising.programs.join("initdb")));
    command.arg("--pgdata").arg(folder.join("data")).arg("--pwfile").arg(password_file);
    command.args(["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]);
    command.stdin(Stdio::null()).stderr(Stdio::null()).stdout(log);
    initialising.initdb = Some(command.spawn().map_err(Error::io("start initdb"))?);
    Ok(initialising)
}

impl Initialising {
    /// Waits for the data folder and starts the server on it.
    ///
    /// # Errors
    /// When either fails.
    pub fn start(mut self, layout: &Layout) -> Result<Component> {
        let folder = layout.data.join("postgres");
        if let Some(mut initdb) = self.initdb.take() {
            let status = initdb.wait().map_err(Error::io("wait for initdb"))?;
            if !status.success() {
                let log = layout.logs().join("initdb.log");
                let tail = crate::process::tail(&log);
                return Err(Error::Died { name: "initdb".to_owned(), status, log, tail });
            }
            write(&folder.join("complete"), "")?;
        }
        let mut command = self.as_user(&layout.component(&self.programs.join("postgres")));
        command.arg("-D").arg(folder.join("data"));
        let port = layout.ports.postgres.to_string();
        let durable = if layout.durable { "on" } else { "off" };
        let settings = [
            ("listen_addresses", "127.0.0.1"),
            ("port", &port),
            ("unix_socket_directories", ""),
            ("max_connections", "300"),
            ("max_wal_size", "256MB"),
            ("fsync", durable),
            ("synchronous_commit", durable),
            ("full_page_writes", durable),
        ];
        for (name, value) in settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let address = loopback(layout.ports.postgres);
        let mut server = Component::start("postgres", address.to_string(), command, &layout.logs())?;
        let is_ready = self.programs.join("pg_isready");
        server.wait_ready(|| {
            let mut command = Command::new(&is_ready);
            command.args(["--quiet", "--host=127.0.0.1", "--dbname=postgres", "--port", &port]);
            run(&mut command).map(drop).map_err(|error| error.to_string())
        })?;
        Ok(server)
    }

    /// The same command under PostgreSQL's user. A command cannot be handed on and then run, hence the copy.
    fn as_user(&self, command: &Command) -> Command {
        let mut copy = Command::new(command.get_program());
        copy.args(command.get_args()).current_dir("/");
        if let Some((user, group)) = self.identity {
            copy.uid(user).gid(group);
        }
        copy
    }
}

/// The URL of the maintenance database, as superuser.
///
/// # Errors
/// When the password cannot be read.
pub fn url(layout: &Layout) -> Result<String> {
    let password = password(&layout.data.join("postgres-password"))?;
    Ok(format!("postgres://postgres:{password}@{}/postgres", loopback(layout.ports.postgres)))
}

/// The superuser's password, made on first use: loopback is open to every user of the machine.
fn password(path: &Path) -> Result<String> {
    if let Ok(password) = fs::read_to_string(path) {
        return Ok(password);
    }
    let password = random_hex()?;
    write(path, &password)?;
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .map_err(Error::io(format!("protect {}", path.display())))?;
    Ok(password)
}

/// 32 hexadecimal digits nobody can guess.
fn random_hex() -> Result<String> {
    let mut bytes = [0_u8; 16];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(Error::io("read random bytes"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// User and group id of a user of this machine.
fn identity_of(user: &str) -> Result<(u32, u32)> {
    let id = |flag| run(Command::new("id").args([flag, user]))?.trim().parse::<u32>().map_err(|_| unknown_user(user));
    Ok((id("-u")?, id("-g")?))
}

fn unknown_user(user: &str) -> Error {
    Error::Precondition(format!(
        "there is no user `{user}`, which PostgreSQL runs as: reinstall the package postgresql-common"
    ))
}

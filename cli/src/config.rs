//! The file of contexts: platforms, and the tokens for them. Readable by its owner alone, and replaced as a whole, so
//! that an interrupted command never leaves half a file. Never logs or prints what it holds.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::url::BaseUrl;

/// Rights of the file: its owner's alone.
const FILE_MODE: u32 = 0o600;
/// Rights of the folder, if it is made.
const FOLDER_MODE: u32 = 0o700;
/// Longest file that is read.
const FILE_MAX: u64 = 1 << 20;

/// Why the contexts cannot be had, or kept.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Neither a home nor a flag.
    #[error("there is no place for the config file: set HOME, or pass --config FILE")]
    NoPlace,
    /// Others may read it.
    #[error("{0} can be read by others, and holds tokens: run `chmod 600 {0}`")]
    Exposed(PathBuf),
    /// Not a config file.
    #[error("{path} cannot be understood: {reason}; repair it, or remove it and sign in again")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it; quotes nothing of it.
        reason: String,
    },
    /// The file system says no.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// One platform, and who one is there.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Context {
    /// Where the platform is.
    pub url: BaseUrl,
    /// The bearer token, once signed in.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "exposed", deserialize_with = "hidden")]
    pub token: Option<SecretString>,
    /// Certificates to trust instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

fn exposed<S: serde::Serializer>(token: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    token.as_ref().map(|token| token.expose_secret()).serialize(serializer)
}

fn hidden<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<SecretString>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(SecretString::from))
}

/// The whole file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The context that is used unless another is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// By name.
    #[serde(default)]
    pub contexts: BTreeMap<String, Context>,
}

impl Config {
    /// Reads the file; none is an empty one.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let failed = |action| move |source| ConfigError::Io { action, path: path.to_owned(), source };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(failed("open")(error)),
        };
        let metadata = file.metadata().map_err(failed("look at"))?;
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(ConfigError::Exposed(path.to_owned()));
        }
        let mut text = String::new();
        io::Read::read_to_string(&mut io::Read::take(file, FILE_MAX), &mut text).map_err(failed("read"))?;
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(&text).map_err(|error| {
            // The first line of the message has the place; the rest may quote the file, tokens and all.
            let place = error.location().map(|at| format!("line {}, column {}", at.line(), at.column()));
            let reason =
                format!("it is no file of contexts ({})", place.unwrap_or_else(|| "no place known".to_owned()));
            ConfigError::Malformed { path: path.to_owned(), reason }
        })
    }

    /// Replaces the file as a whole.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn write(&self, path: &Path) -> Result<(), ConfigError> {
        let failed = |action| move |source| ConfigError::Io { action, path: path.to_owned(), source };
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder).map_err(failed("make the folder of"))?;
        let text =
            serde_saphyr::to_string(self).map_err(|error| failed("write")(io::Error::other(error.to_string())))?;
        let draft = path.with_extension(format!("{}.new", std::process::id()));
        let written = write_new(&draft, text.as_bytes()).and_then(|()| fs::rename(&draft, path));
        if written.is_err() {
            // It may hold a token.
            drop(fs::remove_file(&draft));
        }
        written.map_err(failed("write"))
    }

    /// The names there are, for a message.
    #[must_use]
    pub fn names(&self) -> String {
        match self.contexts.is_empty() {
            true => "there are none".to_owned(),
            false => format!("there are {}", self.contexts.keys().cloned().collect::<Vec<_>>().join(", ")),
        }
    }
}

fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(path)?;
    // Left over from a killed process, it may have been anybody's.
    file.set_permissions(fs::Permissions::from_mode(FILE_MODE))?;
    file.write_all(text)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            Self(std::env::temp_dir().join(format!("eventflow-cli-{}", uuid::Uuid::new_v4())))
        }

        fn file(&self) -> PathBuf {
            self.0.join("eventflow/config.yaml")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn config(token: &str) -> Config {
        let url = "http://127.0.0.1:8080".parse().unwrap();
        let context = Context { url, token: Some(SecretString::from(token)), ca_file: None };
        Config { current: Some("default".into()), contexts: BTreeMap::from([("default".into(), context)]) }
    }

    #[test]
    fn what_was_written_is_read_and_its_owner_s_alone() {
        let folder = Folder::new();
        assert!(Config::read(&folder.file()).unwrap().contexts.is_empty());
        config("one").write(&folder.file()).unwrap();
        config("true").write(&folder.file()).unwrap();
        assert_eq!(fs::metadata(folder.file()).unwrap().permissions().mode() & 0o777, FILE_MODE);
        let read = Config::read(&folder.file()).unwrap();
        assert_eq!(read.contexts["default"].token.as_ref().unwrap().expose_secret(), "true");
        assert_eq!(fs::read_dir(folder.file().parent().unwrap()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let folder = Folder::new();
        config("one").write(&folder.file()).unwrap();
        fs::set_permissions(folder.file(), fs::Permissions::from_mode(0o644)).unwrap();
        let error = Config::read(&folder.file()).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_malformed_file_is_not_quoted() {
        let folder = Folder::new();
        config("x").write(&folder.file()).unwrap();
        for bad in
            ["contexts: [secret", "secret", "contexts: {a: {url: 'x', secret: y}}", "contexts: {a: {url: secret}}"]
        {
            fs::write(folder.file(), bad).unwrap();
            let error = Config::read(&folder.file()).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_token_never_shows_in_debug_output() {
        assert!(!format!("{:?}", config("s3cret")).contains("s3cret"));
    }
}

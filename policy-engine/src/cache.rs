//! Compiled modules on disk, so that a gateway with ten policies starts in less than a second.
//!
//! Machine code from a file is as trusted as this program's own. So the folder belongs to this user and nobody else
//! may write to it or read it, every file is authenticated with a key that lives there too, and the key of an entry
//! covers the module's digest and everything about the engine that changes code. Anything else about a file (missing,
//! foreign, damaged, from another version) is a miss, never an error: the module is compiled again.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::hash::{Hash, Hasher};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::limits;
use crate::module::Sha256Digest;

/// Why there is no cache. The engine works without one.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The folder cannot be made or read.
    #[error("the folder of compiled policies, {0}, cannot be used")]
    Folder(PathBuf, #[source] std::io::Error),
    /// The folder is another user's, or open to others.
    #[error("the folder of compiled policies, {0}, must belong to this user and be closed to all others (mode 0700)")]
    NotPrivate(PathBuf),
}

/// A folder of compiled modules.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
    key: [u8; 32],
}

impl Cache {
    /// Opens `folder`, making it and its key if need be.
    ///
    /// # Errors
    /// The folder is not private or cannot be made.
    pub fn open(folder: &Path) -> Result<Self, CacheError> {
        let fault = |e| CacheError::Folder(folder.to_owned(), e);
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(fault)?;
        let about = fs::symlink_metadata(folder).map_err(fault)?;
        let ours = about.uid() == rustix::process::geteuid().as_raw();
        if !about.is_dir() || !ours || about.mode() & 0o077 != 0 {
            return Err(CacheError::NotPrivate(folder.to_owned()));
        }
        let key = read_or_make_key(&folder.join("key")).map_err(fault)?;
        Ok(Self { folder: folder.to_owned(), key })
    }

    /// The compiled module, if it is there and is ours.
    pub(crate) fn load(&self, engine: &Engine, module: Sha256Digest) -> Option<Component> {
        let name = entry_name(engine, module);
        let bytes = read_private(&self.folder.join(&name))?;
        let (tag, code) = bytes.split_at_checked(32)?;
        if self.mac(&name, code).verify_slice(tag).is_err() {
            tracing::warn!(file = name, "a compiled policy was not written by this gateway and is ignored");
            return None;
        }
        deserialize_own(engine, code)
    }

    /// Keeps a compiled module. A full disk or a lost folder is only a slower start next time.
    pub(crate) fn store(&self, engine: &Engine, module: Sha256Digest, component: &Component) {
        let name = entry_name(engine, module);
        let written = component.serialize().map_err(|e| format!("{e:#}")).and_then(|code| {
            let tag = self.mac(&name, &code).finalize().into_bytes();
            self.write(&name, &[&tag, &code]).map_err(|e| e.to_string())
        });
        if let Err(error) = written {
            tracing::warn!(file = name, error, "a compiled policy could not be kept");
        }
        if let Err(error) = self.prune(limits::CACHE_BYTES) {
            tracing::warn!(error = %error, "old compiled policies could not be removed");
        }
    }

    /// Removes what was used the longest time ago until `most` bytes remain, and what a crash left unfinished.
    fn prune(&self, most: u64) -> std::io::Result<()> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_name() == "key" {
                continue;
            }
            // Another gateway may have removed it meanwhile.
            let Ok(about) = entry.metadata() else { continue };
            let used = about.modified()?;
            let unfinished = entry.path().extension().is_some_and(|extension| extension == "new");
            if unfinished && used.elapsed().is_ok_and(|age| age > limits::CACHE_UNFINISHED) {
                let _ = fs::remove_file(entry.path());
            } else {
                entries.push((used, about.len(), entry.path()));
            }
        }
        entries.sort();
        let mut bytes: u64 = entries.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, size, path) in entries {
            if bytes <= most {
                break;
            }
            let _ = fs::remove_file(path);
            bytes -= size;
        }
        Ok(())
    }

    /// The name is authenticated with the code, so that one module's file cannot stand in for another's.
    fn mac(&self, name: &str, code: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes a key of any length");
        mac.update(name.as_bytes());
        mac.update(code);
        mac
    }

    /// Written beside and renamed: a reader sees all of it or nothing, also after a crash.
    fn write(&self, name: &str, parts: &[&[u8]]) -> std::io::Result<()> {
        let beside = self.folder.join(format!("{name}.{:016x}.new", rand::random::<u64>()));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        let written = parts.iter().try_for_each(|part| file.write_all(part)).and_then(|()| file.sync_all());
        let moved = written.and_then(|()| fs::rename(&beside, self.folder.join(name)));
        if moved.is_err() {
            // What could not be finished must not fill the disk.
            let _ = fs::remove_file(&beside);
        }
        moved
    }
}

/// The module's digest, and a digest of everything about the engine that changes what code it makes.
fn entry_name(engine: &Engine, module: Sha256Digest) -> String {
    struct IntoSha(Sha256);
    impl Hasher for IntoSha {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            0
        }
    }
    let mut hasher = IntoSha(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    let engine: [u8; 32] = hasher.0.finalize().into();
    format!("{module}-{:.16}", Sha256Digest::from_bytes(engine).to_string())
}

/// The one place where bytes become machine code without having been compiled in this process.
#[expect(unsafe_code, reason = "wasmtime cannot check machine code; the caller authenticated it, as argued inside")]
fn deserialize_own(engine: &Engine, code: &[u8]) -> Option<Component> {
    // SAFETY: `deserialize` asks for bytes that `Component::serialize` made and nobody changed. The caller has checked
    // their HMAC-SHA-256 under a key that this program drew at random, keeps in a folder only this user can enter, and
    // uses for nothing but the output of `serialize`; the entry's name, which holds the engine's compatibility hash, is
    // part of what was authenticated. Whoever can forge that runs as this user already. wasmtime itself refuses bytes
    // of another version or other settings.
    let component = unsafe { Component::deserialize(engine, code) };
    component.inspect_err(|e| tracing::warn!(error = %format!("{e:#}"), "a compiled policy does not load")).ok()
}

/// Content of a regular file that is this user's and closed to others; none if it is anything else.
fn read_private(path: &Path) -> Option<Vec<u8>> {
    let file =
        OpenOptions::new().read(true).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32).open(path).ok()?;
    let about = file.metadata().ok()?;
    let ours = about.is_file() && about.uid() == rustix::process::geteuid().as_raw() && about.mode() & 0o077 == 0;
    if !ours || about.len() > limits::CODE_BYTES as u64 {
        tracing::warn!(file = %path.display(), "a compiled policy is not private to this user and is ignored");
        return None;
    }
    // What is used stays: see `prune`. A file system that cannot note it only forgets earlier.
    let _ = file.set_modified(SystemTime::now());
    let mut bytes = Vec::with_capacity(usize::try_from(about.len()).ok()?);
    file.take(limits::CODE_BYTES as u64).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn read_or_make_key(path: &Path) -> std::io::Result<[u8; 32]> {
    if let Some(key) = read_private(path).and_then(|bytes| bytes.try_into().ok()) {
        return Ok(key);
    }
    // Anything else in its place is of no use; what it authenticated is compiled again.
    let _ = fs::remove_file(path);
    let key: [u8; 32] = rand::random();
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => write_key(&mut file, key),
        // Another process was first. Its key may not be written yet, so this one has its own for this run.
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(key),
        Err(e) => Err(e),
    }
}

fn write_key(file: &mut File, key: [u8; 32]) -> std::io::Result<[u8; 32]> {
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(&key)?;
    file.sync_all()?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let folder = std::env::temp_dir().join(format!("eventflow-policy-prune-{}", std::process::id()));
        let cache = Cache::open(&folder).unwrap();
        let put = |name: &str, age: u64| {
            fs::write(folder.join(name), [0; 100]).unwrap();
            let used = SystemTime::now() - Duration::from_secs(age);
            File::options().write(true).open(folder.join(name)).unwrap().set_modified(used).unwrap();
        };
        for (name, age) in [("old", 300), ("older", 400), ("young", 1), ("a.new", 100_000), ("b.new", 1)] {
            put(name, age);
        }
        cache.prune(300).unwrap();
        let mut left: Vec<_> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["b.new", "key", "old", "young"]);
        fs::remove_dir_all(&folder).unwrap();
    }
}

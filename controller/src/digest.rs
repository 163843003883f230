//! Digests of what an object says, for comparing without keeping it. Not for secrets, not against adversaries.

use std::fmt;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// The first 64 bits of a SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(u64);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The digest of a value's JSON. Maps must be ordered for it to be stable, as Kubernetes' types are.
#[must_use]
pub fn of(value: &impl Serialize) -> Digest {
    let mut hash = Sha256::new();
    // Writing JSON of these types into a hash cannot fail: no I/O, and every map has text keys.
    if serde_json::to_writer(&mut Hashing(&mut hash), value).is_err() {
        hash.update(b"unwritable");
    }
    let bytes = hash.finalize();
    Digest(u64::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]]))
}

struct Hashing<'a>(&'a mut Sha256);

impl std::io::Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

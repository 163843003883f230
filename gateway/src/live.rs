//! What happens to each tenant's functions and quota, as the watch caches see it: kept for a while, so that a reader who
//! comes back misses nothing, or is told honestly that it did. Writes nothing, and costs no call.

/// What happened lately, of every tenant.
pub mod hub;
/// One reader's way through it.
pub mod reader;

pub use hub::{Happening, Hub};
pub use reader::Reader;

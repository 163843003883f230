//! A real Kubernetes and a real PostgreSQL on one machine, for `make up` and for the tests.
//!
//! Tests use two things from here: [`TestCluster`], the handle on the cluster they run in, and [`Proxy`], which stands
//! in front of PostgreSQL or the API server and breaks the line on purpose. The rest starts and stops clusters; it is
//! not part of the product and nothing in the product depends on it.

/// What a test may ask about the cluster it runs in.
pub mod attach;
/// A TCP proxy that cuts and delays, for fault tests.
pub mod proxy;

pub use attach::TestCluster;
pub use proxy::Proxy;

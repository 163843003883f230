//! A real Kubernetes and a real PostgreSQL on one machine, for `make up` and for the tests.
//!
//! Tests use two things from here: `TestCluster`, the handle on the cluster they run in, and `Proxy`, which stands
//! in front of PostgreSQL or the API server and breaks the line on purpose. The rest starts and stops clusters; it is
//! not part of the product and nothing in the product depends on it.

/// What a test may ask about the cluster it runs in.
pub mod attach;
/// A TCP proxy that cuts and delays, for fault tests.
pub mod proxy;
/// The command line.
pub mod cli;
/// The distribution's packages.
pub mod packages;
/// The programs built from Go modules.
pub mod tools;
/// `devcluster up`, `status`, `logs`, `down` and `clean`.
pub mod up;
/// What has to be so before anything starts.
pub mod preflight;
/// What `up` was asked to run.
pub mod plan;
/// The process that everything of `up` belongs to.
pub mod supervisor;
/// The socket on which it is asked and told.
pub mod control;
/// The gateway and the controller on the cluster.
pub mod platform;
/// Shows that the platform works.
pub mod demo;
/// `devcluster run`: a cluster for the time of one command.
pub mod run;
/// Namespaces that end with everything in them.
pub mod contained;
/// The cgroup, addresses and settings of the machine that a cluster uses.
pub mod host;
/// Where a cluster keeps its things and at which addresses it serves.
pub mod layout;
/// All components, in order.
pub mod cluster;
/// Keys, certificates and kubeconfigs.
pub mod pki;
/// The database.
pub mod postgres;
/// etcd, API server, controller manager, scheduler.
pub mod control_plane;
/// containerd, kubelet, kube-proxy.
pub mod node;
/// The example functions as images.
pub mod images;
/// Covers the places Kubernetes writes to whatever it is told.
pub mod shadow;
/// Programs run to their end, and components that stay.
pub mod process;
/// Whether a component serves.
pub mod probe;
/// Why something failed.
pub mod error;

pub use attach::{STAND_IN, TestCluster};
pub use proxy::Proxy;

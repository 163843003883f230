//! Waits for SIGTERM or SIGINT and ends with exit code 0. Holds the namespaces of a pod as the cluster's sandbox
//! image. It adopts no orphans, so pods that share one process namespace need the usual pause image instead.

use std::io;

use eventflow_examples::ending;

fn main() -> io::Result<()> {
    ending::wait()
}

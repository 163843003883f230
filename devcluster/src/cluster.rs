//! A cluster's components, started in order and stopped in reverse.

use std::time::Duration;

use crate::{control_plane, error::Result, layout::Layout, node, pki, postgres, process::Component};

/// How long a component may take to end by itself.
const GRACE: Duration = Duration::from_secs(5);

/// Everything that runs, in the order it was started.
#[derive(Debug)]
pub struct Cluster {
    /// The components.
    pub components: Vec<Component>,
}

impl Cluster {
    /// Starts PostgreSQL and the control plane and, if the layout has one, the node; returns when all of it serves.
    ///
    /// # Errors
    /// When a component does not get ready: its name and the end of its log.
    pub fn start(layout: &Layout) -> Result<Self> {
        layout.create_folders()?;
        pki::ensure(layout)?;
        let postgres = postgres::initialise(layout)?;
        if layout.node {
            node::prepare(layout)?;
        }
        let mut cluster = Self { components: Vec::new() };
        cluster.components.push(control_plane::start_etcd(layout)?);
        let mut api_server = control_plane::start_api_server(layout)?;
        if layout.node {
            cluster.components.extend(node::start_runtime(layout)?);
        }
        cluster.components.push(postgres.start(layout)?);
        control_plane::wait_for_api_server(layout, &mut api_server)?;
        cluster.components.push(api_server);
        let mut controllers = control_plane::start_controller_manager(layout)?;
        if layout.node {
            cluster.components.push(control_plane::start_scheduler(layout)?);
            cluster.components.extend(node::start(layout)?);
        }
        control_plane::wait_for_controllers(layout, &mut controllers)?;
        cluster.components.push(controllers);
        Ok(cluster)
    }

    /// Starts PostgreSQL alone, beside a cluster that is somebody else's.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn start_database_only(layout: &Layout) -> Result<Self> {
        layout.create_folders()?;
        Ok(Self { components: vec![postgres::initialise(layout)?.start(layout)?] })
    }

    /// Stops everything, the newest first.
    pub fn stop(&mut self) {
        for component in self.components.iter_mut().rev() {
            component.stop(GRACE);
        }
    }
}

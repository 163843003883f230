//! EventFlow itself on the development cluster: its custom resources, admission policies and tiers, its database, the gateway and the
//! controller.

use std::{path::Path, process::Command, time::Duration};

use crate::{
    error::{Error, Result},
    images,
    layout::{BRIDGE_ADDRESS, loopback},
    plan::{Plan, PlatformPlan},
    postgres, probe,
    process::{Component, run},
};

/// How long a gateway may take to answer what is under way before it is killed.
const DRAIN: Duration = Duration::from_secs(30);
/// Where the policies are that the platform ships with, from the root of the checkout.
pub const COMPONENTS: &str = "target/policies/components";
/// The database, and the role the gateway signs in as.
const DATABASE: &str = "eventflow";

/// Puts what the gateway and the controller need in place: custom resources, tiers if there are none, the schema. What
/// is there already stays.
///
/// # Errors
/// When the cluster or the database refuses.
pub fn install(plan: &Plan) -> Result<()> {
    let Some(platform) = &plan.platform else { return Ok(()) };
    let helm = platform.root.join("helm");
    let crds = helm.join("crds");
    kubectl(plan, &["apply", "--server-side", "--force-conflicts", "--filename", path(&crds)?])?;
    kubectl(plan, &["wait", "--for=condition=Established", "--timeout=60s", "--filename", path(&crds)?])?;
    let policies = helm.join("policies");
    kubectl(plan, &["apply", "--server-side", "--force-conflicts", "--filename", path(&policies)?])?;
    // Operators edit tiers, and their edits stay.
    if kubectl(plan, &["get", "tiers", "--output", "name"])?.trim().is_empty() {
        kubectl(plan, &["create", "--filename", path(&helm.join("tiers.yaml"))?])?;
    }
    let server = postgres::url(&plan.layout())?;
    let psql = |database: &str, sql: &str| {
        let mut command = Command::new("psql");
        command.args(["--no-psqlrc", "--quiet", "--tuples-only", "--set=ON_ERROR_STOP=1", "--command", sql]);
        run(command.arg(with_database(&server, database)))
    };
    let exists = psql("postgres", &format!("SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'"))?;
    if exists.trim().is_empty() {
        psql("postgres", &format!("CREATE DATABASE {DATABASE}"))?;
    }
    let mut migrate = Command::new(platform.programs.join("gateway"));
    run(migrate.arg("migrate").env("EVENTFLOW_DATABASE_URL", with_database(&server, DATABASE)))?;
    let password = password(&server);
    psql(
        DATABASE,
        &format!(
            "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{DATABASE}') THEN
                 CREATE ROLE {DATABASE} LOGIN;
             END IF; END $$;
             ALTER ROLE {DATABASE} PASSWORD '{password}';
             GRANT ef_app TO {DATABASE}"
        ),
    )
    .map(drop)
}

/// Starts the controller and the gateway and waits until both are ready.
///
/// # Errors
/// When one does not get ready.
pub fn start(plan: &Plan) -> Result<Vec<Component>> {
    let Some(platform) = &plan.platform else { return Ok(Vec::new()) };
    let layout = plan.layout();
    let mut controller = layout.component(&platform.programs.join("controller"));
    controller.env("KUBECONFIG", plan.kubeconfig());
    controller.arg("--admin-listen").arg(loopback(platform.controller_port()).to_string());
    if layout.node {
        // The gateway is on the host, and pods see the host under the bridge's address.
        controller.arg(format!("--gateway-cidr={BRIDGE_ADDRESS}/32"));
        controller.arg("--runner-image").arg(images::reference(&layout, images::RUNNER, "v1"));
    }
    let mut gateway = layout.component(&platform.programs.join("gateway"));
    gateway.env("KUBECONFIG", plan.kubeconfig()).args(["serve", "--dev-issuer"]);
    gateway.arg("--listen").arg(loopback(platform.port).to_string());
    gateway.arg("--admin-listen").arg(loopback(platform.admin_port).to_string());
    let components = platform.root.join(COMPONENTS);
    if components.join("defaults.json").exists() {
        gateway.arg("--builtin-policies").arg(components);
    }
    gateway.arg("--policy-cache").arg(layout.data.join("policies"));
    let server = postgres::url(&layout)?;
    let as_gateway = with_database(&server, DATABASE).replacen("//postgres:", &format!("//{DATABASE}:"), 1);
    gateway.env("EVENTFLOW_DATABASE_URL", as_gateway).env("EVENTFLOW_LOG_FORMAT", "text");
    for command in [&mut controller, &mut gateway] {
        command.env("NO_COLOR", "1");
    }
    let address = |port: u16| loopback(port).to_string();
    let mut controller =
        Component::start("controller", address(platform.controller_port()), controller, &layout.logs())?;
    let mut gateway = Component::start("gateway", address(platform.port), gateway, &layout.logs())?;
    wait_ready(platform, &mut controller)?;
    wait_ready(platform, &mut gateway)?;
    Ok(vec![controller, gateway])
}

/// Starts the programs again that were built anew since they were started.
///
/// # Errors
/// When one does not get ready again.
pub fn renew(plan: &Plan, components: &mut [Component]) -> Result<()> {
    let Some(platform) = &plan.platform else { return Ok(()) };
    let ours = |component: &&mut Component| matches!(component.name, "gateway" | "controller");
    let mut outdated: Vec<_> = components.iter_mut().filter(ours).filter(|component| component.is_outdated()).collect();
    if outdated.is_empty() {
        return Ok(());
    }
    install(plan)?;
    for component in &mut outdated {
        component.restart(DRAIN)?;
    }
    outdated.into_iter().try_for_each(|component| wait_ready(platform, component))
}

fn wait_ready(platform: &PlatformPlan, component: &mut Component) -> Result<()> {
    let port = if component.name == "gateway" { platform.admin_port } else { platform.controller_port() };
    component.wait_ready(|| probe::http(loopback(port), "/readyz").map(drop))
}

impl PlatformPlan {
    /// The controller's admin port.
    #[must_use]
    pub fn controller_port(&self) -> u16 {
        self.admin_port.saturating_add(1)
    }
}

/// Runs kubectl on the plan's cluster and returns what it wrote.
///
/// # Errors
/// When it fails.
pub fn kubectl(plan: &Plan, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(plan.tools.join("kubectl"));
    run(command.arg("--kubeconfig").arg(plan.kubeconfig()).args(arguments))
}

fn with_database(server: &str, database: &str) -> String {
    server.rsplit_once('/').map_or_else(|| server.to_owned(), |(server, _)| format!("{server}/{database}"))
}

/// The password of a URL that [`postgres::url`] made.
fn password(server: &str) -> &str {
    let credentials = server.split_once('@').map_or("", |(credentials, _)| credentials);
    credentials.rsplit_once(':').map_or("", |(_, password)| password)
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| Error::Precondition(format!("{} is not UTF-8: move the checkout", path.display())))
}

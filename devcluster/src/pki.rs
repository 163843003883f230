//! The cluster's keys and certificates. Made once per data folder; they do not expire in the life of a machine.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use serde_json::json;

use crate::{
    error::{Error, Result},
    layout::{API_SERVICE, BRIDGE_ADDRESS, Layout, NODE_NAME, write},
};

/// Names under which clients know the API server and etcd.
const SERVER_NAMES: [&str; 6] = [
    "localhost",
    "127.0.0.1",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// The path of a file of the cluster's keys: `ca.crt`, `server.{crt,key}`, `admin.{crt,key}`, `kubelet.{crt,key}`,
/// `service-accounts.{key,pub}`.
#[must_use]
pub fn file(layout: &Layout, name: &str) -> PathBuf {
    layout.data.join("pki").join(name)
}

/// Makes the keys if they are not there yet, and the kubeconfigs, which hold addresses and so are written each time.
///
/// # Errors
/// When a key cannot be made or a file not written.
pub fn ensure(layout: &Layout) -> Result<()> {
    // Written last, so that an interrupted run is done again.
    let complete = file(layout, "complete");
    if !complete.exists() {
        create(layout)?;
        write(&complete, "")?;
    }
    write_kubeconfig(layout, "admin", &layout.kubeconfig())?;
    write_kubeconfig(layout, "kubelet", &layout.data.join("kubelet.kubeconfig"))
}

fn create(layout: &Layout) -> Result<()> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    ca.distinguished_name.push(DnType::CommonName, "eventflow-devcluster");
    write(&file(layout, "ca.crt"), ca.self_signed(&ca_key)?.pem())?;
    let issuer = Issuer::new(ca, ca_key);

    let mut names: Vec<String> = SERVER_NAMES.iter().map(ToString::to_string).collect();
    names.extend([BRIDGE_ADDRESS.to_string(), API_SERVICE.to_owned()]);
    leaf(layout, &issuer, "server", CertificateParams::new(names)?)?;
    leaf(layout, &issuer, "admin", subject("eventflow-admin", "system:masters")?)?;
    leaf(layout, &issuer, "kubelet", subject(&format!("system:node:{NODE_NAME}"), "system:nodes")?)?;

    let service_accounts = KeyPair::generate()?;
    write_key(layout, "service-accounts.key", &service_accounts)?;
    write(&file(layout, "service-accounts.pub"), service_accounts.public_key_pem())
}

fn subject(name: &str, group: &str) -> Result<CertificateParams> {
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.distinguished_name.push(DnType::OrganizationName, group);
    Ok(parameters)
}

fn leaf(layout: &Layout, issuer: &Issuer<'_, KeyPair>, name: &str, mut parameters: CertificateParams) -> Result<()> {
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate()?;
    let certificate = parameters.signed_by(&key, issuer)?;
    write(&file(layout, &format!("{name}.crt")), certificate.pem())?;
    write_key(layout, &format!("{name}.key"), &key)
}

fn write_key(layout: &Layout, name: &str, key: &KeyPair) -> Result<()> {
    let path = file(layout, name);
    write(&path, key.serialize_pem())?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
        .map_err(Error::io(format!("protect {}", path.display())))
}

/// JSON is YAML too, so no YAML writer is needed, and [`crate::TestCluster`] needs no parser.
fn write_kubeconfig(layout: &Layout, user: &str, path: &std::path::Path) -> Result<()> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "eventflow",
        "clusters": [{"name": "eventflow", "cluster": {
            "server": format!("https://{}", layout.api_server()),
            "certificate-authority": file(layout, "ca.crt"),
        }}],
        "contexts": [{"name": "eventflow", "context": {"cluster": "eventflow", "user": user}}],
        "users": [{"name": user, "user": {
            "client-certificate": file(layout, &format!("{user}.crt")),
            "client-key": file(layout, &format!("{user}.key")),
        }}],
    });
    write(path, format!("{config:#}\n"))
}

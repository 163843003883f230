//! The way to the platform: TCP, and TLS by rustls with the system's certificates or those of a file.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::CallError;

/// A connector that trusts the certificates of `ca_file`, or the system's.
pub(super) fn new(ca_file: Option<&Path>, deadline: Duration) -> Result<HttpsConnector<HttpConnector>, CallError> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(deadline));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = HttpsConnectorBuilder::new();
    let builder = match ca_file {
        Some(path) => builder.with_tls_config(trusting(path, provider)?),
        None => {
            let system = builder.with_provider_and_native_roots(provider.clone());
            // A machine without certificates can still call by http; https then fails, and says why.
            match system {
                Ok(builder) => builder,
                Err(_) => HttpsConnectorBuilder::new().with_tls_config(config(RootCertStore::empty(), provider)?),
            }
        }
    };
    Ok(builder.https_or_http().enable_http1().wrap_connector(tcp))
}

fn trusting(path: &Path, provider: Arc<rustls::crypto::CryptoProvider>) -> Result<ClientConfig, CallError> {
    let failed = |reason: String| CallError::Certificates { path: path.to_owned(), reason };
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(failed("there is no certificate in it".to_owned()));
    }
    config(roots, provider)
}

fn config(roots: RootCertStore, provider: Arc<rustls::crypto::CryptoProvider>) -> Result<ClientConfig, CallError> {
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| CallError::Unsendable(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

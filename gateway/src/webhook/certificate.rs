//! This replica's certificate authority and certificate: made at start, in memory alone, good for a month, and made
//! anew long before that. The new authority is trusted before the new certificate is shown.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::{Timestamp, ToSpan, civil, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::registration::Registered;
use crate::app::App;

/// Days that a certificate is good for.
const DAYS: i64 = 30;
/// When a new one is made.
const ROTATION: Duration = Duration::from_secs(10 * 24 * 3600);
/// Between two looks whether the new authority is trusted.
const PAUSE: Duration = Duration::from_secs(2);
/// How long the API server may take to act on what it was told.
const SETTLING: Duration = Duration::from_secs(30);

/// No certificate could be made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Keys or certificates.
    #[error("the webhooks' certificate cannot be made")]
    Make(#[from] rcgen::Error),
    /// TLS.
    #[error("the webhooks' certificate cannot be used")]
    Use(#[from] tokio_rustls::rustls::Error),
}

/// An authority and a server that shows a certificate of it.
pub(super) struct Made {
    pub(super) ca_pem: String,
    pub(super) server: Arc<ServerConfig>,
}

/// A new authority, and a certificate for this host.
pub(super) fn make(host: &str) -> Result<Made, CertificateError> {
    let ca_key = KeyPair::generate()?;
    let mut ca = params(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    // Every authority has a name of its own, so that trusting several is never a question of their order.
    ca.distinguished_name.push(DnType::CommonName, format!("eventflow-webhook-{}", uuid::Uuid::new_v4().simple()));
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate()?;
    let mut leaf = params(vec![host.to_owned()])?;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = leaf.signed_by(&key, &issuer)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let server = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    Ok(Made { ca_pem, server: Arc::new(server) })
}

/// Good from yesterday, for clocks that differ.
fn params(names: Vec<String>) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let date = |date: civil::Date| date_time_ymd(date.year().into(), date.month() as u8, date.day() as u8);
    params.not_before = date(today.saturating_sub(1.day()));
    params.not_after = date(today.saturating_add(DAYS.days()));
    Ok(params)
}

/// Works for ever.
pub(super) async fn rotate(
    app: &App,
    host: &str,
    (mut current, tls): (Made, &ArcSwap<ServerConfig>),
    registered: &Registered,
) {
    loop {
        tokio::time::sleep(ROTATION).await;
        let next = match make(host) {
            Ok(next) => next,
            Err(error) => {
                tracing::error!(error = crate::error::chain(&error), "The webhooks' certificate was not renewed.");
                continue;
            }
        };
        app.policies.announce_webhook_ca(format!("{}{}", current.ca_pem, next.ca_pem));
        while !registered.trusts(&next.ca_pem) {
            tokio::time::sleep(PAUSE).await;
        }
        tokio::time::sleep(SETTLING).await;
        tls.store(Arc::clone(&next.server));
        app.policies.announce_webhook_ca(next.ca_pem.clone());
        tracing::info!("The webhooks have a new certificate.");
        current = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_authority_is_another() {
        let (one, two) = (make("127.0.0.1").unwrap(), make("gateway.eventflow.svc").unwrap());
        assert!(one.ca_pem.starts_with("-----BEGIN CERTIFICATE-----"));
        assert_ne!(one.ca_pem, two.ca_pem);
    }
}

//! The issuer that hands out tokens to whoever asks. On only with `--dev-issuer`, never beside a real issuer; its key
//! is drawn at each start, so its tokens die with the process.

use eventflow_api::http::{Role, TokenRequest};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use secrecy::SecretString;
use serde::Serialize;

use super::keys::{Issuer, Key, KeySource, TenantClaimName};

/// `iss` of its tokens.
pub const ISSUER: &str = "eventflow-dev";
/// `aud` of its tokens.
pub const AUDIENCE: &str = "eventflow";
/// How long its tokens are good for, in seconds.
pub const LIFETIME_SECONDS: u64 = 12 * 3600;

/// The signing half of the development issuer.
pub struct DevIssuer {
    key: EncodingKey,
}

impl std::fmt::Debug for DevIssuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DevIssuer")
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    iat: u64,
    exp: u64,
    roles: &'a [Role],
    #[serde(skip_serializing_if = "str::is_empty")]
    username: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    email: &'a str,
}

impl DevIssuer {
    /// Draws a key; the other half verifies what this one signs.
    #[must_use]
    pub fn new() -> (Self, Issuer) {
        let secret: [u8; 32] = rand::random();
        let key = Key { kid: None, algorithms: vec![Algorithm::HS256], decoding: DecodingKey::from_secret(&secret) };
        let issuer = Issuer {
            name: ISSUER.to_owned(),
            audience: AUDIENCE.to_owned(),
            keys: KeySource::Static(vec![key]),
            tenant_claim: TenantClaimName::Named("sub".to_owned()),
            roles_claim: "roles".to_owned(),
        };
        (Self { key: EncodingKey::from_secret(&secret) }, issuer)
    }

    /// A token for whoever the request says; no roles given means developer.
    ///
    /// # Errors
    /// When signing fails, which is a fault of ours.
    pub fn token(&self, request: &TokenRequest) -> Result<SecretString, jsonwebtoken::errors::Error> {
        let now = jsonwebtoken::get_current_timestamp();
        let roles: &[Role] = if request.roles.is_empty() { &[Role::Developer] } else { &request.roles };
        let claims = Claims {
            iss: ISSUER,
            aud: AUDIENCE,
            sub: &request.user_id,
            iat: now,
            exp: now + LIFETIME_SECONDS,
            roles,
            username: &request.username,
            email: &request.email,
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.key).map(SecretString::from)
    }
}

//! From a bearer token to a tenant. Only this module can make a `Tenant`: a verified token says who issued it and
//! what its tenant claim is, and the store says which tenant that is. Never reads a namespace from a token, never
//! tells a caller which check a token failed, never logs a token.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use eventflow_api::http::Role;
use eventflow_api::names::{TenantClaim, TenantId};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use moka::future::Cache;

use crate::cluster::{Cluster, ClusterError};
use crate::store::{Store, StoreError};

/// The issuer that hands out tokens to whoever asks, for development.
pub mod dev;
/// Issuers and their verification keys.
pub mod keys;
/// One token: its form, its signature, its claims.
pub mod token;

use dev::DevIssuer;
use keys::Issuer;
use token::{Identity, Tokens};

/// Longest time that the way from a claim to a tenant is remembered.
const TENANT_KEPT: Duration = Duration::from_secs(600);
/// Most tenants remembered.
const TENANTS_KEPT: u64 = 100_000;

/// Whose request this is. Only this module makes one, from a verified token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tenant {
    id: TenantId,
    namespace: String,
}

impl Tenant {
    fn new(id: TenantId) -> Self {
        let namespace = id.namespace();
        Self { id, namespace }
    }

    /// The tenant's id.
    #[must_use]
    pub fn id(&self) -> &TenantId {
        &self.id
    }

    /// The tenant's namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }
}

/// For tests alone.
#[doc(hidden)]
#[cfg(feature = "testing")]
pub mod testing {
    use super::*;

    /// A tenant without a token.
    #[must_use]
    pub fn tenant(id: TenantId) -> Tenant {
        Tenant::new(id)
    }
}

/// What a route needs its caller to be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Any accepted token will do.
    Identity,
    /// To read the tenant's things.
    Read,
    /// To change the tenant's things.
    Write,
    /// To call the tenant's functions.
    Invoke,
}

impl Right {
    /// Whether the role includes this right. An operator rules the platform, and within a tenant may only read.
    #[must_use]
    pub fn is_of(self, role: Role) -> bool {
        match self {
            Self::Identity => true,
            Self::Read => true,
            Self::Write | Self::Invoke => matches!(role, Role::Developer | Role::Owner),
        }
    }
}

/// Who is calling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The tenant acted for.
    pub tenant: Tenant,
    /// What the token says.
    pub identity: Arc<Identity>,
}

impl Caller {
    /// Whether one of the caller's roles includes the right.
    #[must_use]
    pub fn may(&self, right: Right) -> bool {
        right == Right::Identity || self.identity.roles.iter().any(|role| right.is_of(*role))
    }
}

/// An operator of the platform, who acts for no tenant. Only this module makes one, from a verified token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    identity: Arc<Identity>,
}

impl Operator {
    /// What the token says.
    #[must_use]
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }
}

/// Why a caller is not let in.
#[derive(Debug)]
pub enum AuthError {
    /// No bearer token.
    Missing,
    /// A token that is not accepted; why, for the log alone.
    Rejected(String),
    /// The token is good, and its tenant does not exist here.
    UnknownTenant,
    /// The token is good, and its bearer is no operator.
    NotAnOperator,
    /// The store cannot say which tenant it is.
    Store(StoreError),
    /// The tenant's object belongs to somebody else.
    Cluster(ClusterError),
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("no bearer token"),
            Self::Rejected(reason) => write!(f, "token rejected: {reason}"),
            Self::UnknownTenant => f.write_str("the tenant does not exist"),
            Self::NotAnOperator => f.write_str("the caller is no operator"),
            Self::Store(error) => error.fmt(f),
            Self::Cluster(error) => error.fmt(f),
        }
    }
}

/// Whose tokens are accepted.
#[derive(Debug)]
pub struct AuthConfig {
    /// Issuers and their keys.
    pub issuers: Vec<Issuer>,
    /// Whether the development issuer is on.
    pub dev_issuer: bool,
    /// Whether tenants are made on first use.
    pub provision: bool,
}

/// From tokens to callers.
#[derive(Debug)]
pub struct Auth {
    tokens: Tokens,
    dev: Option<DevIssuer>,
    tenants: Cache<(String, TenantClaim), TenantId>,
    provision: bool,
}

impl Auth {
    /// Prepares the issuers; the development issuer draws its key here.
    #[must_use]
    pub fn new(config: AuthConfig) -> Self {
        let mut issuers = config.issuers;
        let dev = config.dev_issuer.then(|| {
            let (dev, issuer) = DevIssuer::new();
            issuers.push(issuer);
            dev
        });
        Self {
            tokens: Tokens::new(issuers),
            dev,
            tenants: Cache::builder().max_capacity(TENANTS_KEPT).time_to_live(TENANT_KEPT).build(),
            provision: config.provision,
        }
    }

    /// The development issuer, if it is on.
    #[must_use]
    pub fn dev(&self) -> Option<&DevIssuer> {
        self.dev.as_ref()
    }

    /// Who is calling.
    ///
    /// # Errors
    /// See [`AuthError`].
    pub async fn caller(
        &self,
        headers: &HeaderMap,
        right: Right,
        store: &Store,
        cluster: &Cluster,
    ) -> Result<Caller, AuthError> {
        let identity = self.identity(headers)?;
        let tenant = self.tenant(&identity.tenant_issuer, &identity.claim, store, cluster).await?;
        // A write needs the tenant's object; whoever could not make it at the first call, or removed it, has it made
        // again. A read never waits for the cluster.
        if self.provision && right == Right::Write && cluster.tenant(tenant.id()).is_none() {
            ensure(cluster, &identity.tenant_issuer, &identity.claim, tenant.id()).await?;
        }
        Ok(Caller { tenant, identity })
    }

    /// The operator who is calling.
    ///
    /// # Errors
    /// [`AuthError::Missing`], [`AuthError::Rejected`] and [`AuthError::NotAnOperator`].
    pub fn operator(&self, headers: &HeaderMap) -> Result<Operator, AuthError> {
        let identity = self.identity(headers)?;
        if identity.roles.contains(&Role::Operator) { Ok(Operator { identity }) } else { Err(AuthError::NotAnOperator) }
    }

    /// What the bearer token says.
    ///
    /// # Errors
    /// [`AuthError::Missing`] and [`AuthError::Rejected`].
    pub fn identity(&self, headers: &HeaderMap) -> Result<Arc<Identity>, AuthError> {
        self.tokens.verify(bearer(headers)?).map_err(|reason| AuthError::Rejected(reason.to_string()))
    }

    /// The tenant that this claim of this issuer names.
    ///
    /// # Errors
    /// [`AuthError::UnknownTenant`] when it may not be made, [`AuthError::Store`] when the store is away and this
    /// process has not met the tenant lately.
    pub async fn tenant(
        &self,
        issuer: &str,
        claim: &TenantClaim,
        store: &Store,
        cluster: &Cluster,
    ) -> Result<Tenant, AuthError> {
        let key = (issuer.to_owned(), claim.clone());
        if let Some(id) = self.tenants.get(&key).await {
            return Ok(Tenant::new(id));
        }
        let found = store.tenant_resolve(issuer, claim, self.provision).await.map_err(AuthError::Store)?;
        let id = found.ok_or(AuthError::UnknownTenant)?;
        if self.provision {
            ensure(cluster, issuer, claim, &id).await?;
        }
        self.tenants.insert(key, id.clone()).await;
        Ok(Tenant::new(id))
    }
}

/// Makes sure that the tenant has its object in the cluster. Intent comes first: with the cluster away the tenant is
/// served all the same, and what it writes is applied when the cluster is back.
async fn ensure(cluster: &Cluster, issuer: &str, claim: &TenantClaim, id: &TenantId) -> Result<(), AuthError> {
    match cluster.tenant_ensure(issuer, claim, id).await {
        Ok(()) => Ok(()),
        Err(error @ ClusterError::Unavailable(_)) => {
            let error = crate::error::chain(&error);
            tracing::warn!(tenant.id = %id, error, "The tenant's object cannot be made yet; it is tried again.");
            Ok(())
        }
        Err(error) => Err(AuthError::Cluster(error)),
    }
}

/// The one bearer token of the request.
fn bearer(headers: &HeaderMap) -> Result<&str, AuthError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(AuthError::Missing)?;
    if values.next().is_some() {
        return Err(AuthError::Rejected("more than one Authorization header".to_owned()));
    }
    let value = value.to_str().map_err(|_| AuthError::Rejected("the Authorization header is not ASCII".to_owned()))?;
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim_start_matches(' ')),
        _ => Err(AuthError::Missing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_is_bearer_and_there_is_one() {
        let mut headers = HeaderMap::new();
        assert!(matches!(bearer(&headers), Err(AuthError::Missing)));
        headers.insert(AUTHORIZATION, "Basic eDp5".parse().unwrap());
        assert!(matches!(bearer(&headers), Err(AuthError::Missing)));
        headers.insert(AUTHORIZATION, "bearer a.b.c".parse().unwrap());
        assert!(matches!(bearer(&headers), Ok("a.b.c")));
        headers.append(AUTHORIZATION, "Bearer d.e.f".parse().unwrap());
        assert!(matches!(bearer(&headers), Err(AuthError::Rejected(_))));
    }

    #[test]
    fn only_developers_and_owners_write() {
        let may =
            |right: Right| [Role::Viewer, Role::Developer, Role::Owner, Role::Operator].map(|role| right.is_of(role));
        assert_eq!(may(Right::Write), [false, true, true, false]);
        assert_eq!(may(Right::Invoke), may(Right::Write));
        assert_eq!(may(Right::Read), [true; 4]);
    }
}

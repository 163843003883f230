//! To be written.

use eventflow_api::names::TenantId;

/// Whose request this is. Only this module makes one, from a verified token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tenant {
    id: TenantId,
    namespace: String,
}

impl Tenant {
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
        let namespace = id.namespace();
        Tenant { id, namespace }
    }
}

//! The service account functions run as. It has no rights, and its token is never mounted.

use eventflow_api::labels;
use k8s_openapi::api::core::v1::ServiceAccount;

use super::tenant_meta;
use crate::validate::ValidTenant;

/// The account.
#[must_use]
pub fn desired(tenant: &ValidTenant) -> ServiceAccount {
    ServiceAccount {
        metadata: tenant_meta(tenant, labels::FUNCTION_ACCOUNT),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

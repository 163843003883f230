//! Makes a policy's type the component's exports. The macros are the only way in, because a component's entry points
//! must be named in the crate that becomes the component.

/// Makes `$policy`, which implements [`crate::RequestPolicy`], the policy that this crate compiles to.
#[macro_export]
macro_rules! export_request_policy {
    ($policy:ty) => {
        #[doc(hidden)]
        mod __eventflow_export {
            use super::*;
            static SETTINGS: ::std::sync::OnceLock<$policy> = ::std::sync::OnceLock::new();
            pub struct Component;
            impl $crate::request_world::Guest for Component {
                fn describe() -> $crate::Manifest {
                    $crate::policy::request_manifest::<$policy>()
                }
                fn configure(settings: ::std::string::String) -> ::std::result::Result<(), ::std::vec::Vec<$crate::SettingsProblem>> {
                    $crate::export::remember(&SETTINGS, &settings)
                }
                fn check(request: $crate::RequestView) -> $crate::Verdict {
                    $crate::RequestPolicy::check($crate::export::recall(&SETTINGS), &request)
                }
            }
            #[cfg(target_arch = "wasm32")]
            $crate::request_world::export_request_world!(Component with_types_in $crate::request_world);
        }
    };
}

/// Makes `$policy`, which implements [`crate::AdmissionPolicy`], the policy that this crate compiles to.
#[macro_export]
macro_rules! export_admission_policy {
    ($policy:ty) => {
        #[doc(hidden)]
        mod __eventflow_export {
            use super::*;
            static SETTINGS: ::std::sync::OnceLock<$policy> = ::std::sync::OnceLock::new();
            pub struct Component;
            impl $crate::admission_world::Guest for Component {
                fn describe() -> $crate::Manifest {
                    $crate::policy::admission_manifest::<$policy>()
                }
                fn configure(settings: ::std::string::String) -> ::std::result::Result<(), ::std::vec::Vec<$crate::SettingsProblem>> {
                    $crate::export::remember(&SETTINGS, &settings)
                }
                fn admit(request: $crate::AdmissionView) -> $crate::AdmissionVerdict {
                    $crate::export::admit($crate::export::recall(&SETTINGS), &request)
                }
            }
            #[cfg(target_arch = "wasm32")]
            $crate::admission_world::export_admission_world!(Component with_types_in $crate::admission_world);
        }
    };
}

use std::sync::OnceLock;

use crate::{AdmissionPolicy, AdmissionVerdict, AdmissionView, Object, Settings, SettingsProblem, deny, settings};

/// Parses the settings and keeps them for the decisions.
///
/// # Errors
/// The settings are refused.
pub fn remember<S: Settings>(cell: &OnceLock<S>, text: &str) -> Result<(), Vec<SettingsProblem>> {
    let parsed = settings::parse(text)?;
    cell.set(parsed).map_err(|_| vec![settings::problem("", "configured twice")])
}

/// The settings kept by [`remember`].
///
/// # Panics
/// If the host asks for a decision before it configured the policy, which the contract rules out.
pub fn recall<S: Settings>(cell: &OnceLock<S>) -> &S {
    cell.get().expect("the host configures a policy before it asks for a decision")
}

/// Parses the object and asks the policy.
pub fn admit<P: AdmissionPolicy>(policy: &P, view: &AdmissionView) -> AdmissionVerdict {
    match Object::parse(&view.object) {
        Ok(object) => policy.admit(view, &object),
        Err(e) => deny(400, "object-unreadable", format!("the function cannot be read: {e}")).into(),
    }
}

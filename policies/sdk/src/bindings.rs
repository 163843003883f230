//! The contract's types and the glue around a guest, generated from `policies/wit`. Both worlds share the types.
#![allow(missing_docs, clippy::all, clippy::too_many_lines)]

pub mod request_world {
    wit_bindgen::generate!({
        path: "../wit",
        world: "request-policy",
        pub_export_macro: true,
        export_macro_name: "export_request_world",
        default_bindings_module: "eventflow_policy::request_world",
        additional_derives: [Clone, PartialEq, serde::Serialize, serde::Deserialize],
        generate_unused_types: true,
    });
}

pub mod admission_world {
    wit_bindgen::generate!({
        path: "../wit",
        world: "admission-policy",
        pub_export_macro: true,
        export_macro_name: "export_admission_world",
        default_bindings_module: "eventflow_policy::admission_world",
        with: {
            "eventflow:policy/types@1.0.0": super::request_world::eventflow::policy::types,
            "eventflow:policy/log@1.0.0": super::request_world::eventflow::policy::log,
            "eventflow:policy/clock@1.0.0": super::request_world::eventflow::policy::clock,
            "eventflow:policy/counters@1.0.0": super::request_world::eventflow::policy::counters,
            "eventflow:policy/context@1.0.0": super::request_world::eventflow::policy::context,
        },
    });
}

pub use request_world::eventflow::policy::types;
#[cfg(target_arch = "wasm32")]
pub use request_world::eventflow::policy::{clock, context, counters, log};

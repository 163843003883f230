//! One command from a policy's source to its component: `cargo build` for wasm32, then the component encoder, then the
//! policy's fixtures as a custom section. It never runs a policy.

// In the order of the work.
/// Which compiler can make wasm32 code on this machine, and how it is called.
pub mod toolchain;
/// Source to core module.
pub mod compile;
/// Core module to component.
pub mod component;
/// The policies of this repository.
pub mod builtin;

pub use builtin::builtin;
pub use compile::{CompileError, compile};
pub use component::{EncodeError, encode};
pub use toolchain::Toolchain;

//! The engine against real components: the built-in policies, hand-written hostile ones, and sets of both.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up should fail")]

mod builtins;
mod capabilities;
mod common;
mod hostile;
mod languages;
mod lifecycle;
mod set;

//! The engine against real components: the built-in policies, hand-written hostile ones, and sets of both.

mod builtins;
mod common;
mod hostile;
mod languages;
mod lifecycle;
mod set;

//! The `nearby` executable's parts: configuration, wiring, commands.

pub mod commands;
pub mod config;
mod demo;
mod disk;
mod keys;
mod metrics;
pub mod secret;
pub mod backends;
pub mod wiring;

pub use config::Config;
pub use wiring::App;

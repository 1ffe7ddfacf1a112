//! The broker keeps its contract on two pub/sub servers, and loses no last value when these change or fail.

mod conformance;
mod failover;
mod faults;
mod health;
mod rings;
mod world;

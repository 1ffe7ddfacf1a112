//! The endpoints as a client meets them: requests through the router, on the embedded backends.

#![allow(clippy::unwrap_used)]

mod access;
mod deletion;
mod friends;
mod history;
mod surface;
mod users;
mod world;

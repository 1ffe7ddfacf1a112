//! The whole server over real sockets: what a phone, a browser, an application's backend, an operator and an attacker
//! meet. Everything runs on the embedded backends, on a port and in a directory of its own.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

mod client;
mod http;
mod process;
mod raw;
mod server;
mod site;

mod attackers;
mod blocked_readers;
mod browsers;
mod calls;
mod crashes;
mod deadlines;
mod deletions;
mod devices;
mod disks;
mod frames;
mod friends;
mod intervals;
mod logs;
mod pages;
mod rates;
mod revokes;
mod sockets;
mod stops;
mod strangers;
mod tokens;

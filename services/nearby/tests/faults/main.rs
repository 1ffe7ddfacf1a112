//! What happens to people when a part of a fleet dies, freezes, comes back, joins or leaves: on the real servers, while
//! people move and every frame is judged. Each test says which promise it shows and prints what it measured.
//!
//! All share one fleet, one after the other, and each leaves it well. The quick ones run with every test; the others
//! take longer than 20 s each and run by `./test faults`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "the helpers of tests are tests too, and print what they measure"
)]

mod acquaint;
mod arrivals;
mod history;
mod http;
mod judge;
mod pairs;
#[path = "../replay/people.rs"]
mod people;
mod shared_fleet;
mod times;
mod watch;

mod cache;
mod cassandra;
mod crowd;
mod etcd;
mod gateways;
mod pubsub;
mod revokes;
mod rings;

//! Somebody who posts positions without a socket and remembers which were acknowledged as durable: whatever happens, they
//! are in the history.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use loadtest::token::Tokens;
use parking_lot::Mutex;
use serde_json::Value;
use servers::fleet::Fleet;

use crate::http::{ask, insist};
use crate::shared_fleet::{fresh_users, tokens};
use crate::times::{pass, percentile, wall_ms};

/// Between two posts. 60 s of them fit one page of history.
const PAUSE_S: f64 = 0.1;
/// The step north by which a point tells its number: 11 cm, kept exactly.
const STEP: f64 = 1e-6;

/// One post.
#[derive(Clone, Copy, Debug)]
struct Post {
    number: u64,
    begun: u64,
    took: u64,
    acknowledged: bool,
}

/// Posts until it is asked what became of it.
pub(crate) struct Poster {
    user: u64,
    address: String,
    token: String,
    posts: Arc<Mutex<Vec<Post>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Poster {
    pub(crate) fn start(fleet: &Fleet) -> Poster {
        let (user, tokens) = (fresh_users(), tokens(fleet));
        let mut poster = Poster {
            user,
            address: fleet.address(),
            token: tokens.user(model::UserId(user)).unwrap(),
            posts: Arc::default(),
            stop: Arc::default(),
            thread: None,
        };
        poster.introduce(&tokens);
        let (address, token) = (poster.address.clone(), poster.token.clone());
        let (posts, stop) = (poster.posts.clone(), poster.stop.clone());
        let work = move || {
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let begun = wall_ms();
                let body = format!(r#"{{"lat":{:.6},"lon":5.0,"ts":{begun}}}"#, lat(number));
                let answer = ask(&address, "POST", "/v1/locations", &token, &body);
                let acknowledged = answer.is_ok_and(|answer| answer.status == 200);
                posts.lock().push(Post { number, begun, took: wall_ms() - begun, acknowledged });
                pass(PAUSE_S);
            }
        };
        poster.thread = Some(thread::spawn(work));
        poster
    }

    fn introduce(&self, tokens: &Tokens) {
        let path = format!("/v1/users/{}", self.user);
        let answer = insist(&self.address, "PUT", &path, &tokens.backend().unwrap(), r#"{"name":"Poster"}"#).unwrap();
        assert!(answer.status < 300, "{answer:?}");
    }

    /// How many posts that began then were acknowledged, how many were not, and how long the slowest tenth of the
    /// acknowledged took at least, in ms.
    pub(crate) fn between(&self, from: u64, to: u64) -> (usize, usize, u64) {
        let posts = self.posts.lock();
        let then: Vec<&Post> = posts.iter().filter(|post| (from..to).contains(&post.begun)).collect();
        let took: Vec<u64> = then.iter().filter(|post| post.acknowledged).map(|post| post.took).collect();
        (took.len(), then.len() - took.len(), percentile(&took, 90.0))
    }

    /// Ends, and looks for everything acknowledged in the history. Panics if it is not all there.
    pub(crate) fn rest(&mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        let acknowledged: BTreeSet<u64> =
            self.posts.lock().iter().filter(|post| post.acknowledged).map(|post| post.number).collect();
        let path = format!("/v1/users/{}/history?limit=1000", self.user);
        let answer = insist(&self.address, "GET", &path, &self.token, "").unwrap();
        let page: Value = serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{answer:?}"));
        assert!(page["next_cursor"].is_null(), "more than a page");
        let items = page["items"].as_array().unwrap_or_else(|| panic!("{answer:?}"));
        let kept: BTreeSet<u64> = items.iter().map(|item| number(item["lat"].as_f64().unwrap())).collect();
        let lost: Vec<&u64> = acknowledged.difference(&kept).collect();
        assert!(lost.is_empty(), "{} of {} acknowledged points lost: {lost:?}", lost.len(), acknowledged.len());
        acknowledged.len()
    }
}

impl Drop for Poster {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn lat(number: u64) -> f64 {
    30.0 + number as f64 * STEP
}

fn number(lat: f64) -> u64 {
    ((lat - 30.0) / STEP).round() as u64
}

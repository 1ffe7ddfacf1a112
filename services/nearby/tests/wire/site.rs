//! A server as its users reach it, wherever it runs: the address, and the secret that tokens are signed with.

use std::net::SocketAddr;
use std::time::Duration;

use model::TimestampMs;
use ports::Clock;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use web::tokens::issue;
use web::{Scope, Scopes};

use crate::client::{Client, SOON};
use crate::http::{Answer, request};

/// A place in the middle of nowhere in particular, and a hundredth of a degree of latitude in metres.
pub(crate) const HERE: (f64, f64) = (40.0, 116.0);

/// So many metres north of [`HERE`].
pub(crate) fn north(metres: f64) -> (f64, f64) {
    (HERE.0 + metres / 111_195.08, HERE.1)
}

/// Unix time in ms.
pub(crate) fn now() -> u64 {
    Clock::System.wall().0
}

/// A position as a body of `POST /v1/locations`.
pub(crate) fn position(place: (f64, f64), ts: u64) -> Value {
    json!({"lat": place.0, "lon": place.1, "ts": ts})
}

#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    pub(crate) secret: Vec<u8>,
}

impl Site {
    /// A token of an hour.
    pub(crate) fn token(&self, user: u64) -> String {
        self.token_of(&user.to_string(), &[], Duration::from_secs(3_600))
    }

    /// A token that counts for so long, the leeway included.
    pub(crate) fn token_for(&self, user: u64, left: Duration) -> String {
        self.token_until(user, Clock::System.wall().after(left))
    }

    /// A token that counts until then, the leeway included; a token is exact to the second, upwards.
    pub(crate) fn token_until(&self, user: u64, until: TimestampMs) -> String {
        let expires = until.before(web::tokens::LEEWAY);
        issue(&self.secret, &user.to_string(), Scopes::of(&[]), TimestampMs(expires.0.next_multiple_of(1_000))).unwrap()
    }

    pub(crate) fn token_of(&self, subject: &str, scopes: &[Scope], left: Duration) -> String {
        issue(&self.secret, subject, Scopes::of(scopes), Clock::System.wall().after(left)).unwrap()
    }

    pub(crate) fn backend(&self) -> String {
        self.token_of("app", &[Scope::Backend], Duration::from_secs(3_600))
    }

    /// A request of the application's backend.
    pub(crate) async fn backend_asks(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let body = body.map(Value::to_string);
        request(self.address, method, path, Some(&self.backend()), body.as_deref()).await
    }

    pub(crate) async fn asks(&self, user: u64, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let body = body.map(Value::to_string);
        request(self.address, method, path, Some(&self.token(user)), body.as_deref()).await
    }

    pub(crate) async fn get(&self, user: u64, path: &str) -> Answer {
        self.asks(user, "GET", path, None).await
    }

    pub(crate) async fn post(&self, user: u64, body: &Value) -> Answer {
        self.asks(user, "POST", "/v1/locations", Some(body)).await
    }

    /// Makes users known.
    pub(crate) async fn know(&self, users: &[u64]) {
        for user in users {
            let body = json!({"name": format!("user {user}")});
            let answer = self.backend_asks("PUT", &format!("/v1/users/{user}"), Some(&body)).await;
            assert!(matches!(answer.status, 200 | 201), "{answer:?}");
        }
    }

    pub(crate) async fn befriend(&self, user: u64, friend: u64) {
        let answer = self.backend_asks("PUT", &format!("/v1/users/{user}/friends/{friend}"), None).await;
        assert!(matches!(answer.status, 201 | 204), "{answer:?}");
    }

    pub(crate) async fn unfriend(&self, user: u64, friend: u64) {
        let answer = self.backend_asks("DELETE", &format!("/v1/users/{user}/friends/{friend}"), None).await;
        assert_eq!(answer.status, 204, "{answer:?}");
    }

    /// Two users who are friends.
    pub(crate) async fn friends(&self, user: u64, friend: u64) {
        self.know(&[user, friend]).await;
        self.befriend(user, friend).await;
    }

    /// A connection that has said nothing yet.
    pub(crate) async fn connect(&self, user: u64) -> Client {
        Client::connect(self.address, &self.token(user)).await
    }

    /// A connection that shares this position, after its first `nearby`, which is returned too.
    pub(crate) async fn joins(&self, user: u64, place: (f64, f64)) -> (Client, Value) {
        let mut client = self.connect(user).await;
        let nearby = client.init(place).await;
        (client, nearby)
    }

    /// The same without what is nearby.
    pub(crate) async fn at(&self, user: u64, place: (f64, f64)) -> Client {
        self.joins(user, place).await.0
    }

    /// Everything that is measured.
    pub(crate) async fn metrics(&self) -> Metrics {
        Metrics(request(self.address, "GET", "/metrics", None, None).await.text)
    }
}

impl Site {
    /// Waits until a metric has this value, which is soon.
    pub(crate) async fn comes_to_measure(&self, name: &str, value: u64) {
        let begun = Instant::now();
        while self.metrics().await.get(name) != value {
            assert!(begun.elapsed() < SOON, "{name} is not {value}: {:?}", self.metrics().await);
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What `/metrics` answered.
#[derive(Debug)]
pub(crate) struct Metrics(String);

impl Metrics {
    /// The value of one, with its labels if it has some.
    pub(crate) fn get(&self, name: &str) -> u64 {
        let values = self.0.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        values.map(|value| value.parse::<u64>().unwrap()).sum()
    }

    /// Asserts that all news of friends are accounted for.
    pub(crate) fn balance(&self) {
        let news = |kind: &str| self.get(&format!("nearby_news_total{{kind=\"{kind}\"}}"));
        let out = news("delivered") + news("replaced") + news("dropped") + self.get("nearby_news_queued");
        assert_eq!(news("marked"), out, "{self:?}");
    }
}

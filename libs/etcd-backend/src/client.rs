//! HTTP to etcd: several endpoints, a deadline on everything, answers as JSON.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use ports::PortError;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout_at};

use crate::{DEADLINE, refused, unavailable};

/// How long a connect may take: an endpoint whose machine is gone answers nothing at all.
const CONNECT: Duration = Duration::from_millis(500);
/// Of the deadline, so many tries get their share when nobody answers: up to three endpoints, and of a single one a
/// connection kept from before and a new one.
const TRIES: RangeInclusive<u32> = 2..=3;
/// How long to wait after a failure that may be over at once: a restart, or members that elect a leader.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections kept for the next call, to each endpoint, and for how long.
const IDLE_CONNECTIONS: usize = 4;
const IDLE: Duration = Duration::from_secs(30);
/// How soon the kernel asks whether the other machine is still there, and how often.
const KEEPALIVE: Duration = Duration::from_secs(3);
const KEEPALIVES: u32 = 3;
/// The longest answer, and the longest line of a stream. A page of the control log has 200 KB.
const ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// What may be asked again when it is not known whether the first time took effect.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It makes no difference how often.
    Always,
    /// Only if the request was certainly not sent.
    IfUnsent,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Not connected: nothing was asked.
    Unsent(String),
    /// It may have taken effect.
    NoAnswer(String),
    /// etcd's own answer, with its gRPC code.
    Said { code: u32, message: String },
}

/// gRPC codes that have a meaning here.
pub(crate) const NOT_FOUND: u32 = 5;
pub(crate) const FAILED_PRECONDITION: u32 = 9;
const UNIMPLEMENTED: u32 = 12;
/// Invalid argument, not found, exists, forbidden, precondition, out of range, unimplemented, unauthenticated: the same
/// question gets the same answer.
const LASTING: [u32; 8] = [3, NOT_FOUND, 6, 7, FAILED_PRECONDITION, 11, UNIMPLEMENTED, 16];

impl Failure {
    fn may_repeat(&self, repeat: Repeat) -> bool {
        match self {
            Failure::Unsent(_) => true,
            Failure::NoAnswer(_) => repeat == Repeat::Always,
            Failure::Said { code, .. } => repeat == Repeat::Always && !LASTING.contains(code),
        }
    }
}

impl From<Failure> for PortError {
    fn from(failure: Failure) -> PortError {
        match failure {
            Failure::Said { code, message } if LASTING.contains(&code) => refused(message),
            Failure::Said { message, .. } => unavailable(message),
            Failure::Unsent(reason) | Failure::NoAnswer(reason) => unavailable(reason),
        }
    }
}

/// Connections to the members of one etcd.
pub(crate) struct Client {
    http: hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>,
    endpoints: Vec<String>,
    /// Which is asked first: the last that answered.
    preferred: AtomicUsize,
}

impl Client {
    pub(crate) fn new(endpoints: &[String]) -> Result<Client, PortError> {
        let endpoints =
            endpoints.iter().map(|endpoint| checked(endpoint)).collect::<Result<Vec<String>, PortError>>()?;
        if endpoints.is_empty() {
            return Err(refused("at least one endpoint is needed, as http://host:port"));
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_keepalive(Some(KEEPALIVE));
        connector.set_keepalive_interval(Some(KEEPALIVE));
        connector.set_keepalive_retries(Some(KEEPALIVES));
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build(connector);
        // Processes spread over the endpoints, instead of all asking the first of their common configuration.
        let first = rand::random_range(0..endpoints.len());
        Ok(Client { http, endpoints, preferred: AtomicUsize::new(first) })
    }

    /// Asks one endpoint after the other until one answers, or all have failed, or the deadline has come.
    pub(crate) async fn call<A: DeserializeOwned>(
        &self,
        path: &str,
        question: &Value,
        repeat: Repeat,
    ) -> Result<A, Failure> {
        // The reason is known before the caller's own deadline comes.
        let deadline = Instant::now() + (DEADLINE - PAUSE);
        let members = u32::try_from(self.endpoints.len()).unwrap_or(u32::MAX);
        let share = DEADLINE / members.clamp(*TRIES.start(), *TRIES.end());
        let mut refused = 0;
        loop {
            let endpoint = self.preferred.load(Ordering::Relaxed);
            let patience = deadline.min(Instant::now() + share);
            let failure = match timeout_at(patience, self.ask(endpoint, path, question)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(failure)) => failure,
                Err(_) => Failure::NoAnswer(format!("{} did not answer in time", self.endpoints[endpoint])),
            };
            self.avoid_after(&failure, endpoint);
            let sent = !matches!(failure, Failure::Unsent(_));
            refused = if sent { 0 } else { refused + 1 };
            // Where nobody listens nobody will within the deadline; members that elect a leader are done before it.
            if refused == members || !failure.may_repeat(repeat) || Instant::now() + PAUSE >= deadline {
                return Err(failure);
            }
            if sent {
                sleep(PAUSE).await;
            }
        }
    }

    /// Begins an answer without end.
    pub(crate) async fn stream(&self, path: &str, question: &Value) -> Result<Lines, Failure> {
        let endpoint = self.preferred.load(Ordering::Relaxed);
        let answer = match timeout_at(Instant::now() + DEADLINE, self.send(endpoint, path, question)).await {
            Ok(Ok(answer)) if answer.status().is_success() => {
                let body = answer.into_body();
                return Ok(Lines { body, endpoint: self.endpoints[endpoint].clone(), buffer: BytesMut::new() });
            }
            Ok(Ok(answer)) => Err(Failure::NoAnswer(format!("{path} answered {}", answer.status()))),
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(Failure::NoAnswer(format!("{} did not answer in time", self.endpoints[endpoint]))),
        };
        self.avoid(endpoint);
        answer
    }

    async fn ask<A: DeserializeOwned>(&self, endpoint: usize, path: &str, question: &Value) -> Result<A, Failure> {
        let answer = self.send(endpoint, path, question).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| Failure::NoAnswer(format!("{}: {error}", self.endpoints[endpoint])))?;
        let body = body.to_bytes();
        // A stream of one answer, such as a keepalive's, can fail with status 200.
        if let Ok(Complaint { error, code, message }) = serde_json::from_slice(&body) {
            return Err(error.into_failure(code, message));
        }
        if status.is_server_error() {
            return Err(Failure::NoAnswer(format!("{path} answered {status}")));
        }
        serde_json::from_slice(&body).map_err(|error| Failure::Said {
            code: UNIMPLEMENTED,
            message: format!("{path} answered {status}, which is not etcd's JSON: {error}"),
        })
    }

    async fn send(&self, endpoint: usize, path: &str, question: &Value) -> Result<Response<Incoming>, Failure> {
        let request = Request::post(format!("{}{path}", self.endpoints[endpoint]))
            .header(CONTENT_TYPE, "application/json")
            // A member that has lost its leader ends its streams instead of leaving them silent.
            .header("Grpc-Metadata-hasleader", "true")
            .body(Full::new(Bytes::from(question.to_string())))
            .map_err(|error| Failure::Unsent(error.to_string()))?;
        self.http.request(request).await.map_err(|error| {
            let reason = format!("{}: {}", self.endpoints[endpoint], causes(&error));
            if error.is_connect() { Failure::Unsent(reason) } else { Failure::NoAnswer(reason) }
        })
    }

    /// Who answers that something cannot be is well.
    fn avoid_after(&self, failure: &Failure, endpoint: usize) {
        if !matches!(failure, Failure::Said { code, .. } if LASTING.contains(code)) {
            self.avoid(endpoint);
        }
    }

    /// The next call begins with another endpoint, unless one has been chosen already.
    fn avoid(&self, endpoint: usize) {
        let next = (endpoint + 1) % self.endpoints.len();
        let _ = self.preferred.compare_exchange(endpoint, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// An answer without end, one JSON document a line.
pub(crate) struct Lines {
    body: Incoming,
    endpoint: String,
    buffer: BytesMut,
}

impl Lines {
    /// The next line; the end of the answer is a failure too.
    pub(crate) async fn next<A: DeserializeOwned>(&mut self) -> Result<A, Failure> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                let parsed = serde_json::from_slice(&line);
                return parsed.map_err(|error| Failure::NoAnswer(format!("{}: {error}", self.endpoint)));
            }
            if self.buffer.len() > ANSWER_BYTES {
                return Err(Failure::NoAnswer(format!("{}: a line without end", self.endpoint)));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.buffer.extend(frame.into_data()),
                Some(Err(error)) => return Err(Failure::NoAnswer(format!("{}: {error}", self.endpoint))),
                None => return Err(Failure::NoAnswer(format!("{} ended the stream", self.endpoint))),
            }
        }
    }
}

/// How the gateway says no: flat for single answers, nested for streams.
#[derive(Deserialize)]
struct Complaint {
    error: Reason,
    code: Option<u32>,
    message: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Reason {
    Flat(String),
    Nested { grpc_code: u32, message: String },
}

impl Reason {
    fn into_failure(self, code: Option<u32>, message: Option<String>) -> Failure {
        const UNKNOWN: u32 = 2;
        match self {
            Reason::Flat(error) => Failure::Said { code: code.unwrap_or(UNKNOWN), message: message.unwrap_or(error) },
            Reason::Nested { grpc_code, message } => Failure::Said { code: grpc_code, message },
        }
    }
}

/// `http://host:port` without anything after it.
fn checked(endpoint: &str) -> Result<String, PortError> {
    let text = endpoint.trim_end_matches('/');
    let plain = text.parse::<Uri>().is_ok_and(|uri| {
        uri.scheme_str() == Some("http") && uri.port_u16().is_some() && uri.path() == "/" && uri.query().is_none()
    });
    if plain {
        Ok(text.to_owned())
    } else {
        Err(refused(format!("{endpoint:?} is no endpoint: write http://host:port")))
    }
}

/// The client's own text says only that sending failed.
fn causes(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(error.source(), |cause| cause.source());
    chain.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_checked_before_anything_is_sent() {
        assert_eq!(checked("http://127.0.0.1:2379/").unwrap(), "http://127.0.0.1:2379");
        for bad in ["", "127.0.0.1:2379", "https://etcd:2379", "http://etcd", "http://etcd:2379/v3"] {
            checked(bad).unwrap_err();
        }
        assert!(Client::new(&[]).is_err());
    }

    #[test]
    fn processes_begin_with_different_endpoints() {
        let endpoints = ["http://a:1", "http://b:1", "http://c:1"].map(str::to_owned);
        let mut begun = [0; 3];
        for _ in 0..300 {
            begun[Client::new(&endpoints).unwrap().preferred.into_inner()] += 1;
        }
        assert!(begun.iter().all(|processes| (50..200).contains(processes)), "{begun:?}");
    }

    #[test]
    fn both_ways_of_saying_no_are_understood() {
        for text in [
            r#"{"error":"etcdserver: requested lease not found","message":"gone","code":5}"#,
            r#"{"error":{"grpc_code":5,"http_code":404,"message":"gone","http_status":"Not Found"}}"#,
        ] {
            let Complaint { error, code, message } = serde_json::from_str(text).unwrap();
            let failure = error.into_failure(code, message);
            assert!(matches!(&failure, Failure::Said { code: NOT_FOUND, message } if message == "gone"), "{failure:?}");
            assert!(!PortError::from(failure).is_transient());
        }
    }
}

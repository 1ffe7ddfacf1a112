//! Users and friendships over REST, as an application's own server makes them.

use std::cell::RefCell;
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use indicatif::ProgressBar;
use model::UserId;
use serde::Deserialize;
use tokio::task::JoinSet;

use crate::address::Address;

type Connection = SendRequest<Full<Bytes>>;

/// A client with as many kept-alive connections as there are requests at once.
pub struct Rest {
    address: Address,
    authorization: String,
    idle: RefCell<Vec<Connection>>,
    drivers: RefCell<JoinSet<()>>,
}

/// RFC 9457: what the server says of its refusal.
#[derive(Deserialize, Default)]
struct Problem {
    #[serde(default)]
    title: String,
    #[serde(default)]
    detail: String,
}

impl Rest {
    /// Connects when something is asked for.
    pub fn new(address: Address, token: &str) -> Rc<Rest> {
        Rc::new(Rest {
            address,
            authorization: format!("Bearer {token}"),
            idle: RefCell::default(),
            drivers: RefCell::default(),
        })
    }

    /// Creates a user, or names it anew.
    pub async fn put_user(&self, user: UserId) -> Result<()> {
        let body = format!(r#"{{"name":"Person {user}"}}"#);
        self.ask(Method::PUT, format!("/v1/users/{user}"), body).await
    }

    /// Makes two users friends of each other.
    pub async fn befriend(&self, user: UserId, friend: UserId) -> Result<()> {
        self.ask(Method::PUT, format!("/v1/users/{user}/friends/{friend}"), String::new()).await
    }

    /// Ends a friendship. When this returns, no position may reach either about the other any more.
    pub async fn unfriend(&self, user: UserId, friend: UserId) -> Result<()> {
        self.ask(Method::DELETE, format!("/v1/users/{user}/friends/{friend}"), String::new()).await
    }

    /// Creates these users, so many at once.
    pub async fn put_users(
        &self,
        users: impl Iterator<Item = UserId>,
        at_once: usize,
        bar: &ProgressBar,
    ) -> Result<()> {
        stream::iter(users)
            .map(|user| async move { self.put_user(user).await.inspect(|()| bar.inc(1)) })
            .buffer_unordered(at_once)
            .try_collect::<()>()
            .await
    }

    /// Makes these friendships, so many at once.
    pub async fn befriend_all(
        &self,
        pairs: impl Iterator<Item = (UserId, UserId)>,
        at_once: usize,
        bar: &ProgressBar,
    ) -> Result<()> {
        stream::iter(pairs)
            .map(|(user, friend)| async move { self.befriend(user, friend).await.inspect(|()| bar.inc(1)) })
            .buffer_unordered(at_once)
            .try_collect::<()>()
            .await
    }

    async fn ask(&self, method: Method, path: String, body: String) -> Result<()> {
        let what = format!("{method} {path}");
        let (status, answer) = match self.send(&method, &path, &body).await {
            Ok(answer) => answer,
            // All these requests are idempotent, and a server may close a kept connection at any time.
            Err(error) if error.is::<hyper::Error>() => self.send(&method, &path, &body).await.context(what.clone())?,
            Err(error) => return Err(error),
        };
        if status.is_success() {
            return Ok(());
        }
        let problem: Problem = serde_json::from_slice(&answer).unwrap_or_default();
        bail!("{what} was answered {status} {} {}{}", problem.title, problem.detail, advice(status))
    }

    async fn send(&self, method: &Method, path: &str, body: &str) -> Result<(StatusCode, Bytes)> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.address.authority())
            .header(header::AUTHORIZATION, &self.authorization);
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes())))?;
        let mut connection = self.connection().await?;
        let response = connection.send_request(request).await?;
        let (status, body) = (response.status(), response.into_body().collect().await?.to_bytes());
        self.idle.borrow_mut().push(connection);
        Ok((status, body))
    }

    async fn connection(&self) -> Result<Connection> {
        loop {
            let idle = self.idle.borrow_mut().pop();
            let Some(mut connection) = idle else { break };
            if connection.ready().await.is_ok() {
                return Ok(connection);
            }
        }
        let stream = self.address.connect().await?;
        let (connection, driver) = http1::handshake(TokioIo::new(stream)).await?;
        let mut drivers = self.drivers.borrow_mut();
        while drivers.try_join_next().is_some() {}
        drivers.spawn_local(async move {
            // Its error is also that of the request under way, which reports it.
            let _ = driver.await;
        });
        Ok(connection)
    }
}

/// What to do about a refusal.
pub fn advice(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 | 403 => " (is --data-dir or --secret-file that of this very server?)",
        404 => " (is this a Nearby server, with the api role?)",
        429 => " (raise the server's `limits` for a load test)",
        503 => " (the server is not ready, or has no room: see its log)",
        _ => "",
    }
}

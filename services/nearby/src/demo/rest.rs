//! Users and friendships over REST, as an application's own server makes them.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use model::UserId;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// One kept connection with a token of scope `backend`. Dropping it closes it.
pub(crate) struct Rest {
    address: SocketAddr,
    authorization: String,
    requests: SendRequest<Full<Bytes>>,
    _driver: JoinSet<()>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

impl Rest {
    /// Connects.
    pub(crate) async fn connect(address: SocketAddr, token: &str) -> Result<Rest> {
        let (requests, driver) = http1::handshake(TokioIo::new(TcpStream::connect(address).await?)).await?;
        let mut drivers = JoinSet::new();
        drivers.spawn(async move {
            // Its error is also that of the request under way, which reports it.
            let _ = driver.await;
        });
        Ok(Rest { address, authorization: format!("Bearer {token}"), requests, _driver: drivers })
    }

    /// Makes a user known. Somebody else with the same id is not renamed: that is an error.
    pub(crate) async fn put_user(&mut self, user: UserId, name: &str) -> Result<()> {
        let path = format!("/v1/users/{user}");
        let (status, body) = self.ask(Method::GET, &path, String::new()).await?;
        if status == StatusCode::OK {
            let known: Named = serde_json::from_slice(&body)?;
            ensure!(known.name == name, "the data directory has other people in it: give the demo one of its own");
            return Ok(());
        }
        let body = serde_json::json!({ "name": name }).to_string();
        self.must(Method::PUT, &path, body).await
    }

    /// Makes two people friends.
    pub(crate) async fn befriend(&mut self, user: UserId, friend: UserId) -> Result<()> {
        self.must(Method::PUT, &format!("/v1/users/{user}/friends/{friend}"), String::new()).await
    }

    async fn must(&mut self, method: Method, path: &str, body: String) -> Result<()> {
        let what = format!("{method} {path}");
        let (status, answer) = self.ask(method, path, body).await?;
        if !status.is_success() {
            bail!("{what} was answered {status}: {}", String::from_utf8_lossy(&answer));
        }
        Ok(())
    }

    async fn ask(&mut self, method: Method, path: &str, body: String) -> Result<(StatusCode, Bytes)> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.address.to_string())
            .header(header::AUTHORIZATION, &self.authorization)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))?;
        let lost = || format!("the connection to {} was lost", self.address);
        self.requests.ready().await.with_context(lost)?;
        let response = self.requests.send_request(request).await.with_context(lost)?;
        let status = response.status();
        Ok((status, response.into_body().collect().await.with_context(lost)?.to_bytes()))
    }
}

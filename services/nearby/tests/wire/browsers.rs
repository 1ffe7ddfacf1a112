//! Pages that connect.

use crate::client::{try_connect, upgrade};
use crate::server::Server;

const ALICE: u64 = 1;

#[tokio::test]
async fn only_pages_of_allowed_origins_connect_and_who_is_no_page_too() {
    let server = Server::start().await;
    server.know(&[ALICE]).await;
    let from = async |origin: Option<&str>| {
        let mut request = upgrade(server.address);
        request.headers_mut().insert("authorization", format!("Bearer {}", server.token(ALICE)).parse().unwrap());
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().unwrap());
        }
        try_connect(server.address, request).await.map(|_| ())
    };
    for allowed in [None, Some("https://app.example.com"), Some("HTTPS://APP.example.com")] {
        assert_eq!(from(allowed).await, Ok(()), "{allowed:?}");
    }
    for other in [
        "https://evil.example",
        "http://app.example.com",
        "https://app.example.com.evil.example",
        "https://app.example.com:8443",
        "https://app.example.com/",
        "null",
        "",
    ] {
        assert_eq!(from(Some(other)).await.unwrap_err().problem(403)["field"], "Origin", "{other}");
    }
}

//! What may not be written any more is not, whatever was buffered for it.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::Path;
use axum::routing::get;
use axum::{Extension, Router};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use web::{InForce, ServerLimits, Wire};

/// Conditions that stay in force until the test ends them.
type Kept = Arc<Mutex<Vec<InForce>>>;

async fn answer(Path(holds): Path<bool>, Extension(wire): Extension<Arc<Wire>>, kept: Extension<Kept>) -> &'static str {
    kept.lock().push(wire.write_only_while(move || holds));
    "where she is"
}

async fn serve() -> (SocketAddr, Kept) {
    let kept = Kept::default();
    let router = Router::new().route("/{holds}", get(answer)).layer(Extension(kept.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    tasks.spawn(web::server::serve(listener, router, ServerLimits::default(), tasks.clone(), stop));
    (address, kept)
}

async fn ask(stream: &mut TcpStream, path: &str) -> String {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).await.unwrap();
    let mut bytes = vec![0; 4_096];
    let read = stream.read(&mut bytes).await.unwrap_or(0);
    String::from_utf8_lossy(&bytes[..read]).into_owned()
}

#[tokio::test]
async fn a_condition_that_holds_changes_nothing() {
    let (address, _kept) = serve().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    assert!(ask(&mut stream, "/true").await.ends_with("where she is"));
}

#[tokio::test]
async fn a_condition_that_does_not_hold_ends_the_connection_before_a_byte_of_the_answer() {
    let (address, _kept) = serve().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    assert_eq!(ask(&mut stream, "/false").await, "");
}

#[tokio::test]
async fn all_conditions_are_asked_and_each_until_it_ends() {
    let (address, kept) = serve().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    assert!(ask(&mut stream, "/true").await.ends_with("where she is"));
    kept.lock().clear();
    assert!(ask(&mut stream, "/true").await.ends_with("where she is"));
    assert_eq!(ask(&mut stream, "/false").await, "", "the one that holds does not stand for the other");
}

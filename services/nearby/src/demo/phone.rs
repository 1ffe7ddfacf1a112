//! A phone: one WebSocket that tells where its owner is and hears where friends are.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, header};
use model::Position;
use ports::Clock;
use protocol::client::ServerFrame;
use tokio::net::TcpStream;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::Plan;
use super::movement::{Movement, Step};

/// How often a phone tells where it is.
pub(crate) const REPORT_EVERY: Duration = Duration::from_secs(1);

/// A phone and who carries it.
pub(crate) struct Phone {
    /// Where it told last that it is.
    pub(crate) at: Position,
    socket: WebSocketStream<TcpStream>,
    movement: Movement,
    next_report: Interval,
    /// Seconds of the owner's life from one report to the next.
    stride_s: f64,
}

/// What happened to a phone.
pub(crate) enum Happening {
    /// It told where it is.
    Told,
    /// It heard something.
    Heard(ServerFrame),
}

impl Phone {
    /// Connects, and tells in `init` where it is.
    pub(crate) async fn connect(plan: &Plan, token: &str, mut movement: Movement) -> Result<Phone> {
        let Plan { address, radius_m, speedup, .. } = *plan;
        let stride_s = REPORT_EVERY.as_secs_f64() * speedup;
        let mut next_report = interval(REPORT_EVERY);
        next_report.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Who tells nothing in `init` only watches: a silent phone waits.
        let first = loop {
            next_report.tick().await;
            if let Some(step) = movement.step(stride_s) {
                break step;
            }
        };
        let mut request = format!("ws://{address}/v1/ws").into_client_request()?;
        let headers = request.headers_mut();
        headers.insert(header::AUTHORIZATION, HeaderValue::try_from(format!("Bearer {token}"))?);
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol::SUBPROTOCOL));
        let (mut socket, _) = client_async(request, TcpStream::connect(address).await?).await?;
        let init = serde_json::json!({
            "type": "init",
            "lat": first.position.lat(),
            "lon": first.position.lon(),
            "ts": Clock::System.wall().0,
            "radius_m": radius_m,
            "limit": 100,
        });
        socket.send(Message::text(init.to_string())).await?;
        Ok(Phone { at: first.position, socket, movement, next_report, stride_s })
    }

    /// Lives on until something happens. If it is not awaited to the end, no frame is lost: what was to be sent goes out
    /// with the next.
    pub(crate) async fn next(&mut self) -> Result<Happening> {
        loop {
            tokio::select! {
                message = self.socket.next() => match message {
                    Some(Ok(Message::Text(text))) => return Ok(Happening::Heard(serde_json::from_str(&text)?)),
                    // The library answers pings.
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Ok(Message::Close(Some(close)))) => bail!("the server closed: {} {}", close.code, close.reason),
                    Some(Ok(_)) | None => bail!("the connection ended"),
                    Some(Err(error)) => return Err(error).context("the connection was lost"),
                },
                _ = self.next_report.tick() => {
                    if let Some(step) = self.movement.step(self.stride_s) {
                        self.tell(&step).await?;
                        return Ok(Happening::Told);
                    }
                }
            }
        }
    }

    async fn tell(&mut self, step: &Step) -> Result<()> {
        self.at = step.position;
        let mut location = serde_json::json!({
            "type": "location",
            "lat": step.position.lat(),
            "lon": step.position.lon(),
            "ts": Clock::System.wall().0,
            "speed_mps": (step.speed_mps * 10.0).round() / 10.0,
        });
        if let (Some(heading_deg), Some(location)) = (step.heading_deg, location.as_object_mut()) {
            location.insert("heading_deg".into(), heading_deg.round().into());
        }
        self.socket.send(Message::text(location.to_string())).await.context("the connection was lost")
    }

    /// Asks for the next page of the list.
    pub(crate) async fn more(&mut self, cursor: &str) -> Result<()> {
        let more = serde_json::json!({ "type": "more", "cursor": cursor });
        self.socket.send(Message::text(more.to_string())).await.context("the connection was lost")
    }
}

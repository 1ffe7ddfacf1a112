//! A server small enough to be seen right at a glance, in memory, comparing everybody with everybody; and on request
//! it lies.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use futures_util::{SinkExt, StreamExt};
use http::HeaderValue;
use jsonwebtoken::{DecodingKey, Validation, decode};
use model::{Meters, Position, haversine};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

/// What tokens are signed with.
pub(crate) const SECRET: &str = "the fake server's secret";
/// So few that the list has pages.
const PER_PAGE: usize = 3;

/// How the server is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Not at all.
    None,
    /// All distances are 1 m too long.
    Distance,
    /// Everybody sees everybody.
    NoPrivacy,
    /// The end of a friendship is acknowledged and not made.
    StaysFriends,
    /// Nobody is told that somebody left.
    NoGone,
    /// A viewer's own movement changes nothing.
    OnlyFriendsMove,
    /// Every fifth position is not heard.
    HardOfHearing,
    /// Every update is answered with an error.
    RateLimit,
}

struct Viewer {
    session: u64,
    out: mpsc::Sender<String>,
    told: HashMap<u64, u64>,
}

struct City {
    lie: Lie,
    heard: u64,
    sessions: u64,
    places: HashMap<u64, (Position, u64)>,
    friends: BTreeSet<(u64, u64)>,
    viewers: HashMap<u64, Viewer>,
}

type Shared = Rc<RefCell<City>>;

impl City {
    fn may_see(&self, viewer: u64, friend: u64) -> bool {
        viewer != friend
            && (self.lie == Lie::NoPrivacy || self.friends.contains(&(viewer.min(friend), viewer.max(friend))))
    }

    /// The friend's distance, if near.
    fn near(&self, viewer: u64, friend: u64) -> Option<f64> {
        let distance = haversine(self.places.get(&viewer)?.0, self.places.get(&friend)?.0);
        (self.may_see(viewer, friend) && distance <= Meters::FIVE_MILES).then_some(distance.0)
    }

    fn entry(&self, friend: u64, distance: f64) -> Value {
        let (position, ts) = self.places[&friend];
        let distance = distance + if self.lie == Lie::Distance { 1.0 } else { 0.0 };
        json!({"type": "friend", "id": friend.to_string(), "lat": position.lat(), "lon": position.lon(), "ts": ts,
            "distance_m": Meters(distance).to_decimeter().0})
    }

    /// Tells the viewer what is new about the friend.
    fn refresh(&mut self, viewer: u64, friend: u64) {
        let near = self.near(viewer, friend);
        let newest = self.places.get(&friend).map(|place| place.1);
        let frame = near.map(|distance| self.entry(friend, distance));
        let (no_gone, may_see) = (self.lie == Lie::NoGone, self.may_see(viewer, friend));
        let Some(viewer) = self.viewers.get_mut(&viewer) else { return };
        match frame {
            Some(frame) if viewer.told.get(&friend) != newest.as_ref() => {
                viewer.told.insert(friend, newest.unwrap());
                viewer.out.try_send(frame.to_string()).unwrap();
            }
            None if !no_gone && viewer.told.remove(&friend).is_some() => {
                let reason = if may_see { "out_of_range" } else { "hidden" };
                let frame = json!({"type": "gone", "id": friend.to_string(), "reason": reason});
                viewer.out.try_send(frame.to_string()).unwrap();
            }
            _ => {}
        }
    }

    fn moved(&mut self, user: u64, frame: &Value) {
        self.heard += 1;
        if self.lie == Lie::RateLimit {
            let error = json!({"type": "error", "code": "rate_limited", "message": "no"}).to_string();
            self.viewers[&user].out.try_send(error).unwrap();
        }
        if self.lie == Lie::HardOfHearing && self.heard.is_multiple_of(5) {
            return;
        }
        let position = Position::new(frame["lat"].as_f64().unwrap(), frame["lon"].as_f64().unwrap()).unwrap();
        self.places.insert(user, (position, frame["ts"].as_u64().unwrap()));
        for other in self.places.keys().copied().collect::<Vec<_>>() {
            self.refresh(other, user);
            if self.lie != Lie::OnlyFriendsMove {
                self.refresh(user, other);
            }
        }
    }

    fn page(&mut self, user: u64, after: Option<(f64, u64)>) {
        let mut near: Vec<(f64, u64)> =
            self.places.keys().filter_map(|&friend| Some((self.near(user, friend)?, friend))).collect();
        near.retain(|&place| after.is_none_or(|after| place > after));
        near.sort_by(|one, other| one.partial_cmp(other).unwrap());
        let more = near.len() > PER_PAGE;
        near.truncate(PER_PAGE);
        let cursor = near.last().filter(|_| more).map(|(distance, id)| format!("{distance} {id}"));
        let friends: Vec<_> = near.iter().map(|&(distance, friend)| self.entry(friend, distance)).collect();
        let page = json!({"type": "nearby", "friends": friends, "next_cursor": cursor,
            "radius_m": Meters::FIVE_MILES.0, "location_ttl_s": 600});
        let told: Vec<_> = near.iter().map(|(_, friend)| (*friend, self.places[friend].1)).collect();
        let viewer = self.viewers.get_mut(&user).unwrap();
        viewer.told.extend(told);
        viewer.out.try_send(page.to_string()).unwrap();
    }

    fn befriend(&mut self, pair: (u64, u64), friends: bool) {
        if friends {
            self.friends.insert(pair);
        } else if self.lie != Lie::StaysFriends {
            self.friends.remove(&pair);
        }
        self.refresh(pair.0, pair.1);
        self.refresh(pair.1, pair.0);
    }
}

/// Serves until the tasks are dropped; the answer is the address.
pub(crate) async fn serve(lie: Lie, tasks: &mut JoinSet<()>) -> String {
    let city =
        City { lie, heard: 0, sessions: 0, places: HashMap::new(), friends: BTreeSet::new(), viewers: HashMap::new() };
    let city: Shared = Rc::new(RefCell::new(city));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn_local(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn_local(connection(stream, city.clone()));
        }
    });
    format!("ws://{address}/v1/ws")
}

async fn connection(stream: TcpStream, city: Shared) {
    stream.set_nodelay(true).unwrap();
    let mut start = [0; 4];
    while stream.peek(&mut start).await.unwrap() < start.len() {}
    if &start == b"GET " { live(stream, city).await } else { rest(stream, city).await }
}

async fn rest(stream: TcpStream, city: Shared) {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut request, mut line, mut length) = (String::new(), String::new(), 0);
        if stream.read_line(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
        while stream.read_line(&mut line).await.unwrap() > 2 {
            let header = std::mem::take(&mut line).to_ascii_lowercase();
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        let words: Vec<&str> = request.split([' ', '/']).collect();
        if let ["PUT" | "DELETE", "", "v1", "users", user, "friends", friend, ..] = words[..] {
            let (user, friend): (u64, u64) = (user.parse().unwrap(), friend.parse().unwrap());
            city.borrow_mut().befriend((user.min(friend), user.max(friend)), words[0] == "PUT");
        }
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    }
}

#[expect(clippy::result_large_err, reason = "the callback's type is tungstenite's")]
async fn live(stream: TcpStream, city: Shared) {
    let mut user = 0;
    let accept = |request: &Request, mut response: Response| {
        let bearer = request.headers()["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap();
        let key = DecodingKey::from_secret(SECRET.as_bytes());
        let claims = decode::<Value>(bearer, &key, &Validation::default()).unwrap().claims;
        user = claims["sub"].as_str().unwrap().parse().unwrap();
        response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("nearby.v1.json"));
        Ok(response)
    };
    let Ok(mut socket) = accept_hdr_async(stream, accept).await else { return };
    let (out, mut frames) = mpsc::channel::<String>(10_000);
    let session = {
        let mut city = city.borrow_mut();
        city.sessions += 1;
        let session = city.sessions;
        city.viewers.insert(user, Viewer { session, out, told: HashMap::new() });
        session
    };
    loop {
        tokio::select! {
            frame = frames.recv() => {
                let Some(frame) = frame else { break };
                if socket.send(Message::text(frame)).await.is_err() {
                    break;
                }
            }
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => heard(&mut city.borrow_mut(), user, &text),
                Some(Ok(_)) => {}
                _ => break,
            },
        }
    }
    let mut city = city.borrow_mut();
    if city.viewers.get(&user).is_some_and(|viewer| viewer.session == session) {
        city.viewers.remove(&user);
    }
}

fn heard(city: &mut City, user: u64, text: &str) {
    let frame: Value = serde_json::from_str(text).unwrap();
    match frame["type"].as_str().unwrap() {
        "init" => {
            city.moved(user, &frame);
            city.page(user, None);
        }
        "location" => city.moved(user, &frame),
        "more" => {
            let (distance, id) = frame["cursor"].as_str().unwrap().split_once(' ').unwrap();
            city.page(user, Some((distance.parse().unwrap(), id.parse().unwrap())));
        }
        other => panic!("{other}"),
    }
}

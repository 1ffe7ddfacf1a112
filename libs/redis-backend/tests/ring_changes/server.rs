//! A pub/sub server as far as the broker uses one: it executes what arrives, in order, and forgets all when it dies.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf as _, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::gate::Gate;

/// Answers and messages that wait to be sent; a client that is further behind is cut off.
const OUTPUT: usize = 4_096;

/// A connection that was accepted.
pub(crate) struct Accepted {
    pub(crate) id: u64,
    /// The run of the server that accepted it.
    pub(crate) run: u64,
    pub(crate) output: mpsc::Receiver<Bytes>,
}

/// A message, when it was taken: its payload and the epoch that the server knew.
pub(crate) type Taken = (Bytes, Option<u64>);

#[derive(Default)]
struct State {
    is_up: bool,
    run: u64,
    memory: BTreeMap<Vec<u8>, Bytes>,
    subscribers: BTreeMap<Vec<u8>, BTreeSet<u64>>,
    connections: BTreeMap<u64, (usize, mpsc::Sender<Bytes>)>,
    accepted: u64,
    taken: Vec<Taken>,
    /// The channels of each SUBSCRIBE, in order.
    asked: Vec<Vec<String>>,
    /// The highest epoch that each gateway has raised it to, in any run.
    raised: BTreeMap<usize, u64>,
}

pub(crate) struct Server {
    state: Mutex<State>,
    frozen: Gate<bool>,
}

impl Server {
    pub(crate) fn new() -> Server {
        Server { state: Mutex::new(State { is_up: true, ..State::default() }), frozen: Gate::new(false) }
    }

    /// Takes a connection of a gateway; also when it is frozen, as a kernel does.
    pub(crate) fn accept(&self, gateway: usize) -> Option<Accepted> {
        let mut state = self.state.lock();
        if !state.is_up {
            return None;
        }
        state.accepted += 1;
        let (sender, output) = mpsc::channel(OUTPUT);
        let id = state.accepted;
        state.connections.insert(id, (gateway, sender));
        Some(Accepted { id, run: state.run, output })
    }

    pub(crate) fn close(&self, id: u64) {
        let mut state = self.state.lock();
        state.connections.remove(&id);
        state.subscribers.retain(|_, connections| {
            connections.remove(&id);
            !connections.is_empty()
        });
    }

    /// Ends all connections and forgets everything.
    pub(crate) fn kill(&self) {
        let mut state = self.state.lock();
        let (accepted, taken, raised) =
            (state.accepted, std::mem::take(&mut state.taken), std::mem::take(&mut state.raised));
        *state = State { run: state.run + 1, accepted, taken, raised, ..State::default() };
        self.frozen.set(false);
    }

    /// Starts it, empty, unless it is up.
    pub(crate) fn restart(&self) {
        self.state.lock().is_up = true;
    }

    pub(crate) fn freeze(&self, frozen: bool) {
        self.frozen.set(frozen);
    }

    pub(crate) async fn thawed(&self) {
        self.frozen.until(|frozen| !frozen).await;
    }

    /// Whether each of these gateways has told it this epoch or a later one.
    pub(crate) fn is_told_by(&self, gateways: impl IntoIterator<Item = usize>, epoch: u64) -> bool {
        let state = self.state.lock();
        gateways.into_iter().all(|gateway| state.raised.get(&gateway).is_some_and(|raised| *raised >= epoch))
    }

    /// The epoch that it knows.
    pub(crate) fn epoch(&self) -> Option<u64> {
        self.state.lock().epoch()
    }

    /// The users' channels of each SUBSCRIBE since this was asked last.
    pub(crate) fn take_asked(&self) -> Vec<Vec<String>> {
        std::mem::take(&mut self.state.lock().asked)
    }

    /// Ends the connections of those who subscribe, and no others.
    pub(crate) fn cut_subscribers(&self) {
        let mut state = self.state.lock();
        let subscribers: BTreeSet<u64> = state.subscribers.values().flatten().copied().collect();
        state.connections.retain(|id, _| !subscribers.contains(id));
        state.subscribers.clear();
    }

    /// What it has taken since this was asked last.
    pub(crate) fn take_taken(&self) -> Vec<Taken> {
        std::mem::take(&mut self.state.lock().taken)
    }

    /// Who is subscribed to which user's channel.
    pub(crate) fn subscriptions(&self) -> BTreeSet<(usize, String)> {
        let state = self.state.lock();
        let mut all = BTreeSet::new();
        for (channel, connections) in state.subscribers.iter().filter(|(channel, _)| channel.starts_with(b"n:u:")) {
            for (gateway, _) in connections.iter().filter_map(|id| state.connections.get(id)) {
                all.insert((*gateway, String::from_utf8_lossy(channel).into_owned()));
            }
        }
        all
    }

    /// Executes the commands that are complete. `false`: this connection is none any more.
    pub(crate) fn execute(&self, id: u64, run: u64, input: &mut BytesMut) -> bool {
        let mut state = self.state.lock();
        if state.run != run || !state.connections.contains_key(&id) {
            return false;
        }
        while let Some(words) = command(input) {
            state.execute(id, &words);
        }
        state.connections.contains_key(&id)
    }
}

impl State {
    fn epoch(&self) -> Option<u64> {
        let (_, text) = self.memory.iter().find(|(name, _)| name.ends_with(b"ring:epoch"))?;
        std::str::from_utf8(text).ok()?.parse().ok()
    }

    fn send(&mut self, id: u64, bytes: Bytes) {
        let sent = self.connections.get(&id).map(|(_, output)| output.try_send(bytes));
        if matches!(sent, Some(Err(mpsc::error::TrySendError::Full(_)))) {
            self.connections.remove(&id);
        }
    }

    fn execute(&mut self, id: u64, words: &[Bytes]) {
        let answer = match words[0].as_ref() {
            b"PING" if self.is_subscriber(id) => Bytes::from_static(b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"),
            b"PING" => Bytes::from_static(b"+PONG\r\n"),
            b"CLIENT" => Bytes::from_static(b"+OK\r\n"),
            b"GET" => bulk(self.memory.get(words[1].as_ref())),
            b"PUBLISH" => self.publish(&words[1], &words[2]),
            b"SUBSCRIBE" | b"UNSUBSCRIBE" => self.subscribe(id, words),
            b"EVAL" => self.raise(id, words),
            other => panic!("an unknown command: {}", String::from_utf8_lossy(other)),
        };
        self.send(id, answer);
    }

    fn is_subscriber(&self, id: u64) -> bool {
        self.subscribers.values().any(|connections| connections.contains(&id))
    }

    fn publish(&mut self, channel: &Bytes, payload: &Bytes) -> Bytes {
        if channel.starts_with(b"n:u:") {
            let epoch = self.epoch();
            self.taken.push((payload.clone(), epoch));
        }
        let receivers: Vec<u64> = self.subscribers.get(channel.as_ref()).into_iter().flatten().copied().collect();
        let message = array(&[b"message", channel, payload]);
        receivers.iter().for_each(|id| self.send(*id, message.clone()));
        Bytes::from(format!(":{}\r\n", receivers.len()))
    }

    fn subscribe(&mut self, id: u64, words: &[Bytes]) -> Bytes {
        let mut answer = BytesMut::new();
        if words[0].as_ref() == b"SUBSCRIBE" && words[1].starts_with(b"n:u:") {
            let names = words[1..].iter().map(|name| String::from_utf8_lossy(name).into_owned());
            self.asked.push(names.collect());
        }
        for channel in &words[1..] {
            let connections = self.subscribers.entry(channel.to_vec()).or_default();
            match words[0].as_ref() {
                b"SUBSCRIBE" => drop(connections.insert(id)),
                _ => drop(connections.remove(&id)),
            }
            if connections.is_empty() {
                self.subscribers.remove(channel.as_ref());
            }
            answer.extend_from_slice(&array(&[&words[0].to_ascii_lowercase(), channel, b"1"]));
        }
        answer.freeze()
    }

    /// The script that raises the epoch, known by how it begins: `EVAL script 2 epoch document ..`.
    fn raise(&mut self, id: u64, words: &[Bytes]) -> Bytes {
        let [_, script, count, epoch_name, document_name, epoch, document, absent] = words else {
            panic!("a script with {} words", words.len())
        };
        assert!(script.starts_with(b"local kept = redis.call('GET', KEYS[1])") && count.as_ref() == b"2");
        let number = |text: &Bytes| std::str::from_utf8(text).ok()?.parse::<u64>().ok();
        let raised = number(epoch).expect("an epoch");
        if let Some((gateway, _)) = self.connections.get(&id) {
            let known = self.raised.entry(*gateway).or_default();
            *known = raised.max(*known);
        }
        match self.memory.get(epoch_name.as_ref()) {
            None if absent.as_ref() != b"absent" => return bulk(None),
            Some(kept) if number(kept).unwrap_or(0) >= raised => return bulk(Some(kept)),
            _ => {}
        }
        self.memory.insert(epoch_name.to_vec(), epoch.clone());
        self.memory.insert(document_name.to_vec(), document.clone());
        bulk(Some(epoch))
    }
}

fn bulk(text: Option<&Bytes>) -> Bytes {
    let Some(text) = text else { return Bytes::from_static(b"$-1\r\n") };
    let mut bytes = BytesMut::from(format!("${}\r\n", text.len()).as_bytes());
    bytes.extend_from_slice(text);
    bytes.extend_from_slice(b"\r\n");
    bytes.freeze()
}

fn array(words: &[&[u8]]) -> Bytes {
    let mut bytes = BytesMut::from(format!("*{}\r\n", words.len()).as_bytes());
    words.iter().for_each(|word| bytes.extend_from_slice(&bulk(Some(&Bytes::copy_from_slice(word)))));
    bytes.freeze()
}

/// Takes one complete command, an array of texts, out of the input.
fn command(input: &mut BytesMut) -> Option<Vec<Bytes>> {
    let mut at = 0;
    let mut line = |kind: u8| {
        let end = at + input[at..].windows(2).position(|two| two == b"\r\n")?;
        assert_eq!(input[at], kind);
        let number: usize = std::str::from_utf8(&input[at + 1..end]).ok()?.parse().ok()?;
        at = end + 2;
        if kind == b'$' {
            let text = input.get(at..at + number + 2)?;
            at += number + 2;
            return Some((number, Bytes::copy_from_slice(&text[..number])));
        }
        Some((number, Bytes::new()))
    };
    let (count, _) = line(b'*')?;
    let words = (0..count).map(|_| Some(line(b'$')?.1)).collect::<Option<Vec<Bytes>>>()?;
    input.advance(at);
    Some(words)
}

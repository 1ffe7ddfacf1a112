//! The embedded backends as one node sees them: late, failing, out of reach for a while, as the seed wants it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use model::{Fix, Generation, Level, NodeId, PolicyVersion, UserId};
use ports::broker::{InboxSender, Unconfirmed};
use ports::control::{LogRead, RIGHT_TO_SEND};
use ports::discovery::Document;
use ports::sessions::Claimed;
use ports::{
    Arrival, Broker, ChangeNote, Changed, Channel, ControlEntry, ControlLog, Discovery, Friendship, Friendships, Inbox,
    LocationCache, PortError, Publication, Put, SessionKey, Sessions, Sharing,
};
use tokio::time::{Instant, sleep, timeout};

use crate::chaos::{Caller, Chaos, Port, sick};
use crate::judge::Judge;

/// What a backend does wrong, where the protocol rests on the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// `Sessions`: removes an entry whoever holds it.
    ReleaseAnybodys,
    /// `Friendships`: does not know which changes were not announced.
    ForgetNotes,
    /// `ControlLog`: settles without waiting for anybody.
    SettleAtOnce,
    /// `ControlLog`: settles when half of the right to send has passed.
    SettleBeforeTheEnd,
}

/// A backend, seen by one node or by the application's backend.
pub(crate) struct Seen<P: ?Sized> {
    pub(crate) backend: Arc<P>,
    pub(crate) caller: Caller,
    pub(crate) chaos: Arc<Chaos>,
    pub(crate) mistake: Option<Mistake>,
    pub(crate) judge: Arc<Judge>,
}

#[async_trait]
impl Broker for Seen<dyn Broker> {
    async fn publish(&self, batch: &[Publication]) -> Result<(), Unconfirmed> {
        let (backend, batch) = (self.backend.clone(), batch.to_vec());
        let indexes = (0..batch.len()).collect();
        let unconfirmed = move || Unconfirmed { indexes, cause: sick() };
        self.chaos.call((self.caller, Port::Broker), unconfirmed, async move { backend.publish(&batch).await }).await
    }

    async fn subscribe(&self, channels: &[Channel]) -> Result<(), PortError> {
        let (backend, channels) = (self.backend.clone(), channels.to_vec());
        self.chaos.call((self.caller, Port::Broker), sick, async move { backend.subscribe(&channels).await }).await
    }

    async fn unsubscribe(&self, channels: &[Channel]) -> Result<(), PortError> {
        let (backend, channels) = (self.backend.clone(), channels.to_vec());
        self.chaos.call((self.caller, Port::Broker), sick, async move { backend.unsubscribe(&channels).await }).await
    }
}

/// What arrives takes its time, for each node its own.
pub(crate) async fn relay(chaos: Arc<Chaos>, mut from: Inbox, to: InboxSender) {
    while let Some(arrival) = from.recv().await {
        chaos.delay().await;
        match arrival {
            Arrival::Batch(batch) => to.deliver(batch),
            Arrival::Gap(channels) => to.gap(channels),
            Arrival::Republish(affected) => to.republish(affected),
        }
    }
}

#[async_trait]
impl LocationCache for Seen<dyn LocationCache> {
    async fn put_many(&self, fixes: &[Fix]) -> Result<Vec<Put>, PortError> {
        let (backend, fixes) = (self.backend.clone(), fixes.to_vec());
        self.chaos.call((self.caller, Port::Cache), sick, async move { backend.put_many(&fixes).await }).await
    }

    async fn get_many(&self, users: &[UserId]) -> Result<Vec<Option<Fix>>, PortError> {
        let (backend, users) = (self.backend.clone(), users.to_vec());
        self.chaos.call((self.caller, Port::Cache), sick, async move { backend.get_many(&users).await }).await
    }

    async fn remove(&self, users: &[UserId]) -> Result<(), PortError> {
        let (backend, users) = (self.backend.clone(), users.to_vec());
        self.chaos.call((self.caller, Port::Cache), sick, async move { backend.remove(&users).await }).await
    }
}

#[async_trait]
impl Friendships for Seen<dyn Friendships> {
    async fn add(&self, user: UserId, friend: UserId) -> Result<Changed, PortError> {
        let backend = self.backend.clone();
        self.chaos.ask((self.caller, Port::Friendships), sick, async move { backend.add(user, friend).await }).await
    }

    async fn remove(&self, user: UserId, friend: UserId) -> Result<Changed, PortError> {
        let backend = self.backend.clone();
        self.chaos.ask((self.caller, Port::Friendships), sick, async move { backend.remove(user, friend).await }).await
    }

    async fn visible_to(&self, viewer: UserId) -> Result<Vec<Friendship>, PortError> {
        let backend = self.backend.clone();
        self.chaos.ask((self.caller, Port::Friendships), sick, async move { backend.visible_to(viewer).await }).await
    }

    async fn levels(&self, pairs: &[(UserId, UserId)]) -> Result<Vec<Option<Level>>, PortError> {
        let (backend, pairs) = (self.backend.clone(), pairs.to_vec());
        self.chaos.ask((self.caller, Port::Friendships), sick, async move { backend.levels(&pairs).await }).await
    }

    async fn list(&self, user: UserId, after: Option<UserId>, limit: usize) -> Result<Vec<UserId>, PortError> {
        self.backend.list(user, after, limit).await
    }

    async fn forget(&self, user: UserId) -> Result<Vec<ChangeNote>, PortError> {
        self.backend.forget(user).await
    }

    async fn announced(&self, notes: &[ChangeNote]) -> Result<(), PortError> {
        let (backend, notes) = (self.backend.clone(), notes.to_vec());
        self.chaos.ask((self.caller, Port::Friendships), sick, async move { backend.announced(&notes).await }).await
    }

    async fn unannounced(&self, age: Duration) -> Result<Vec<ChangeNote>, PortError> {
        if self.mistake == Some(Mistake::ForgetNotes) {
            return Ok(Vec::new());
        }
        let backend = self.backend.clone();
        self.chaos.ask((self.caller, Port::Friendships), sick, async move { backend.unannounced(age).await }).await
    }
}

#[async_trait]
impl Sessions for Seen<dyn Sessions> {
    async fn claim(&self, user: UserId, session: SessionKey) -> Result<Claimed, PortError> {
        let backend = self.backend.clone();
        self.chaos.ask((self.caller, Port::Sessions), sick, async move { backend.claim(user, session).await }).await
    }

    async fn release(&self, user: UserId, session: SessionKey) -> Result<bool, PortError> {
        let (backend, anybodys) = (self.backend.clone(), self.mistake == Some(Mistake::ReleaseAnybodys));
        let release = async move {
            let holder = if anybodys { backend.locate(user).await? } else { None };
            backend.release(user, holder.map_or(session, |sharing| sharing.session)).await
        };
        self.chaos.ask((self.caller, Port::Sessions), sick, release).await
    }

    async fn renew(&self, claims: &[(UserId, Generation)]) -> Result<(), PortError> {
        let (backend, claims) = (self.backend.clone(), claims.to_vec());
        self.chaos.ask((self.caller, Port::Sessions), sick, async move { backend.renew(&claims).await }).await
    }

    async fn locate(&self, user: UserId) -> Result<Option<Sharing>, PortError> {
        let backend = self.backend.clone();
        self.chaos.ask((self.caller, Port::Sessions), sick, async move { backend.locate(user).await }).await
    }
}

#[async_trait]
impl ControlLog for Seen<dyn ControlLog> {
    async fn append(&self, entry: ControlEntry) -> Result<PolicyVersion, PortError> {
        // Between its write and its append a process may hang for any time, or end; and an append may be made again.
        if let Some(pause) = self.chaos.hang().filter(|_| self.caller.is_none()) {
            sleep(pause).await;
            if self.chaos.chance(30) {
                return Err(sick());
            }
        }
        if let Some(pause) = self.chaos.hang().filter(|_| self.caller.is_none()) {
            let (backend, chaos) = (self.backend.clone(), self.chaos.clone());
            self.chaos.spawn(async move {
                sleep(pause).await;
                let again = backend.append(entry).await;
                chaos.note(("appended again", again.is_ok()));
            });
        }
        let backend = self.backend.clone();
        self.chaos.ask((self.caller, Port::Control), sick, async move { backend.append(entry).await }).await
    }

    async fn read_after(&self, index: PolicyVersion) -> Result<LogRead, PortError> {
        let backend = self.backend.clone();
        self.chaos.call((self.caller, Port::Poll), sick, async move { backend.read_after(index).await }).await
    }

    async fn end(&self) -> Result<PolicyVersion, PortError> {
        let backend = self.backend.clone();
        self.chaos.call((self.caller, Port::Control), sick, async move { backend.end().await }).await
    }

    async fn confirm(&self, node: NodeId, index: PolicyVersion) -> Result<(), PortError> {
        let backend = self.backend.clone();
        self.chaos.call((self.caller, Port::Control), sick, async move { backend.confirm(node, index).await }).await
    }

    async fn settled(&self, index: PolicyVersion) -> Result<(), PortError> {
        let (backend, judge, mistake) = (self.backend.clone(), self.judge.clone(), self.mistake);
        let settled = async move {
            let began = Instant::now();
            let settled = match mistake {
                Some(Mistake::SettleAtOnce) => Ok(()),
                Some(Mistake::SettleBeforeTheEnd) => {
                    timeout(RIGHT_TO_SEND / 2, backend.settled(index)).await.unwrap_or(Ok(()))
                }
                _ => backend.settled(index).await,
            };
            judge.settled_after(began.elapsed());
            settled
        };
        self.chaos.ask((self.caller, Port::Control), sick, settled).await
    }

    async fn confirm_erased(&self, node: NodeId, index: PolicyVersion) -> Result<(), PortError> {
        let backend = self.backend.clone();
        let call = async move { backend.confirm_erased(node, index).await };
        self.chaos.call((self.caller, Port::Control), sick, call).await
    }

    async fn erased(&self, index: PolicyVersion) -> Result<(), PortError> {
        self.backend.erased(index).await
    }

    async fn changed(&self, index: PolicyVersion) {
        self.chaos.reached(self.caller, Port::Control).await;
        self.backend.changed(index).await;
        self.chaos.delay().await;
        // A watch that is cut off hears nothing.
        self.chaos.reached(self.caller, Port::Control).await;
    }
}

#[async_trait]
impl Discovery for Seen<dyn Discovery> {
    async fn join(&self, node: NodeId) -> Result<(), PortError> {
        let (backend, chaos, caller) = (self.backend.clone(), self.chaos.clone(), self.caller);
        let join = async move {
            chaos.leased(caller);
            backend.join(node).await
        };
        self.chaos.call((caller, Port::Discovery), sick, join).await
    }

    async fn keepalive(&self, node: NodeId) -> Result<(), PortError> {
        let (backend, chaos, caller) = (self.backend.clone(), self.chaos.clone(), self.caller);
        let keepalive = async move {
            chaos.leased(caller);
            backend.keepalive(node).await
        };
        self.chaos.call((caller, Port::Discovery), sick, keepalive).await
    }

    async fn leave(&self, node: NodeId) -> Result<(), PortError> {
        self.backend.leave(node).await
    }

    async fn members(&self) -> Result<Vec<NodeId>, PortError> {
        let backend = self.backend.clone();
        self.chaos.call((self.caller, Port::Discovery), sick, async move { backend.members().await }).await
    }

    async fn document(&self, name: &str) -> Result<Document, PortError> {
        self.backend.document(name).await
    }

    async fn swap(&self, name: &str, version: u64, text: &str) -> Result<bool, PortError> {
        self.backend.swap(name, version, text).await
    }
}

/// The longest that a revoke may wait, and the clock's grain.
pub(crate) const LONGEST_REVOKE: Duration = RIGHT_TO_SEND.saturating_add(Duration::from_millis(2));

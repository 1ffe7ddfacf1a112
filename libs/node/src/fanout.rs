//! From the waist to the shards.

use std::pin::pin;
use std::sync::Arc;

use model::UserId;
use ports::{Affected, Arrival, Channel, Inbox, Publication};
use rustc_hash::FxHashSet;
use tokio_util::sync::CancellationToken;

use crate::planted::Break;
use crate::shared::Shared;

/// Gives arrivals to the shards until `stop`.
pub(crate) async fn run(shared: Arc<Shared>, mut inbox: Inbox, stop: CancellationToken) {
    let mut stopped = pin!(stop.cancelled());
    loop {
        let arrival = tokio::select! {
            biased;
            () = &mut stopped => return,
            arrival = inbox.recv() => arrival,
        };
        match arrival {
            Some(Arrival::Batch(batch)) => hear(&shared, &batch),
            Some(Arrival::Gap(channels)) => recover(&shared, &channels),
            Some(Arrival::Republish(affected)) => publish_again(&shared, &affected),
            None => return,
        }
    }
}

fn hear(shared: &Shared, batch: &[Publication]) {
    let fixes = batch.iter().filter_map(|publication| match publication {
        Publication::Location(fix) => Some(*fix),
        Publication::Directed { fix, .. } => {
            shared.directed(fix);
            None
        }
        _ => None,
    });
    shared.heard(fixes.map(|fix| (fix, shared.interest.shards(fix.user))));
}

/// Every gap is answered alike: read the cache for those channels.
fn recover(shared: &Shared, channels: &[Channel]) {
    shared.metrics.gaps.inc();
    let users: FxHashSet<UserId> = channels
        .iter()
        .filter_map(|channel| match channel {
            Channel::User(user) => Some(*user),
            _ => None,
        })
        .collect();
    tracing::info!(channels = users.len(), "a gap: reading the cache");
    if shared.plants(Break::NoReadAfterGap) {
        return;
    }
    users.iter().for_each(|&user| shared.interest.lost(user));
    shared.subscriptions.submit(users.into_iter().collect());
}

/// The other direction: what our own users sent last goes out again.
fn publish_again(shared: &Shared, affected: &Affected) {
    tracing::info!("a change of routing: publishing again");
    for shard in 0..shared.shards.len() {
        shared.publish_again(shard, |user| affected.holds(Channel::User(user)));
    }
}

//! The directory on local disk that the embedded history, users and friendships share: one fjall database.
//!
//! Every change is a job in one queue, and whoever comes first runs all the jobs that wait, then syncs once for all of
//! them. So changes take effect one after the other, each sees those before it, an answer is given only after the
//! fsync, and a thousand changes at a time cost a few fsyncs (fjall holds its journal's lock during one, so that
//! without the queue every change would wait for its own).
//!
//! After the first write or fsync that failed, a full disk included, nothing is written any more: nobody knows what of it
//! is on disk, and an fsync that is repeated may succeed without having written what the failed one did not. Only
//! opening the directory again, by another process, tells: it reads the journal up to the last whole change (and copies it
//! if it was the fsync that failed, see `journal.rs`). Until then every change is `Unavailable`, and reads go on.

mod journal;
mod layout;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};
use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;

use crate::PortError;

/// What operators read in errors.
const BACKEND: &str = "embedded store";

/// As much as [`Store::has_room`] asks for: a directory with less would soon be full again.
const ROOM_MIB: u64 = 16;

/// Keyspaces of history are named this and the number of their day.
const HISTORY: &str = "history-";

/// Runs a change and gives back what tells its caller, once it is known whether the change is on disk.
type Job = Box<dyn FnOnce(&Store) -> Reply + Send>;
type Reply = Box<dyn FnOnce(Result<(), PortError>) + Send>;

/// An open directory. At most one process has it open; it is closed when the last handle is dropped.
pub struct Store {
    database: Database,
    /// User -> their row.
    pub(crate) users: Keyspace,
    /// Token subject -> user, and user + subject -> nothing.
    pub(crate) subjects: Keyspace,
    /// Viewer + friend -> level.
    pub(crate) friends: Keyspace,
    /// User -> number of friends; user -> deletion mark; name -> counter.
    pub(crate) ledger: Keyspace,
    /// UTC day -> its positions.
    days: RwLock<BTreeMap<u64, Keyspace>>,
    /// Changes that wait for the one who runs them: at most one for each call under way.
    waiting: Mutex<Vec<Job>>,
    /// Held by the one who runs changes; whether something is not on disk yet.
    running: Mutex<()>,
    unsynced: AtomicBool,
    /// A write or fsync failed: no other follows.
    has_failed: AtomicBool,
    directory: PathBuf,
}

impl Store {
    /// Opens a directory, and makes it if there is none. Blocks, for as long as it takes to read the journal.
    ///
    /// Refused when another process (or another `Store` of this one) has it open, and when a newer Nearby wrote it.
    pub fn open(directory: &Path) -> Result<Arc<Store>, PortError> {
        layout::check(directory)?;
        journal::renew_if_suspect(directory)?;
        let database =
            Database::builder(directory.join("fjall")).open().map_err(|error| cannot_open(directory, error))?;
        // Again, now that nobody else can write it.
        layout::check(directory)?;
        layout::mark(directory)?;
        let keyspace = |name: &str| open_keyspace(&database, name).map_err(failed);
        let store = Store {
            users: keyspace("users")?,
            subjects: keyspace("subjects")?,
            friends: keyspace("friends")?,
            ledger: keyspace("ledger")?,
            days: RwLock::new(existing_days(&database)?),
            waiting: Mutex::default(),
            running: Mutex::default(),
            unsynced: AtomicBool::new(false),
            has_failed: AtomicBool::new(false),
            directory: directory.to_owned(),
            database,
        };
        Ok(Arc::new(store))
    }

    /// Whether a write or fsync failed. If so, changes are `Unavailable` for as long as this handle lives: the process
    /// should end, and be started again.
    pub fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Acquire)
    }

    /// Whether the directory takes 16 MiB, what opening it will copy, and an fsync at the moment, by writing a file beside
    /// the database and removing it. Blocks.
    pub fn has_room(&self) -> bool {
        let file = self.directory.join("room");
        let write = || {
            let mut room = File::create(&file)?;
            // Not zeros, which some file systems keep in no space.
            let mebibyte = vec![0x5A; 1 << 20];
            let mebibytes = ROOM_MIB + journal::bytes_to_copy(&self.directory)?.div_ceil(1 << 20);
            (0..mebibytes).try_for_each(|_| room.write_all(&mebibyte))?;
            room.sync_all()
        };
        let has_room = write().is_ok();
        // What is left of it would take the room that it asks for.
        std::fs::remove_file(&file).is_ok() && has_room
    }

    /// What came of a write. After one that failed no other is tried.
    fn wrote<T>(&self, outcome: fjall::Result<T>) -> Result<T, PortError> {
        if let Err(error) = &outcome {
            self.has_failed.store(true, Ordering::Release);
            // A thread of the database failed, perhaps in an fsync.
            if matches!(error, fjall::Error::Poisoned) {
                journal::suspect(&self.directory);
            }
        }
        outcome.map_err(failed)
    }

    /// A view of all keyspaces at one moment: a batch is in it as a whole or not at all.
    pub(crate) fn snapshot(&self) -> fjall::Snapshot {
        self.database.snapshot()
    }

    /// An atomic change in the making; give it to [`Store::commit`].
    pub(crate) fn batch(&self) -> OwnedWriteBatch {
        self.database.batch()
    }

    /// Makes a change visible. It is on disk when the [`Store::change`] it is made in returns.
    pub(crate) fn commit(&self, batch: OwnedWriteBatch) -> Result<(), PortError> {
        self.unsynced.store(true, Ordering::Relaxed);
        self.wrote(batch.commit())
    }

    /// Runs `change` after all changes before it and alone, and returns its answer when all it saw and wrote is durable.
    pub(crate) async fn change<T: Send + 'static>(
        self: &Arc<Store>,
        change: impl FnOnce(&Store) -> Result<T, PortError> + Send + 'static,
    ) -> Result<T, PortError> {
        let (tell, told) = oneshot::channel();
        let job: Job = Box::new(move |store| {
            let outcome = change(store);
            // Nobody to tell: the caller gave up, the change stays.
            Box::new(move |durable| drop(tell.send(durable.and(outcome))))
        });
        self.waiting.lock().push(job);
        let store = self.clone();
        let ran = tokio::task::spawn_blocking(move || store.run_waiting()).await;
        match (ran, told.await) {
            (_, Ok(outcome)) => outcome,
            (_, Err(_)) if self.has_failed() => Err(failed(fjall::Error::Poisoned)),
            // The runtime stops, or a change panicked.
            (_, Err(_)) => Err(unavailable("a change was abandoned")),
        }
    }

    /// Reads on a thread that may wait for the disk.
    pub(crate) async fn read<T: Send + 'static>(
        self: &Arc<Store>,
        read: impl FnOnce(&Store) -> Result<T, PortError> + Send + 'static,
    ) -> Result<T, PortError> {
        let store = self.clone();
        match tokio::task::spawn_blocking(move || read(&store)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(unavailable("a read was abandoned")),
        }
    }

    /// Every job that was waiting when this was called has been run when it returns, here or elsewhere.
    fn run_waiting(&self) {
        let _running = self.running.lock();
        let jobs = std::mem::take(&mut *self.waiting.lock());
        if jobs.is_empty() {
            return;
        }
        let replies: Vec<Reply> = jobs.into_iter().map(|job| self.run(job)).collect();
        let durable = self.sync();
        for reply in replies {
            reply(durable.clone());
        }
    }

    fn run(&self, job: Job) -> Reply {
        if self.has_failed() { Box::new(|_| ()) } else { job(self) }
    }

    /// Syncs what was committed, if anything was. Only by the one who runs changes.
    fn sync(&self) -> Result<(), PortError> {
        if self.has_failed() {
            return Err(failed(fjall::Error::Poisoned));
        }
        if self.unsynced.load(Ordering::Relaxed) {
            self.wrote(self.database.persist(PersistMode::SyncAll))
                .inspect_err(|_| journal::suspect(&self.directory))?;
            self.unsynced.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The keyspace of a day; made if there is none. Only within a change.
    pub(crate) fn day(&self, day: u64) -> Result<Keyspace, PortError> {
        if let Some(keyspace) = self.existing_day(day) {
            return Ok(keyspace);
        }
        let keyspace = self.wrote(open_keyspace(&self.database, &format!("{HISTORY}{day}")))?;
        self.days.write().insert(day, keyspace.clone());
        Ok(keyspace)
    }

    /// The keyspace of a day that has positions.
    pub(crate) fn existing_day(&self, day: u64) -> Option<Keyspace> {
        self.days.read().get(&day).cloned()
    }

    /// The keyspaces of the days from `first` to `last`, in their order.
    pub(crate) fn days_between(&self, first: u64, last: u64) -> Vec<Keyspace> {
        if first > last {
            return Vec::new();
        }
        self.days.read().range(first..=last).map(|(_, keyspace)| keyspace.clone()).collect()
    }

    /// Deletes the days before this one. Only within a change.
    pub(crate) fn drop_days_before(&self, day: u64) -> Result<(), PortError> {
        let old: Vec<u64> = self.days.read().range(..day).map(|(day, _)| *day).collect();
        for day in old {
            // Out of the map first: who reads from now on does not see it.
            let keyspace = self.days.write().remove(&day);
            if let Some(keyspace) = keyspace {
                self.wrote(self.database.delete_keyspace(keyspace))?;
            }
        }
        Ok(())
    }
}

fn open_keyspace(database: &Database, name: &str) -> fjall::Result<Keyspace> {
    database.keyspace(name, KeyspaceCreateOptions::default)
}

fn existing_days(database: &Database) -> Result<BTreeMap<u64, Keyspace>, PortError> {
    let names = database.list_keyspace_names();
    let days = names.iter().filter_map(|name| name.strip_prefix(HISTORY)?.parse().ok());
    let opened = days.map(|day: u64| Ok((day, open_keyspace(database, &format!("{HISTORY}{day}"))?)));
    opened.collect::<fjall::Result<_>>().map_err(failed)
}

/// What fjall says of a failure. It names files, never what is in them.
pub(crate) fn failed(error: fjall::Error) -> PortError {
    match error {
        // After a failed write or fsync nobody knows what is on disk; only reading it all again tells.
        fjall::Error::Poisoned => {
            unavailable("a write to disk failed earlier; restart to recover what was acknowledged")
        }
        error => unavailable(&error.to_string()),
    }
}

fn cannot_open(directory: &Path, error: fjall::Error) -> PortError {
    let directory = directory.display();
    match error {
        fjall::Error::Locked => refused(&format!("{directory} is in use by another process")),
        fjall::Error::InvalidVersion(_) => refused(&format!("{directory} holds a database of another format")),
        error => refused(&format!("cannot open {directory}: {error}")),
    }
}

pub(crate) fn refused(reason: &str) -> PortError {
    PortError::Refused { backend: BACKEND, reason: reason.to_owned() }
}

fn unavailable(reason: &str) -> PortError {
    PortError::Unavailable { backend: BACKEND, reason: reason.to_owned() }
}

/// A row that does not decode: it was damaged, or written by something else.
pub(crate) fn damaged(what: &str) -> PortError {
    refused(&format!("a stored {what} is damaged"))
}

/// Eight bytes that sort as the number does.
pub(crate) fn be(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

/// Two numbers as a key that sorts by the first, then the second.
pub(crate) fn pair(first: u64, second: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&first.to_be_bytes());
    key[8..].copy_from_slice(&second.to_be_bytes());
    key
}

/// The two numbers of a [`pair`].
pub(crate) fn unpair(key: &[u8]) -> Option<(u64, u64)> {
    let (first, second) = key.split_at_checked(8)?;
    Some((be(first)?, be(second)?))
}

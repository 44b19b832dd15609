//! The redb file: tables, transactions, and what to do with one that cannot be read.

use std::error::Error;
use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use model::{EniId, SandboxKey};
use redb::{
    Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError,
    TableDefinition,
};
use tokio::sync::watch;

use super::record::{Recorded, Unreadable};
use super::{AssignRecord, Change, CheckpointError, Contents, Job, RestRecord, SandboxRecord};
use crate::ipam::{EniRecord, MemberRecord};

type Table = TableDefinition<'static, &'static str, &'static [u8]>;

const META: TableDefinition<'static, &'static str, u64> = TableDefinition::new("meta");
const SANDBOXES: Table = TableDefinition::new("sandboxes");
const ENIS: Table = TableDefinition::new("enis");
const MEMBERS: Table = TableDefinition::new("members");
const RESTS: Table = TableDefinition::new("rests");
const ASSIGNS: Table = TableDefinition::new("assigns");

/// In `meta`: the node has had what it was to have once.
const WARMED: &str = "warmed";
/// Which tables there are and what their keys mean.
const SCHEMA: u64 = 1;
/// In `meta`: the oldest schema whose daemon can read the file, passing over what it does not know.
const READS: &str = "schema_reads";
/// A file that only gained tables keeps this.
const READABLE_SINCE: u64 = 1;
/// A note alone waits so long for a write to go with.
const NOTE_AT_MOST: Duration = Duration::from_millis(500);
/// So many notes are not kept waiting.
const NOTES_AT_MOST: usize = 1000;
/// Writes that share one fsync.
const GROUP: usize = 256;
/// Enough for every page of some hundred sandboxes; the default is a gigabyte.
const CACHE: usize = 4 << 20;

/// What was found in a state directory.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) file: Writer,
    pub(super) contents: Contents,
    pub(super) quarantined: Option<PathBuf>,
}

/// The owner of the file.
#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    /// `None` after a write failed: redb wants to be opened anew then.
    database: Option<Database>,
    /// Why the last write failed.
    trouble: watch::Sender<Option<String>>,
}

/// Why a file cannot be used.
enum Trouble {
    /// Torn, or garbage: redb says so, or falls over it.
    Garbage(String),
    /// For this daemon, now.
    Error(CheckpointError),
}

/// Opens the file and reads all of it; garbage is moved aside and an empty file is made.
pub(super) fn open(path: PathBuf) -> Result<Found, CheckpointError> {
    match open_and_read(&path) {
        Ok((database, contents)) => {
            let file = Writer::new(path, database);
            Ok(Found { file, contents, quarantined: None })
        }
        Err(Trouble::Error(error)) => Err(error),
        Err(Trouble::Garbage(why)) => {
            let aside = quarantine(&path)?;
            tracing::error!(
                file = %path.display(), moved_to = %aside.display(), error = why,
                "the checkpoint is torn; starting without records"
            );
            match open_and_read(&path) {
                Ok((database, contents)) => {
                    let file = Writer::new(path, database);
                    Ok(Found { file, contents, quarantined: Some(aside) })
                }
                Err(Trouble::Error(error)) => Err(error),
                Err(Trouble::Garbage(why)) => {
                    Err(CheckpointError::File { path, source: why.into_error() })
                }
            }
        }
    }
}

trait IntoError {
    fn into_error(self) -> Arc<dyn Error + Send + Sync>;
}

impl IntoError for String {
    fn into_error(self) -> Arc<dyn Error + Send + Sync> {
        Arc::from(Box::<dyn Error + Send + Sync>::from(self))
    }
}

/// A name beside it that nothing has yet.
fn quarantine(path: &Path) -> Result<PathBuf, CheckpointError> {
    let name = |n: u32| path.with_extension(format!("redb.torn-{n}"));
    let free = (0..10_000).map(name).find(|aside| !aside.exists());
    let aside = free.unwrap_or_else(|| name(u32::MAX));
    fs::rename(path, &aside).map_err(|source| CheckpointError::File {
        path: path.to_owned(),
        source: Arc::new(source),
    })?;
    Ok(aside)
}

fn open_and_read(path: &Path) -> Result<(Database, Contents), Trouble> {
    // On garbage that looks like a database, redb may panic.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let mut database = database(path)?;
        // A page that was overwritten shows only here.
        let whole = database.check_integrity();
        whole.map_err(|error| Trouble::of(path, error))?;
        let contents = read(&database, path)?;
        Ok((database, contents))
    }));
    opened.unwrap_or_else(|_panic| Err(Trouble::Garbage("the file is not consistent".to_owned())))
}

fn database(path: &Path) -> Result<Database, Trouble> {
    let failed = |source: io::Error| {
        Trouble::Error(CheckpointError::File { path: path.to_owned(), source: Arc::new(source) })
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    file.set_permissions(Permissions::from_mode(0o600)).map_err(failed)?;
    let mut builder = Database::builder();
    let opened = builder.set_cache_size(CACHE).create_file(file);
    opened.map_err(|error| Trouble::of(path, error))
}

impl Trouble {
    fn of(path: &Path, error: DatabaseError) -> Self {
        let garbage = match &error {
            DatabaseError::Storage(StorageError::Corrupted(_)) => true,
            DatabaseError::Storage(StorageError::Io(error)) => {
                matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
            }
            _ => false,
        };
        if garbage {
            return Self::Garbage(error.to_string());
        }
        Self::Error(CheckpointError::File { path: path.to_owned(), source: Arc::new(error) })
    }
}

fn read(database: &Database, path: &Path) -> Result<Contents, Trouble> {
    let foreign = |what: String, source: Arc<dyn Error + Send + Sync>| {
        Trouble::Error(CheckpointError::Foreign { path: path.to_owned(), what, source })
    };
    let torn = |error: redb::Error| Trouble::Garbage(error.to_string());
    let transaction = database.begin_read().map_err(|error| torn(error.into()))?;
    let meta = match transaction.open_table(META) {
        Ok(meta) => meta,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Contents::default()),
        Err(error) => return Err(torn(error.into())),
    };
    let schema = meta.get("schema").map_err(|error| torn(error.into()))?;
    let schema = schema.map_or(0, |schema| schema.value());
    let reads = meta.get(READS).map_err(|error| torn(error.into()))?;
    let reads = reads.map_or(schema, |reads| reads.value());
    if schema < SCHEMA || reads > SCHEMA {
        let why = format!("its schema is {schema}, this terwayd knows {SCHEMA}");
        return Err(foreign("the file".to_owned(), why.into_error()));
    }
    let failed = |failed| match failed {
        ReadFailure::Storage(error) => torn(error),
        ReadFailure::Record(what, source) => foreign(what, Arc::new(source)),
    };
    Ok(Contents {
        sandboxes: table(&transaction, SANDBOXES).map_err(failed)?,
        enis: table(&transaction, ENIS).map_err(failed)?,
        members: table(&transaction, MEMBERS).map_err(failed)?,
        rests: table(&transaction, RESTS).map_err(failed)?,
        assigns: table(&transaction, ASSIGNS).map_err(failed)?,
        warmed: meta.get(WARMED).map_err(|error| torn(error.into()))?.is_some(),
    })
}

enum ReadFailure {
    Storage(redb::Error),
    Record(String, Unreadable),
}

fn table<T: Recorded>(
    transaction: &redb::ReadTransaction,
    definition: Table,
) -> Result<Vec<T>, ReadFailure> {
    let storage = |error: redb::Error| ReadFailure::Storage(error);
    let name = redb::TableHandle::name(&definition).to_owned();
    let table = match transaction.open_table(definition) {
        Ok(table) => table,
        // An older daemon wrote the file.
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(storage(error.into())),
    };
    let entries = table.iter().map_err(|error| storage(error.into()))?;
    entries
        .map(|entry| {
            let (key, value) = entry.map_err(|error| storage(error.into()))?;
            let record = T::decode(value.value());
            record.map_err(|why| ReadFailure::Record(format!("{name} {:?}", key.value()), why))
        })
        .collect()
}

impl Writer {
    fn new(path: PathBuf, database: Database) -> Self {
        Self { path, database: Some(database), trouble: watch::Sender::new(None) }
    }

    /// Why nothing can be written; `None` if it can, as far as is known.
    pub(super) fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.trouble.subscribe()
    }

    /// Until all handles are gone: takes what arrived, writes it in one transaction, answers.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        let mut notes = Vec::new();
        loop {
            let idle = notes.is_empty() && self.trouble.borrow().is_none();
            let first = if idle {
                jobs.recv().map_err(|_closed| RecvTimeoutError::Disconnected)
            } else {
                jobs.recv_timeout(NOTE_AT_MOST)
            };
            let closed = matches!(first, Err(RecvTimeoutError::Disconnected));
            let group: Vec<Job> = first.into_iter().chain(jobs.try_iter().take(GROUP)).collect();
            let quiet = group.is_empty();
            self.group(group, &mut notes, quiet);
            if closed {
                return;
            }
        }
    }

    /// Notes stay until somebody waits for a write, or nothing comes.
    fn group(&mut self, group: Vec<Job>, notes: &mut Vec<Change>, quiet: bool) {
        let mut changes = std::mem::take(notes);
        let mut waiting = Vec::new();
        let mut unawaited = changes.clone();
        for job in group {
            if job.done.is_none() {
                unawaited.extend(job.changes.iter().cloned());
            }
            changes.extend(job.changes);
            waiting.extend(job.done);
        }
        if waiting.is_empty() && !quiet && changes.len() < NOTES_AT_MOST {
            *notes = changes;
            return;
        }
        // After a failure a transaction without a change shows whether it is over.
        let idle = changes.is_empty() && self.trouble.borrow().is_none();
        let written = if idle { Ok(()) } else { self.write(&changes) };
        self.tell(written.as_ref().err());
        if written.is_err() {
            // Who waited is told; what nobody waits for is tried again.
            *notes = unawaited;
        }
        for done in waiting {
            // Who does not wait any more does not want to know.
            let _gone = done.send(written.clone());
        }
    }

    /// Once as long as it is the same.
    fn tell(&self, error: Option<&CheckpointError>) {
        let why = error.map(|error| match error.source() {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        });
        self.trouble.send_if_modified(|trouble| {
            let news = *trouble != why;
            match &why {
                Some(why) if news => tracing::error!(why, "the checkpoint cannot be written"),
                None if news => tracing::info!("the checkpoint can be written again"),
                _ => {}
            }
            *trouble = why;
            news
        });
    }

    fn write(&mut self, changes: &[Change]) -> Result<(), CheckpointError> {
        let path = &self.path;
        let database = match self.database.take() {
            Some(database) => database,
            None => match database(path) {
                Ok(database) => database,
                Err(Trouble::Error(error)) => return Err(error),
                Err(Trouble::Garbage(why)) => {
                    let source = why.into_error();
                    return Err(CheckpointError::File { path: path.clone(), source });
                }
            },
        };
        commit(&database, changes).map_err(|source| CheckpointError::Write {
            path: path.clone(),
            source: Arc::from(source),
        })?;
        self.database = Some(database);
        Ok(())
    }
}

fn commit(database: &Database, changes: &[Change]) -> Result<(), Box<dyn Error + Send + Sync>> {
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        // What a newer daemon wrote there stays true: its tables are left as they are.
        let newer = meta.get("schema")?.is_some_and(|schema| schema.value() > SCHEMA);
        if !newer {
            meta.insert("schema", SCHEMA)?;
            meta.insert(READS, READABLE_SINCE)?;
        }
        let mut sandboxes = transaction.open_table(SANDBOXES)?;
        let mut enis = transaction.open_table(ENIS)?;
        let mut members = transaction.open_table(MEMBERS)?;
        let mut rests = transaction.open_table(RESTS)?;
        let mut assigns = transaction.open_table(ASSIGNS)?;
        for change in changes {
            match change {
                Change::PutSandbox(record) => {
                    let key = sandbox_key(&record.pod.spec.key);
                    let value = SandboxRecord::encode(record)?;
                    sandboxes.insert(key.as_str(), value.as_slice())?;
                }
                Change::RemoveSandbox(key) => {
                    sandboxes.remove(sandbox_key(key).as_str())?;
                }
                Change::PutEni(record) => {
                    let value = EniRecord::encode(record)?;
                    enis.insert(record.token.as_str(), value.as_slice())?;
                }
                Change::RemoveEni(token) => {
                    enis.remove(token.as_str())?;
                }
                Change::PutMember(record) => {
                    let value = MemberRecord::encode(record)?;
                    members.insert(record.token.as_str(), value.as_slice())?;
                }
                Change::RemoveMember(token) => {
                    members.remove(token.as_str())?;
                }
                Change::PutRest(record) => {
                    let key = rest_key(&record.eni, record.address);
                    let value = RestRecord::encode(record)?;
                    rests.insert(key.as_str(), value.as_slice())?;
                }
                Change::RemoveRest(eni, address) => {
                    rests.remove(rest_key(eni, *address).as_str())?;
                }
                Change::PutAssign(record) => {
                    let value = AssignRecord::encode(record)?;
                    assigns.insert(record.token.as_str(), value.as_slice())?;
                }
                Change::RemoveAssign(token) => {
                    assigns.remove(token.as_str())?;
                }
                Change::Warmed => {
                    meta.insert(WARMED, 1)?;
                }
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

/// The unit separator is in no part: CNI allows letters, digits, `_`, `.` and `-`.
fn sandbox_key(key: &SandboxKey) -> String {
    format!("{}\u{1f}{}\u{1f}{}", key.network, key.container_id, key.ifname)
}

fn rest_key(eni: &EniId, address: std::net::IpAddr) -> String {
    format!("{eni}\u{1f}{address}")
}

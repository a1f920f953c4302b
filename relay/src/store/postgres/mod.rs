//! The networked store: PostgreSQL, which several nodes of one relay write to at the same time.
//!
//! The same rows as in the embedded store, under the same [`Store`] trait, and nothing of them in memory between two
//! transactions. A node opens one for every batch ([`PgStore::begin`]) and the batch is decided on what it reads there.
//! What a batch changes must be as it was read, or the batch is a [`StoreError::Conflict`] and decided anew (REQ-301);
//! the locks that a [`Plan`] names keep such conflicts rare, and the lane keeps the fence (REQ-300). This module must
//! never answer from memory what the transaction has not read, and must never say that something was not written when
//! it may have been: see [`PgStore::is_uncertain`].

mod link;
mod schema;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use mortise_protocol::identity::OrgId;
use mortise_protocol::store::{Pair, Reader, Space, Store, StoreError, Write};
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use tokio::runtime::Runtime;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::{Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use self::link::{Changes, Found, Link, explain};
use self::schema::{TABLES, migrations, table_of};
use crate::core::plan::{Plan, Reach};
use crate::core::{Moved, layout};

const CONNECT: Duration = Duration::from_secs(3);
/// Lanes of nodes that were not seen for so long are swept away; one that is still there makes itself a new one.
const LANE_LIFETIME_MS: i64 = 24 * 3_600 * 1_000;

/// What every session says first. An acknowledgement waits for the synchronous standbys, where there are any; a node
/// that hangs within a transaction loses it, and with it its lane (measured: docs/results.md).
const SESSION: &str = "SET synchronous_commit = on;
    SET idle_in_transaction_session_timeout = '2s';
    SET statement_timeout = 0; SET lock_timeout = 0";

/// Why there is no database to work with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address does not parse.
    #[error("the database's address does not parse: it looks like postgres://user@host/database")]
    Address,
    /// It cannot be reached, or refuses.
    #[error("cannot use the database: {reason}")]
    Unusable {
        /// What it said, or the system.
        reason: String,
    },
    /// There are no tables of a relay.
    #[error("the database holds no relay: make one with `mortise-relay init --storage`")]
    Empty,
    /// There are tables already.
    #[error(
        "the database holds a relay already: copy its keys to add a node (docs/cluster.md); nothing was changed"
    )]
    Exists,
    /// The schema is newer than this program.
    #[error("the database's schema {found} is newer than this program knows ({known}): update it")]
    Newer {
        /// The database's.
        found: i64,
        /// The program's.
        known: i64,
    },
}

/// The store over one connection, for one thread.
pub struct PgStore {
    config: Config,
    lane: [u8; 16],
    runtime: Runtime,
    link: Option<Link>,
    /// A read has found the connection broken.
    broken: Cell<bool>,
    open: Option<Open>,
    written: BTreeSet<Moved>,
    uncertain: bool,
    without_lane: bool,
}

impl std::fmt::Debug for PgStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PgStore").finish_non_exhaustive()
    }
}

/// A question for a range: table, prefix, start, and how many rows.
type Range = (Space, Vec<u8>, Vec<u8>, usize);

/// A transaction that is open.
struct Open {
    org: OrgId,
    reach: Reach,
    found: RefCell<Found>,
    /// The roster entries that the node had not seen when the transaction began, and the question they answer.
    unseen: (Range, Vec<Pair>),
}

impl PgStore {
    /// Connects to the database of a relay, and brings its schema up to date. `lane` is this process's own, drawn at
    /// random when it starts.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn open(address: &str, lane: [u8; 16]) -> Result<Self, ConnectError> {
        let mut store = Self::connect(address, lane)?;
        if store.version().map_err(unusable)? == 0 {
            return Err(ConnectError::Empty);
        }
        store.migrate()?;
        store.enter().map_err(unusable)?;
        Ok(store)
    }

    /// Connects to a database without a relay, and makes the schema; only for `init`. Tables that an `init` has left which
    /// did not come to its end are taken as they are: a relay is there when its row in `meta` is.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn create(address: &str, lane: [u8; 16]) -> Result<Self, ConnectError> {
        let mut store = Self::connect(address, lane)?;
        if store.version().map_err(unusable)? != 0 && store.holds_relay().map_err(unusable)? {
            return Err(ConnectError::Exists);
        }
        store.migrate()?;
        store.enter().map_err(unusable)?;
        Ok(store)
    }

    fn connect(address: &str, lane: [u8; 16]) -> Result<Self, ConnectError> {
        let mut config = Config::from_str(address).map_err(|_| ConnectError::Address)?;
        config
            .application_name("mortise-relay")
            .connect_timeout(CONNECT)
            .tcp_user_timeout(Duration::from_secs(10))
            .keepalives_idle(Duration::from_secs(10))
            // Of several hosts the one that takes writes: after a failover that is another one.
            .target_session_attrs(TargetSessionAttrs::ReadWrite);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| ConnectError::Unusable {
                reason: error.to_string(),
            })?;
        let mut store = Self {
            config,
            lane,
            runtime,
            link: None,
            broken: Cell::new(false),
            open: None,
            written: BTreeSet::new(),
            uncertain: false,
            without_lane: false,
        };
        store.dial()?;
        Ok(store)
    }

    /// Appends without the lane that keeps the fence: to show that the history checker notices.
    pub fn dangerous_without_lane(&mut self) {
        self.without_lane = true;
    }

    fn dial(&mut self) -> Result<(), ConnectError> {
        self.link = None;
        self.broken.set(false);
        let config = self.config.clone();
        let link = self.runtime.block_on(async move {
            // The driver tries one host after the other; this bounds all of them together.
            let dialed = tokio::time::timeout(CONNECT * 2, connect(&config)).await;
            let late = || ConnectError::Unusable {
                reason: "it does not answer".into(),
            };
            let link = dialed.map_err(|_| late())??;
            link.run(SESSION).await.map_err(unusable)?;
            Ok::<_, ConnectError>(link)
        })?;
        self.link = Some(link);
        Ok(())
    }

    /// Connects anew after [`StoreError::Lost`].
    ///
    /// # Errors
    /// [`StoreError::Lost`] while the database cannot be reached.
    pub fn reconnect(&mut self) -> Result<(), StoreError> {
        self.open = None;
        self.dial().map_err(|_| StoreError::Lost)?;
        let entered = self.enter();
        if entered.is_err() {
            self.link = None;
        }
        entered
    }

    /// Writes down that this node is there, and waits until that is durable wherever it must be.
    ///
    /// A database that was restarted at once shows commits that no standby has yet. Nothing that this connection
    /// reads afterwards is such a commit: this write came after them, and has been waited for (REQ-302).
    fn enter(&mut self) -> Result<(), StoreError> {
        let now_ms = now_ms();
        self.sweep(now_ms)?;
        let sql = "INSERT INTO nodes (lane, seen_ms) VALUES ($1, $2)
                   ON CONFLICT (lane) DO UPDATE SET seen_ms = excluded.seen_ms";
        let (link, lane) = (self.link()?, self.lane.to_vec());
        self.runtime.block_on(link.rows(sql, &[&lane, &now_ms]))?;
        Ok(())
    }

    fn sweep(&self, now_ms: i64) -> Result<(), StoreError> {
        let old = now_ms.saturating_sub(LANE_LIFETIME_MS);
        let link = self.link()?;
        self.runtime.block_on(async {
            let lanes =
                "DELETE FROM gate WHERE lane IN (SELECT lane FROM nodes WHERE seen_ms < $1)";
            link.rows(lanes, &[&old]).await?;
            link.rows("DELETE FROM nodes WHERE seen_ms < $1", &[&old])
                .await
        })?;
        Ok(())
    }

    /// Notes that this node is still there; to be called now and then.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn stay(&mut self) -> Result<(), StoreError> {
        let entered = self.enter();
        self.note(entered)
    }

    /// How many nodes have been seen within so many milliseconds.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn nodes(&self, within_ms: i64) -> Result<usize, StoreError> {
        let since = now_ms().saturating_sub(within_ms);
        let link = self.link()?;
        let sql = "SELECT lane FROM nodes WHERE seen_ms >= $1";
        let rows = self
            .runtime
            .block_on(async { link.rows(sql, &[&since]).await })?;
        Ok(rows.len())
    }

    fn link(&self) -> Result<&Link, StoreError> {
        let link = self.link.as_ref();
        link.filter(|link| !link.is_closed() && !self.broken.get())
            .ok_or(StoreError::Lost)
    }

    fn note<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if matches!(result, Err(StoreError::Lost)) {
            self.broken.set(true);
        }
        result
    }

    /// The step of the schema; 0 where there is none.
    fn version(&self) -> Result<i64, StoreError> {
        let link = self.link()?;
        self.runtime.block_on(async {
            link.run("CREATE TABLE IF NOT EXISTS mortise_schema (version bigint NOT NULL)")
                .await?;
            let rows = link.rows("SELECT version FROM mortise_schema", &[]).await?;
            Ok(rows.first().map_or(0, |row| row.get(0)))
        })
    }

    /// Whether there is a relay's identity, which is written last; of a database that has the schema.
    fn holds_relay(&self) -> Result<bool, StoreError> {
        let rows = self.link()?.count("meta");
        Ok(self.runtime.block_on(rows)? > 0)
    }

    fn migrate(&mut self) -> Result<(), ConnectError> {
        let steps = migrations();
        let known = i64::try_from(steps.len()).unwrap_or(i64::MAX);
        let found = self.version().map_err(unusable)?;
        if found > known {
            return Err(ConnectError::Newer { found, known });
        }
        let link = self.link().map_err(unusable)?;
        for (step, sql) in (1_i64..).zip(&steps).filter(|(step, _)| *step > found) {
            // Of two nodes that migrate at once one fails: the statements cannot be run twice.
            let row = match step {
                1 => "INSERT INTO mortise_schema (version) VALUES (1)".into(),
                _ => format!(
                    "UPDATE mortise_schema SET version = {step} WHERE version = {}",
                    step - 1
                ),
            };
            let sql = format!("BEGIN; {sql} {row}; COMMIT");
            self.runtime.block_on(link.run(&sql)).map_err(unusable)?;
        }
        Ok(())
    }

    /// Opens the transaction in which a batch is decided, with the locks that its plan needs.
    ///
    /// # Errors
    /// [`StoreError`]; no transaction is open then.
    pub fn begin(&mut self, plan: &Plan) -> Result<(), StoreError> {
        self.end();
        let begun = self.try_begin(plan);
        if begun.is_err() {
            self.roll_back();
        }
        self.note(begun)
    }

    fn try_begin(&mut self, plan: &Plan) -> Result<(), StoreError> {
        loop {
            let link = self.link()?;
            let begin = link.begin(plan, &self.lane, self.without_lane);
            if let Some((found, unseen)) = self.runtime.block_on(begin)? {
                self.uncertain = false;
                self.open = Some(Open {
                    org: plan.org,
                    reach: plan.reach,
                    found: RefCell::new(found),
                    unseen: (plan.unseen.clone(), unseen),
                });
                return Ok(());
            }
            let make = link.make_lane(plan.org, &self.lane);
            self.runtime.block_on(make)?;
        }
    }

    /// Ends the open transaction, if it has not been committed: what it has read is not kept.
    pub fn end(&mut self) {
        if self.open.take().is_some() {
            self.roll_back();
        }
    }

    fn roll_back(&self) {
        let Ok(link) = self.link() else { return };
        let rolled_back = self.runtime.block_on(link.run("ROLLBACK"));
        if rolled_back.is_err() {
            // Whatever is open on that connection must not be gone on with.
            self.broken.set(true);
        }
    }

    /// Whether the last batch that failed may have been written: its commit was on its way when the connection broke.
    #[must_use]
    pub fn is_uncertain(&self) -> bool {
        self.uncertain
    }

    /// What was written since the last time, as far as other nodes are to be told.
    pub fn take_written(&mut self) -> Vec<Moved> {
        let written = std::mem::take(&mut self.written);
        // In order: of a log and of a roster the last is enough.
        let mut moved: Vec<Moved> = Vec::with_capacity(written.len());
        for next in written {
            match (moved.last_mut(), next) {
                (Some(Moved::Log(_, last, seq)), Moved::Log(_, group, newer)) if *last == group => {
                    *seq = newer;
                }
                (Some(Moved::Roster(last, seq)), Moved::Roster(org, newer)) if *last == org => {
                    *seq = newer;
                }
                _ => moved.push(next),
            }
        }
        moved
    }

    fn commit(
        &mut self,
        changes: BTreeMap<Space, Changes>,
        roster: Option<(OrgId, i64)>,
    ) -> Result<(), StoreError> {
        let link = self.link()?;
        let committed = self.runtime.block_on(link.commit(changes, roster));
        match &committed {
            Ok(()) => self.uncertain = false,
            Err(StoreError::Lost) => self.uncertain = true,
            Err(_) => {
                self.uncertain = false;
                self.roll_back();
            }
        }
        self.note(committed)
    }
}

impl Drop for PgStore {
    fn drop(&mut self) {
        self.end();
    }
}

/// A connection, with TLS where the address asks for it (`sslmode=require`): the host is verified by the system's roots.
async fn connect(config: &Config) -> Result<Link, ConnectError> {
    let failed = |error: tokio_postgres::Error| unusable(explain(&error));
    if config.get_ssl_mode() == SslMode::Require {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions();
        let tls = tls.map_err(|error| ConnectError::Unusable {
            reason: error.to_string(),
        })?;
        let roots = system_roots();
        let tls = tls.with_root_certificates(roots).with_no_client_auth();
        let (client, connection) = config
            .connect(MakeRustlsConnect::new(tls))
            .await
            .map_err(failed)?;
        tokio::spawn(connection);
        return Ok(Link::new(client));
    }
    let (client, connection) = config.connect(NoTls).await.map_err(failed)?;
    tokio::spawn(connection);
    Ok(Link::new(client))
}

fn system_roots() -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    roots
}

fn unusable(error: StoreError) -> ConnectError {
    ConnectError::Unusable {
        reason: error.to_string(),
    }
}

/// A lane for this process: nobody else's, whoever copied its data directory.
///
/// # Errors
/// No randomness.
pub fn draw_lane() -> Result<[u8; 16], ConnectError> {
    let mut lane = [0; 16];
    let drawn = OsRng.try_fill_bytes(&mut lane);
    drawn.map_err(|error| ConnectError::Unusable {
        reason: error.to_string(),
    })?;
    Ok(lane)
}

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

impl Reader for PgStore {
    fn read(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let at = (space, key.to_vec());
        if let Some(open) = &self.open
            && let Some(value) = open.found.borrow().get(&at)
        {
            return Ok(value.clone());
        }
        let keys = std::slice::from_ref(&at.1);
        let rows = self.note(self.runtime.block_on(self.link()?.read(space, keys)))?;
        let value = rows.into_iter().next().map(|(_, value)| value);
        if let Some(open) = &self.open {
            open.found.borrow_mut().insert(at, value.clone());
        }
        Ok(value)
    }

    fn range(
        &self,
        space: Space,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        if let Some(open) = &self.open {
            let ((s, p, f, n), rows) = &open.unseen;
            if (*s, p.as_slice(), f.as_slice(), *n) == (space, prefix, from, limit) {
                return Ok(rows.clone());
            }
        }
        let range = self.link()?.range(space, prefix, from, limit);
        let rows = self.note(self.runtime.block_on(range))?;
        if let Some(open) = &self.open {
            let found = rows
                .iter()
                .map(|(k, v)| ((space, k.clone()), Some(v.clone())));
            open.found.borrow_mut().extend(found);
        }
        Ok(rows)
    }

    fn prefetch(&self, space: Space, keys: &[Vec<u8>]) -> Result<(), StoreError> {
        let Some(open) = &self.open else {
            return Ok(());
        };
        let mut missing = keys.to_vec();
        missing.retain(|key| !open.found.borrow().contains_key(&(space, key.clone())));
        if missing.is_empty() {
            return Ok(());
        }
        let rows = self.note(self.runtime.block_on(self.link()?.read(space, &missing)))?;
        let mut found = open.found.borrow_mut();
        found.extend(missing.into_iter().map(|key| ((space, key), None)));
        found.extend(rows.into_iter().map(|(k, v)| ((space, k), Some(v))));
        Ok(())
    }
}

impl Store for PgStore {
    /// Within [`PgStore::begin`]: writes and commits its transaction. Without: a transaction of its own, whose rows are
    /// written whatever was there.
    fn apply(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        let open = self.open.take();
        let mut found = Found::new();
        let mut roster = None;
        let org = open.as_ref().map(|open| open.org);
        match open {
            Some(open) => {
                let is_roster = |write: &Write| write.space == layout::ROSTER;
                let entry = writes.iter().rev().find(|write| is_roster(write));
                let needed = if entry.is_some() {
                    Reach::Roster
                } else {
                    Reach::Writes
                };
                if open.reach < needed {
                    self.roll_back();
                    return Err(StoreError::Conflict);
                }
                roster = entry.and_then(|write| Some((open.org, seq_of(&write.key)?)));
                found = open.found.into_inner();
            }
            None => self.runtime.block_on(self.link()?.run("BEGIN"))?,
        }
        let mut last: BTreeMap<(Space, &[u8]), &Option<Vec<u8>>> = BTreeMap::new();
        for write in writes {
            last.insert((write.space, &write.key), &write.value);
        }
        let mut changes: BTreeMap<Space, Changes> = BTreeMap::new();
        for ((space, key), value) in last {
            let table = table_of(space).ok_or(StoreError::Corrupt {
                reason: "a space without a table",
            })?;
            let before = found.remove(&(space, key.to_vec()));
            let changes = changes.entry(space).or_default();
            changes.add(table.append_only, key.to_vec(), before, value.clone());
        }
        self.commit(changes, roster)?;
        if let Some(org) = org {
            let written = writes.iter().filter(|write| write.value.is_some());
            let moved = written.filter_map(|write| Moved::of_row(org, write.space, &write.key));
            self.written.extend(moved);
        }
        Ok(())
    }
}

fn seq_of(key: &[u8]) -> Option<i64> {
    let tail = key.last_chunk()?;
    i64::try_from(u64::from_be_bytes(*tail)).ok()
}

/// Counts the rows of every table, by reading them: for `fsck`.
///
/// # Errors
/// [`StoreError`].
pub fn count_rows(store: &PgStore) -> Result<u64, StoreError> {
    let link = store.link()?;
    let mut total: u64 = 0;
    for table in TABLES {
        let rows = link.count(table.name);
        total += u64::try_from(store.runtime.block_on(rows)?).unwrap_or(0);
    }
    Ok(total)
}

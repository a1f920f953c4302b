//! `append`: the storage engine alone, against a raw preallocated file on the same disk.

mod others;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use mortise_protocol::identity::{Epoch, GroupId, Hash, LogSeq, OrgId, RosterSeq, encode, sha256};
use mortise_protocol::store::{CachedStore, Store, Write};
use mortise_protocol::wire::LogRecord;
use mortise_relay::core::layout::{
    AppendedRecord, GROUPS, GroupRecord, HOT_SPACES, LOG, RECORD_IDS, ROW_VERSION,
};
use mortise_relay::store::{self, EmbeddedStore};
use serde_json::json;

use super::plan::RECORD_BYTES;
use crate::bench::{Goal, Progress, Report};

/// Groups that are appended to in turn.
const GROUPS_COUNT: usize = 1_000;
/// Bytes of the raw file, which is written over and over.
const RAW_BYTES: u64 = 64 * 1024 * 1024;
/// Which of the sinks the raw file is.
const RAW: usize = 1;
/// How long one batch size is measured in one round, for each side.
const TURN: Duration = Duration::from_secs(2);

/// Something that makes batches durable.
trait Sink {
    /// What it is called in the report.
    fn name(&self) -> &'static str;

    /// One batch, durable when it returns.
    fn append(&mut self, batch: usize) -> anyhow::Result<()>;
}

/// Records per second into each engine and into the raw file, batch by batch, each durable before the next.
///
/// # Errors
/// When the disk fails.
pub fn append(rounds: usize, progress: &Progress, report: &mut Report) -> anyhow::Result<()> {
    let dir = tempfile::Builder::new()
        .prefix("mortise-bench-")
        .tempdir_in(std::env::current_dir()?)
        .context("make a directory")?;
    report.machine();
    report.note(
        "engine: the rows that the relay writes for each record (log, record id, head) into a journal, one sync per batch, and behind \
         it into SQLite in large transactions, as fast as it takes them; sqlite: the same rows in one transaction per batch (WAL, \
         synchronous=FULL); fjall: the same rows in one batch (SyncData), which it flushes and compacts behind; raw: as many \
         bytes of records over a preallocated file, then fdatasync; all in the current directory",
    );
    report.note("unfair to the engines: raw writes no keys, no record ids and no heads, a quarter less than they do, and nothing twice");
    report.rounds(rounds as u64);
    let mut sinks: Vec<Box<dyn Sink>> = vec![
        Box::new(Engine::create(&dir.path().join("relay.db"))?),
        Box::new(Raw::create(&dir.path().join("raw"))?),
        Box::new(others::Sqlite::create(&dir.path().join("sqlite.db"))?),
        Box::new(others::Fjall::create(&dir.path().join("fjall"))?),
    ];
    for (batch, goal) in [(1, Some(0.65)), (64, Some(0.2)), (512, None)] {
        let mut rates = vec![Vec::new(); sinks.len()];
        for round in 0..rounds {
            let mut order: Vec<_> = (0..sinks.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for at in order {
                progress.check()?;
                let sink = &mut sinks[at];
                let rate = rate(batch, || sink.append(batch))?;
                let name = sink.name();
                progress.say(&format!("batches of {batch}: {name}: {rate:.0} records/s"));
                rates[at].push(rate);
            }
        }
        tell(batch, &sinks, &rates, goal, report);
    }
    Ok(())
}

/// Each engine's share of the raw file's rate, round by round; the first is ours.
fn tell(
    batch: usize,
    sinks: &[Box<dyn Sink>],
    rates: &[Vec<f64>],
    goal: Option<f64>,
    report: &mut Report,
) {
    for (sink, of) in sinks.iter().zip(rates) {
        let mut shares: Vec<f64> = of.iter().zip(&rates[RAW]).map(|(a, b)| a / b).collect();
        let name = format!("batches of {batch}: {}", sink.name());
        report.row(
            name.clone(),
            vec![
                ("records_per_s", json!(median(&mut of.clone()).round())),
                ("share_of_raw", json!(median(&mut shares))),
                ("worst_share_of_raw", json!(shares.first())),
            ],
        );
        if let (Some(goal), "engine") = (goal, sink.name()) {
            let share = median(&mut shares);
            report.goal(&name, share, Goal::AtLeast(goal), "of raw");
        }
    }
}

/// Sorts, and gives the middle one.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[allow(clippy::cast_precision_loss)]
fn rate(batch: usize, mut one: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let start = Instant::now();
    let mut batches = 0;
    while start.elapsed() < TURN {
        one()?;
        batches += 1;
    }
    Ok((batches * batch) as f64 / start.elapsed().as_secs_f64())
}

/// A file of fixed length that is written over.
struct Raw {
    file: File,
    at: std::cell::Cell<u64>,
}

impl Raw {
    fn create(path: &Path) -> anyhow::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).open(path)?;
        let chunk = vec![1; 1024 * 1024];
        for at in 0..RAW_BYTES / 1024 / 1024 {
            file.write_all_at(&chunk, at * 1024 * 1024)?;
        }
        file.sync_all()?;
        let at = std::cell::Cell::new(0);
        Ok(Self { file, at })
    }
}

impl Sink for Raw {
    fn name(&self) -> &'static str {
        "raw"
    }

    fn append(&mut self, batch: usize) -> anyhow::Result<()> {
        let records = vec![7; batch * RECORD_BYTES];
        let end = self.at.get() + records.len() as u64;
        let at = if end > RAW_BYTES { 0 } else { self.at.get() };
        self.file.write_all_at(&records, at)?;
        self.at.set(at + records.len() as u64);
        Ok(self.file.sync_data()?)
    }
}

/// Groups that are appended to in turn, and where their logs end.
struct Heads {
    heads: Vec<(GroupId, OrgId, u64)>,
    written: u64,
}

impl Heads {
    fn of_nobody() -> Self {
        let org = OrgId([9; 32]);
        let heads = (0..GROUPS_COUNT).map(|n| (GroupId(sha256(&n.to_be_bytes()).0), org, 0));
        Self {
            heads: heads.collect(),
            written: 0,
        }
    }

    /// The rows of the next records, each to the next group; in key order, as a transaction hands them over.
    fn next(&mut self, batch: usize) -> anyhow::Result<Vec<Write>> {
        let mut writes = Vec::with_capacity(3 * batch);
        for _ in 0..batch {
            let at = usize::try_from(self.written)? % self.heads.len();
            self.written += 1;
            let (group, org, head) = &mut self.heads[at];
            *head += 1;
            writes.extend(rows(*group, *org, *head, self.written));
        }
        writes.sort_by(|a, b| (a.space, &a.key).cmp(&(b.space, &b.key)));
        Ok(writes)
    }
}

/// The relay's store, as the relay opens it.
pub(super) struct Engine {
    store: CachedStore<EmbeddedStore>,
    heads: Heads,
}

impl Engine {
    fn create(path: &Path) -> anyhow::Result<Self> {
        Ok(Self::over(store::create(path)?, Heads::of_nobody().heads))
    }

    /// Appends to these groups, which are at these positions.
    pub(super) fn over(store: EmbeddedStore, heads: Vec<(GroupId, OrgId, u64)>) -> Self {
        Self {
            store: CachedStore::new(store, HOT_SPACES, 4 * GROUPS_COUNT),
            heads: Heads { heads, written: 0 },
        }
    }

    /// How many records it has appended.
    pub(super) fn written(&self) -> u64 {
        self.heads.written
    }

    /// One durable batch, one record after the other to the next group.
    pub(super) fn append(&mut self, batch: usize) -> anyhow::Result<()> {
        let writes = self.heads.next(batch)?;
        Ok(self.store.apply(&writes)?)
    }
}

impl Sink for Engine {
    fn name(&self) -> &'static str {
        "engine"
    }

    fn append(&mut self, batch: usize) -> anyhow::Result<()> {
        Self::append(self, batch)
    }
}

/// What the relay writes for one record.
fn rows(group: GroupId, org: OrgId, seq: u64, number: u64) -> [Write; 3] {
    let mut payload = vec![0x5a; RECORD_BYTES];
    payload[..8].copy_from_slice(&number.to_be_bytes());
    let id = sha256(&payload);
    let place = AppendedRecord {
        seq: LogSeq(seq),
        fence: RosterSeq(1),
    };
    let record = LogRecord {
        seq: place.seq,
        epoch: Epoch(0),
        fence: place.fence,
        at_ms: number,
        payload: payload.into(),
    };
    let head = GroupRecord {
        org,
        head_seq: place.seq,
        head_epoch: Epoch(0),
        confirmed: Epoch(0),
        restarted: false.into(),
        log_hash: Hash([0; 32]),
    };
    let row = |space, key: Vec<u8>, value: Vec<u8>| Write {
        space,
        key,
        value: Some([&[ROW_VERSION][..], &value].concat()),
    };
    [
        row(
            LOG,
            [&group.0[..], &seq.to_be_bytes()].concat(),
            encode(&record),
        ),
        row(
            RECORD_IDS,
            [&group.0[..], &id.0, &[3; 16]].concat(),
            encode(&place),
        ),
        row(GROUPS, group.0.to_vec(), encode(&head)),
    ]
}

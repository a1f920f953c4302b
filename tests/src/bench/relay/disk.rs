//! `append`: the storage engine alone, against a raw preallocated file on the same disk.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use mortise_protocol::identity::{Epoch, GroupId, Hash, LogSeq, OrgId, RosterSeq, encode, sha256};
use mortise_protocol::store::{CachedStore, SqliteStore, Store, Write};
use mortise_protocol::wire::LogRecord;
use mortise_relay::core::layout::{
    AppendedRecord, GROUPS, GroupRecord, HOT_SPACES, LOG, RECORD_IDS, ROW_VERSION,
};
use mortise_relay::store;
use serde_json::json;

use super::plan::RECORD_BYTES;
use crate::bench::{Goal, Progress, Report};

/// Groups that are appended to in turn.
const GROUPS_COUNT: usize = 1_000;
/// Bytes of the raw file, which is written over and over.
const RAW_BYTES: u64 = 64 * 1024 * 1024;
/// How long one batch size is measured in one round, for each side.
const TURN: Duration = Duration::from_secs(2);

/// Records per second into the engine and into the raw file, batch by batch, each durable before the next.
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
        "engine: the rows that the relay writes for each record (log, record id, head), in one transaction per batch; \
         raw: as many bytes over a preallocated file, then fdatasync; both in the current directory",
    );
    report.rounds(rounds as u64);
    let mut engine = Engine::create(&dir.path().join("relay.db"))?;
    let raw = Raw::create(&dir.path().join("raw"))?;
    for (batch, goal) in [(1, Some(0.65)), (64, Some(0.2)), (512, None)] {
        let mut ratios = Vec::new();
        let (mut engine_rates, mut raw_rates) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            progress.check()?;
            let (ours, theirs) = if round % 2 == 0 {
                let ours = rate(batch, || engine.append(batch))?;
                (ours, rate(batch, || raw.append(batch))?)
            } else {
                let theirs = rate(batch, || raw.append(batch))?;
                (rate(batch, || engine.append(batch))?, theirs)
            };
            progress.say(&format!(
                "batches of {batch}: {ours:.0} of {theirs:.0} records/s"
            ));
            engine_rates.push(ours);
            raw_rates.push(theirs);
            ratios.push(ours / theirs);
        }
        let name = format!("batches of {batch}");
        report.row(
            name.clone(),
            vec![
                (
                    "engine_records_per_s",
                    json!(median(&mut engine_rates).round()),
                ),
                ("raw_records_per_s", json!(median(&mut raw_rates).round())),
                ("share_of_raw", json!(median(&mut ratios))),
                ("worst_share_of_raw", json!(ratios.first())),
            ],
        );
        if let Some(goal) = goal {
            report.goal(&name, median(&mut ratios), Goal::AtLeast(goal), "of raw");
        }
    }
    report.row(
        "size",
        vec![
            ("records", json!(engine.written)),
            ("engine_bytes", json!(engine.bytes()?)),
        ],
    );
    Ok(())
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

    fn append(&self, batch: usize) -> anyhow::Result<()> {
        let records = vec![7; batch * RECORD_BYTES];
        let end = self.at.get() + records.len() as u64;
        let at = if end > RAW_BYTES { 0 } else { self.at.get() };
        self.file.write_all_at(&records, at)?;
        self.at.set(at + records.len() as u64);
        Ok(self.file.sync_data()?)
    }
}

/// The relay's store, as the relay opens it.
pub(super) struct Engine {
    store: CachedStore<SqliteStore>,
    path: std::path::PathBuf,
    pub(super) written: u64,
    heads: Vec<(GroupId, OrgId, u64)>,
}

impl Engine {
    fn create(path: &Path) -> anyhow::Result<Self> {
        let org = OrgId([9; 32]);
        let heads = (0..GROUPS_COUNT)
            .map(|n| (GroupId(sha256(&n.to_be_bytes()).0), org, 0))
            .collect();
        Ok(Self::over(store::create(path)?, path, heads))
    }

    /// Appends to these groups, which are at these positions.
    pub(super) fn over(store: SqliteStore, path: &Path, heads: Vec<(GroupId, OrgId, u64)>) -> Self {
        Self {
            store: CachedStore::new(store, HOT_SPACES, 4 * GROUPS_COUNT),
            path: path.to_owned(),
            written: 0,
            heads,
        }
    }

    /// One durable batch, one record after the other to the next group.
    pub(super) fn append(&mut self, batch: usize) -> anyhow::Result<()> {
        let mut writes = Vec::with_capacity(3 * batch);
        for _ in 0..batch {
            let at = usize::try_from(self.written)? % self.heads.len();
            self.written += 1;
            let (group, org, head) = &mut self.heads[at];
            *head += 1;
            writes.extend(rows(*group, *org, *head, self.written));
        }
        // In key order, as a transaction hands them over.
        writes.sort_by(|a, b| (a.space, &a.key).cmp(&(b.space, &b.key)));
        Ok(self.store.apply(&writes)?)
    }

    fn bytes(&self) -> anyhow::Result<u64> {
        Ok(std::fs::metadata(&self.path)?.len())
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

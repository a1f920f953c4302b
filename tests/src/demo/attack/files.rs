//! The relay's files handed over: every record of every group, against the keys in a copy of somebody's database.
//!
//! The reader here obeys no rule but MLS itself: no roster, no fence, no policy. What it cannot open, nobody
//! with these keys can open through MLS.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use mortise_protocol::content::{self, Content};
use mortise_protocol::group::Crypto;
use mortise_protocol::group::{Group, MlsProvider, Opened};
use mortise_protocol::identity::{Epoch, GroupId, LogSeq, RosterSeq, decode};
use mortise_protocol::roster::SignedEntry;
use mortise_protocol::store::{Reader, Space, SqliteStore, Tx};
use mortise_protocol::wire::{LogRecord, RecordBody, RosterHead};
use mortise_relay::core::layout;

/// What the relay has stored.
#[derive(Debug)]
pub struct RelayFiles {
    /// Every group's log, in order.
    pub logs: BTreeMap<GroupId, Vec<LogRecord>>,
    /// Welcomes that nobody has fetched.
    pub welcomes: Vec<Vec<u8>>,
    /// The roster's signed entries, in order.
    pub roster: Vec<Vec<u8>>,
    /// Its head.
    pub head: RosterHead,
}

impl RelayFiles {
    /// Reads the database of a relay that does not run, or a copy of one.
    ///
    /// # Errors
    /// When it does not read as what a relay writes.
    pub fn read(database: &Path) -> anyhow::Result<Self> {
        let store = mortise_relay::store::check(database)?;
        let mut logs: BTreeMap<GroupId, Vec<LogRecord>> = BTreeMap::new();
        for (key, value) in rows(&store, layout::LOG)? {
            let group = key
                .first_chunk()
                .copied()
                .map(GroupId)
                .context("a log's key")?;
            let record = decode(&value).ok().context("a log's record")?;
            logs.entry(group).or_default().push(record);
        }
        let values = |space| -> anyhow::Result<Vec<Vec<u8>>> {
            Ok(rows(&store, space)?
                .into_iter()
                .map(|(_, value)| value)
                .collect())
        };
        let roster = values(layout::ROSTER)?;
        let newest = roster.last().context("an empty roster")?;
        let newest = SignedEntry::parse(newest).ok().context("a roster entry")?;
        Ok(Self {
            logs,
            welcomes: values(layout::WELCOMES)?,
            head: RosterHead {
                seq: newest.tbs().seq,
                hash: newest.hash(),
            },
            roster,
        })
    }

    /// How many application messages were appended under an order.
    #[must_use]
    pub fn messages_since(&self, order: RosterSeq) -> usize {
        let records = self.logs.values().flatten().filter(|r| r.fence >= order);
        records
            .filter(|r| matches!(decode(r.payload.as_slice()), Ok(RecordBody::Message(_))))
            .count()
    }
}

fn rows(store: &impl Reader, space: Space) -> anyhow::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let rows = store.range(space, &[], &[], usize::MAX)?;
    rows.into_iter()
        .map(|(key, value)| match value.split_first() {
            Some((&layout::ROW_VERSION, value)) => Ok((key, value.to_vec())),
            _ => anyhow::bail!("a row of another version"),
        })
        .collect()
}

/// A message that somebody could read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadMessage {
    /// The group.
    pub group: GroupId,
    /// Where in its log.
    pub seq: LogSeq,
    /// What it says.
    pub text: String,
}

/// What came of reading the relay's files with somebody's keys.
#[derive(Debug, Default)]
pub struct Reading {
    /// Ciphertexts that were tried.
    pub tried: usize,
    /// Messages that were opened.
    pub read: Vec<ReadMessage>,
    /// Commits that were followed into the next epoch, under which fence.
    pub followed: Vec<(GroupId, RosterSeq)>,
    /// Welcomes that opened.
    pub joined: usize,
}

/// Reads everything that the keys in `store` open, walking each group's log from where the copy stands.
///
/// With `persistent`, every later record is tried against the last keys as well, also under their epoch.
///
/// # Errors
/// When the copy's store fails; nothing in it is changed.
pub fn read_with(
    store: &SqliteStore,
    files: &RelayFiles,
    persistent: bool,
) -> anyhow::Result<Reading> {
    let crypto = Crypto::default();
    let mut reading = Reading::default();
    for (group, records) in &files.logs {
        let tx = Tx::new(store);
        let mut walker = Walker {
            crypto: &crypto,
            tx: &tx,
            id: *group,
            group: None,
            persistent,
        };
        for record in records {
            walker.try_record(record, &mut reading)?;
        }
    }
    for welcome in &files.welcomes {
        let tx = Tx::new(store);
        reading.tried += 1;
        let opens = Group::join(&MlsProvider::new(&crypto, &tx), welcome).is_ok();
        reading.joined += usize::from(opens);
    }
    Ok(reading)
}

struct Walker<'a> {
    crypto: &'a Crypto,
    tx: &'a Tx<'a>,
    id: GroupId,
    /// As it stands in `tx`; dropped whenever something was not opened.
    group: Option<Group>,
    persistent: bool,
}

impl Walker<'_> {
    fn try_record(&mut self, record: &LogRecord, reading: &mut Reading) -> anyhow::Result<()> {
        let message = match decode::<RecordBody>(record.payload.as_slice()) {
            Ok(RecordBody::Message(message)) => message,
            Ok(RecordBody::Commit(entry)) => entry.commit,
            _ => return Ok(()),
        };
        let Some(epoch) = self.epoch()? else {
            // No keys of this group at all.
            reading.tried += 1;
            return Ok(());
        };
        if record.epoch == epoch && self.open(record, message.as_slice(), reading)? {
            return Ok(());
        }
        if self.persistent && record.epoch > epoch {
            self.open(record, message.as_slice(), reading)?;
            if let Some(claimed) = claim_epoch(message.as_slice(), self.id, epoch) {
                self.open(record, &claimed, reading)?;
            }
        }
        Ok(())
    }

    /// Loads the group if it is not in memory; `None` when there is none.
    fn epoch(&mut self) -> anyhow::Result<Option<Epoch>> {
        if self.group.is_none() {
            let provider = MlsProvider::new(self.crypto, self.tx);
            self.group = Group::load(&provider, self.id).context("load a group from a copy")?;
        }
        Ok(self.group.as_ref().map(Group::epoch))
    }

    /// Tries one ciphertext; whether it opened. What was learnt from a failure is forgotten.
    fn open(
        &mut self,
        record: &LogRecord,
        message: &[u8],
        reading: &mut Reading,
    ) -> anyhow::Result<bool> {
        reading.tried += 1;
        self.epoch()?;
        let Some(mut group) = self.group.take() else {
            return Ok(false);
        };
        let inner = Tx::new(self.tx);
        let provider = MlsProvider::new(self.crypto, &inner);
        let Ok(opened) = group.open(&provider, message) else {
            return Ok(false);
        };
        match opened {
            Opened::Application { bytes, .. } => {
                let text = match content::decode(&bytes) {
                    Ok(Content::Text(message)) => message.text,
                    _ => "something that is no text".into(),
                };
                reading.read.push(ReadMessage {
                    group: self.id,
                    seq: record.seq,
                    text,
                });
            }
            Opened::Leave(leave) => {
                if group.keep_leave(&provider, *leave).is_err() {
                    return Ok(false);
                }
            }
            // It opened, and says that its reader is out: there are no keys in it to follow.
            Opened::Commit(change) if change.removes_me => return Ok(true),
            Opened::Commit(change) => {
                if group.merge(&provider, *change).is_err() {
                    return Ok(false);
                }
                reading.followed.push((self.id, record.fence));
            }
        }
        self.tx.absorb(inner.into_batch()?);
        self.group = Some(group);
        Ok(true)
    }
}

/// The same ciphertext under a header that says another epoch, so that the keys of that epoch are tried on it.
fn claim_epoch(message: &[u8], group: GroupId, epoch: Epoch) -> Option<Vec<u8>> {
    // MLSMessage: version[2], wire_format[2], group id as a vector of 32 bytes, epoch[8] (RFC 9420 §6).
    const GROUP: usize = 4 + 1;
    const EPOCH: usize = GROUP + 32;
    let mut claimed = message.to_vec();
    if claimed.get(GROUP..EPOCH)? != group.0 {
        return None;
    }
    claimed
        .get_mut(EPOCH..EPOCH + 8)?
        .copy_from_slice(&epoch.0.to_be_bytes());
    Some(claimed)
}

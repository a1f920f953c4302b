//! Following a group's log: every record in order, by the rules of sections 9 and 10.2, and Welcomes (section 10.4).

use anyhow::{Context as _, bail, ensure};
use mls_rs::MlsMessage;
use mortise_protocol::content::{self, Content};
use mortise_protocol::identity::{DeviceId, Epoch, GroupId, LogSeq, PublicKey, RosterSeq, decode};
use mortise_protocol::wire::aad::{ContentType, PrivateHeader};
use mortise_protocol::wire::log::{Attestation, CommitEntry, LogCursor, entry_hash};
use mortise_protocol::wire::{InboxItem, LogRecord, RecordBody};

use super::device::{Device, Outcome};
use super::group::{Held, Opened, Standing, Todo, Wish, tree_of};
use super::rules::{self, Leaf, Rule};
use super::stack;
use super::view::Line;

/// The `s` of a record; 0 for a Create, and for what is not well-formed.
pub(super) fn based_on(record: &LogRecord) -> anyhow::Result<RosterSeq> {
    let header = |message: &[u8]| PrivateHeader::parse(message).map(|h| h.aad.roster_seq);
    Ok(match decode(record.payload.as_slice())? {
        RecordBody::Create { .. } => RosterSeq(0),
        RecordBody::Commit(entry) => header(entry.commit.as_slice())?,
        RecordBody::Message(message) => header(message.as_slice())?,
        RecordBody::Attestation(attestation) => attestation.statement.roster_seq,
        RecordBody::Restart(restart) => restart.statement.roster_seq,
    })
}

fn refuse(rule: Rule) -> anyhow::Error {
    anyhow::anyhow!(rule)
}

impl Device {
    /// Records were pushed (REQ-056).
    pub(super) fn records(
        &mut self,
        group: GroupId,
        records: Vec<LogRecord>,
    ) -> anyhow::Result<()> {
        let held = self.groups.get_mut(&group).context("records of no group")?;
        for record in records {
            let newest = held.backlog.back().map_or(held.seq, |last| last.seq);
            if record.seq > newest {
                ensure!(record.seq == newest.next(), "the relay left out a record");
                held.backlog.push_back(record);
            }
        }
        self.read(group)
    }

    /// Reads on in every group: the roster has grown.
    pub(super) fn read_all(&mut self) -> anyhow::Result<()> {
        let groups: Vec<_> = self.groups.keys().copied().collect();
        groups.into_iter().try_for_each(|group| self.read(group))
    }

    /// Deals with what is here, as far as the roster reaches (section 10.2).
    fn read(&mut self, group: GroupId) -> anyhow::Result<()> {
        let mut done = false;
        while let Some(held) = self.groups.get_mut(&group) {
            let Some(record) = held.backlog.front() else {
                break;
            };
            if based_on(record).unwrap_or_default()
                > self.roster.lock().map_or(RosterSeq(0), |r| r.head().seq)
            {
                self.fetch_roster();
                return Ok(());
            }
            let Some(record) = held.backlog.pop_front() else {
                break;
            };
            self.take_record(group, &record)?;
            done = true;
        }
        let Some(held) = self.groups.get(&group) else {
            return Ok(());
        };
        let next_epoch = held.subscribed != Some(held.epoch());
        if done && (next_epoch || held.seq < held.last_readable) {
            self.subscribe(group)?;
        }
        self.read_inbox()
    }

    /// One record: accepted, or refused and noted (REQ-087).
    fn take_record(&mut self, group: GroupId, record: &LogRecord) -> anyhow::Result<()> {
        let Some(mut held) = self.groups.remove(&group) else {
            return Ok(());
        };
        let done = self.judge(&mut held, record);
        if let Err(error) = &done {
            if held.seq < record.seq {
                held.pass(record);
            }
            if matches!(decode(record.payload.as_slice()), Ok(RecordBody::Commit(_))) {
                held.standing = Standing::Halted;
            }
            self.faults
                .push(format!("record {} was refused: {error:#}", record.seq.0));
        }
        self.groups.insert(group, held);
        Ok(())
    }

    fn judge(&mut self, held: &mut Held, record: &LogRecord) -> anyhow::Result<()> {
        if held.standing == Standing::Creating {
            return create_met(held, record);
        }
        ensure!(record.epoch == held.epoch(), "BAD_HEADER");
        held.check_fence(record).map_err(refuse)?;
        if held
            .sent
            .as_ref()
            .is_some_and(|sent| sent.record == record.record_id())
        {
            return self.own_met(held, record);
        }
        match decode(record.payload.as_slice()).map_err(|_| refuse("MALFORMED_RECORD"))? {
            RecordBody::Create { .. } => bail!("MALFORMED_RECORD"),
            RecordBody::Commit(entry) => self.take_commit(held, record, &entry),
            RecordBody::Message(message) => self.take_message(held, record, message.as_slice()),
            RecordBody::Attestation(said) => self.take_attestation(held, record, &said),
            RecordBody::Restart(_) => {
                held.pass(record);
                held.standing = Standing::Halted;
                Ok(())
            }
        }
    }

    /// The public header of a message, against the roster and the own cursor (REQ-045, REQ-048, REQ-084, REQ-086).
    fn read_header(
        &self,
        held: &Held,
        record: &LogRecord,
        message: &[u8],
    ) -> anyhow::Result<PrivateHeader> {
        let header = PrivateHeader::parse(message).map_err(|_| refuse("BAD_HEADER"))?;
        let fits = header.group == held.id && header.epoch == record.epoch;
        ensure!(fits, "BAD_HEADER");
        held.check_data(record, &header.aad).map_err(refuse)?;
        let known = self.roster().hash_at(header.aad.roster_seq);
        ensure!(known == Some(header.aad.roster_hash), "ROSTER_FORK");
        Ok(header)
    }

    fn take_message(
        &mut self,
        held: &mut Held,
        record: &LogRecord,
        message: &[u8],
    ) -> anyhow::Result<()> {
        let header = self.read_header(held, record, message)?;
        ensure!(header.content_type != ContentType::Commit, "BAD_HEADER");
        let s = header.aad.roster_seq;
        let (next, opened) = held.open(message).context("MLS_REFUSED")?;
        let sender = match opened {
            Opened::Application(sender, bytes) => {
                held.check_said(&sender, s).map_err(refuse)?;
                rules::application(&self.roster(), s, &sender, &held.tree).map_err(refuse)?;
                let text = text_of(&bytes)?;
                note_text(held, record, sender.device, text);
                sender
            }
            Opened::Leave(leaver) => {
                held.check_said(&leaver, s).map_err(refuse)?;
                rules::leave(&self.roster(), s, &leaver, &held.tree, &held.leavers)
                    .map_err(refuse)?;
                held.leavers.push(leaver);
                leaver
            }
            Opened::Commit(..) => bail!("FORBIDDEN_CONTENT"),
        };
        held.mls = next;
        held.said.insert(sender.device, s);
        held.pass(record);
        self.end_if_all_leave(held);
        Ok(())
    }

    fn take_commit(
        &mut self,
        held: &mut Held,
        record: &LogRecord,
        entry: &CommitEntry,
    ) -> anyhow::Result<()> {
        let header = self.read_header(held, record, entry.commit.as_slice())?;
        ensure!(header.content_type == ContentType::Commit, "BAD_HEADER");
        let s = header.aad.roster_seq;
        let (next, opened) = held.open(entry.commit.as_slice()).context("MLS_REFUSED")?;
        let Opened::Commit(change, removed) = opened else {
            bail!("FORBIDDEN_CONTENT")
        };
        held.check_said(&change.committer, s).map_err(refuse)?;
        rules::commit(&self.roster(), s, held.id, &held.tree, &change).map_err(refuse)?;
        check_entry(held, record, entry, &change.committer)?;
        self.note_removals(held, s, &change.removes);
        if removed {
            held.pass(record);
            self.end(held);
            return Ok(());
        }
        let key = stack::access_key(&next)?.public();
        ensure!(key == entry.next_access_key, "WRONG_ACCESS_KEY");
        let opening = entry_hash(held.id, record.epoch.next(), record.payload.as_slice());
        held.merge(next, &change, opening, record, s)?;
        // What was made for the epoch that is over is not in it: it is wished for again (REQ-089).
        let sent = held.sent.take();
        held.put_back(sent.and_then(|sent| sent.todo));
        Ok(())
    }

    /// The own record was met in the log: only now it counts (REQ-088).
    fn own_met(&mut self, held: &mut Held, record: &LogRecord) -> anyhow::Result<()> {
        let sent = held.sent.take().context("nothing was sent")?;
        held.said.insert(self.me.device, sent.s);
        match sent.next {
            Some(next) => {
                let (mls, change) = *next;
                self.commits += 1;
                self.note_removals(held, sent.s, &change.removes);
                let opening = entry_hash(held.id, record.epoch.next(), record.payload.as_slice());
                held.merge(mls, &change, opening, record, sent.s)?;
            }
            None => held.pass(record),
        }
        let Some(todo) = sent.todo else { return Ok(()) };
        match todo.wish {
            Wish::Text(ref text) => {
                note_text(held, record, self.me.device, text.clone());
                self.fulfil(&todo, Ok(()));
            }
            // A leave is fulfilled when the leaf is gone, and a commit when nothing of the wish is left.
            Wish::Leave if held.standing == Standing::Active => {
                if sent.payload.first() == Some(&3) {
                    held.leavers.push(self.me);
                }
                held.todo.push_front(todo);
                self.end_if_all_leave(held);
            }
            Wish::Commit { .. } => self.fulfil(&todo, Ok(())),
            Wish::Attest(order) => {
                held.attested.entry(order).or_default().insert(self.me.user);
                self.fulfil(&todo, Ok(()));
            }
            Wish::Leave => {}
        }
        Ok(())
    }

    /// For the attestations that are owed: whether a commit after an order took a device of that order out (REQ-064).
    fn note_removals(&self, held: &mut Held, s: RosterSeq, removes: &[Leaf]) {
        let roster = self.roster();
        for (order, rotated) in &mut held.owed {
            let devices = roster.order(*order).map(|order| &order.devices);
            let gone = |leaf: &Leaf| devices.is_some_and(|d| d.contains(&leaf.device));
            *rotated |= s >= *order && removes.iter().any(gone);
        }
    }

    /// REQ-064: signatures, references, and whether it is true.
    fn take_attestation(
        &mut self,
        held: &mut Held,
        record: &LogRecord,
        said: &Attestation,
    ) -> anyhow::Result<()> {
        let statement = &said.statement;
        let roster = self.roster();
        let device = roster.device(statement.device).context("BAD_ATTESTATION")?;
        let order = roster
            .order(statement.order_seq)
            .context("BAD_ATTESTATION")?;
        let here = statement.group == held.id
            && statement.epoch == record.epoch
            && statement.entry_hash == held.opening
            && statement.order_hash == order.entry_hash
            && roster.hash_at(statement.roster_seq) == Some(statement.roster_hash)
            && statement.roster_seq >= record.fence;
        ensure!(here, "BAD_ATTESTATION");
        let access: PublicKey = held.access_key()?.public();
        said.verify(&device.mls_signature_key, &access)
            .context("BAD_ATTESTATION")?;
        let lie = order.devices.iter().any(|d| held.tree.leaf(*d).is_some());
        ensure!(!lie, "a false attestation");
        held.attested
            .entry(statement.order_seq)
            .or_default()
            .insert(device.user);
        held.said.insert(statement.device, statement.roster_seq);
        held.pass(record);
        Ok(())
    }

    /// When all leaves that are admitted have asked to go, nobody is needed to carry it out (REQ-123).
    pub(super) fn end_if_all_leave(&mut self, held: &mut Held) {
        let mine = held
            .leavers
            .iter()
            .any(|leaf| leaf.device == self.me.device);
        let stays = {
            let roster = self.roster();
            held.tree
                .leaves
                .iter()
                .any(|l| roster.is_admitted(l.leaf.device) && !held.leavers.contains(&l.leaf))
        };
        if mine && !stays {
            self.end(held);
        }
    }

    /// This device is out of the group; who wanted that has it.
    fn end(&mut self, held: &mut Held) {
        held.standing = Standing::Removed;
        held.backlog.clear();
        let sent = held.sent.take().and_then(|sent| sent.todo);
        for todo in sent.into_iter().chain(std::mem::take(&mut held.todo)) {
            let left = matches!(todo.wish, Wish::Leave);
            let outcome = left.then_some(()).ok_or("removed from the group".into());
            self.fulfil(&todo, outcome);
        }
    }

    pub(super) fn fulfil(&mut self, todo: &Todo, outcome: Outcome) {
        self.outcomes
            .extend(todo.command.map(|command| (command, outcome)));
    }

    /// A Welcome (REQ-093).
    pub(super) fn join(&mut self, item: &InboxItem) -> anyhow::Result<()> {
        let record = &item.entry;
        let RecordBody::Commit(entry) = decode(record.payload.as_slice())? else {
            bail!("the record is no commit");
        };
        let asked_for = self.groups.get(&item.group);
        let is_in = asked_for.is_some_and(|held| held.standing == Standing::Active);
        ensure!(!is_in, "WELCOME_UNASKED");
        let header = PrivateHeader::parse(entry.commit.as_slice())?;
        ensure!(
            header.group == item.group && header.epoch == record.epoch,
            "BAD_HEADER"
        );
        let s = header.aad.roster_seq;
        ensure!(s >= record.fence, "BEHIND_FENCE");
        let known = self.roster().hash_at(s);
        ensure!(known == Some(header.aad.roster_hash), "ROSTER_FORK");
        let welcome = MlsMessage::from_bytes(item.welcome.as_slice())?;
        let (mls, _) = self
            .client
            .join_group(None, &welcome, None)
            .context("MLS_REFUSED")?;
        let epoch = record.epoch.next();
        ensure!(
            mls.current_epoch() == epoch.0 && mls.group_id() == item.group.0,
            "BAD_HEADER"
        );
        let tree = tree_of(&mls).map_err(refuse)?;
        let committer = tree.leaf(entry.device).context("SENDER_NOT_ADMITTED")?.leaf;
        rules::joined(&self.roster(), s, &committer, &self.me, &tree).map_err(refuse)?;
        entry
            .verify(item.group, record.epoch, &committer.key)
            .context("BAD_ENTRY_SIGNATURE")?;
        let key = stack::access_key(&mls)?.public();
        ensure!(key == entry.next_access_key, "WRONG_ACCESS_KEY");
        self.delete_used(&welcome)?;
        let opening = entry_hash(item.group, epoch, record.payload.as_slice());
        let mut held = Held::new(item.group, mls, opening)?;
        let before = LogCursor {
            count: 0,
            hash: item.log_hash,
        };
        let cursor = before.opens(record.record_id(), record.fence);
        held.open_epoch(record, s, cursor)?;
        held.said.insert(committer.device, s);
        if let Some(before) = self.groups.remove(&item.group) {
            held.epochs.extend(before.epochs);
            held.texts = before.texts;
        }
        self.groups.insert(item.group, held);
        self.subscribe(item.group)
    }

    /// The private part of a one-time KeyPackage goes when it was used (REQ-092).
    fn delete_used(&self, welcome: &MlsMessage) -> anyhow::Result<()> {
        let store = self.client.key_package_store();
        for reference in welcome.welcome_key_package_references() {
            let Some(used) = store.get(reference) else {
                continue;
            };
            if !stack::is_last_resort(&used.key_package_bytes)? {
                store.delete(reference);
            }
        }
        Ok(())
    }
}

fn create_met(held: &mut Held, record: &LogRecord) -> anyhow::Result<()> {
    let ours = entry_hash(held.id, Epoch(0), record.payload.as_slice()) == held.opening;
    ensure!(
        ours && record.seq == LogSeq(1),
        "the log does not begin with our record"
    );
    let cursor = LogCursor::created(held.opening, record.fence);
    held.open_epoch(record, record.fence, cursor)?;
    held.subscribed = Some(Epoch(0));
    Ok(())
}

/// REQ-051, but for the key of the next epoch.
fn check_entry(
    held: &Held,
    record: &LogRecord,
    entry: &CommitEntry,
    committer: &Leaf,
) -> anyhow::Result<()> {
    ensure!(entry.device == committer.device, "BAD_ENTRY_SIGNATURE");
    entry
        .verify(held.id, record.epoch, &committer.key)
        .context("BAD_ENTRY_SIGNATURE")
}

fn note_text(held: &mut Held, record: &LogRecord, device: DeviceId, text: String) {
    held.texts.push(Line {
        seq: record.seq,
        epoch: record.epoch.0,
        device,
        text,
    });
}

fn text_of(bytes: &[u8]) -> anyhow::Result<String> {
    match content::decode(bytes).map_err(|_| refuse("BAD_CONTENT"))? {
        Content::Text(text) => Ok(text.text),
        Content::Unsupported => Ok(String::new()),
    }
}

//! What leaves this device: duties first, then what the user wants, each written down before it is sent.

use std::collections::BTreeSet;

use rand::RngCore as _;

use super::inbound::roster_seq_of;
use super::link::{Asked, CREDIT};
use super::rows::{
    self, GROUPS, GroupRow, GroupStatus, INTENTS, Intent, IntentRow, ORDERS, OUTBOX, OrderRow,
    OutboxKind, OutboxRow,
};
use super::state::State;
use super::{CommandError, EngineError, Event, IntentId};
use crate::group::{
    Changes, Group, GroupPolicy, MlsProvider, ReadKeyPackage, read_key_package, validate,
};
use crate::identity::{
    DeviceId, Epoch, GroupId, Hash, LogSeq, RosterSeq, UserId, decode, encode, hash, sha256,
};
use crate::store::Tx;
use crate::wire::aad::AuthenticatedData;
use crate::wire::limits;
use crate::wire::log::{
    Attestation, AttestationStatement, CommitEntry, LogCursor, Verdict, entry_hash,
};
use crate::wire::{
    AccessProof, ClaimedKeyPackage, Purpose, RecordBody, Refusal, Request, Submission, WelcomeFor,
};

/// Messages of one group that may be on their way at once.
const WINDOW: usize = 16;
/// Devices that one commit adds at most: adding thousands at once is super-linear.
const MAX_ADDS: usize = 250;
/// Milliseconds of a week.
const WEEK_MS: u64 = 7 * 24 * 3_600 * 1_000;
/// Statements by other users that make ours needless (see `ARCHITECTURE.md`).
const ENOUGH_STATEMENTS: usize = 2;

/// KeyPackages that were asked for, for one group.
pub(super) struct Claim {
    intent: u64,
    /// Devices that were asked for.
    asked: Vec<DeviceId>,
    /// Devices that have none, or none that can be used.
    missing: BTreeSet<DeviceId>,
    packages: Option<Vec<ReadKeyPackage>>,
}

impl Claim {
    pub(super) fn is_asked(&self) -> bool {
        self.packages.is_none()
    }
}

/// A group while it is worked on.
struct Work<'a> {
    id: GroupId,
    row: &'a mut GroupRow,
    group: &'a mut Group,
}

impl State {
    /// Creates a group here; the relay hears of it when the connection allows.
    pub(super) fn open_group(
        &mut self,
        tx: &Tx<'_>,
        id: IntentId,
        group_id: GroupId,
        policy: GroupPolicy,
    ) -> Result<(), EngineError> {
        let crypto = self.crypto.clone();
        let identity = self.identity.clone();
        let suite = self.roster.suite().unwrap_or(crate::group::SUITE_HYBRID);
        let provider = MlsProvider::new(&crypto, tx);
        let group = Group::create(&provider, &identity.me(), group_id, suite, &policy)?;
        let body = RecordBody::Create {
            access_key: group.access_key(&crypto)?.public(),
        };
        let payload = encode(&body);
        let row = GroupRow {
            name: policy.name,
            suite,
            status: GroupStatus::Creating,
            cursor: LogSeq(0),
            epoch: Epoch(0),
            entry_hash: entry_hash(group_id, Epoch(0), &payload),
            log_count: 0,
            log_hash: Hash([0; 32]),
            fence: RosterSeq(0),
            commit_s: self.roster.head().seq,
            leaf_s: std::collections::BTreeMap::new(),
            floor_seq: LogSeq(0),
            floor_fence: RosterSeq(0),
            refresh_at_ms: self.next_refresh_ms(1),
        };
        rows::put(tx, GROUPS, group_id.0, &row)?;
        self.groups.insert(group_id, group);
        let outbox = OutboxRow {
            kind: OutboxKind::Create,
            intent: Some(id.0),
            epoch: Epoch(0),
            record_id: sha256(&payload),
            payload,
            welcome: None,
            plaintext: None,
            acked: false,
        };
        self.put_outbox(tx, group_id, &outbox)
    }

    fn put_outbox(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        row: &OutboxRow,
    ) -> Result<(), EngineError> {
        let number = rows::next_number(tx, "outbox")?;
        rows::put(tx, OUTBOX, rows::key(group, number), row)
    }

    /// Does whatever can be done for one group now.
    pub(super) fn pump_group(&mut self, tx: &Tx<'_>, id: GroupId) -> Result<(), EngineError> {
        let Some(mut row) = rows::load::<GroupRow>(tx, GROUPS, &id.0)? else {
            return Ok(());
        };
        if let Some(error) = row.closed() {
            self.unsettled.remove(&id);
            self.duties.remove(&id);
            return self.fail_intents(tx, id, &error);
        }
        self.unsettled.insert(id);
        if self.online().is_none() {
            return Ok(());
        }
        if row.status == GroupStatus::Creating {
            return self.send_outbox(tx, id, &row, None);
        }
        let mut group = self.take_group(tx, id)?;
        let settled = self.work_on(
            tx,
            Work {
                id,
                row: &mut row,
                group: &mut group,
            },
        )?;
        self.groups.insert(id, group);
        if settled {
            self.unsettled.remove(&id);
        }
        Ok(())
    }

    /// Returns whether nothing is left to do or to wait for.
    fn work_on(&mut self, tx: &Tx<'_>, mut work: Work<'_>) -> Result<bool, EngineError> {
        let access_key = work.group.access_key(&self.crypto)?;
        if !self.is_caught_up(&work, &access_key) {
            return Ok(false);
        }
        self.send_outbox(tx, work.id, work.row, Some(&access_key))?;
        let outbox = rows::of_group::<OutboxRow>(tx, OUTBOX, work.id)?;
        if outbox.iter().any(|(_, o)| o.kind == OutboxKind::Commit) {
            return Ok(false);
        }
        let head = self.roster.head().seq;
        if self
            .link
            .as_ref()
            .is_none_or(|l| l.need_roster.max(l.relay_head) > head)
        {
            return Ok(false);
        }
        if self.must_rotate(tx, &mut work)? {
            return Ok(false);
        }
        let open = || outbox.iter().filter(|(_, o)| !o.acked).map(|(_, o)| o);
        let window = if open().any(|o| is_older(o, head)) {
            // `s` never falls per leaf: what is undecided could still enter the log after what is made now.
            0
        } else {
            WINDOW.saturating_sub(open().count())
        };
        let idle = self.pursue_intents(tx, &mut work, window)?;
        let attested = self.attest(tx, &mut work)?;
        if idle && attested {
            self.refresh(tx, &mut work)?;
        }
        let empty = rows::of_group::<OutboxRow>(tx, OUTBOX, work.id)?
            .iter()
            .all(|(_, o)| o.acked);
        Ok(idle && attested && empty)
    }

    /// Whether the cursor has reached the end of the log; asks for what is missing.
    fn is_caught_up(&mut self, work: &Work<'_>, access_key: &crate::identity::SigningKey) -> bool {
        let (id, row) = (work.id, &*work.row);
        let head = self.roster.head().seq;
        // Records that need a newer roster come again when it is here: asking before that would be asking for ever.
        let Some(link) = self.link.as_mut().filter(|l| l.need_roster <= head) else {
            return false;
        };
        let sub = link.subs.get_mut(&id).filter(|sub| sub.epoch == row.epoch);
        let Some(sub) = sub else {
            if link.may_catch_up(id) {
                self.subscribe(id, row, access_key);
            }
            return false;
        };
        let at_end = sub
            .ends
            .is_some_and(|(epoch, last)| epoch == row.epoch && row.cursor >= last);
        if at_end {
            sub.deadline = u64::MAX;
        }
        // A page has ended before the log did, or the credit is running out.
        if !sub.asked && ((sub.got_records && !at_end) || sub.credit < CREDIT / 2) {
            self.subscribe(id, row, access_key);
        }
        at_end
    }

    /// Sends what is in the outbox and was not sent on this connection.
    fn send_outbox(
        &mut self,
        tx: &Tx<'_>,
        id: GroupId,
        row: &GroupRow,
        access_key: Option<&crate::identity::SigningKey>,
    ) -> Result<(), EngineError> {
        for (_, outbox) in rows::of_group::<OutboxRow>(tx, OUTBOX, id)? {
            let Some(link) = &mut self.link else {
                return Ok(());
            };
            if outbox.acked || outbox.epoch != row.epoch || !link.sent.insert(outbox.record_id) {
                continue;
            }
            let record = outbox.record_id;
            let payload = outbox.payload.clone().into();
            let request = match (outbox.kind, access_key) {
                (OutboxKind::Create, _) => Request::CreateGroup { group: id, payload },
                (_, Some(key)) => Request::Submit(Submission {
                    group: id,
                    epoch: outbox.epoch,
                    payload,
                    welcomes: outbox
                        .welcome
                        .iter()
                        .map(|(devices, welcome)| WelcomeFor {
                            devices: devices.clone(),
                            welcome: welcome.to_vec().into(),
                        })
                        .collect(),
                    proof: AccessProof::sign(
                        key,
                        &link.binding,
                        id,
                        outbox.epoch,
                        row.entry_hash,
                        Purpose::Append,
                    ),
                }),
                (_, None) => continue,
            };
            self.ask(Asked::Submit { group: id, record }, request);
        }
        Ok(())
    }

    fn aad(&self, row: &GroupRow) -> Vec<u8> {
        let head = self.roster.head();
        AuthenticatedData::new(head.seq, head.hash, row.log_cursor()).to_bytes()
    }

    /// Commits the removal of every leaf that is not admitted, before anything is sent (REQ-091).
    ///
    /// Returns whether there is such a leaf. Who has something to send, or the relay's lease, commits at once; the
    /// others in an order given by hash(group, epoch, device), after the lease (REQ-063).
    fn must_rotate(&mut self, tx: &Tx<'_>, work: &mut Work<'_>) -> Result<bool, EngineError> {
        let head = self.roster.head().seq;
        let stale: Vec<_> = validate::stale_leaves(&self.roster, work.group.leaves(), head)
            .map(|leaf| leaf.device)
            .collect();
        if stale.is_empty() {
            self.duties.remove(&work.id);
            self.leases.remove(&work.id);
            return Ok(false);
        }
        let wants_to_send = !tx.scan_from(INTENTS, &work.id.0, &work.id.0, 1)?.is_empty();
        let at_once = wants_to_send || self.leases.remove(&work.id);
        let due = match self.duties.get(&work.id) {
            _ if at_once => self.now_ms,
            Some(at) => *at,
            None => self.now_ms + self.election_delay_ms(work),
        };
        if due > self.now_ms {
            self.duties.insert(work.id, due);
            return Ok(true);
        }
        self.duties.remove(&work.id);
        let changes = Changes {
            removes: stale,
            ..Changes::default()
        };
        self.commit(tx, work, None, changes)?;
        Ok(true)
    }

    /// How long this device leaves a removal to others, ms.
    fn election_delay_ms(&mut self, work: &Work<'_>) -> u64 {
        let epoch = work.row.epoch.0.to_be_bytes();
        let place =
            |device: DeviceId| hash("election", &[&work.id.0[..], &epoch, &device.0].concat());
        let mine = place(self.identity.device);
        let before = work
            .group
            .leaves()
            .iter()
            .filter(|l| self.roster.is_admitted(l.device) && place(l.device) < mine)
            .count();
        let before = u64::try_from(before).unwrap_or(u64::MAX).min(20);
        limits::REMOVAL_LEASE_MS + before * 150 + u64::from(self.rng.next_u32() % 100)
    }

    /// Makes a commit, writes it down, sends it. Nothing is merged before it is met in the log (REQ-088).
    fn commit(
        &mut self,
        tx: &Tx<'_>,
        work: &mut Work<'_>,
        intent: Option<u64>,
        changes: Changes,
    ) -> Result<(), EngineError> {
        let crypto = self.crypto.clone();
        let identity = self.identity.clone();
        let provider = MlsProvider::new(&crypto, tx);
        let added: Vec<_> = changes.adds.iter().map(|a| a.credential.device).collect();
        let aad = self.aad(work.row);
        let out = work.group.commit(&provider, &identity.me(), aad, changes)?;
        let entry = CommitEntry::sign(
            work.id,
            work.row.epoch,
            out.commit,
            out.next_access_key,
            &identity.mls,
        );
        let payload = encode(&RecordBody::Commit(entry));
        let row = OutboxRow {
            kind: OutboxKind::Commit,
            intent,
            epoch: work.row.epoch,
            record_id: sha256(&payload),
            payload,
            welcome: out.welcome.map(|w| (added, serde_bytes::ByteBuf::from(w))),
            plaintext: None,
            acked: false,
        };
        self.submit(tx, work, &row)
    }

    fn submit(
        &mut self,
        tx: &Tx<'_>,
        work: &mut Work<'_>,
        row: &OutboxRow,
    ) -> Result<(), EngineError> {
        self.put_outbox(tx, work.id, row)?;
        let key = work.group.access_key(&self.crypto)?;
        self.send_outbox(tx, work.id, work.row, Some(&key))
    }

    /// Turns intents into records, oldest first; returns whether none is left.
    fn pursue_intents(
        &mut self,
        tx: &Tx<'_>,
        work: &mut Work<'_>,
        mut window: usize,
    ) -> Result<bool, EngineError> {
        let mut idle = true;
        for (number, intent) in rows::of_group::<IntentRow>(tx, INTENTS, work.id)? {
            if intent.in_flight {
                continue;
            }
            // What waits, and what is done now, must be told apart: nobody looks here again for the latter.
            let waits = match intent.intent {
                Intent::Send { content } if window > 0 => {
                    window -= 1;
                    idle = false;
                    self.send_message(tx, work, number, content)?;
                    false
                }
                Intent::Send { .. } => true,
                Intent::Add { users } => self.pursue_add(tx, work, number, &users)?,
                Intent::Remove { user } => self.pursue_remove(tx, work, number, user)?,
            };
            if waits {
                idle = false;
                break;
            }
        }
        Ok(idle)
    }

    fn send_message(
        &mut self,
        tx: &Tx<'_>,
        work: &mut Work<'_>,
        number: u64,
        content: Vec<u8>,
    ) -> Result<(), EngineError> {
        let crypto = self.crypto.clone();
        let identity = self.identity.clone();
        let provider = MlsProvider::new(&crypto, tx);
        let aad = self.aad(work.row);
        let message = work
            .group
            .encrypt(&provider, &identity.me(), aad, &content)?;
        let payload = encode(&RecordBody::Message(message.into()));
        let row = OutboxRow {
            kind: OutboxKind::Message,
            intent: Some(number),
            epoch: work.row.epoch,
            record_id: sha256(&payload),
            payload,
            welcome: None,
            plaintext: Some(serde_bytes::ByteBuf::from(content.clone())),
            acked: false,
        };
        self.set_in_flight(tx, work.id, number, true)?;
        self.submit(tx, work, &row)
    }

    pub(super) fn set_in_flight(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        number: u64,
        in_flight: bool,
    ) -> Result<(), EngineError> {
        let key = rows::key(group, number);
        if let Some(mut row) = rows::load::<IntentRow>(tx, INTENTS, &key)? {
            row.in_flight = in_flight;
            rows::put(tx, INTENTS, key, &row)?;
        }
        Ok(())
    }

    /// Returns whether the intents after this one have to wait.
    fn pursue_add(
        &mut self,
        tx: &Tx<'_>,
        work: &mut Work<'_>,
        number: u64,
        users: &BTreeSet<UserId>,
    ) -> Result<bool, EngineError> {
        let claim = self.claims.get(&work.id).filter(|c| c.intent == number);
        let missing = claim.map(|c| c.missing.clone()).unwrap_or_default();
        let members: BTreeSet<DeviceId> = work.group.leaves().iter().map(|l| l.device).collect();
        let wanted: Vec<DeviceId> = users
            .iter()
            .flat_map(|user| self.roster.devices_of(*user))
            .map(|(device, _)| device)
            .filter(|device| !members.contains(device) && !missing.contains(device))
            .take(MAX_ADDS)
            .collect();
        if wanted.is_empty() {
            self.finish_add(tx, work, number, users);
            return Ok(false);
        }
        match self.claims.get_mut(&work.id) {
            Some(claim) if claim.intent == number => match claim.packages.take() {
                None => {
                    if self.link.as_ref().is_some_and(|l| !l.asks_claim(work.id)) {
                        self.claims.remove(&work.id);
                    }
                    Ok(true)
                }
                Some(adds) => {
                    let adds: Vec<_> = adds
                        .into_iter()
                        .filter(|a| wanted.contains(&a.credential.device))
                        .collect();
                    if adds.is_empty() {
                        // All of what was claimed is unusable now; the devices are asked for again.
                        self.claims.remove(&work.id);
                        self.ask_claim(work, number, wanted, missing);
                        return Ok(true);
                    }
                    claim.packages = Some(adds.clone());
                    self.set_in_flight(tx, work.id, number, true)?;
                    let changes = Changes {
                        adds,
                        ..Changes::default()
                    };
                    self.commit(tx, work, Some(number), changes)?;
                    Ok(true)
                }
            },
            _ => {
                self.ask_claim(work, number, wanted, missing);
                Ok(true)
            }
        }
    }

    fn ask_claim(
        &mut self,
        work: &Work<'_>,
        number: u64,
        devices: Vec<DeviceId>,
        missing: BTreeSet<DeviceId>,
    ) {
        let claim = Claim {
            intent: number,
            asked: devices.clone(),
            missing,
            packages: None,
        };
        self.claims.insert(work.id, claim);
        let suite = work.row.suite;
        self.ask(
            Asked::ClaimKeyPackages {
                group: work.id,
                intent: number,
            },
            Request::ClaimKeyPackages { suite, devices },
        );
    }

    /// Everybody who can be added is in.
    fn finish_add(&mut self, tx: &Tx<'_>, work: &Work<'_>, number: u64, users: &BTreeSet<UserId>) {
        tx.delete(INTENTS, rows::key(work.id, number));
        self.claims.remove(&work.id);
        let absent = users
            .iter()
            .filter(|user| !work.group.leaves().iter().any(|l| l.user == **user))
            .count();
        let id = IntentId(number);
        self.event(if absent == 0 {
            Event::Done { id }
        } else {
            Event::Failed {
                id,
                error: CommandError::NoKeyPackages { users: absent },
            }
        });
    }

    pub(super) fn handle_claimed(
        &mut self,
        group: GroupId,
        intent: u64,
        packages: &[ClaimedKeyPackage],
    ) {
        self.dirty.insert(group);
        let suite = self.roster.suite().unwrap_or_default();
        let Some(claim) = self.claims.get_mut(&group).filter(|c| c.intent == intent) else {
            return;
        };
        // Only what the roster vouches for is used: the relay cannot swap a KeyPackage (REQ-092).
        let usable = packages.iter().filter_map(|claimed| {
            let read = read_key_package(
                &self.crypto,
                suite,
                self.now_ms,
                claimed.key_package.as_slice(),
            )
            .ok()?;
            let device = self.roster.device(claimed.device)?;
            let honest = read.credential.device == claimed.device
                && read.credential.user == device.user
                && read.credential.org == self.identity.org
                && read.key == device.mls_signature_key;
            honest.then_some(read)
        });
        let usable: Vec<_> = usable.collect();
        let found = |device: &DeviceId| usable.iter().any(|u| u.credential.device == *device);
        let missing = claim.asked.iter().copied().filter(|d| !found(d));
        claim.missing.extend(missing);
        claim.packages = Some(usable);
    }

    /// Returns whether the intents after this one have to wait.
    fn pursue_remove(
        &mut self,
        tx: &Tx<'_>,
        work: &mut Work<'_>,
        number: u64,
        user: UserId,
    ) -> Result<bool, EngineError> {
        let id = IntentId(number);
        let devices: Vec<_> = work
            .group
            .leaves()
            .iter()
            .filter(|l| l.user == user && l.device != self.identity.device)
            .map(|l| l.device)
            .collect();
        if devices.is_empty() {
            tx.delete(INTENTS, rows::key(work.id, number));
            self.event(Event::Done { id });
            return Ok(false);
        }
        let me = self.identity.user;
        if user != me && !work.group.policy().is_admin(me) {
            tx.delete(INTENTS, rows::key(work.id, number));
            let error = CommandError::NotGroupAdmin;
            self.event(Event::Failed { id, error });
            return Ok(false);
        }
        self.set_in_flight(tx, work.id, number, true)?;
        let changes = Changes {
            removes: devices,
            ..Changes::default()
        };
        self.commit(tx, work, Some(number), changes)?;
        Ok(true)
    }

    /// States, in the group's log, how the group stands with regard to each order (REQ-064).
    ///
    /// Returns whether nothing is owed any more.
    fn attest(&mut self, tx: &Tx<'_>, work: &mut Work<'_>) -> Result<bool, EngineError> {
        let mut settled = true;
        for (number, mut row) in rows::of_group::<OrderRow>(tx, ORDERS, work.id)? {
            let order = RosterSeq(number);
            if row.attested || row.seen.len() >= ENOUGH_STATEMENTS {
                self.attest_at.remove(&(work.id, order));
                continue;
            }
            settled = false;
            let due = match self.attest_at.get(&(work.id, order)) {
                Some(at) => *at,
                None if row.rotated || row.seen.is_empty() && self.is_first(work, order) => {
                    self.now_ms
                }
                None => self.now_ms + self.election_delay_ms(work),
            };
            if due > self.now_ms {
                self.attest_at.insert((work.id, order), due);
                continue;
            }
            self.attest_at.remove(&(work.id, order));
            let Some(order_hash) = self.roster.hash_at(order) else {
                continue;
            };
            let head = self.roster.head();
            let statement = AttestationStatement {
                order_seq: order,
                order_hash,
                group: work.id,
                entry_hash: work.row.entry_hash,
                epoch: work.row.epoch,
                roster_seq: head.seq,
                roster_hash: head.hash,
                verdict: if row.rotated {
                    Verdict::Rotated
                } else {
                    Verdict::Clean
                },
                device: self.identity.device,
            };
            let access_key = work.group.access_key(&self.crypto)?;
            let attestation = Attestation::sign(statement, &self.identity.mls, &access_key);
            let payload = encode(&RecordBody::Attestation(attestation));
            let outbox = OutboxRow {
                kind: OutboxKind::Attestation(order),
                intent: None,
                epoch: work.row.epoch,
                record_id: sha256(&payload),
                payload,
                welcome: None,
                plaintext: None,
                acked: false,
            };
            row.attested = true;
            rows::put(tx, ORDERS, rows::key(work.id, number), &row)?;
            self.submit(tx, work, &outbox)?;
        }
        Ok(settled)
    }

    /// Gives this device's leaf new keys when they are due (REQ-096).
    fn refresh(&mut self, tx: &Tx<'_>, work: &mut Work<'_>) -> Result<(), EngineError> {
        self.refresh_at.insert(work.id, work.row.refresh_at_ms);
        if work.row.refresh_at_ms > self.now_ms {
            return Ok(());
        }
        work.row.refresh_at_ms = self.next_refresh_ms(work.group.leaves().len());
        rows::put(tx, GROUPS, work.id.0, work.row)?;
        self.refresh_at.insert(work.id, work.row.refresh_at_ms);
        self.commit(tx, work, None, Changes::default())
    }

    /// When a leaf of a group of this size is due: after a week, and later the more there are who commit.
    pub(super) fn next_refresh_ms(&mut self, members: usize) -> u64 {
        let weeks = u64::try_from(members.div_ceil(50)).unwrap_or(4).min(4);
        let jitter = u64::from(self.rng.next_u32()) % (WEEK_MS / 7);
        self.now_ms + weeks.max(1) * WEEK_MS + jitter
    }

    /// Whether this device is one of the two whose turn it is to attest first.
    fn is_first(&self, work: &Work<'_>, order: RosterSeq) -> bool {
        let place = |device: DeviceId| {
            hash(
                "election",
                &[&work.id.0[..], &order.0.to_be_bytes(), &device.0].concat(),
            )
        };
        let mine = place(self.identity.device);
        let leaves = work.group.leaves();
        leaves.iter().filter(|l| place(l.device) < mine).count() < ENOUGH_STATEMENTS
    }

    /// The relay has the record: the outbox is marked, and nothing else (REQ-088).
    pub(super) fn handle_appended(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        record: Hash,
        seq: LogSeq,
        fence: RosterSeq,
    ) -> Result<(), EngineError> {
        self.dirty.insert(group);
        let found = rows::of_group::<OutboxRow>(tx, OUTBOX, group)?
            .into_iter()
            .find(|(_, o)| o.record_id == record);
        let Some((number, mut outbox)) = found else {
            return Ok(());
        };
        if outbox.kind == OutboxKind::Create {
            return self.handle_created(tx, group, number, &outbox, seq, fence);
        }
        self.tell_appended(&outbox, group, seq);
        outbox.acked = true;
        if let Some(link) = &mut self.link {
            link.sent.remove(&record);
        }
        rows::put(tx, OUTBOX, rows::key(group, number), &outbox)?;
        Ok(())
    }

    /// Tells the user, once: the answer and the record itself come in either order.
    pub(super) fn tell_appended(&mut self, outbox: &OutboxRow, group: GroupId, seq: LogSeq) {
        if let Some(id) = outbox.intent.filter(|_| !outbox.acked).map(IntentId) {
            self.event(Event::Appended { id, group, seq });
        }
    }

    fn handle_created(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        number: u64,
        outbox: &OutboxRow,
        seq: LogSeq,
        fence: RosterSeq,
    ) -> Result<(), EngineError> {
        tx.delete(OUTBOX, rows::key(group, number));
        let Some(mut row) = rows::load::<GroupRow>(tx, GROUPS, &group.0)? else {
            return Ok(());
        };
        row.status = GroupStatus::Active;
        row.cursor = seq;
        row.fence = fence;
        self.open_epoch(tx, group, &mut row, fence);
        rows::put(tx, GROUPS, group.0, &row)?;
        if let Some(id) = outbox.intent.map(IntentId) {
            self.event(Event::GroupCreated { id, group });
        }
        Ok(())
    }

    /// Starts the log hash of the epoch that `row` names.
    pub(super) fn open_epoch(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        row: &mut GroupRow,
        fence: RosterSeq,
    ) {
        row.set_log_cursor(LogCursor::opening(row.entry_hash, fence));
        tx.put(rows::LOG_HASHES, rows::key(group, 0), row.log_hash.0);
    }

    pub(super) fn handle_submit_refused(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        record: Hash,
        refusal: Refusal,
    ) -> Result<(), EngineError> {
        self.dirty.insert(group);
        let found = rows::of_group::<OutboxRow>(tx, OUTBOX, group)?
            .into_iter()
            .find(|(_, o)| o.record_id == record);
        let Some((number, outbox)) = found else {
            return Ok(());
        };
        match refusal {
            Refusal::Storage => {
                // Kept, and tried again: the relay may find room.
                if let Some(link) = &mut self.link {
                    link.refused.insert(record);
                }
                self.retry_later();
                if let Some(id) = outbox.intent.map(IntentId) {
                    let error = CommandError::Refused(refusal);
                    self.event(Event::Failed { id, error });
                }
                return Ok(());
            }
            Refusal::RosterBehind { head_seq, .. } => {
                if let Some(link) = &mut self.link {
                    link.relay_head = link.relay_head.max(head_seq);
                }
            }
            Refusal::WrongEpoch { .. } => {
                if let Some(link) = &mut self.link {
                    link.subs.remove(&group);
                }
            }
            Refusal::RosterFork => {
                let seq = self.roster.head().seq;
                self.distrust(super::Alarm::RosterFork { seq });
            }
            refusal if outbox.kind == OutboxKind::Create => {
                tx.delete(OUTBOX, rows::key(group, number));
                return self.stop_group(tx, group, &refusal.to_string());
            }
            Refusal::AccessDenied | Refusal::UnknownGroup => {
                self.drop_outbox(tx, group, number, &outbox)?;
                return self.stop_group(tx, group, &refusal.to_string());
            }
            refusal => {
                if let Some(intent) = outbox.intent {
                    tx.delete(INTENTS, rows::key(group, intent));
                    let error = CommandError::Refused(refusal);
                    self.event(Event::Failed {
                        id: IntentId(intent),
                        error,
                    });
                }
            }
        }
        self.drop_outbox(tx, group, number, &outbox)
    }

    /// The record is definitely not in the log: what it was for is wanted again (REQ-089).
    pub(super) fn drop_outbox(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        number: u64,
        outbox: &OutboxRow,
    ) -> Result<(), EngineError> {
        tx.delete(OUTBOX, rows::key(group, number));
        if let Some(intent) = outbox.intent {
            self.set_in_flight(tx, group, intent, false)?;
        }
        match outbox.kind {
            OutboxKind::Commit => {
                let mut state = self.take_group(tx, group)?;
                if state.has_pending_commit() {
                    let crypto = self.crypto.clone();
                    state.drop_pending_commit(&MlsProvider::new(&crypto, tx))?;
                }
                self.groups.insert(group, state);
            }
            OutboxKind::Attestation(order) => {
                let key = rows::key(group, order.0);
                if let Some(mut row) = rows::load::<OrderRow>(tx, ORDERS, &key)? {
                    row.attested = false;
                    rows::put(tx, ORDERS, key, &row)?;
                }
            }
            OutboxKind::Create | OutboxKind::Message => {}
        }
        Ok(())
    }

    /// Nothing that is wanted of this group can be done any more.
    pub(super) fn fail_intents(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        error: &CommandError,
    ) -> Result<(), EngineError> {
        for (number, _) in rows::of_group::<IntentRow>(tx, INTENTS, group)? {
            tx.delete(INTENTS, rows::key(group, number));
            self.event(Event::Failed {
                id: IntentId(number),
                error: error.clone(),
            });
        }
        for (number, _) in rows::of_group::<OutboxRow>(tx, OUTBOX, group)? {
            tx.delete(OUTBOX, rows::key(group, number));
        }
        Ok(())
    }
}

/// Whether a message was made on an older roster than `head`.
fn is_older(outbox: &OutboxRow, head: RosterSeq) -> bool {
    outbox.kind == OutboxKind::Message
        && decode(&outbox.payload)
            .ok()
            .and_then(|body| roster_seq_of(&body))
            .is_some_and(|s| s < head)
}

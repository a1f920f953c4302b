//! The roster as this device follows it: entries, orders, slots, and the changes that its user asks for.

use tls_codec::VLByteVec;

use super::link::Asked;
use super::rows::{self, GROUPS, GroupRow, GroupStatus, ORDERS, OrderRow, ROSTER, ROSTER_INTENTS};
use super::state::State;
use super::{
    Alarm, CommandError, CommandKind, EngineError, Event, IntentId, InviteLink, OrderGroup,
    identity,
};
use crate::identity::{
    Hash, InvitationId, InvitationSecret, JoinLink, RosterSeq, Slot, UserId, decode,
    derive_invitation_key, open_slot, seal_slot,
};
use crate::roster::{
    Applied, EntrySigner, InvitationStatus, Op, Order, Role, RosterError, SignedEntry, sign_entry,
};
use crate::store::Tx;
use crate::wire::{GroupStatus as WireGroupStatus, OrderPosition, Refusal, Request, RosterHead};

/// A change of the roster that the user asked for; one at a time is on its way.
pub(super) struct RosterJob {
    id: IntentId,
    ops: Vec<Op>,
    invite: Option<Invite>,
    /// What was signed last, and against which head.
    signed: Option<(SignedEntry, RosterHead)>,
    pub(super) in_flight: bool,
}

struct Invite {
    user: UserId,
    invitation: InvitationId,
    secret: InvitationSecret,
}

impl RosterJob {
    pub(super) fn restore(id: IntentId, row: &rows::RosterIntentRow) -> Result<Self, EngineError> {
        Ok(Self {
            id,
            ops: decode(&row.ops).map_err(|_| EngineError::Damaged {
                row: "a roster intent",
            })?,
            invite: None,
            signed: None,
            in_flight: false,
        })
    }
}

impl State {
    pub(super) fn roster_command(
        &mut self,
        tx: &Tx<'_>,
        id: IntentId,
        kind: CommandKind,
    ) -> Result<Result<(), CommandError>, EngineError> {
        let (ops, invite) = match kind {
            CommandKind::InviteUser {
                name,
                role,
                expires_at_ms,
            } => {
                let Some(directory) = self.directory.clone() else {
                    return Ok(Err(CommandError::NoDirectoryKey));
                };
                let user = UserId::random(&mut self.rng);
                let profile = directory.seal_profile(&mut self.rng, self.identity.org, user, &name);
                let add = Op::AddUser {
                    user,
                    role,
                    profile,
                };
                let (op, invite) = self.invitation(user, expires_at_ms);
                (vec![add, op], Some(invite))
            }
            CommandKind::InviteDevice { expires_at_ms } => {
                let (op, invite) = self.invitation(self.identity.user, expires_at_ms);
                (vec![op], Some(invite))
            }
            CommandKind::RemoveUser { user } => (vec![Op::RemoveUser { user }], None),
            CommandKind::RevokeDevice { device } => (vec![Op::RevokeDevice { device }], None),
            CommandKind::SetRole { user, role } => (vec![Op::SetRole { user, role }], None),
            CommandKind::CancelInvite { invitation } => {
                (vec![Op::CancelInvite { invitation }], None)
            }
            _ => {
                return Err(EngineError::Bug(
                    "take a group command for a roster command",
                ));
            }
        };
        // An invitation's secret lives in memory only: after a crash nobody could redeem it.
        if invite.is_none() {
            let row = rows::RosterIntentRow {
                ops: super::admission::encode_ops(&ops),
            };
            rows::put(tx, ROSTER_INTENTS, roster_key(id), &row)?;
        }
        self.roster_jobs.push_back(RosterJob {
            id,
            ops,
            invite,
            signed: None,
            in_flight: false,
        });
        Ok(Ok(()))
    }

    fn invitation(&mut self, user: UserId, expires_at_ms: u64) -> (Op, Invite) {
        let invitation = InvitationId::random(&mut self.rng);
        let secret = InvitationSecret::random(&mut self.rng);
        let op = Op::Invite {
            invitation,
            user,
            key: derive_invitation_key(&secret, invitation).public(),
            expires_at_ms,
        };
        let invite = Invite {
            user,
            invitation,
            secret,
        };
        (op, invite)
    }

    /// Signs the first job against the head and sends it; completes those that the chain contains.
    pub(super) fn pump_roster(&mut self, tx: &Tx<'_>) -> Result<(), EngineError> {
        let head = self.roster.head();
        while let Some(job) = self.roster_jobs.front_mut() {
            if let Some((entry, parent)) = &job.signed {
                if self.roster.hash_at(parent.seq.next()) == Some(entry.hash()) {
                    self.finish_job(tx)?;
                    continue;
                }
                if head != *parent {
                    // Another entry took the place: sign again.
                    job.signed = None;
                    job.in_flight = false;
                }
            }
            if job.in_flight {
                return Ok(());
            }
            let behind = match &self.link {
                Some(link) => !link.hello || link.relay_head > head.seq,
                None => true,
            };
            if behind || self.expelled || self.distrusts_relay.is_some() {
                return Ok(());
            }
            let identity = self.identity.clone();
            let entry = match job.signed.take() {
                Some((entry, _)) => entry,
                None => sign_entry(
                    identity.org,
                    head,
                    self.now_ms,
                    EntrySigner::Device(identity.device),
                    &identity.mls,
                    job.ops.clone(),
                ),
            };
            if let Err(error) = self.roster.check(entry.bytes()) {
                self.fail_job(tx, CommandError::Roster(error.to_string()))?;
                continue;
            }
            let bytes = VLByteVec::from(entry.bytes().to_vec());
            let asked = Asked::AppendRoster {
                entry: entry.hash(),
            };
            job.signed = Some((entry, head));
            job.in_flight = true;
            self.ask(asked, Request::AppendRoster { entry: bytes });
            return Ok(());
        }
        Ok(())
    }

    fn finish_job(&mut self, tx: &Tx<'_>) -> Result<(), EngineError> {
        let Some(job) = self.roster_jobs.pop_front() else {
            return Ok(());
        };
        tx.delete(ROSTER_INTENTS, roster_key(job.id));
        let Some((_, parent)) = job.signed else {
            return Ok(());
        };
        let seq = parent.seq.next();
        let event = if let Some(invite) = job.invite {
            let link = JoinLink {
                relay: self.identity.relay.address.clone(),
                relay_key: self.identity.relay.key,
                org: self.identity.org,
                pin_seq: parent.seq,
                pin_hash: parent.hash,
                user: invite.user,
                invitation: invite.invitation,
                secret: invite.secret,
            };
            Event::Invited {
                id: job.id,
                user: invite.user,
                link: InviteLink::new(link),
            }
        } else if self.roster.order(seq).is_some() {
            Event::Ordered {
                id: job.id,
                order: seq,
            }
        } else {
            Event::Done { id: job.id }
        };
        self.event(event);
        Ok(())
    }

    fn fail_job(&mut self, tx: &Tx<'_>, error: CommandError) -> Result<(), EngineError> {
        if let Some(job) = self.roster_jobs.pop_front() {
            tx.delete(ROSTER_INTENTS, roster_key(job.id));
            self.event(Event::Failed { id: job.id, error });
        }
        Ok(())
    }

    pub(super) fn handle_roster_appended(
        &mut self,
        tx: &Tx<'_>,
        head: RosterHead,
    ) -> Result<(), EngineError> {
        self.note_head(head);
        let entry = self
            .roster_jobs
            .front()
            .and_then(|job| job.signed.as_ref())
            // The answer may be to an earlier attempt, signed against another head.
            .filter(|(entry, _)| entry.hash() == head.hash)
            .map(|(entry, _)| entry.bytes().to_vec());
        match entry {
            Some(bytes) => self.apply_entry(tx, &bytes),
            None => Ok(()),
        }
    }

    pub(super) fn handle_roster_refused(
        &mut self,
        tx: &Tx<'_>,
        entry: Hash,
        refusal: Refusal,
    ) -> Result<(), EngineError> {
        let signed = |job: &&mut RosterJob| {
            let signed = job.signed.as_ref();
            signed.is_some_and(|(signed, _)| signed.hash() == entry)
        };
        let Some(job) = self.roster_jobs.front_mut().filter(signed) else {
            // An earlier attempt; the one that counts has its own answer coming.
            if let Refusal::RosterConflict { head } = refusal {
                self.note_head(head);
            }
            return Ok(());
        };
        match refusal {
            Refusal::RosterConflict { head } => {
                job.in_flight = false;
                if job
                    .signed
                    .as_ref()
                    .is_some_and(|(_, parent)| *parent == head)
                {
                    job.signed = None;
                }
                self.note_head(head);
                Ok(())
            }
            refusal => self.fail_job(tx, CommandError::Refused(refusal)),
        }
    }

    fn note_head(&mut self, head: RosterHead) {
        if let Some(link) = &mut self.link {
            link.relay_head = link.relay_head.max(head.seq);
        }
        self.check_head(head);
    }

    /// A head that is on our chain must be the one that we have there.
    pub(super) fn check_head(&mut self, head: RosterHead) {
        let known = self.roster.hash_at(head.seq);
        if known.is_some_and(|hash| hash != head.hash) {
            self.distrust(Alarm::RosterFork { seq: head.seq });
        }
    }

    pub(super) fn distrust(&mut self, alarm: Alarm) {
        self.distrusts_relay.get_or_insert_with(|| alarm.clone());
        self.alarm(alarm);
    }

    pub(super) fn handle_roster_push(
        &mut self,
        tx: &Tx<'_>,
        entry: &[u8],
        positions: &[OrderPosition],
    ) -> Result<(), EngineError> {
        let Ok(parsed) = SignedEntry::parse(entry) else {
            self.distrust(Alarm::BadRosterEntry {
                reason: "it does not decode".into(),
            });
            return Ok(());
        };
        let seq = parsed.tbs().seq;
        if let Some(link) = &mut self.link {
            link.relay_head = link.relay_head.max(seq);
        }
        self.apply_entry(tx, entry)?;
        if self.roster.order(seq).is_none() && self.roster.head().seq >= seq {
            return Ok(());
        }
        for position in positions {
            if let Some(mut row) = rows::load::<GroupRow>(tx, GROUPS, &position.group.0)? {
                // What comes later must carry this fence (REQ-061).
                row.floor_seq = position.seq;
                row.floor_fence = row.floor_fence.max(seq);
                rows::put(tx, GROUPS, position.group.0, &row)?;
            }
            if bool::from(position.lease) {
                self.leases.insert(position.group);
            }
        }
        Ok(())
    }

    pub(super) fn handle_roster_page(
        &mut self,
        tx: &Tx<'_>,
        entries: &[VLByteVec],
        head: RosterHead,
    ) -> Result<(), EngineError> {
        for entry in entries {
            self.apply_entry(tx, entry.as_slice())?;
        }
        self.note_head(head);
        let known = self.roster.head().seq;
        if let Some(link) = &mut self.link
            && known >= head.seq
            && link.need_roster > head.seq
        {
            // Somebody's message names an entry that the relay does not show us.
            let seq = link.need_roster;
            self.distrust(Alarm::RosterFork { seq });
        }
        self.dirty = self.group_ids(tx)?.into_iter().collect();
        self.restock(tx)
    }

    /// Validates and follows one entry; entries that are known already are passed over.
    fn apply_entry(&mut self, tx: &Tx<'_>, bytes: &[u8]) -> Result<(), EngineError> {
        if self.distrusts_relay.is_some() {
            return Ok(());
        }
        let applied = match self.roster.apply(bytes) {
            Ok(applied) => applied,
            Err(RosterError::Conflict { .. }) => {
                if let Ok(entry) = SignedEntry::parse(bytes) {
                    self.check_head(RosterHead {
                        seq: entry.tbs().seq,
                        hash: entry.hash(),
                    });
                }
                return Ok(());
            }
            Err(error) => {
                self.distrust(Alarm::BadRosterEntry {
                    reason: error.to_string(),
                });
                return Ok(());
            }
        };
        tx.put(ROSTER, applied.seq.0.to_be_bytes(), bytes);
        let pin = self
            .identity
            .pins
            .iter()
            .find(|(seq, _)| *seq == applied.seq);
        if pin.is_some_and(|(_, hash)| *hash != applied.hash) {
            self.distrust(Alarm::RosterFork { seq: applied.seq });
            return Ok(());
        }
        self.event(Event::RosterChanged { head: applied.seq });
        self.fill_slots(&applied);
        if let Some(order) = &applied.order {
            self.note_order(tx, order)?;
            if order.devices.contains(&self.identity.device) {
                self.handle_expelled(tx)?;
            }
        }
        self.dirty.extend(self.group_ids(tx)?);
        Ok(())
    }

    /// Writes down what this device owes each group because of an order (REQ-064).
    fn note_order(&mut self, tx: &Tx<'_>, order: &Order) -> Result<(), EngineError> {
        for group in self.group_ids(tx)? {
            let row: Option<GroupRow> = rows::load(tx, GROUPS, &group.0)?;
            // A group of our own may be older than the order even if its acknowledgement is not here yet.
            let lives =
                |row: GroupRow| matches!(row.status, GroupStatus::Active | GroupStatus::Creating);
            if row.is_some_and(lives) {
                rows::put(
                    tx,
                    ORDERS,
                    rows::key(group, order.seq.0),
                    &OrderRow::default(),
                )?;
            }
        }
        Ok(())
    }

    /// Leaves the directory key for devices that this user let in, or that an administrator must look after (REQ-031).
    fn fill_slots(&mut self, applied: &Applied) {
        let Some(key) = self.directory.clone() else {
            return;
        };
        let me = self.identity.clone();
        let administers = matches!(self.roster.role(me.user), Some(Role::Owner | Role::Admin));
        let mut slots = Vec::new();
        for id in &applied.added_devices {
            let Some(device) = self.roster.device(*id).filter(|_| *id != me.device) else {
                continue;
            };
            let let_in = match device.enrolled_by {
                EntrySigner::Invitation(i) => self.roster.invitation(i).is_some_and(|i| {
                    i.issued_by == me.device && matches!(i.status, InvitationStatus::Used { .. })
                }),
                _ => false,
            };
            if !device.is_admitted() || !(let_in || administers) {
                continue;
            }
            // A key that nothing can be sealed to is the new device's own loss.
            if let Ok(slot) = seal_slot(me.org, *id, device.seal_key, me.device, &key) {
                slots.push(slot);
            }
        }
        if !slots.is_empty() && self.online().is_some() {
            self.ask(Asked::PutSlots, Request::PutSlots { slots });
        }
    }

    pub(super) fn handle_slots(&mut self, tx: &Tx<'_>, slots: &[Slot]) -> Result<(), EngineError> {
        let Some(commitment) = self.roster.directory_commitment() else {
            return Ok(());
        };
        let me = self.identity.clone();
        let key = slots
            .iter()
            .find_map(|slot| open_slot(me.org, slot, &me.seal, commitment).ok());
        if let Some(key) = key
            && self.directory.is_none()
        {
            identity::store_directory_key(tx, &key)?;
            self.directory = Some(key);
            self.event(Event::DirectoryOpened);
        }
        Ok(())
    }

    pub(super) fn ask_order_status(&mut self, id: IntentId, order: RosterSeq) {
        if self.online().is_some() {
            self.ask(Asked::OrderStatus { id }, Request::OrderStatus { order });
        } else {
            let error = CommandError::Refused(Refusal::HelloFirst);
            self.event(Event::Failed { id, error });
        }
    }

    pub(super) fn handle_order_status(
        &mut self,
        tx: &Tx<'_>,
        id: IntentId,
        groups: Vec<WireGroupStatus>,
    ) -> Result<(), EngineError> {
        let groups = groups
            .into_iter()
            .map(|status| {
                let row: Option<GroupRow> = rows::load(tx, GROUPS, &status.group.0)?;
                Ok(OrderGroup {
                    group: status.group,
                    name: row.map(|row| row.name),
                    state: status.state,
                    attested_by: status.attested_by,
                    at_ms: status.at_ms,
                })
            })
            .collect::<Result<_, EngineError>>()?;
        self.event(Event::OrderStatus { id, groups });
        Ok(())
    }

    /// Whether `hash` is our chain's at `s`; the caller has made sure that the chain reaches that far.
    pub(super) fn is_on_chain(&self, s: RosterSeq, hash: Hash) -> bool {
        self.roster.hash_at(s) == Some(hash)
    }
}

fn roster_key(id: IntentId) -> Vec<u8> {
    id.0.to_be_bytes().to_vec()
}

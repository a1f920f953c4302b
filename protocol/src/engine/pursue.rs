//! What the user wants of a group, turned into records, oldest first.

use std::collections::BTreeSet;

use super::link::Asked;
use super::outbound::Work;
use super::rows::{self, INTENTS, Intent, IntentRow, OutboxKind, OutboxRow};
use super::state::State;
use super::{CommandError, EngineError, Event, IntentId};
use crate::group::validate::{Leaf, may_add};
use crate::group::{Changes, MlsProvider, ReadKeyPackage, read_key_package};
use crate::identity::{DeviceId, GroupId, UserId};
use crate::store::Tx;
use crate::wire::{ClaimedKeyPackage, RecordBody, Request};

/// Devices that one commit adds at most: adding thousands at once is super-linear (REQ-128).
const MAX_ADDS: usize = 250;

/// KeyPackages that were asked for, for one group.
pub(super) struct Claim {
    pub(super) intent: u64,
    /// Devices that were asked for.
    asked: Vec<DeviceId>,
    /// Devices that have none, or none that can be used.
    missing: BTreeSet<DeviceId>,
    pub(super) packages: Option<Vec<ReadKeyPackage>>,
}

impl Claim {
    pub(super) fn is_asked(&self) -> bool {
        self.packages.is_none()
    }
}

impl State {
    /// Turns intents into records, oldest first; returns whether none is left.
    pub(super) fn pursue_intents(
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
                Intent::Change { change } => self.pursue_change(tx, work, number, &change)?,
                Intent::Leave { told } => self.pursue_leave(tx, work, number, told)?,
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
        let body = RecordBody::Message(message.into());
        let row = OutboxRow {
            plaintext: Some(serde_bytes::ByteBuf::from(content)),
            ..OutboxRow::new(OutboxKind::Message, Some(number), work.row.epoch, &body)
        };
        self.set_in_flight(tx, work.id, number, true)?;
        self.submit(tx, work, &row)
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
        if let Some(error) = self.refuses_adds(work, users) {
            self.fail_intent(tx, work.id, number, error);
            self.claims.remove(&work.id);
            return Ok(false);
        }
        if self.must_attest_first(tx, work)? {
            return Ok(true);
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

    /// Why this user may not add these here, if so: what others would refuse is not sent (REQ-121, REQ-126).
    fn refuses_adds(&self, work: &Work<'_>, users: &BTreeSet<UserId>) -> Option<CommandError> {
        let (me, policy) = (self.identity.user, work.group.policy());
        let s = self.roster.head().seq;
        if users.iter().any(|u| *u != me) && !may_add(&self.roster, s, policy, me) {
            return Some(CommandError::NotGroupAdmin);
        }
        let left = users.intersection(&policy.left).count();
        (left > 0 && !policy.is_admin(me)).then_some(CommandError::HasLeft { users: left })
    }

    /// The intent cannot be carried out.
    pub(super) fn fail_intent(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        number: u64,
        error: CommandError,
    ) {
        tx.delete(INTENTS, rows::key(group, number));
        let id = IntentId(number);
        self.event(Event::Failed { id, error });
    }

    pub(super) fn ask_claim(
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

    /// A commit for this intent is in the log: what it did is done, even if somebody undoes it with the next one, and
    /// its KeyPackages are used up.
    pub(super) fn handle_change_met(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        number: u64,
        after: &[Leaf],
    ) -> Result<(), EngineError> {
        let key = rows::key(group, number);
        let Some(mut row) = rows::load::<IntentRow>(tx, INTENTS, &key)? else {
            return Ok(());
        };
        let is_in = |device: DeviceId| after.iter().any(|l| l.device == device);
        let done = match &mut row.intent {
            Intent::Send { .. } | Intent::Leave { .. } => false,
            Intent::Change { .. } => true,
            Intent::Remove { user } => {
                let me = self.identity.device;
                !after.iter().any(|l| l.user == *user && l.device != me)
            }
            Intent::Add { users } => {
                let claim = self.claims.get_mut(&group).filter(|c| c.intent == number);
                let missing = claim.map_or_else(BTreeSet::new, |claim| {
                    if let Some(packages) = &mut claim.packages {
                        packages.retain(|p| !is_in(p.credential.device));
                    }
                    claim.missing.clone()
                });
                let roster = &self.roster;
                users.retain(|user| {
                    let mut devices = roster.devices_of(*user).map(|(device, _)| device);
                    let waits = devices.any(|d| !is_in(d) && !missing.contains(&d));
                    waits || !after.iter().any(|l| l.user == *user)
                });
                users.is_empty()
            }
        };
        if !done {
            return rows::put(tx, INTENTS, key, &row);
        }
        tx.delete(INTENTS, key);
        self.claims.retain(|_, claim| claim.intent != number);
        let id = IntentId(number);
        self.event(Event::Done { id });
        Ok(())
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
            self.fail_intent(tx, work.id, number, CommandError::NotGroupAdmin);
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
}

//! The roster as this device follows it: entries, heads, orders and what they ask of it.

use tls_codec::VLByteVec;

use super::link::Asked;
use super::rows::{self, GROUPS, GroupRow, GroupStatus, META, ORDERS, OrderRow, ROSTER};
use super::state::State;
use super::{Alarm, CommandError, EngineError, Event, IntentId, OrderGroup};
use crate::identity::{Hash, LogSeq, RosterSeq};
use crate::roster::{Op, Order, RosterError, SignedEntry};
use crate::store::Tx;
use crate::wire::{GroupStatus as WireGroupStatus, OrderPosition, Refusal, Request, RosterHead};

impl State {
    pub(super) fn note_head(&mut self, head: RosterHead) {
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
                seq: self.roster.head().seq.next(),
                reason: "it does not decode".into(),
            });
            return Ok(());
        };
        let seq = parsed.tbs().seq;
        if let Some(link) = &mut self.link {
            link.relay_head = link.relay_head.max(seq);
        }
        self.apply_entry(tx, entry)?;
        let is_here = self.roster.head().seq >= seq;
        let is_order = match is_here {
            true => self.roster.order(seq).is_some(),
            false => parsed.tbs().ops.iter().any(Op::is_order),
        };
        for position in positions {
            let closes = self.roster.closed_at(position.group) == Some(seq);
            if (is_order || closes)
                && let Some(mut row) = rows::load::<GroupRow>(tx, GROUPS, &position.group.0)?
            {
                if closes {
                    // Nothing comes after that (REQ-102).
                    row.ends_at = Some(position.seq);
                }
                if is_order {
                    // What comes later must carry this fence (REQ-061).
                    row.floor_seq = position.seq;
                    row.floor_fence = row.floor_fence.max(seq);
                }
                rows::put(tx, GROUPS, position.group.0, &row)?;
            }
            if is_order && bool::from(position.lease) {
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
    pub(super) fn apply_entry(&mut self, tx: &Tx<'_>, bytes: &[u8]) -> Result<(), EngineError> {
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
                let claimed = SignedEntry::parse(bytes).map(|entry| entry.tbs().seq);
                self.distrust(Alarm::BadRosterEntry {
                    seq: claimed.unwrap_or(self.roster.head().seq.next()),
                    reason: error.to_string(),
                });
                return Ok(());
            }
        };
        tx.put(ROSTER, applied.seq.0.to_be_bytes(), bytes);
        rows::put(tx, META, rows::VERIFIED_HEAD, &(applied.seq, applied.hash))?;
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
        if let Ok(entry) = SignedEntry::parse(bytes) {
            self.note_entry(tx, &entry)?;
        }
        self.hold_own_key(tx, applied.hash)?;
        self.follow_directory(&applied);
        self.check_compared(tx, &applied)?;
        if applied.policy_set {
            self.restock_for_policy(tx)?;
        }
        self.judge_beyond(tx)?;
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
                |row: &GroupRow| matches!(row.status, GroupStatus::Active | GroupStatus::Creating);
            if let Some(row) = row.filter(lives) {
                let owed = OrderRow {
                    existed: row.cursor > LogSeq(0) && row.fence < order.seq,
                    ..OrderRow::default()
                };
                rows::put(tx, ORDERS, rows::key(group, order.seq.0), &owed)?;
            }
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
        (appended_at_ms, closed): (u64, u32),
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
                    rotated_at_ms: status.rotated_at_ms,
                    confirmed_at_ms: status.confirmed_at_ms,
                })
            })
            .collect::<Result<_, EngineError>>()?;
        self.event(Event::OrderStatus {
            id,
            appended_at_ms,
            closed,
            groups,
        });
        Ok(())
    }

    /// Whether `hash` is our chain's at `s`; the caller has made sure that the chain reaches that far.
    pub(super) fn is_on_chain(&self, s: RosterSeq, hash: Hash) -> bool {
        self.roster.hash_at(s) == Some(hash)
    }
}

//! The connection: questions that wait for answers, subscriptions, and what comes in.

use std::collections::{BTreeMap, BTreeSet};

use super::receipts::{Step, is_passing};
use super::rows::{self, GROUPS, GroupRow, META};
use super::state::{Chore, State};
use super::{CommandError, EngineError, Event, IntentId, Output};
use crate::group::{MlsProvider, is_allowed_suite, make_key_package};
use crate::identity::{Epoch, GroupId, Hash, LogSeq, RosterSeq};
use crate::store::Tx;
use crate::wire::{
    AccessProof, ClientToRelay, ConnectionBinding, Purpose, Push, Refusal, RelayToClient, Request,
    RequestId, Response,
};

/// How long an answer may take before the connection is given up, ms.
const ANSWER_TIMEOUT_MS: u64 = 10_000;
/// The same for an answer that may hold megabytes, when hundreds of devices are added at once and all ask for theirs, ms.
const LARGE_ANSWER_TIMEOUT_MS: u64 = 60_000;
/// Records that the relay may push before this device grants more.
pub(super) const CREDIT: u32 = 256;
/// Groups whose logs are read at once: what the relay queues for one device is bounded.
const MAX_CATCHING_UP: usize = 16;
/// A log that is further ahead than this is a long way, records.
const FAR_BEHIND: u64 = 100;
/// One-time KeyPackages to keep in stock (REQ-092).
const STOCK: u32 = 20;
/// Below this many, the stock is filled up.
const STOCK_LOW: u32 = 10;
/// A relay that is busy is asked again at least so often.
const MAX_RETRY_MS: u64 = 10 * 60 * 1_000;

/// What a question was about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Hello,
    FetchRoster,
    /// The entry with this hash.
    AppendRoster {
        entry: Hash,
    },
    PutSlots,
    FetchSlots,
    FetchSlotless,
    FetchCheckpoints,
    PutCheckpoint {
        issued_at_ms: u64,
    },
    PublishKeyPackages,
    ClaimKeyPackages {
        group: GroupId,
        intent: u64,
    },
    Submit {
        group: GroupId,
        record: Hash,
    },
    Subscribe {
        group: GroupId,
        epoch: Epoch,
    },
    FetchInbox,
    OrderStatus {
        id: IntentId,
    },
    OrderState {
        id: IntentId,
    },
    FetchReceipts {
        id: IntentId,
    },
    OrderProof {
        group: GroupId,
        order: RosterSeq,
    },
    PutReceipt {
        group: GroupId,
        order: RosterSeq,
    },
    Resync {
        group: GroupId,
    },
}

/// A subscription to one epoch of a group's log.
#[derive(Clone, Debug)]
pub(super) struct Sub {
    pub(super) epoch: Epoch,
    /// A question is on its way.
    pub(super) asked: bool,
    /// What the last answer said: the log's epoch, and the last record that this epoch's key opens.
    pub(super) ends: Option<(Epoch, LogSeq)>,
    pub(super) credit: u32,
    /// Records have come since the last answer.
    pub(super) got_records: bool,
    /// The newest epoch that the relay called confirmed, and when, ms since 1970.
    pub(super) confirmed: Option<(Epoch, u64)>,
    /// By when the records up to `ends` must have come, ms since 1970.
    pub(super) deadline: u64,
}

pub(super) struct Link {
    pub(super) binding: ConnectionBinding,
    pub(super) hello: bool,
    /// The clocks differ so far that nothing with a lifetime is made (REQ-159).
    pub(super) clock_is_off: bool,
    pub(super) relay_head: RosterSeq,
    /// Nothing is made before the roster has this entry.
    pub(super) need_roster: RosterSeq,
    /// Where each log has a record that waits for the roster: nothing behind it is read before.
    pub(super) postponed_at: BTreeMap<GroupId, LogSeq>,
    pub(super) asked: BTreeMap<RequestId, (Asked, u64)>,
    pub(super) subs: BTreeMap<GroupId, Sub>,
    /// Records that were sent on this connection.
    pub(super) sent: BTreeSet<Hash>,
    /// Records that the relay could not store, or take, just now.
    pub(super) refused: BTreeSet<Hash>,
    /// Questions that the relay could not answer just now.
    postponed: Vec<Asked>,
    /// Groups of which the relay could not store something just now.
    pub(super) no_room: BTreeSet<GroupId>,
    /// Groups that were asked, on this connection, to let this device in anew.
    pub(super) resyncs: BTreeSet<GroupId>,
    /// Orders of groups about which the relay was asked, or given, something on this connection.
    pub(super) evidence: BTreeSet<(GroupId, RosterSeq, Step)>,
    /// There may be something in the inbox that no question on its way will bring.
    pub(super) inbox_waiting: bool,
    /// The inbox waits until this group's log has been followed up to there.
    pub(super) inbox_behind: Option<(GroupId, LogSeq)>,
    /// Groups whose log is read when others have been.
    waiting: BTreeSet<GroupId>,
    key_packages: Option<(u32, bool)>,
    pub(super) slots_waiting: bool,
    /// Whether it is still to be asked who lacks a slot.
    pub(super) fill_waiting: bool,
    /// Whether checkpoints are still to be asked for.
    pub(super) checkpoints_waiting: bool,
    /// The relay has said on this connection what checkpoints it has.
    pub(super) checkpoints_known: bool,
}

impl Link {
    fn asks(&self, what: &Asked) -> bool {
        self.asked.values().any(|(asked, _)| asked == what)
    }

    /// Whether a question may be put now: it is not on its way, and the relay has not just failed at it.
    pub(super) fn may_ask(&self, what: &Asked) -> bool {
        !self.asks(what) && !self.postponed.contains(what)
    }

    pub(super) fn asks_claim(&self, group: GroupId) -> bool {
        self.asked.values().any(
            |(asked, _)| matches!(asked, Asked::ClaimKeyPackages { group: g, .. } if *g == group),
        )
    }

    pub(super) fn asks_inbox(&self) -> bool {
        self.asks(&Asked::FetchInbox)
    }

    pub(super) fn is_quiet(&self) -> bool {
        let answers = self.asked.values().all(|(asked, _)| {
            // What the device does for others, now and then, is nothing that its user waits for.
            matches!(
                asked,
                Asked::FetchSlotless
                    | Asked::PutCheckpoint { .. }
                    | Asked::OrderProof { .. }
                    | Asked::PutReceipt { .. }
            )
        });
        self.hello && answers && !self.inbox_waiting
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        let subs = self.subs.values().map(|s| s.deadline);
        self.asked.values().map(|(_, at)| *at).chain(subs).min()
    }

    pub(super) fn is_overdue(&self, now_ms: u64) -> bool {
        self.next_deadline().is_some_and(|at| at <= now_ms)
    }

    /// Whether another group's log may be read now; if not, it waits for [`Link::next_waiting`].
    pub(super) fn may_catch_up(&mut self, group: GroupId) -> bool {
        let may = self.catching_up() < MAX_CATCHING_UP;
        if !may {
            self.waiting.insert(group);
        }
        may
    }

    fn catching_up(&self) -> usize {
        self.subs
            .values()
            .filter(|s| s.deadline != u64::MAX)
            .count()
    }

    /// A group whose turn to be read has come.
    pub(super) fn next_waiting(&mut self) -> Option<GroupId> {
        if self.catching_up() < MAX_CATCHING_UP {
            self.waiting.pop_first()
        } else {
            None
        }
    }

    pub(super) fn forget_refused(&mut self) {
        self.no_room.clear();
        self.postponed.clear();
        for record in std::mem::take(&mut self.refused) {
            self.sent.remove(&record);
        }
    }
}

impl State {
    /// The connection, once the relay has answered Hello and nothing speaks against using it.
    pub(super) fn online(&mut self) -> Option<&mut Link> {
        if self.expelled || self.distrusts_relay.is_some() {
            return None;
        }
        self.link.as_mut().filter(|link| link.hello)
    }

    pub(super) fn ask(&mut self, asked: Asked, request: Request) {
        let Some(link) = &mut self.link else { return };
        self.next_request += 1;
        let id = RequestId(self.next_request);
        let timeout_ms = match asked {
            Asked::FetchInbox | Asked::ClaimKeyPackages { .. } | Asked::OrderState { .. } => {
                LARGE_ANSWER_TIMEOUT_MS
            }
            _ => ANSWER_TIMEOUT_MS,
        };
        link.asked.insert(id, (asked, self.now_ms + timeout_ms));
        self.out.push(Output::Send(ClientToRelay { id, request }));
    }

    pub(super) fn handle_connected(&mut self, binding: ConnectionBinding) {
        self.link = Some(Link {
            binding,
            hello: false,
            clock_is_off: false,
            relay_head: RosterSeq(0),
            need_roster: RosterSeq(0),
            postponed_at: BTreeMap::new(),
            asked: BTreeMap::new(),
            subs: BTreeMap::new(),
            sent: BTreeSet::new(),
            refused: BTreeSet::new(),
            postponed: Vec::new(),
            no_room: BTreeSet::new(),
            resyncs: BTreeSet::new(),
            evidence: BTreeSet::new(),
            inbox_waiting: false,
            inbox_behind: None,
            waiting: BTreeSet::new(),
            key_packages: None,
            slots_waiting: false,
            fill_waiting: true,
            checkpoints_waiting: true,
            checkpoints_known: false,
        });
        self.was_synced = false;
        let roster_seq = self.roster.head().seq;
        let org = self.identity.org;
        self.ask(Asked::Hello, Request::Hello { org, roster_seq });
    }

    pub(super) fn handle_disconnected(&mut self, tx: &Tx<'_>) -> Result<(), EngineError> {
        for (asked, _) in self
            .link
            .take()
            .into_iter()
            .flat_map(|link| link.asked.into_values())
        {
            if let Asked::OrderStatus { id } = asked {
                // Nobody asks this again by itself: the answer would be of another time.
                let error = CommandError::Refused(Refusal::HelloFirst);
                self.event(Event::Failed { id, error });
            }
        }
        self.was_synced = false;
        self.collections.clear();
        self.claims.retain(|_, claim| !claim.is_asked());
        for job in &mut self.roster_jobs {
            job.in_flight = false;
        }
        self.leases.clear();
        self.absent.clear();
        self.chores.retain(|(_, c), _| *c != Chore::OwnDevices);
        self.dirty = self.group_ids(tx)?.into_iter().collect();
        Ok(())
    }

    pub(super) fn handle_frame(
        &mut self,
        tx: &Tx<'_>,
        frame: RelayToClient,
    ) -> Result<(), EngineError> {
        match frame {
            RelayToClient::Push(push) => self.handle_push(tx, push),
            RelayToClient::Response { id, response } => {
                let Some(link) = &mut self.link else {
                    return Ok(());
                };
                match link.asked.remove(&id) {
                    Some((asked, _)) => self.handle_response(tx, asked, response),
                    None => Ok(()),
                }
            }
        }
    }

    fn handle_push(&mut self, tx: &Tx<'_>, push: Push) -> Result<(), EngineError> {
        let Some(link) = &mut self.link else {
            return Ok(());
        };
        match push {
            Push::RosterEntry { entry, positions } => {
                self.handle_roster_push(tx, entry.as_slice(), &positions)
            }
            Push::SlotsWaiting => {
                link.slots_waiting = true;
                Ok(())
            }
            Push::Checkpoint { checkpoint } => self.handle_checkpoints(tx, &[checkpoint]),
            Push::KeyPackagesLow { left } => {
                link.key_packages = Some((left, true));
                self.restock(tx)
            }
            Push::Records { group, records } => self.handle_records(tx, group, &records),
            Push::ResyncAsked {
                group,
                device,
                key_package,
            } => {
                self.handle_resync_asked(group, device, key_package.as_slice());
                Ok(())
            }
            Push::InboxWaiting => {
                link.inbox_waiting = true;
                Ok(())
            }
        }
    }

    fn handle_response(
        &mut self,
        tx: &Tx<'_>,
        asked: Asked,
        response: Response,
    ) -> Result<(), EngineError> {
        if let Response::Refused(refusal) = response {
            return self.handle_refusal(tx, asked, refusal);
        }
        match (asked, response) {
            (
                Asked::Hello,
                Response::Hello {
                    head,
                    admitted,
                    key_packages_left,
                    has_last_resort,
                    inbox_waiting,
                    now_ms,
                    ..
                },
            ) => {
                if !bool::from(admitted) {
                    return self.handle_expelled(tx);
                }
                self.handle_let_in();
                let lacks_key = self.newest_directory_key().is_none();
                if let Some(link) = &mut self.link {
                    link.hello = true;
                    link.relay_head = head.seq;
                    link.inbox_waiting = inbox_waiting.into();
                    link.slots_waiting = lacks_key;
                    link.key_packages = Some((key_packages_left, has_last_resort.into()));
                }
                self.event(Event::Online);
                self.check_clock(now_ms);
                self.check_head(head);
                self.dirty = self.group_ids(tx)?.into_iter().collect();
                self.restock(tx)
            }
            (Asked::FetchRoster, Response::Roster { entries, head }) => {
                self.handle_roster_page(tx, &entries, head)
            }
            (Asked::AppendRoster { .. }, Response::RosterAppended { head }) => {
                self.handle_roster_appended(tx, head)
            }
            (Asked::FetchSlots, Response::Slots { slots }) => self.handle_slots(tx, &slots),
            (Asked::FetchSlotless, Response::Slotless { devices }) => {
                self.handle_slotless(&devices);
                Ok(())
            }
            (Asked::FetchCheckpoints, Response::Checkpoints { checkpoints }) => {
                if let Some(link) = &mut self.link {
                    link.checkpoints_known = true;
                }
                self.handle_checkpoints(tx, &checkpoints)
            }
            (Asked::PutCheckpoint { issued_at_ms }, Response::Done) => {
                self.handle_checkpoint_stored(tx, issued_at_ms)
            }
            (Asked::ClaimKeyPackages { group, intent }, Response::KeyPackages { packages }) => {
                self.handle_claimed(group, intent, &packages);
                Ok(())
            }
            (Asked::Submit { group, record }, Response::Appended { seq, fence }) => {
                self.handle_appended(tx, group, record, seq, fence)
            }
            (
                Asked::Subscribe { group, epoch },
                Response::Subscribed {
                    head_seq,
                    head_epoch,
                    last_readable,
                    confirmed_epoch,
                },
            ) => {
                let ends = (head_epoch, last_readable);
                self.tell_progress(tx, group, head_seq)?;
                self.handle_subscribed(tx, group, epoch, ends, confirmed_epoch)
            }
            (Asked::FetchInbox, Response::Inbox { items, more }) => {
                self.handle_inbox(tx, &items, more.into())
            }
            (Asked::Resync { group }, Response::Done) => self.handle_resync_stored(tx, group),
            (
                Asked::OrderStatus { id },
                Response::OrderStatus {
                    appended_at_ms,
                    closed,
                    groups,
                },
            ) => self.handle_order_status(tx, id, (appended_at_ms, closed), groups),
            (
                Asked::OrderState { id },
                Response::OrderState {
                    state,
                    groups,
                    attestations,
                },
            ) => {
                self.handle_order_state(id, state, groups, attestations);
                Ok(())
            }
            (Asked::FetchReceipts { id }, Response::Receipts { receipts, more }) => {
                self.handle_receipts(id, &receipts, more.into());
                Ok(())
            }
            (Asked::OrderProof { group, order }, Response::OrderProof { set, index, path }) => {
                self.handle_order_proof(tx, group, order, &set, (index, &path))
            }
            (Asked::PutReceipt { group, order }, Response::Done) => {
                self.handle_receipt_kept(tx, group, order)
            }
            // An answer of the wrong kind is a relay that does not speak this protocol; the connection goes on.
            _ => Ok(()),
        }
    }

    fn handle_refusal(
        &mut self,
        tx: &Tx<'_>,
        asked: Asked,
        refusal: Refusal,
    ) -> Result<(), EngineError> {
        if refusal == Refusal::NotAdmitted {
            return self.handle_expelled(tx);
        }
        match asked {
            Asked::Hello => self.handle_turned_away(tx, refusal),
            Asked::Submit { group, record } => {
                self.handle_submit_refused(tx, group, record, refusal)
            }
            Asked::Subscribe { group, .. } => self.handle_subscribe_refused(tx, group, &refusal),
            Asked::AppendRoster { entry } => self.handle_roster_refused(tx, entry, refusal),
            Asked::ClaimKeyPackages { group, .. } => {
                self.claims.remove(&group);
                if refusal == Refusal::Storage {
                    return self.wait_for_room(tx, group);
                }
                self.retry_as_told(&refusal);
                self.unsettled.insert(group);
                Ok(())
            }
            Asked::Resync { group } => {
                if let Some(link) = &mut self.link {
                    link.resyncs.remove(&group);
                }
                self.retry_as_told(&refusal);
                self.unsettled.insert(group);
                Ok(())
            }
            Asked::OrderProof { group, order } => {
                self.handle_proof_refused(tx, group, order, &refusal)
            }
            // There are enough without this one.
            Asked::PutReceipt { group, order } if matches!(refusal, Refusal::TooLarge { .. }) => {
                self.handle_receipt_kept(tx, group, order)
            }
            Asked::PutReceipt { group, order } => {
                if is_passing(&refusal) {
                    self.again(group, order, Step::Receipt);
                }
                Ok(())
            }
            Asked::OrderStatus { id } | Asked::OrderState { id } | Asked::FetchReceipts { id } => {
                self.collections.remove(&id);
                let error = super::CommandError::Refused(refusal);
                self.event(Event::Failed { id, error });
                Ok(())
            }
            Asked::PutCheckpoint { .. } => {
                self.handle_checkpoint_refused(&refusal);
                Ok(())
            }
            asked if is_busy(&refusal) => {
                self.postpone(asked, &refusal);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The relay failed at a question that brings what this connection needs: it is put again later (REQ-430).
    fn postpone(&mut self, asked: Asked, refusal: &Refusal) {
        self.retry_as_told(refusal);
        let Some(link) = &mut self.link else { return };
        match asked {
            Asked::FetchInbox => link.inbox_waiting = true,
            Asked::FetchSlots => link.slots_waiting = true,
            Asked::FetchSlotless => link.fill_waiting = true,
            Asked::FetchCheckpoints => link.checkpoints_waiting = true,
            _ => {}
        }
        link.postponed.push(asked);
    }

    pub(super) fn retry_later(&mut self) {
        self.retry_at = Some(self.now_ms + 2_000);
    }

    /// Later: when the relay has said, if it has (REQ-322).
    fn retry_as_told(&mut self, refusal: &Refusal) {
        match refusal {
            Refusal::RateLimited { retry_after_ms } => self.retry_after(*retry_after_ms),
            _ => self.retry_later(),
        }
    }

    /// Not before the relay takes more, nor before anything else that is waited for.
    pub(super) fn retry_after(&mut self, retry_after_ms: u64) {
        let at = self.now_ms + retry_after_ms.clamp(1, MAX_RETRY_MS);
        self.retry_at = Some(self.retry_at.map_or(at, |before| before.max(at)));
    }

    /// The organisation has changed the suite of new groups: KeyPackages for it are wanted (REQ-100).
    pub(super) fn restock_for_policy(&mut self, tx: &Tx<'_>) -> Result<(), EngineError> {
        if self.stocked_suite.is_some() && self.stocked_suite != self.roster.suite() {
            if let Some(link) = &mut self.link {
                link.key_packages = Some((0, false));
            }
            self.restock(tx)?;
        }
        Ok(())
    }

    /// This device is not admitted any more: nothing works, everything that was received stays.
    pub(super) fn handle_expelled(&mut self, tx: &Tx<'_>) -> Result<(), EngineError> {
        if !self.expelled {
            self.expelled = true;
            self.event(Event::Expelled);
        }
        for group in self.group_ids(tx)? {
            self.fail_intents(tx, group, &super::CommandError::Expelled)?;
        }
        self.unsettled.clear();
        self.duties.clear();
        self.attest_at.clear();
        Ok(())
    }

    /// Asks for what the connection as a whole needs.
    pub(super) fn pump_link(&mut self) {
        let head = self.roster.head().seq;
        let knows_directory = self.roster.directory_commitment().is_some();
        let Some(link) = self.online() else { return };
        let roster =
            link.relay_head.max(link.need_roster) > head && link.may_ask(&Asked::FetchRoster);
        let inbox = link.inbox_waiting
            && link.inbox_behind.is_none()
            && link.need_roster <= head
            && link.relay_head <= head
            && link.may_ask(&Asked::FetchInbox);
        // A push that comes while the answer is on its way may be of what the answer has not (REQ-430).
        link.inbox_waiting &= !inbox;
        let slots = knows_directory
            && link.may_ask(&Asked::FetchSlots)
            && std::mem::take(&mut link.slots_waiting);
        if roster {
            self.ask(Asked::FetchRoster, Request::FetchRoster { after: head });
        }
        if inbox {
            self.fetch_inbox();
        }
        if slots {
            self.ask(Asked::FetchSlots, Request::FetchSlots);
        }
    }

    fn fetch_inbox(&mut self) {
        let after = self.inbox_cursor;
        self.ask(Asked::FetchInbox, Request::FetchInbox { after });
    }

    /// Fills up the stock of KeyPackages when it is low (REQ-092).
    pub(super) fn restock(&mut self, tx: &Tx<'_>) -> Result<(), EngineError> {
        let Some(suite) = self.roster.suite().filter(|s| is_allowed_suite(*s)) else {
            return Ok(());
        };
        // The whole chain is verified before anybody can add this device (REQ-020).
        let head = self.roster.head().seq;
        let may_stock = |link: &mut Link| link.relay_head <= head && !link.clock_is_off;
        if !self.is_admitted() || !self.online().is_some_and(may_stock) {
            return Ok(());
        }
        let Some(stock) = self.online().and_then(|link| link.key_packages.take()) else {
            return Ok(());
        };
        // What the relay has counted may be of the suite before (REQ-100).
        let same_suite = self.stocked_suite.is_none_or(|stocked| stocked == suite);
        let (left, has_last_resort) = if same_suite { stock } else { (0, false) };
        self.store_stocked_suite(tx, suite)?;
        if left >= STOCK_LOW && has_last_resort {
            return Ok(());
        }
        let crypto = self.crypto.clone();
        let identity = self.identity.clone();
        let provider = MlsProvider::new(&crypto, tx);
        let make = |last_resort| {
            make_key_package(&provider, &identity.me(), suite, last_resort, self.now_ms)
                .map_err(|_| EngineError::Bug("make a KeyPackage"))
        };
        let one_time = (left..STOCK)
            .map(|_| Ok(make(false)?.into()))
            .collect::<Result<Vec<_>, EngineError>>()?;
        let last_resort = if has_last_resort {
            Vec::new()
        } else {
            make(true)?
        };
        self.ask(
            Asked::PublishKeyPackages,
            Request::PublishKeyPackages {
                suite,
                one_time,
                last_resort: last_resort.into(),
            },
        );
        Ok(())
    }

    /// Subscribes to the group's current epoch, from its cursor (REQ-056).
    pub(super) fn subscribe(
        &mut self,
        group: GroupId,
        row: &GroupRow,
        access_key: &crate::identity::SigningKey,
    ) {
        let deadline = self.now_ms + ANSWER_TIMEOUT_MS;
        let Some(link) = &mut self.link else { return };
        let ends = link
            .subs
            .get(&group)
            .filter(|sub| sub.epoch == row.epoch)
            .and_then(|sub| sub.ends);
        link.subs.insert(
            group,
            Sub {
                epoch: row.epoch,
                asked: true,
                ends,
                credit: CREDIT,
                got_records: false,
                confirmed: None,
                deadline,
            },
        );
        let proof = AccessProof::sign(
            access_key,
            &link.binding,
            group,
            row.epoch,
            row.entry_hash,
            Purpose::Read,
        );
        let epoch = row.epoch;
        self.ask(
            Asked::Subscribe { group, epoch },
            Request::Subscribe {
                group,
                epoch,
                after: row.cursor,
                credit: CREDIT,
                proof,
            },
        );
    }

    /// Tells the user how far a log has been read that is far ahead (REQ-160).
    fn tell_progress(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        total: LogSeq,
    ) -> Result<(), EngineError> {
        let row = rows::load::<GroupRow>(tx, GROUPS, &group.0)?;
        if let Some(done) = row.map(|row| row.cursor)
            && total.0.saturating_sub(done.0) > FAR_BEHIND
        {
            self.event(Event::CatchingUp { group, done, total });
        }
        Ok(())
    }

    fn handle_subscribed(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        epoch: Epoch,
        ends: (Epoch, LogSeq),
        confirmed: Epoch,
    ) -> Result<(), EngineError> {
        let cursor = rows::load::<GroupRow>(tx, GROUPS, &group.0)?.map(|row| row.cursor);
        let deadline = self.now_ms + ANSWER_TIMEOUT_MS;
        if let Some(sub) = self
            .link
            .as_mut()
            .and_then(|link| link.subs.get_mut(&group))
            .filter(|sub| sub.epoch == epoch)
        {
            sub.asked = false;
            sub.ends = Some(ends);
            sub.confirmed = Some((confirmed, self.now_ms));
            sub.deadline = if cursor.is_some_and(|c| c < ends.1) {
                deadline
            } else {
                u64::MAX
            };
        }
        self.dirty.insert(group);
        Ok(())
    }

    fn handle_subscribe_refused(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        refusal: &Refusal,
    ) -> Result<(), EngineError> {
        if let Some(link) = &mut self.link {
            link.subs.remove(&group);
        }
        match refusal {
            busy if is_busy(busy) => {
                self.retry_as_told(refusal);
                self.unsettled.insert(group);
                Ok(())
            }
            // Our epoch is not one of the log's: what this device holds of the group leads nowhere.
            other => {
                self.stop_group(tx, group, &other.to_string())?;
                match rows::load::<GroupRow>(tx, GROUPS, &group.0)? {
                    Some(mut row) if *other == Refusal::AccessDenied => {
                        self.ask_resync(tx, group, &mut row)
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    /// The group cannot go on here; its history stays.
    pub(super) fn stop_group(
        &mut self,
        tx: &Tx<'_>,
        group: GroupId,
        reason: &str,
    ) -> Result<(), EngineError> {
        if let Some(mut row) = rows::load::<GroupRow>(tx, GROUPS, &group.0)? {
            row.status = rows::GroupStatus::Stopped(reason.to_owned());
            rows::put(tx, GROUPS, group.0, &row)?;
        }
        self.dirty.insert(group);
        Ok(())
    }

    pub(super) fn set_inbox_cursor(&mut self, tx: &Tx<'_>, seq: u64) -> Result<(), EngineError> {
        self.inbox_cursor = seq;
        rows::put(tx, META, *b"inbox cursor", &seq)
    }
}

/// Whether the relay has nothing against it, and cannot take it just now.
pub(super) fn is_busy(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Storage | Refusal::RateLimited { .. })
}

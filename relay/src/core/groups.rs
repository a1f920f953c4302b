//! Group logs: creating one, and writing what the append rule accepts.

use mortise_protocol::identity::{Epoch, GroupId, Hash, LogSeq, decode, sha256};
use mortise_protocol::store::StoreError;
use mortise_protocol::wire::log::{LogCursor, Purpose, RecordBody, entry_hash, log_hash};
use mortise_protocol::wire::{LogRecord, Refusal, Response, Submission};
use tls_codec::VLByteVec;

use super::append::{self, Accepted, Appender, Effect, Facts, LogHead, RosterFacts};
use super::layout::{
    self, AppendedRecord, AttestationKey, AttestedRecord, EPOCHS, EpochRecord, GROUPS, GroupRecord,
    LOG, ORG_GROUPS, OrgGroupRecord, RECORD_IDS, of_group, of_org_group, of_record,
};
use super::restarts::Place;
use super::turn::{Answer, Caller, Failure, Turn};

impl Turn<'_> {
    /// Opens a log under an id that nobody has, not even another organisation.
    pub(super) fn create_group(
        &mut self,
        caller: &Caller,
        group: GroupId,
        payload: &VLByteVec,
    ) -> Answer {
        let fence = self.roster(caller.org)?.fence();
        let Ok(RecordBody::Create { access_key }) = decode(payload.as_slice()) else {
            return Err(Refusal::Malformed.into());
        };
        let record_id = sha256(payload.as_slice());
        let id = of_record(group, record_id, caller.device);
        let existing: Option<GroupRecord> = layout::load(self.tx, GROUPS, &group.0)?;
        if let Some(existing) = existing {
            let before: Option<AppendedRecord> = layout::load(self.tx, RECORD_IDS, &id)?;
            return match before.filter(|_| existing.org == caller.org) {
                Some(before) => Ok(appended(before)),
                None => Err(Refusal::GroupExists.into()),
            };
        }
        if self.roster(caller.org)?.closed_at(group).is_some() {
            return Err(Refusal::GroupClosed.into());
        }
        let first = AppendedRecord {
            seq: LogSeq(1),
            fence,
        };
        let opening = EpochRecord {
            access_key,
            entry_hash: entry_hash(group, Epoch(0), payload.as_slice()),
            opening_seq: first.seq,
            opening_s: fence,
        };
        let created = OrgGroupRecord {
            created_fence: fence,
        };
        layout::save(self.tx, EPOCHS, of_group(group, 0), &opening);
        layout::save(
            self.tx,
            ORG_GROUPS,
            of_org_group(caller.org, group),
            &created,
        );
        let record = GroupRecord {
            org: caller.org,
            head_seq: first.seq,
            head_epoch: Epoch(0),
            confirmed: Epoch(0),
            restarted: false.into(),
            log_hash: LogCursor::created(opening.entry_hash, fence).hash,
        };
        self.write_record(
            caller,
            (group, Epoch(0)),
            record,
            first,
            (record_id, payload),
        );
        Ok(appended(first))
    }

    /// Looks up what the append rule asks for, and writes what it accepts, in one transaction (REQ-055).
    pub(super) fn submit(&mut self, caller: &Caller, submission: &Submission) -> Answer {
        let head = self.group_of(caller, submission.group)?;
        let record_id = sha256(submission.payload.as_slice());
        let (place, effect) = match self.decide(caller, submission, record_id, head)? {
            Accepted::Before(place) => return Ok(appended(place)),
            Accepted::Now(place, effect) => (place, effect),
        };
        self.charge_group(caller, submission)?;
        self.connections.note_proof(
            caller.conn,
            submission.group,
            submission.epoch,
            Purpose::Append,
            &submission.proof,
        );
        let mut head = head.ok_or(Refusal::UnknownGroup)?;
        self.confirm(caller, submission.group, submission.epoch, &mut head)?;
        head.head_seq = place.seq;
        let log_before = head.log_hash;
        head.log_hash = log_hash(&log_before, &record_id, place.fence);
        match effect {
            Effect::Commit { next } => {
                let number = submission.epoch.next();
                layout::save(self.tx, EPOCHS, of_group(submission.group, number.0), &next);
                head.head_epoch = number;
                self.await_confirmation(caller, submission, &mut head);
            }
            Effect::Restart => {
                self.write_restart(caller, submission, place.seq);
                head.restarted = true.into();
            }
            Effect::Attestation { order, verdict } => {
                let key = AttestationKey {
                    group: submission.group,
                    device: caller.device,
                    verdict,
                };
                self.note_attestation(key.of(caller.org, order), place.seq)?;
            }
            Effect::Message => {}
        }
        let Submission {
            group,
            epoch,
            payload,
            welcomes,
            ..
        } = submission;
        let content = (record_id, payload);
        let record = self.write_record(caller, (*group, *epoch), head, place, content);
        self.deliver_welcomes(caller, *group, (place.seq, log_before), welcomes)?;
        let answer = appended(place);
        let place = match effect {
            Effect::Commit { .. } => Place::ClosesEpoch,
            Effect::Restart => Place::EndsLog,
            Effect::Message | Effect::Attestation { .. } => Place::InEpoch,
        };
        self.push_live(*group, &record, place);
        Ok(answer)
    }

    fn decide(
        &self,
        caller: &Caller,
        submission: &Submission,
        record_id: Hash,
        head: Option<GroupRecord>,
    ) -> Result<Accepted, Failure> {
        let id = of_record(submission.group, record_id, caller.device);
        let epoch = of_group(submission.group, submission.epoch.0);
        let roster = self.roster(caller.org)?;
        let duplicate = match head {
            Some(_) => layout::load(self.tx, RECORD_IDS, &id)?,
            None => None,
        };
        let facts = Facts {
            appender: Some(Appender {
                device: caller.device,
                mls_signature_key: caller.mls_signature_key,
                binding: caller.binding,
            }),
            duplicate,
            head: match head {
                Some(g) => Some(LogHead {
                    seq: g.head_seq,
                    epoch: g.head_epoch,
                    confirmed: g.confirmed,
                    end: self.end_of(caller, submission.group, &g)?,
                }),
                None => None,
            },
            epoch: layout::load(self.tx, EPOCHS, &epoch)?,
            proven: self.connections.has_proven(
                caller.conn,
                submission.group,
                submission.epoch,
                Purpose::Append,
                &submission.proof,
            ),
            closed: roster.closed_at(submission.group).is_some(),
            roster: RosterFacts {
                fence: roster.fence(),
                head: roster.head().seq,
                hash_at: &|seq| roster.hash_at(seq),
                order_hash: &|seq| roster.order(seq).map(|order| order.entry_hash),
            },
        };
        Ok(append::decide(submission, &facts)?)
    }

    /// A group, if it is the caller's organisation's.
    pub(super) fn group_of(
        &self,
        caller: &Caller,
        group: GroupId,
    ) -> Result<Option<GroupRecord>, StoreError> {
        let record: Option<GroupRecord> = layout::load(self.tx, GROUPS, &group.0)?;
        Ok(record.filter(|g| g.org == caller.org))
    }

    /// Writes the record with the fence in force (REQ-060), its id, and the log's new end.
    fn write_record(
        &mut self,
        caller: &Caller,
        (group, epoch): (GroupId, Epoch),
        head: GroupRecord,
        place: AppendedRecord,
        (record_id, payload): (Hash, &VLByteVec),
    ) -> LogRecord {
        let record = LogRecord {
            seq: place.seq,
            epoch,
            fence: place.fence,
            at_ms: self.now_ms,
            payload: payload.clone(),
        };
        let id = of_record(group, record_id, caller.device);
        // The head says that this place is free (REQ-195).
        layout::save_new(self.tx, LOG, of_group(group, place.seq.0), &record);
        layout::save(self.tx, RECORD_IDS, id, &place);
        layout::save(self.tx, GROUPS, group.0, &head);
        record
    }

    fn note_attestation(&mut self, key: Vec<u8>, seq: LogSeq) -> Result<(), StoreError> {
        if self.tx.get(layout::ATTESTATIONS, &key)?.is_none() {
            let at_ms = self.now_ms;
            layout::save(
                self.tx,
                layout::ATTESTATIONS,
                key,
                &AttestedRecord { at_ms, seq },
            );
        }
        Ok(())
    }
}

fn appended(place: AppendedRecord) -> Response {
    Response::Appended {
        seq: place.seq,
        fence: place.fence,
    }
}

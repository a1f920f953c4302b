//! What a device sends, and when: rotation before messages, leaves before messages, one thing at a time (sections 10.6, 11, 13.3).

use anyhow::Context as _;
use mls_rs::MlsMessage;
use mls_rs::time::MlsTime;
use mortise_protocol::content::encode_text;
use mortise_protocol::group::PolicyChange;
use mortise_protocol::identity::{DeviceId, GroupId, Hash, UserId, encode, sha256};
use mortise_protocol::wire::aad::AuthenticatedData;
use mortise_protocol::wire::limits::KEY_PACKAGE_MIN_LEFT_MS;
use mortise_protocol::wire::log::{Attestation, AttestationStatement, CommitEntry, Verdict};
use mortise_protocol::wire::{
    Purpose, RecordBody, Refusal, Request, Response, Submission, WelcomeFor,
};

use super::device::{Asked, Device};
use super::group::{Claim, Held, Sent, Standing, Todo, Wish};
use super::rules::{self, Added, Change, Leaf};
use super::stack::leaf_of;

/// Devices of different users whose attestations are enough (REQ-064).
const ENOUGH: usize = 2;

/// What a commit shall do.
#[derive(Default)]
struct Plan {
    add: Vec<UserId>,
    remove: Vec<Leaf>,
    policy: Vec<PolicyChange>,
}

impl Device {
    /// Looks at every group for something to send.
    pub(super) fn take_turns(&mut self) {
        if !self.is_up_to_date() {
            return;
        }
        let groups: Vec<_> = self.groups.keys().copied().collect();
        for group in groups {
            let Some(mut held) = self.groups.remove(&group) else {
                continue;
            };
            if let Err(error) = self.take_turn(&mut held) {
                self.faults.push(format!("could not go on: {error:#}"));
            }
            self.groups.insert(group, held);
        }
    }

    fn may_send(&self, held: &Held) -> bool {
        let asked_to_go = held.leavers.iter().any(|l| l.device == self.me.device);
        held.standing == Standing::Active
            && held.sent.is_none()
            && held.backlog.is_empty()
            && held.subscribed == Some(held.epoch())
            && held.over != Some(held.epoch())
            && held.claim != Claim::Asked
            && !asked_to_go
    }

    fn take_turn(&mut self, held: &mut Held) -> anyhow::Result<()> {
        while self.may_send(held) {
            let stale: Vec<Leaf> = {
                let roster = self.roster();
                held.tree.stale(&roster, roster.head().seq).collect()
            };
            let Some(todo) = held.todo.front().cloned() else {
                return self.do_duty(held, stale);
            };
            match &todo.wish {
                // A device rotates, and carries out the leaves that it knows of, before it says anything (REQ-091, REQ-124).
                Wish::Text(_) | Wish::Leave | Wish::Attest(_)
                    if !stale.is_empty() || !held.leavers.is_empty() =>
                {
                    return self.commit_duty(held, stale);
                }
                Wish::Text(text) => {
                    let content = encode_text(self.salt(), text);
                    return self.say(held, &content);
                }
                Wish::Leave => return self.leave(held),
                Wish::Attest(order) => {
                    let rotated = held.owed.get(order).copied().unwrap_or_default();
                    let verdict = if rotated {
                        Verdict::Rotated
                    } else {
                        Verdict::Clean
                    };
                    return self.attest(held, *order, verdict);
                }
                Wish::Commit {
                    add,
                    remove,
                    policy,
                } if self.is_done(held, add, remove, policy) => {
                    held.todo.pop_front();
                    self.fulfil(&todo, Ok(()));
                }
                Wish::Commit {
                    add,
                    remove,
                    policy,
                } => {
                    let mut plan = Plan {
                        add: add.clone(),
                        remove: stale,
                        policy: policy.clone(),
                    };
                    let leaves = held.tree.leaves.iter().map(|l| l.leaf);
                    plan.remove
                        .extend(leaves.filter(|l| remove.contains(&l.user)));
                    if self.commit(held, plan, Some(todo.clone()))? {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether nothing is left to do of a wish for a change: somebody else was faster.
    fn is_done(
        &self,
        held: &Held,
        add: &[UserId],
        remove: &[UserId],
        policy: &[PolicyChange],
    ) -> bool {
        let only_an_update = add.is_empty() && remove.is_empty() && policy.is_empty();
        !only_an_update
            && self.missing(held, add).is_empty()
            && !remove.iter().any(|user| held.tree.has_user(*user))
            && held.wished_policy(policy) == held.tree.policy
    }

    /// What nobody was asked to do: removals, leaves of others, attestations (REQ-063, REQ-064, REQ-124).
    fn do_duty(&mut self, held: &mut Held, stale: Vec<Leaf>) -> anyhow::Result<()> {
        if stale.is_empty() && held.leavers.is_empty() {
            held.duty_since_ms = None;
            return self.owe_attestation(held);
        }
        let since = *held.duty_since_ms.get_or_insert(self.now_ms);
        if self.now_ms < since + self.patience_ms {
            return Ok(());
        }
        held.duty_since_ms = None;
        self.commit_duty(held, stale)
    }

    fn commit_duty(&mut self, held: &mut Held, stale: Vec<Leaf>) -> anyhow::Result<()> {
        let plan = Plan {
            remove: stale,
            ..Plan::default()
        };
        self.commit(held, plan, None).map(|_| ())
    }

    fn owe_attestation(&mut self, held: &mut Held) -> anyhow::Result<()> {
        while let Some((order, rotated)) = held.owed.pop_first() {
            let said = held
                .attested
                .get(&order)
                .map_or(0, std::collections::BTreeSet::len);
            if said < ENOUGH {
                held.owed.insert(order, rotated);
                held.todo.push_back(Todo {
                    command: None,
                    wish: Wish::Attest(order),
                });
                let verdict = if rotated {
                    Verdict::Rotated
                } else {
                    Verdict::Clean
                };
                return self.attest(held, order, verdict);
            }
        }
        Ok(())
    }

    fn data(&self, held: &Held) -> anyhow::Result<AuthenticatedData> {
        let head = self.roster().head();
        Ok(AuthenticatedData::new(head.seq, head.hash, held.cursor()?))
    }

    fn say(&mut self, held: &mut Held, content: &[u8]) -> anyhow::Result<()> {
        let data = self.data(held)?;
        let message = held
            .mls
            .encrypt_application_message(content, data.to_bytes())?;
        self.send_message(held, &message, data)
    }

    /// REQ-123: first the user's other devices, then the own leaf asks.
    fn leave(&mut self, held: &mut Held) -> anyhow::Result<()> {
        let mine = held.tree.leaves.iter().map(|l| l.leaf);
        let others: Vec<Leaf> = mine
            .filter(|l| l.user == self.me.user && l.device != self.me.device)
            .collect();
        if !others.is_empty() {
            return self.commit_duty(held, others);
        }
        let data = self.data(held)?;
        let index = held.mls.current_member_index();
        let message = held.mls.propose_remove(index, data.to_bytes())?;
        self.send_message(held, &message, data)
    }

    fn send_message(
        &mut self,
        held: &mut Held,
        message: &MlsMessage,
        data: AuthenticatedData,
    ) -> anyhow::Result<()> {
        let body = RecordBody::Message(message.to_bytes()?.into());
        let todo = held.todo.pop_front();
        self.submit(held, &body, Vec::new(), todo, None, data)
    }

    /// REQ-064: states what became of the group.
    fn attest(
        &mut self,
        held: &mut Held,
        order: mortise_protocol::identity::RosterSeq,
        verdict: Verdict,
    ) -> anyhow::Result<()> {
        let data = self.data(held)?;
        let order_hash = self.roster().hash_at(order).context("no such order")?;
        let statement = AttestationStatement {
            order_seq: order,
            order_hash,
            group: held.id,
            entry_hash: held.opening,
            epoch: held.epoch(),
            roster_seq: data.roster_seq,
            roster_hash: data.roster_hash,
            verdict,
            device: self.me.device,
        };
        let said = Attestation::sign(statement, &self.key, &held.access_key()?);
        held.owed.remove(&order);
        let todo = held.todo.pop_front();
        self.submit(
            held,
            &RecordBody::Attestation(said),
            Vec::new(),
            todo,
            None,
            data,
        )
    }

    /// Commits a plan; `false` if there was nothing that could be submitted.
    fn commit(&mut self, held: &mut Held, plan: Plan, todo: Option<Todo>) -> anyhow::Result<bool> {
        let wanted = self.missing(held, &plan.add);
        let packages = match std::mem::take(&mut held.claim) {
            Claim::Here(packages) => packages,
            _ if !wanted.is_empty() => {
                let suite = self.suite.id().into();
                let devices = wanted.clone();
                self.ask(
                    Request::ClaimKeyPackages { suite, devices },
                    Asked::Claim(held.id),
                );
                held.claim = Claim::Asked;
                return Ok(true);
            }
            _ => Default::default(),
        };
        let (mut adds, mut packed) = (Vec::new(), Vec::new());
        for device in &wanted {
            let device = *device;
            if let Some(package) = packages.get(&device)
                && let Some(leaf) = self.read_key_package(package, device)
            {
                adds.push(Added { leaf, resync: None });
                packed.push(package.clone());
            }
        }
        if adds.is_empty() && !wanted.is_empty() {
            self.give_up(held, todo, "no KeyPackage");
            return Ok(false);
        }
        let change = self.change(held, &plan, adds);
        let head = self.roster().head().seq;
        let allowed = rules::commit(&self.roster(), head, held.id, &held.tree, &change);
        if let Err(rule) = allowed {
            self.give_up(held, todo, rule);
            return Ok(false);
        }
        self.submit_commit(held, &change, &packed, todo)?;
        Ok(true)
    }

    fn give_up(&mut self, held: &mut Held, todo: Option<Todo>, rule: &str) {
        match todo {
            Some(todo) => {
                held.todo.pop_front();
                self.fulfil(&todo, Err(rule.into()));
            }
            None => self
                .faults
                .push(format!("a duty that is not allowed: {rule}")),
        }
    }

    /// What the commit does, with the policy that REQ-125 calls for.
    fn change(&self, held: &Held, plan: &Plan, adds: Vec<Added>) -> Change {
        let leaves = held.leavers.clone();
        let mut removes = plan.remove.clone();
        removes.extend(&leaves);
        removes.sort();
        removes.dedup();
        let mut change = Change {
            committer: self.me,
            committer_after: self.me,
            adds,
            removes,
            leaves,
            policy: None,
        };
        let roster = self.roster();
        let wished = held.wished_policy(&plan.policy);
        let s = roster.head().seq;
        change.policy = Some(rules::settled(&roster, s, &held.tree, &change, &wished));
        change
    }

    fn submit_commit(
        &mut self,
        held: &mut Held,
        change: &Change,
        packages: &[Vec<u8>],
        todo: Option<Todo>,
    ) -> anyhow::Result<()> {
        let data = self.data(held)?;
        let made = held.make_commit(&data, packages, change)?;
        let entry = CommitEntry::sign(
            held.id,
            held.epoch(),
            made.commit,
            made.next_access_key,
            &self.key,
        );
        let devices: Vec<DeviceId> = change.adds.iter().map(|a| a.leaf.device).collect();
        let welcomes = made.welcome.map(|welcome| WelcomeFor {
            devices,
            welcome: welcome.into(),
        });
        if todo.is_some() {
            held.todo.pop_front();
        }
        let next = Some(Box::new((made.next, change.clone())));
        let welcomes = welcomes.into_iter().collect();
        self.submit(held, &RecordBody::Commit(entry), welcomes, todo, next, data)
    }

    /// REQ-092: whether a KeyPackage is what was asked for; MLS's own checks are mls-rs's.
    fn read_key_package(&self, package: &[u8], device: DeviceId) -> Option<Leaf> {
        let message = MlsMessage::from_bytes(package).ok()?;
        let package = message.as_key_package()?;
        let leaf = leaf_of(package.signing_identity()).filter(|leaf| leaf.device == device)?;
        let least = self.now_ms + KEY_PACKAGE_MIN_LEFT_MS;
        let lives = package.expiration().ok()? >= MlsTime::from(least / 1_000);
        (lives && package.cipher_suite() == self.suite.id()).then_some(leaf)
    }

    /// Submits a record, and keeps it until it was met (REQ-089).
    fn submit(
        &mut self,
        held: &mut Held,
        body: &RecordBody,
        welcomes: Vec<WelcomeFor>,
        todo: Option<Todo>,
        next: Option<Box<(super::stack::MlsGroup, Change)>>,
        data: AuthenticatedData,
    ) -> anyhow::Result<()> {
        let payload = encode(body);
        held.sent = Some(Sent {
            epoch: held.epoch(),
            record: sha256(&payload),
            payload,
            welcomes,
            todo,
            next,
            s: data.roster_seq,
        });
        self.submit_sent(held)
    }

    fn submit_sent(&mut self, held: &Held) -> anyhow::Result<()> {
        let Some(sent) = &held.sent else {
            return Ok(());
        };
        let submission = Submission {
            group: held.id,
            epoch: sent.epoch,
            payload: sent.payload.clone().into(),
            welcomes: sent.welcomes.clone(),
            proof: self.proof(held, sent.epoch, Purpose::Append)?,
        };
        let what = Asked::Submit(held.id, sent.record);
        self.ask(Request::Submit(submission), what);
        Ok(())
    }

    /// After a connection was lost: the same bytes again (REQ-089).
    pub(super) fn submit_again(&mut self, group: GroupId) -> anyhow::Result<()> {
        let Some(held) = self.groups.remove(&group) else {
            return Ok(());
        };
        let done = self.submit_sent(&held);
        self.groups.insert(group, held);
        done
    }

    /// What the relay says to a record (section 13.3).
    pub(super) fn submitted(
        &mut self,
        group: GroupId,
        record: Hash,
        response: Response,
    ) -> anyhow::Result<()> {
        let Some(mut held) = self.groups.remove(&group) else {
            return Ok(());
        };
        let done = match response {
            Response::Appended { .. } => Ok(()),
            Response::Refused(refusal) => {
                if held.sent.as_ref().is_some_and(|sent| sent.record == record) {
                    self.refused(&mut held, refusal)
                } else {
                    Ok(())
                }
            }
            other => Err(anyhow::anyhow!("an answer to Submit: {other:?}")),
        };
        self.groups.insert(group, held);
        done
    }

    fn refused(&mut self, held: &mut Held, refusal: Refusal) -> anyhow::Result<()> {
        let sent = held.sent.take().context("nothing was sent")?;
        match refusal {
            Refusal::WrongEpoch { .. } => {
                held.over = Some(sent.epoch);
                held.put_back(sent.todo);
            }
            Refusal::RosterBehind { .. } => {
                held.put_back(sent.todo);
                self.lag();
            }
            Refusal::GroupClosed | Refusal::NotAdmitted => {
                held.put_back(sent.todo);
                self.lag();
            }
            refusal => {
                let Some(todo) = sent.todo else {
                    anyhow::bail!("refused: {refusal}")
                };
                self.fulfil(&todo, Err(refusal.to_string()));
            }
        }
        Ok(())
    }

    /// Whether nothing is on its way in any group.
    pub(super) fn is_idle(&self) -> bool {
        self.groups.values().all(|held| {
            held.standing != Standing::Active || (held.is_idle() && held.owed.is_empty())
        })
    }
}

//! What the relay signs about an order, whom it proves it to, and the receipts that it carries.

use mortise_protocol::certificate::{Evidence, Maker, compile, verify};
use mortise_protocol::identity::{DeviceId, Epoch, GroupId, RosterSeq, Sealed, encode};
use mortise_protocol::roster::{Op, Role};
use mortise_protocol::wire::log::{Attestation, AttestationStatement, RecordBody, Verdict};
use mortise_protocol::wire::{
    Flag, GroupState, ReceiptFor, ReceiptId, Refusal, Request, Response, SealedReceipt,
    SignedOrderSet, limits,
};

use super::fixture::*;
use super::groups::{Group, appended, at_head};
use crate::core::ConnId;

const NOBODY: (GroupId, DeviceId) = (GroupId([0; 32]), DeviceId([0; 16]));

/// Three groups of one member, and an order; a fourth group came after it.
struct Ordered {
    world: World,
    owner: ConnId,
    member: (Device, ConnId),
    groups: Vec<Group>,
    order: RosterSeq,
}

fn ordered() -> Ordered {
    let mut world = World::founded();
    let owner = world.owner_online();
    let (gone, _) = world.join(owner, Role::Member);
    let member = world.join(owner, Role::Member);
    let mut groups: Vec<Group> = (1..=3)
        .map(|n| Group::created(n, &mut world, member.1))
        .collect();
    let order = world.order(owner, vec![Op::RemoveUser { user: gone.user }]);
    groups.push(Group::created(4, &mut world, member.1));
    for group in &groups {
        group.subscribe(&mut world, member.1, Epoch(0), 0, 10);
    }
    Ordered {
        world,
        owner,
        member,
        groups,
        order,
    }
}

impl Ordered {
    fn proof(&mut self, conn: ConnId, group: usize) -> Response {
        let (order, group) = (self.order, self.groups[group].id);
        self.world.ask(conn, Request::OrderProof { order, group })
    }

    fn set(&mut self, group: usize) -> SignedOrderSet {
        match self.proof(self.member.1, group) {
            Response::OrderProof { set, index, path } => {
                assert!(set.includes(self.groups[group].id, index, &path));
                set
            }
            other => panic!("no proof: {other:?}"),
        }
    }

    fn attest(&mut self, group: usize, verdict: Verdict) {
        let (device, conn) = &self.member;
        let group = &self.groups[group];
        let (roster_seq, roster_hash) = at_head(&self.world.roster);
        let statement = AttestationStatement {
            order_seq: self.order,
            order_hash: self.world.roster.hash_at(self.order).expect("order"),
            group: group.id,
            entry_hash: group.opening(group.epoch()),
            epoch: group.epoch(),
            roster_seq,
            roster_hash,
            verdict,
            device: device.id(),
        };
        let signed = Attestation::sign(statement, &device.mls, group.access_key(group.epoch()));
        let submission = group.submission(*conn, &RecordBody::Attestation(signed));
        appended(self.world.ask(*conn, Request::Submit(submission)));
    }

    fn receipt(&self, group: usize, device: DeviceId, to: &[DeviceId]) -> SealedReceipt {
        let copy = |recipient: &DeviceId| ReceiptFor {
            recipient: *recipient,
            sealed: Sealed {
                enc: vec![1; 32].into(),
                ciphertext: vec![2; 100].into(),
            },
        };
        SealedReceipt {
            id: ReceiptId {
                order: self.order,
                group: self.groups[group].id,
                device,
            },
            copies: to.iter().map(copy).collect(),
        }
    }

    fn fetch(&mut self, conn: ConnId, after: (GroupId, DeviceId)) -> (Vec<SealedReceipt>, bool) {
        let request = Request::FetchReceipts {
            order: self.order,
            after_group: after.0,
            after_device: after.1,
        };
        match self.world.ask(conn, request) {
            Response::Receipts { receipts, more } => (receipts, more == Flag::Yes),
            other => panic!("no receipts: {other:?}"),
        }
    }
}

/// REQ-171: the set is every group older than the order, whatever becomes of them, signed the same each time.
#[test]
fn the_set_of_an_order_never_changes() {
    let mut o = ordered();
    let set = o.set(0);
    assert_eq!(set.verify(&statement_key()), Ok(()));
    assert_eq!((set.set.count, set.set.order_seq), (3, o.order));
    o.attest(1, Verdict::Clean);
    let conn = o.member.1;
    Group::created(5, &mut o.world, conn);
    assert_eq!(o.set(1), set);
    o.world.core = o.world.restarted();
    let conn = o.world.online(&o.member.0);
    o.groups[2].subscribe(&mut o.world, conn, Epoch(0), 0, 10);
    o.member.1 = conn;
    assert_eq!(o.set(2), set);
}

/// REQ-172: proofs are for subscribers, and for groups that are older than the order.
#[test]
fn proofs_are_for_who_is_in_the_group() {
    let mut o = ordered();
    let (owner, conn) = (o.owner, o.member.1);
    let denied = Response::Refused(Refusal::AccessDenied);
    assert_eq!(o.proof(owner, 0), denied);
    let unknown = Response::Refused(Refusal::UnknownGroup);
    assert_eq!(o.proof(conn, 3), unknown);
    o.order = RosterSeq(1);
    let none = Response::Refused(Refusal::UnknownOrder);
    assert_eq!(o.proof(conn, 0), none);
}

/// REQ-173, REQ-176: what the relay signs, with the attestations that it carries, makes a certificate that holds.
#[test]
fn the_signed_state_makes_a_certificate() {
    let mut o = ordered();
    o.attest(0, Verdict::Rotated);
    o.attest(1, Verdict::Clean);
    let (owner, order) = (o.owner, o.order);
    let answer = o.world.ask(owner, Request::OrderState { order });
    let Response::OrderState {
        state,
        groups,
        attestations,
    } = answer
    else {
        panic!("no state: {answer:?}");
    };
    assert_eq!(state.state.closed, 1);
    assert_eq!(state.state.set_root, o.set(0).set.root);
    let states: Vec<GroupState> = groups.iter().map(|g| g.state).collect();
    assert_eq!(
        states,
        [GroupState::Rotated, GroupState::Clean, GroupState::Sealed]
    );
    let entries = match o.world.ask(
        owner,
        Request::FetchRoster {
            after: RosterSeq(0),
        },
    ) {
        Response::Roster { entries, .. } => entries,
        other => panic!("no roster: {other:?}"),
    };
    let entries: Vec<Vec<u8>> = entries.iter().map(|e| e.as_slice().to_vec()).collect();
    let maker = Maker {
        roster: &o.world.roster,
        entries: &entries,
        key: &o.world.owner.mls,
        now_ms: o.world.now_ms,
    };
    let evidence = Evidence {
        state: *state,
        groups,
        attestations,
        receipts: Vec::new(),
        trees: Vec::new(),
    };
    let file = compile(maker, evidence, false).expect("it holds");
    let shown = verify(&file, o.world.org()).expect("it holds");
    assert_eq!(shown.groups.len(), 3);
    let (_, other) = o.world.join(owner, Role::Member);
    let refusal = o.world.refused(other, Request::OrderState { order });
    assert_eq!(refusal, Refusal::Forbidden);
}

/// REQ-175: a receipt is left by its device, in its group, once; and given to its recipients alone.
#[test]
fn receipts_reach_their_recipients_and_nobody_else() {
    let mut o = ordered();
    let (me, conn, owner) = (o.member.0.id(), o.member.1, o.owner);
    let auditor = DeviceId([9; 16]);
    let receipts: Vec<SealedReceipt> = (0..3)
        .map(|n| o.receipt(n, me, &[o.world.owner.id(), auditor]))
        .collect();
    for receipt in &receipts {
        let receipt = receipt.clone();
        let put = Request::PutReceipt { receipt };
        assert_eq!(o.world.ask(conn, put.clone()), Response::Done);
        assert_eq!(o.world.ask(conn, put), Response::Done);
    }
    let (mine, more) = o.fetch(owner, NOBODY);
    assert_eq!((mine.len(), more), (3, false));
    assert!(mine.iter().all(|r| r.copies.len() == 1));
    let after = (mine[1].id.group, mine[1].id.device);
    assert_eq!(o.fetch(owner, after).0, mine[2..]);
    assert_eq!(o.fetch(conn, NOBODY), (Vec::new(), false));

    let refused =
        |o: &mut Ordered, conn, receipt| o.world.refused(conn, Request::PutReceipt { receipt });
    let forged = o.receipt(0, auditor, &[auditor]);
    assert_eq!(refused(&mut o, conn, forged), Refusal::Malformed);
    let later = o.receipt(3, me, &[auditor]);
    assert_eq!(refused(&mut o, conn, later), Refusal::UnknownGroup);
    let many = o.receipt(0, me, &[auditor; limits::MAX_RECEIPT_COPIES + 1]);
    assert_eq!(refused(&mut o, conn, many), Refusal::Malformed);
    let outside = o.receipt(0, o.world.owner.id(), &[auditor]);
    assert_eq!(refused(&mut o, owner, outside), Refusal::AccessDenied);
}

/// REQ-040, REQ-175: as many as the limit are kept for one group, and not one more.
#[test]
fn receipts_of_a_group_are_bounded() {
    let mut o = ordered();
    let owner = o.owner;
    for n in 0..=limits::MAX_RECEIPTS {
        let (device, conn) = o.world.join(owner, Role::Member);
        o.groups[0].subscribe(&mut o.world, conn, Epoch(0), 0, 10);
        let receipt = o.receipt(0, device.id(), &[o.world.owner.id()]);
        assert!(encode(&receipt).len() < limits::MAX_RECEIPT_BYTES);
        let answer = o.world.ask(conn, Request::PutReceipt { receipt });
        if n < limits::MAX_RECEIPTS {
            assert_eq!(answer, Response::Done);
        } else {
            let limit = limits::MAX_RECEIPTS as u64;
            assert_eq!(answer, Response::Refused(Refusal::TooLarge { limit }));
        }
    }
}

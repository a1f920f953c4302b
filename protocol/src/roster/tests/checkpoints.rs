//! Checkpoints: by whom, about which entry.

use super::*;

fn by(world: &World, device: &Device, head: Head) -> Checkpoint {
    Checkpoint::sign(world.org(), head, NOW_MS, device.id(), &device.mls)
}

/// REQ-105: of an owner or admin, admitted at the entry that it names, on this chain.
#[test]
fn a_checkpoint_is_an_administrators() {
    let mut world = World::founded();
    let early = world.roster.head();
    let admin = world.person(Role::Admin);
    let member = world.person(Role::Member);
    let head = world.roster.head();
    for device in [&world.owner, &admin] {
        assert_eq!(by(&world, device, head).verify(&world.roster), Ok(()));
    }
    let signer = Err(CheckpointFault::Signer);
    assert_eq!(by(&world, &member, head).verify(&world.roster), signer);
    // Before it was admitted there.
    assert_eq!(by(&world, &admin, early).verify(&world.roster), signer);
    assert_eq!(
        by(&world, &admin, Head::EMPTY).verify(&world.roster),
        signer
    );
    let mut other = by(&world, &admin, head);
    other.org = OrgId([1; 32]);
    assert_eq!(other.verify(&world.roster), signer);
    let mut later = by(&world, &admin, head);
    later.issued_at_ms += 1;
    assert_eq!(later.verify(&world.roster), signer);
    let mut borrowed = by(&world, &member, head);
    borrowed.device = admin.id();
    assert_eq!(borrowed.verify(&world.roster), signer);
}

/// REQ-105: a removed admin's old statement stands, and a new one is nothing.
#[test]
fn a_checkpoint_ends_with_its_signer() {
    let mut world = World::founded();
    let admin = world.person(Role::Admin);
    let before = by(&world, &admin, world.roster.head());
    world.owner_does(vec![Op::RemoveUser { user: admin.user }]);
    assert_eq!(before.verify(&world.roster), Ok(()));
    let after = by(&world, &admin, world.roster.head());
    assert_eq!(after.verify(&world.roster), Err(CheckpointFault::Signer));
}

/// REQ-105: another entry at a known place convicts; one beyond the chain has to wait.
#[test]
fn a_checkpoint_of_another_chain_is_a_fork() {
    let mut world = World::founded();
    world.new_user(Role::Member);
    let head = world.roster.head();
    let wrong = Head {
        hash: Hash([1; 32]),
        ..head
    };
    let fork = by(&world, &world.owner, wrong);
    assert_eq!(fork.verify(&world.roster), Err(CheckpointFault::Fork));
    let next = Head {
        seq: head.seq.next(),
        ..head
    };
    let beyond = by(&world, &world.owner, next);
    assert_eq!(beyond.verify(&world.roster), Err(CheckpointFault::Beyond));
}

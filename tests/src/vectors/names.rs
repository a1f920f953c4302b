//! Sealed profiles and slots: section 7.

use mortise_protocol::identity::{
    DeviceId, DirectoryKey, OrgId, RosterSeq, SealSecret, SealedProfile, SigningKey, Slot, UserId,
    open_slot,
};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use serde_json::{Value, json};

use super::fields::Fields;
use super::{hex, unhex};

const ORG: OrgId = OrgId([0x0a; 32]);
const KEY: [u8; 32] = [0xdc; 32];
const GENERATION: RosterSeq = RosterSeq(7);
/// The key before it, and the entry that named that.
const KEY_BEFORE: [u8; 32] = [0xdb; 32];
/// Seeds of the recipient's MLS signature key and sealing key.
const MLS_SEED: [u8; 32] = [10; 32];
const SEAL_SEED: [u8; 32] = [12; 32];

/// HPKE draws its own randomness, so these were sealed once: the key of the roster, and another one.
const SLOTS: [(&str, &str); 2] = [
    (
        "7da592e984355edaeb0c235c772ffb941e37e3b5072b27966e78df06ec711255",
        "78a61520115de4f76c6df213a6cc08b53dbe93ca56f45f8a\
         05d9cd431da6610727c4f2204679244c58d6229c1f61fbb6",
    ),
    (
        "0e316bbe940935b2441c7e90385329406e01464f15051e97391f521da1b5d031",
        "b3fc33d7bae1b2ee020c3879a6c0c93138f80c8df2a33bff\
         ac8c4e3daa999a6e7551fdeafc0ed88daea42c1e5f7a9831",
    ),
];

pub(super) fn vectors() -> Value {
    let key = DirectoryKey::from_bytes(KEY);
    json!({
        "organisation": ORG.fields(),
        "directory_key": hex(KEY),
        "commitment": key.commitment().fields(),
        "generation": GENERATION.fields(),
        "predecessors": predecessors(&key),
        "profiles": profiles(&key),
        "recipient": {
            "device": recipient().fields(),
            "seal_seed": hex(SEAL_SEED),
        },
        "slots": slots(&key),
    })
}

fn recipient() -> DeviceId {
    SigningKey::from_seed(&MLS_SEED).public().device_id()
}

/// What RotateDirectoryKey says of the key before (REQ-101).
fn predecessors(key: &DirectoryKey) -> Value {
    let before = DirectoryKey::from_bytes(KEY_BEFORE);
    let mut rng = ChaCha20Rng::from_seed([9; 32]);
    let good = key.wrap_predecessor(&mut rng, ORG, GENERATION, &before);
    let mut changed = good.clone();
    changed[20] ^= 1;
    [
        ("the key before", good.clone(), before.commitment()),
        ("changed", changed, before.commitment()),
        ("another key than was committed to", good, key.commitment()),
    ]
    .into_iter()
    .map(|(name, predecessor, commitment)| {
        let opened = key.unwrap_predecessor(ORG, GENERATION, &predecessor, commitment);
        json!({
            "name": name,
            "predecessor": hex(&predecessor),
            "commitment": commitment.fields(),
            "opens_to": opened.ok().map(|key| hex(key.dangerous_bytes().as_slice())),
        })
    })
    .collect()
}

fn profiles(key: &DirectoryKey) -> Value {
    let ann = UserId([0x0a; 16]);
    let sealed = |number: u8, name: &str| {
        let mut rng = ChaCha20Rng::from_seed([number; 32]);
        key.seal_profile(&mut rng, GENERATION, ORG, ann, name)
    };
    let good = sealed(1, "Ann");
    let mut changed = good.0.as_slice().to_vec();
    *changed.last_mut().expect("not empty") ^= 1;
    let cut = good.0.as_slice()[..19].to_vec();
    let mut moved = good.0.as_slice().to_vec();
    moved[7] += 1;
    let bob = UserId([0x0b; 16]);
    [
        ("a name", ann, good.clone()),
        ("a name beyond ASCII", ann, sealed(2, "Åsa Łukaszewicz 陳")),
        ("no name", ann, sealed(3, "")),
        ("shown for another user", bob, good),
        ("changed", ann, SealedProfile(changed.into())),
        ("of another generation", ann, SealedProfile(moved.into())),
        (
            "shorter than generation and nonce",
            ann,
            SealedProfile(cut.into()),
        ),
    ]
    .into_iter()
    .map(|(name, user, profile)| {
        json!({
            "name": name,
            "user": user.fields(),
            "profile": profile.fields(),
            "opens_to": key.open_profile(ORG, user, &profile).ok(),
        })
    })
    .collect()
}

fn slots(key: &DirectoryKey) -> Value {
    let slot = |at: usize, filler: u8| Slot {
        device: recipient(),
        filler: DeviceId([filler; 16]),
        generation: GENERATION,
        enc: unhex::<32>(SLOTS[at].0).to_vec().into(),
        ciphertext: unhex::<48>(SLOTS[at].1).to_vec().into(),
    };
    let mut changed = slot(0, 0xf1);
    changed.ciphertext = [&[0], &changed.ciphertext.as_slice()[1..]].concat().into();
    let mut for_another = slot(0, 0xf1);
    for_another.device = DeviceId([0xee; 16]);
    let mut moved = slot(0, 0xf1);
    moved.generation = RosterSeq(GENERATION.0 + 1);
    let secret = SealSecret::new(SigningKey::from_seed(&SEAL_SEED));
    [
        ("the organisation's key", slot(0, 0xf1)),
        (
            "another key, which the roster does not commit to",
            slot(1, 0xf2),
        ),
        ("changed", changed),
        ("sealed for another device", for_another),
        ("sealed as another generation", moved),
    ]
    .into_iter()
    .map(|(name, slot)| {
        let opened = open_slot(ORG, &slot, &secret, key.commitment());
        json!({
            "name": name,
            "slot": slot.fields(),
            "opens_to": opened.ok().map(|key| hex(key.dangerous_bytes().as_slice())),
        })
    })
    .collect()
}

//! Sealed profiles and slots: section 7.

use mortise_protocol::identity::{
    DeviceId, DirectoryKey, OrgId, SealSecret, SealedProfile, SigningKey, Slot, UserId, open_slot,
};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use serde_json::{Value, json};

use super::fields::Fields;
use super::{hex, unhex};

const ORG: OrgId = OrgId([0x0a; 32]);
const KEY: [u8; 32] = [0xdc; 32];
/// Seeds of the recipient's MLS signature key and sealing key.
const MLS_SEED: [u8; 32] = [10; 32];
const SEAL_SEED: [u8; 32] = [12; 32];

/// HPKE draws its own randomness, so these were sealed once: the key of the roster, and another one.
const SLOTS: [(&str, &str); 2] = [
    (
        "c050eb57ee0c27b6d7ed4d24b4624e9bad8aac1f21ba22593c3868ac72d9696a",
        "173941baf42a093e48c229e822202d7b5b14318573b13da0\
         3bf06f22f9172dad59b5be36a1beb8100dbb4a71c00be0c2",
    ),
    (
        "3b16db59f8b0110d4bb53c393deb9ed999aa763bbf831eeba3cca6e6f9012b10",
        "9d66014891c046e6af9c87e997d5e82ed20da454cecc2f99\
         a4d4f934250a937354d38d84f849c135e62548fc7b42f88a",
    ),
];

pub(super) fn vectors() -> Value {
    let key = DirectoryKey::from_bytes(KEY);
    json!({
        "organisation": ORG.fields(),
        "directory_key": hex(KEY),
        "commitment": key.commitment().fields(),
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

fn profiles(key: &DirectoryKey) -> Value {
    let ann = UserId([0x0a; 16]);
    let sealed = |number: u8, name: &str| {
        key.seal_profile(&mut ChaCha20Rng::from_seed([number; 32]), ORG, ann, name)
    };
    let good = sealed(1, "Ann");
    let mut changed = good.0.as_slice().to_vec();
    *changed.last_mut().expect("not empty") ^= 1;
    let cut = good.0.as_slice()[..11].to_vec();
    let bob = UserId([0x0b; 16]);
    [
        ("a name", ann, good.clone()),
        ("a name beyond ASCII", ann, sealed(2, "Åsa Łukaszewicz 陳")),
        ("no name", ann, sealed(3, "")),
        ("shown for another user", bob, good),
        ("changed", ann, SealedProfile(changed.into())),
        ("shorter than a nonce", ann, SealedProfile(cut.into())),
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
        enc: unhex::<32>(SLOTS[at].0).to_vec().into(),
        ciphertext: unhex::<48>(SLOTS[at].1).to_vec().into(),
    };
    let mut changed = slot(0, 0xf1);
    changed.ciphertext = [&[0], &changed.ciphertext.as_slice()[1..]].concat().into();
    let mut for_another = slot(0, 0xf1);
    for_another.device = DeviceId([0xee; 16]);
    let secret = SealSecret::new(SigningKey::from_seed(&SEAL_SEED));
    [
        ("the organisation's key", slot(0, 0xf1)),
        (
            "another key, which the roster does not commit to",
            slot(1, 0xf2),
        ),
        ("changed", changed),
        ("sealed for another device", for_another),
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

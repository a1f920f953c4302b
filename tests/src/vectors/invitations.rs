//! Keys of invitations, and the links that carry their secrets: REQ-020, REQ-021.

use data_encoding::BASE64URL_NOPAD;
use mortise_protocol::identity::{
    ClaimLink, Hash, InvitationId, InvitationSecret, JoinLink, OrgId, Pin, RosterSeq, SigningKey,
    UserId, derive_invitation_key,
};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;
use serde_json::{Value, json};

use super::fields::Fields;
use super::hex;
use super::story::variant;

const RELAY: &str = "relay.example.org:4433";

pub(super) fn vectors() -> Value {
    json!({
        "keys": ([(1_u8, None), (2, None), (2, Some("ABCD-2345"))].map(derived)),
        "join_links": ([join_link(1), join_link(2)].map(|link| written(&link))),
        "claim_links": [claimed(&claim_link())],
        "refused_join_links": refused(),
    })
}

fn secret(number: u8) -> InvitationSecret {
    InvitationSecret::random(&mut ChaCha20Rng::from_seed([number; 32]) as &mut dyn RngCore)
}

fn derived((number, pin): (u8, Option<&str>)) -> Value {
    let (invitation, secret) = (InvitationId([number; 16]), secret(number));
    let pin = pin.map(|text| Pin::parse(text).expect("a PIN"));
    json!({
        "pin": pin.as_ref().map(|pin| pin.to_text().to_string()),
        "secret": hex(secret.dangerous_bytes()),
        "invitation": invitation.fields(),
        "public_key": derive_invitation_key(&secret, pin.as_ref(), invitation).public().fields(),
    })
}

fn join_link(number: u8) -> JoinLink {
    JoinLink {
        relay: RELAY.into(),
        relay_key: Hash([0x4b; 32]),
        org: OrgId([0x0a; 32]),
        pin_seq: RosterSeq(5),
        pin_hash: Hash([0x4a; 32]),
        user: UserId([0x0c; 16]),
        invitation: InvitationId([number; 16]),
        secret: secret(number),
        needs_pin: number == 2,
    }
}

fn written(link: &JoinLink) -> Value {
    json!({
        "link": link.to_text().as_str(),
        "fields": {
            "version": 1,
            "relay": hex(&link.relay),
            "relay_key": link.relay_key.fields(),
            "org": link.org.fields(),
            "pin_seq": link.pin_seq.fields(),
            "pin_hash": link.pin_hash.fields(),
            "user": link.user.fields(),
            "invitation": link.invitation.fields(),
            "secret": hex(link.secret.dangerous_bytes()),
            "needs_pin": if link.needs_pin { "yes" } else { "no" },
        },
    })
}

fn claim_link() -> ClaimLink {
    ClaimLink {
        relay: RELAY.into(),
        relay_key: Hash([0x4b; 32]),
        statement_key: SigningKey::from_seed(&[2; 32]).public(),
        token: secret(3),
    }
}

fn claimed(link: &ClaimLink) -> Value {
    json!({
        "link": link.to_text().as_str(),
        "fields": {
            "version": 1,
            "relay": hex(&link.relay),
            "relay_key": link.relay_key.fields(),
            "statement_key": link.statement_key.fields(),
            "token": hex(link.token.dangerous_bytes()),
        },
    })
}

/// Texts that a device must not act on.
fn refused() -> Value {
    let good = join_link(1).to_text().to_string();
    let scheme = "mortise://join/";
    let body = &good[scheme.len()..];
    let mut newer = BASE64URL_NOPAD
        .decode(body.as_bytes())
        .expect("written just now");
    newer[0] = 2;
    // A newer version may end otherwise; its check is not ours to read.
    let newer = BASE64URL_NOPAD.encode(&newer);
    let replaced = format!("{}A{}", &body[..20], &body[21..]);
    let cases = [
        (
            "another scheme",
            good.replace("mortise:", "https:"),
            "Scheme",
        ),
        ("a claim link", claim_link().to_text().to_string(), "Scheme"),
        ("nothing after the scheme", scheme.to_owned(), "Damaged"),
        (
            "the last character cut",
            good[..good.len() - 1].to_owned(),
            "Damaged",
        ),
        ("cut in half", good[..good.len() / 2].to_owned(), "Damaged"),
        (
            "a character replaced",
            format!("{scheme}{replaced}"),
            "Damaged",
        ),
        ("padded", format!("{good}="), "Damaged"),
        (
            "a character of another alphabet",
            format!("{scheme}+{}", &body[1..]),
            "Damaged",
        ),
        ("version 2", format!("{scheme}{newer}"), "Version"),
    ];
    cases
        .into_iter()
        .map(|(name, link, expected)| {
            let refused = variant(&JoinLink::parse(&link).expect_err(name));
            assert_eq!(refused, expected, "{name}");
            json!({ "name": name, "link": link, "refusal": refused })
        })
        .collect()
}

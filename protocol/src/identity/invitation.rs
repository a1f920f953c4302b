//! Invitations as capabilities: the secret in a link, the key derived from it, and what the link pins.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use rand::RngCore;
use tls_codec::{TlsDeserialize, TlsSerialize, TlsSize, VLByteVec};
use zeroize::{Zeroize, Zeroizing};

use crate::wire::Flag;

use super::{
    Hash, InvitationId, OrgId, PublicKey, RosterSeq, SigningKey, UserId, decode, encode, sha256,
};

/// Argon2id memory, KiB (REQ-021).
pub(super) const ARGON2_MEMORY_KIB: u32 = 64 * 1024;
/// Argon2id passes (REQ-021).
pub(super) const ARGON2_PASSES: u32 = 3;

const SCHEME: &str = "mortise://join/";

/// A link that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// It is no link of this kind.
    #[error("not such a link: it must start with {scheme}")]
    Scheme {
        /// What it must start with.
        scheme: &'static str,
    },
    /// It was cut or changed on the way.
    #[error("the invitation link is damaged or incomplete; copy it again, whole")]
    Damaged,
    /// It is of a version that this program does not know.
    #[error("the invitation link is of a newer version; update this program")]
    Version,
}

/// The secret in a link: 32 random bytes. Wiped on drop, never printed.
#[derive(PartialEq, Eq)]
pub struct InvitationSecret([u8; 32]);

impl Drop for InvitationSecret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for InvitationSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InvitationSecret(secret)")
    }
}

impl InvitationSecret {
    /// Draws a secret.
    pub fn random(rng: &mut dyn RngCore) -> Self {
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// The secret that was stored.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The secret's bytes, for the one place that sends or hashes them.
    #[must_use]
    pub fn dangerous_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Something that is no PIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a PIN has eight characters, A to Z and 2 to 7")]
pub struct PinError;

/// A PIN that is told over another channel than the link: eight base32 characters, 40 random bits (REQ-104).
///
/// `Debug` shows nothing of it; it is wiped on drop. `Clone`, because an event carries it.
#[derive(Clone, PartialEq, Eq)]
pub struct Pin([u8; Self::LENGTH]);

impl Drop for Pin {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin(secret)")
    }
}

impl Pin {
    const LENGTH: usize = 8;

    /// Draws a PIN.
    ///
    /// # Panics
    /// Never: five bytes are eight base32 characters.
    pub fn random(rng: &mut dyn RngCore) -> Self {
        let mut bytes = Zeroizing::new([0; 5]);
        rng.fill_bytes(bytes.as_mut());
        let mut text = [0; Self::LENGTH];
        BASE32_NOPAD.encode_mut(bytes.as_ref(), &mut text);
        Self(text)
    }

    /// Reads a PIN as a person types it: in either case, with spaces and hyphens anywhere.
    ///
    /// # Errors
    /// [`PinError`].
    pub fn parse(text: &str) -> Result<Self, PinError> {
        let mut pin = Self([0; Self::LENGTH]);
        let mut typed = text
            .bytes()
            .filter(|b| !matches!(b, b' ' | b'-' | b'\t' | b'\r' | b'\n'));
        for place in &mut pin.0 {
            let byte = typed.next().ok_or(PinError)?.to_ascii_uppercase();
            if !matches!(byte, b'A'..=b'Z' | b'2'..=b'7') {
                return Err(PinError);
            }
            *place = byte;
        }
        match typed.next() {
            Some(_) => Err(PinError),
            None => Ok(pin),
        }
    }

    /// The PIN as it is told: two groups of four characters.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let text: String = self.0.iter().map(|b| char::from(*b)).collect();
        let text = Zeroizing::new(text);
        let (first, second) = text.split_at(Self::LENGTH / 2);
        Zeroizing::new(format!("{first}-{second}"))
    }

    /// The PIN that was stored.
    ///
    /// # Errors
    /// [`PinError`].
    pub fn from_bytes(bytes: [u8; Self::LENGTH]) -> Result<Self, PinError> {
        let pin = Self(bytes);
        let fits = pin.0.iter().all(|b| matches!(b, b'A'..=b'Z' | b'2'..=b'7'));
        if fits { Ok(pin) } else { Err(PinError) }
    }

    /// The characters, for the one place that hashes them and the one that stores them.
    #[must_use]
    pub fn dangerous_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }
}

/// Derives the invitation's signature key: Argon2id over the secret and the PIN, if there is one, salted with the
/// invitation's id (REQ-021, REQ-104).
///
/// Takes about 0.2 s and 64 MiB.
///
/// # Panics
/// Never: the parameters are constants that Argon2 accepts.
#[must_use]
pub fn derive_invitation_key(
    secret: &InvitationSecret,
    pin: Option<&Pin>,
    id: InvitationId,
) -> SigningKey {
    let pin = pin.map_or(&[][..], |pin| &pin.0);
    let password = Zeroizing::new([&secret.0[..], pin].concat());
    #[cfg(feature = "simulation")]
    let seed = super::memo::invitation_seed(&password, id, || stretch(&password, id));
    #[cfg(not(feature = "simulation"))]
    let seed = stretch(&password, id);
    SigningKey::from_seed(&seed)
}

/// The seed of an invitation's key (REQ-021).
fn stretch(password: &[u8], id: InvitationId) -> Zeroizing<[u8; 32]> {
    let params = Params::new(ARGON2_MEMORY_KIB, ARGON2_PASSES, 1, Some(32))
        .expect("constant parameters within Argon2's bounds");
    let mut seed = Zeroizing::new([0_u8; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password, &id.0, seed.as_mut())
        .expect("constant lengths within Argon2's bounds");
    seed
}

/// What an invited person is given: where to go, whom to trust there, and the capability (REQ-020).
///
/// It holds a secret: no `Clone`, and `Debug` shows none of it.
#[derive(Debug, PartialEq, Eq)]
pub struct JoinLink {
    /// `host:port` of the relay.
    pub relay: String,
    /// SHA-256 of the SubjectPublicKeyInfo of the relay's certificate.
    pub relay_key: Hash,
    /// The organisation.
    pub org: OrgId,
    /// The roster entry before the invitation.
    pub pin_seq: RosterSeq,
    /// Its hash.
    pub pin_hash: Hash,
    /// Whom it is for.
    pub user: UserId,
    /// The invitation.
    pub invitation: InvitationId,
    /// The capability.
    pub secret: InvitationSecret,
    /// Whether it takes a PIN too, told over another channel (REQ-104).
    pub needs_pin: bool,
}

#[derive(TlsSerialize, TlsDeserialize, TlsSize)]
struct LinkBody {
    version: u8,
    relay: VLByteVec,
    relay_key: Hash,
    org: OrgId,
    pin_seq: RosterSeq,
    pin_hash: Hash,
    user: UserId,
    invitation: InvitationId,
    secret: [u8; 32],
    needs_pin: Flag,
}

impl JoinLink {
    /// The link as text.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        self.at(&self.relay, self.relay_key)
    }

    /// The link as text, leading to this relay.
    #[must_use]
    pub fn at(&self, relay: &str, relay_key: Hash) -> Zeroizing<String> {
        let body = Zeroizing::new(encode(&LinkBody {
            version: 1,
            relay: VLByteVec::from(relay.as_bytes().to_vec()),
            relay_key,
            org: self.org,
            pin_seq: self.pin_seq,
            pin_hash: self.pin_hash,
            user: self.user,
            invitation: self.invitation,
            secret: self.secret.0,
            needs_pin: self.needs_pin.into(),
        }));
        write_link(SCHEME, &body)
    }

    /// Reads a link.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn parse(text: &str) -> Result<Self, LinkError> {
        let body: LinkBody = parse_link(text, SCHEME)?;
        Ok(Self {
            relay: String::from_utf8(body.relay.as_slice().to_vec())
                .map_err(|_| LinkError::Damaged)?,
            relay_key: body.relay_key,
            org: body.org,
            pin_seq: body.pin_seq,
            pin_hash: body.pin_hash,
            user: body.user,
            invitation: body.invitation,
            secret: InvitationSecret(body.secret),
            needs_pin: body.needs_pin.into(),
        })
    }
}

const CLAIM_SCHEME: &str = "mortise://claim/";

/// What the operator of a relay gives to whoever may found an organisation there, once (REQ-024).
///
/// It holds a secret: no `Clone`, and `Debug` shows none of it.
#[derive(Debug, PartialEq, Eq)]
pub struct ClaimLink {
    /// `host:port` of the relay.
    pub relay: String,
    /// SHA-256 of the SubjectPublicKeyInfo of the relay's certificate.
    pub relay_key: Hash,
    /// The key that the relay signs its statements with.
    pub statement_key: PublicKey,
    /// The one-time token; the relay stores its SHA-256.
    pub token: InvitationSecret,
}

#[derive(TlsSerialize, TlsDeserialize, TlsSize)]
struct ClaimBody {
    version: u8,
    relay: VLByteVec,
    relay_key: Hash,
    statement_key: PublicKey,
    token: [u8; 32],
}

impl ClaimLink {
    /// The link as text.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let body = Zeroizing::new(encode(&ClaimBody {
            version: 1,
            relay: VLByteVec::from(self.relay.as_bytes().to_vec()),
            relay_key: self.relay_key,
            statement_key: self.statement_key,
            token: self.token.0,
        }));
        write_link(CLAIM_SCHEME, &body)
    }

    /// Reads a link.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn parse(text: &str) -> Result<Self, LinkError> {
        let body: ClaimBody = parse_link(text, CLAIM_SCHEME)?;
        Ok(Self {
            relay: String::from_utf8(body.relay.as_slice().to_vec())
                .map_err(|_| LinkError::Damaged)?,
            relay_key: body.relay_key,
            statement_key: body.statement_key,
            token: InvitationSecret(body.token),
        })
    }
}

/// How much of its SHA-256 follows a link's body, so that a damaged link is not taken for a wrong relay.
const CHECK_BYTES: usize = 4;

fn check(body: &[u8]) -> [u8; CHECK_BYTES] {
    let mut first = [0; CHECK_BYTES];
    first.copy_from_slice(&sha256(body).0[..CHECK_BYTES]);
    first
}

fn write_link(scheme: &str, body: &[u8]) -> Zeroizing<String> {
    let bytes = Zeroizing::new([body, &check(body)].concat());
    Zeroizing::new(format!("{scheme}{}", BASE64URL_NOPAD.encode(&bytes)))
}

fn parse_link<T: tls_codec::Deserialize>(text: &str, scheme: &'static str) -> Result<T, LinkError> {
    let text = text
        .trim()
        .strip_prefix(scheme)
        .ok_or(LinkError::Scheme { scheme })?;
    let bytes = Zeroizing::new(
        BASE64URL_NOPAD
            .decode(text.as_bytes())
            .map_err(|_| LinkError::Damaged)?,
    );
    if bytes.first().is_some_and(|v| *v != 1) {
        return Err(LinkError::Version);
    }
    let (body, sum) = bytes
        .split_last_chunk::<CHECK_BYTES>()
        .ok_or(LinkError::Damaged)?;
    if *sum != check(body) {
        return Err(LinkError::Damaged);
    }
    decode(body).map_err(|_| LinkError::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> JoinLink {
        JoinLink {
            relay: "127.0.0.1:4433".into(),
            relay_key: Hash([1; 32]),
            org: OrgId([2; 32]),
            pin_seq: RosterSeq(3),
            pin_hash: Hash([4; 32]),
            user: UserId([7; 16]),
            invitation: InvitationId([5; 16]),
            secret: InvitationSecret([6; 32]),
            needs_pin: true,
        }
    }

    /// REQ-020: what a link pins survives being written down.
    #[test]
    fn a_link_reads_back() {
        let text = link().to_text();
        assert_eq!(JoinLink::parse(&text), Ok(link()));
        assert!(!format!("{:?}", link()).contains("6, 6"));
    }

    #[test]
    fn a_bad_link_says_what_is_wrong_with_it() {
        let text = link().to_text();
        assert_eq!(
            JoinLink::parse("https://x"),
            Err(LinkError::Scheme { scheme: SCHEME })
        );
        assert_eq!(
            JoinLink::parse(&text[..text.len() - 4]),
            Err(LinkError::Damaged)
        );
        for at in SCHEME.len() + 2..text.len() {
            let other = if &text[at..=at] == "A" { "B" } else { "A" };
            let bad = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            assert_eq!(JoinLink::parse(&bad), Err(LinkError::Damaged), "at {at}");
        }
        assert_eq!(
            JoinLink::parse("mortise://join/Ag"),
            Err(LinkError::Version)
        );
    }

    /// REQ-021, REQ-104: the key depends on the secret, on the PIN and on the invitation.
    #[test]
    fn invitation_keys_are_separate() {
        let pin = Pin::parse("abcd-2345").expect("a PIN");
        let key = |s: u8, pin: Option<&Pin>, id: u8| {
            let secret = InvitationSecret([s; 32]);
            derive_invitation_key(&secret, pin, InvitationId([id; 16])).public()
        };
        assert_eq!(key(1, None, 1), key(1, None, 1));
        assert_ne!(key(1, None, 1), key(2, None, 1));
        assert_ne!(key(1, None, 1), key(1, None, 2));
        assert_ne!(key(1, None, 1), key(1, Some(&pin), 1));
        let other = Pin::parse("abcd-2346").expect("a PIN");
        assert_ne!(key(1, Some(&other), 1), key(1, Some(&pin), 1));
        let again = Pin::parse("ABCD 2345").expect("a PIN");
        assert_eq!(key(1, Some(&again), 1), key(1, Some(&pin), 1));
    }

    /// REQ-104: a PIN reads back as it is told, however it is typed, and shows itself nowhere else.
    #[test]
    fn a_pin_reads_back() {
        use rand_chacha::rand_core::SeedableRng as _;
        let mut rng = rand_chacha::ChaCha12Rng::seed_from_u64(1);
        let (pin, other) = (Pin::random(&mut rng), Pin::random(&mut rng));
        assert_ne!(pin, other);
        assert_eq!(Pin::parse(&pin.to_text()), Ok(pin.clone()));
        assert_eq!(Pin::parse(&pin.to_text().to_lowercase()), Ok(pin.clone()));
        assert_eq!(format!("{pin:?}"), "Pin(secret)");
        for bad in ["", "ABCD234", "ABCD23456", "ABCD2341", "ABCD234\u{e9}"] {
            assert_eq!(Pin::parse(bad), Err(PinError), "{bad}");
        }
    }
}

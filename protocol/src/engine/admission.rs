//! Founding an organisation or joining one: sans-IO, one question at a time.
//!
//! Inputs: [`Admission::start`], [`Admission::handle_frame`]. Getters: [`Admission::identity`].

use std::sync::Arc;

use rand::RngCore;
use zeroize::Zeroizing;

use super::{Identity, RelayAddress};
use crate::identity::{
    ClaimLink, DirectoryKey, Hash, JoinLink, OrgId, Pin, RosterSeq, SigningKey, UserId,
    derive_invitation_key, hash,
};
use crate::roster::{
    AddDevice, EntrySigner, Genesis, Head, Op, Role, RosterError, RotateDirectoryKey, SignedEntry,
    sign_entry,
};
use crate::wire::{
    ClientToRelay, Flag, Refusal, RelayToClient, Request, RequestId, Response, RosterHead,
};

/// Why an admission cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdmissionError {
    /// The relay refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The entry that the link pins is not on the relay's roster: the wrong organisation, or a relay that lies.
    #[error("the relay's roster is not the one that the invitation was made on")]
    PinMismatch,
    /// The relay shows a stranger only what an open invitation pins, and it does not show this.
    #[error("it was used, has been withdrawn, or its user or whoever made it has left")]
    LinkClosed,
    /// The key that was derived is not the invitation's: nothing is used up, it can be tried again (REQ-104).
    #[error("the PIN is wrong, or the link is damaged; nothing is used up, try again")]
    WrongPin,
    /// The root key is another organisation's.
    #[error("this is not the organisation's root key")]
    WrongRootKey,
    /// An answer that does not belong here.
    #[error("the relay gave an answer that was not asked for")]
    Unexpected,
}

/// What comes next.
#[derive(Debug)]
pub enum AdmissionStep {
    /// Wait for the next frame.
    Wait,
    /// Send these.
    Send(Vec<ClientToRelay>),
    /// Admitted: save [`Admission::identity`] and open an engine on it.
    Admitted,
}

#[derive(Debug)]
enum Kind {
    Found {
        token: Vec<u8>,
        entry: SignedEntry,
    },
    Join {
        link: JoinLink,
        key: SigningKey,
    },
    Recover {
        root: SigningKey,
        name: Zeroizing<String>,
        nonces: Nonces,
    },
}

/// A device on its way into an organisation.
#[derive(Debug)]
pub struct Admission {
    identity: Identity,
    kind: Kind,
    next_id: u64,
    head: Option<RosterHead>,
}

impl Admission {
    /// Founds an organisation with this device's user as its owner; also returns the root key, to be kept offline (REQ-024).
    pub fn found(
        claim: &ClaimLink,
        name: &str,
        suite: u16,
        rng: &mut dyn RngCore,
        now_ms: u64,
    ) -> (Self, SigningKey) {
        let root = SigningKey::generate(rng);
        let org = root.public().org_id();
        let user = UserId::random(rng);
        let relay = RelayAddress {
            address: claim.relay.clone(),
            key: claim.relay_key,
        };
        let mut identity = Identity::generate(rng, org, user, relay);
        let directory = DirectoryKey::random(rng);
        let ops = vec![
            Op::Genesis(Genesis {
                root_key: root.public(),
                statement_key: claim.statement_key,
                suite,
                directory_commitment: directory.commitment(),
            }),
            Op::AddUser {
                user,
                role: Role::Owner,
                profile: directory.seal_profile(rng, RosterSeq(1), org, user, name),
            },
            Op::AddDevice(add_device(&identity)),
        ];
        identity.directory = Some(directory);
        let entry = sign_entry(org, Head::EMPTY, now_ms, EntrySigner::Root, &root, ops);
        identity.pins.push((RosterSeq(1), entry.hash()));
        let this = Self {
            identity,
            kind: Kind::Found {
                token: claim.token.dangerous_bytes().to_vec(),
                entry,
            },
            next_id: 1,
            head: None,
        };
        (this, root)
    }

    /// Joins with an invitation, as a new device.
    pub fn join(link: JoinLink, rng: &mut dyn RngCore) -> Self {
        Self::join_with_pin(link, None, rng)
    }

    /// Joins with an invitation and the PIN that was told beside it; a link says whether it needs one (REQ-104).
    pub fn join_with_pin(link: JoinLink, pin: Option<&Pin>, rng: &mut dyn RngCore) -> Self {
        let relay = RelayAddress {
            address: link.relay.clone(),
            key: link.relay_key,
        };
        let mut identity = Identity::generate(rng, link.org, link.user, relay);
        identity.pins.push((link.pin_seq, link.pin_hash));
        Self::resume_with_pin(identity, link, pin)
    }

    /// Goes on with a join that was interrupted, with the identity that was saved for it.
    #[must_use]
    pub fn resume(identity: Identity, link: JoinLink) -> Self {
        Self::resume_with_pin(identity, link, None)
    }

    /// Goes on with a join that was interrupted, or tries another PIN, with the identity that was saved for it.
    #[must_use]
    pub fn resume_with_pin(identity: Identity, link: JoinLink, pin: Option<&Pin>) -> Self {
        let key = derive_invitation_key(&link.secret, pin, link.invitation);
        Self::new(identity, Kind::Join { key, link })
    }

    /// Enters as a new owner, by the organisation's root key, when the owners are gone (REQ-103).
    ///
    /// # Errors
    /// [`AdmissionError::WrongRootKey`].
    pub fn recover(
        relay: RelayAddress,
        org: OrgId,
        root: SigningKey,
        name: &str,
        rng: &mut dyn RngCore,
    ) -> Result<Self, AdmissionError> {
        let user = UserId::random(rng);
        let mut identity = Identity::generate(rng, org, user, relay);
        identity.directory = Some(DirectoryKey::random(rng));
        Self::resume_recovery(identity, root, name, rng)
    }

    /// Goes on with a recovery that was interrupted, with the identity that was saved for it.
    ///
    /// # Errors
    /// [`AdmissionError::WrongRootKey`].
    pub fn resume_recovery(
        identity: Identity,
        root: SigningKey,
        name: &str,
        rng: &mut dyn RngCore,
    ) -> Result<Self, AdmissionError> {
        if root.public().org_id() != identity.org || identity.directory.is_none() {
            return Err(AdmissionError::WrongRootKey);
        }
        let name = Zeroizing::new(name.to_owned());
        let nonces = Nonces::draw(rng);
        let kind = Kind::Recover { root, name, nonces };
        Ok(Self::new(identity, kind))
    }

    fn new(identity: Identity, kind: Kind) -> Self {
        Self {
            identity,
            kind,
            next_id: 1,
            head: None,
        }
    }

    /// The identity to save, before [`Admission::start`] and again when admitted.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The key for the connection's TLS.
    #[must_use]
    pub fn transport_key(&self) -> Arc<SigningKey> {
        self.identity.transport.clone()
    }

    /// What to send first on a new connection.
    pub fn start(&mut self) -> Vec<ClientToRelay> {
        let request = match &self.kind {
            Kind::Found { token, entry } => Request::Found {
                claim_token: token.clone().into(),
                entry: entry.bytes().to_vec().into(),
            },
            Kind::Join { .. } | Kind::Recover { .. } => Request::Hello {
                org: self.identity.org,
                roster_seq: RosterSeq(0),
            },
        };
        vec![self.ask(request)]
    }

    fn ask(&mut self, request: Request) -> ClientToRelay {
        let id = RequestId(self.next_id);
        self.next_id += 1;
        ClientToRelay { id, request }
    }

    /// Takes an answer.
    ///
    /// # Errors
    /// [`AdmissionError`]; the admission is over.
    pub fn handle_frame(
        &mut self,
        now_ms: u64,
        frame: RelayToClient,
    ) -> Result<AdmissionStep, AdmissionError> {
        let RelayToClient::Response { response, .. } = frame else {
            return Ok(AdmissionStep::Wait);
        };
        match (response, &self.kind) {
            (Response::Refused(Refusal::RosterConflict { head }), Kind::Join { .. }) => {
                Ok(AdmissionStep::Send(vec![self.add_device(head, now_ms)]))
            }
            (Response::Refused(Refusal::NotAdmitted), Kind::Join { .. }) => {
                Err(AdmissionError::LinkClosed)
            }
            (Response::Refused(Refusal::RosterRule { code }), Kind::Join { .. })
                if code == RosterError::BadSignature.code() =>
            {
                Err(AdmissionError::WrongPin)
            }
            (Response::Refused(Refusal::RosterConflict { head }), Kind::Recover { .. }) => {
                Ok(AdmissionStep::Send(vec![self.recovery(head, now_ms)?]))
            }
            (Response::Refused(refusal), _) => Err(refusal.into()),
            (
                Response::Hello {
                    admitted: Flag::Yes,
                    ..
                },
                Kind::Join { .. } | Kind::Recover { .. },
            ) => Ok(AdmissionStep::Admitted),
            (Response::Hello { head, .. }, Kind::Recover { .. }) => {
                Ok(AdmissionStep::Send(vec![self.recovery(head, now_ms)?]))
            }
            (Response::Hello { head, .. }, Kind::Join { link, .. }) => {
                let after = RosterSeq(link.pin_seq.0.saturating_sub(1));
                self.head = Some(head);
                Ok(AdmissionStep::Send(vec![
                    self.ask(Request::FetchRoster { after }),
                ]))
            }
            (Response::Roster { entries, .. }, Kind::Join { link, .. }) => {
                let pinned = entries
                    .first()
                    .and_then(|bytes| SignedEntry::parse(bytes.as_slice()).ok())
                    .is_some_and(|e| e.hash() == link.pin_hash && e.tbs().seq == link.pin_seq);
                let Some(head) = self.head.filter(|_| pinned) else {
                    return Err(AdmissionError::PinMismatch);
                };
                Ok(AdmissionStep::Send(vec![self.add_device(head, now_ms)]))
            }
            (Response::RosterAppended { .. }, _) => Ok(AdmissionStep::Admitted),
            _ => Err(AdmissionError::Unexpected),
        }
    }

    /// Signs AddDevice against `head`, and pins `head`: the chain that is verified later must contain it (REQ-020).
    fn add_device(&mut self, head: RosterHead, now_ms: u64) -> ClientToRelay {
        let Kind::Join { link, key } = &self.kind else {
            unreachable!("only a join signs AddDevice by itself")
        };
        let ops = vec![Op::AddDevice(add_device(&self.identity))];
        let signer = EntrySigner::Invitation(link.invitation);
        let entry = sign_entry(link.org, head, now_ms, signer, key, ops);
        self.identity.pins = vec![(link.pin_seq, link.pin_hash), (head.seq, head.hash)];
        self.append(entry)
    }

    /// Signs Recover against `head`, and pins `head` and the entry itself (REQ-103).
    fn recovery(&mut self, head: RosterHead, now_ms: u64) -> Result<ClientToRelay, AdmissionError> {
        let (org, user) = (self.identity.org, self.identity.user);
        let add = add_device(&self.identity);
        let (Kind::Recover { root, name, nonces }, Some(directory)) =
            (&mut self.kind, &self.identity.directory)
        else {
            return Err(AdmissionError::Unexpected);
        };
        let generation = head.seq.next();
        let ops = vec![
            Op::Recover,
            Op::AddUser {
                user,
                role: Role::Owner,
                profile: directory.seal_profile(nonces, generation, org, user, name),
            },
            Op::AddDevice(add),
            Op::RotateDirectoryKey(RotateDirectoryKey {
                commitment: directory.commitment(),
                predecessor: Vec::new().into(),
            }),
        ];
        let entry = sign_entry(org, head, now_ms, EntrySigner::Root, root, ops);
        self.identity.pins = vec![(head.seq, head.hash), (generation, entry.hash())];
        Ok(self.append(entry))
    }

    fn append(&mut self, entry: SignedEntry) -> ClientToRelay {
        self.ask(Request::AppendRoster {
            entry: entry.into_bytes().into(),
            slots: Vec::new(),
        })
    }
}

fn add_device(identity: &Identity) -> AddDevice {
    AddDevice::sign(
        identity.org,
        identity.user,
        &identity.mls,
        &identity.transport,
        &identity.seal,
    )
}

/// Nonces for as often as a recovery has to sign, from what was drawn when it began.
struct Nonces {
    drawn: [u8; 32],
    used: u64,
}

impl Nonces {
    fn draw(rng: &mut dyn RngCore) -> Self {
        let mut drawn = [0; 32];
        rng.fill_bytes(&mut drawn);
        Self { drawn, used: 0 }
    }
}

impl RngCore for Nonces {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill_bytes(&mut bytes);
        u32::from_be_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_bytes(&mut bytes);
        u64::from_be_bytes(bytes)
    }

    fn fill_bytes(&mut self, to: &mut [u8]) {
        for chunk in to.chunks_mut(32) {
            self.used += 1;
            let content = [&self.drawn[..], &self.used.to_be_bytes()].concat();
            let Hash(block) = hash("nonces", &content);
            for (byte, drawn) in chunk.iter_mut().zip(block) {
                *byte = drawn;
            }
        }
    }
}

impl std::fmt::Debug for Nonces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Nonces(secret)")
    }
}

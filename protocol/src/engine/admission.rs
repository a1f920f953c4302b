//! Founding an organisation or joining one: sans-IO, one question at a time.
//!
//! Inputs: [`Admission::start`], [`Admission::handle_frame`]. Getters: [`Admission::identity`].

use std::sync::Arc;

use rand::RngCore;

use super::{Identity, RelayAddress};
use crate::identity::{
    ClaimLink, DirectoryKey, JoinLink, RosterSeq, SigningKey, UserId, derive_invitation_key, encode,
};
use crate::roster::{AddDevice, EntrySigner, Genesis, Head, Op, Role, SignedEntry, sign_entry};
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
    Found { token: Vec<u8>, entry: SignedEntry },
    Join { link: JoinLink, key: SigningKey },
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
                profile: directory.seal_profile(rng, org, user, name),
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
        let relay = RelayAddress {
            address: link.relay.clone(),
            key: link.relay_key,
        };
        let mut identity = Identity::generate(rng, link.org, link.user, relay);
        identity.pins.push((link.pin_seq, link.pin_hash));
        Self::resume(identity, link)
    }

    /// Goes on with a join that was interrupted, with the identity that was saved for it.
    #[must_use]
    pub fn resume(identity: Identity, link: JoinLink) -> Self {
        Self {
            identity,
            kind: Kind::Join {
                key: derive_invitation_key(&link.secret, link.invitation),
                link,
            },
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
            Kind::Join { link, .. } => Request::Hello {
                org: link.org,
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
            (Response::Refused(refusal), _) => Err(refusal.into()),
            (
                Response::Hello {
                    admitted: Flag::Yes,
                    ..
                },
                Kind::Join { .. },
            ) => Ok(AdmissionStep::Admitted),
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
        self.ask(Request::AppendRoster {
            entry: entry.into_bytes().into(),
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

/// The bytes of a list of operations, for a durable intent.
pub(super) fn encode_ops(ops: &Vec<Op>) -> Vec<u8> {
    encode(ops)
}

//! Everything else that a member can put into a log: messages, proposals, statements, noise.

use mortise_protocol::identity::{Epoch, GroupId};
use mortise_protocol::wire::aad::AuthenticatedData;
use mortise_protocol::wire::log::{Attestation, AttestationStatement, Verdict};
use mortise_protocol::wire::restart::{Restart, RestartCause, RestartStatement};
use mortise_protocol::wire::{RecordBody, WelcomeFor};
use openmls::prelude::tls_codec::Serialize as _;
use openmls::prelude::{MlsGroup, MlsMessageOut};
use openmls_traits::OpenMlsProvider as _;

use super::twist::{VillainProvider, VillainSigner};
use super::{Twist, Villain};
use crate::world::World;

/// A record that was made, and what would be submitted with it.
#[derive(Clone, Debug)]
pub struct Crafted {
    /// The epoch that it is for.
    pub epoch: Epoch,
    /// The record.
    pub body: RecordBody,
    /// For a commit that adds.
    pub welcomes: Vec<WelcomeFor>,
}

impl Crafted {
    fn of(epoch: Epoch, body: RecordBody) -> Self {
        Self {
            epoch,
            body,
            welcomes: Vec::new(),
        }
    }
}

impl Villain {
    /// Encrypts an application message; `content` need not be one that anybody can read.
    ///
    /// # Panics
    /// When it is no member any more.
    pub fn message(
        &mut self,
        world: &World,
        content: &[u8],
        aad: Option<AuthenticatedData>,
        twist: &Twist,
    ) -> Crafted {
        self.frame(world, aad, twist, |mls, provider, signer| {
            // openmls does not speak where somebody has asked to leave.
            mls.clear_pending_proposals(provider.storage())
                .expect("a store that writes");
            mls.create_message(provider, signer, content)
                .expect("a message that openmls makes")
        })
    }

    /// Asks to be removed, and does not stop to send.
    ///
    /// # Panics
    /// When openmls does not make it.
    pub fn leave(
        &mut self,
        world: &World,
        aad: Option<AuthenticatedData>,
        twist: &Twist,
    ) -> Crafted {
        self.frame(world, aad, twist, |mls, provider, signer| {
            mls.leave_group(provider, signer)
                .expect("a leave that openmls makes")
        })
    }

    fn frame(
        &mut self,
        world: &World,
        aad: Option<AuthenticatedData>,
        twist: &Twist,
        make: impl FnOnce(&mut MlsGroup, &VillainProvider<'_, '_>, &VillainSigner<'_>) -> MlsMessageOut,
    ) -> Crafted {
        let aad = aad.unwrap_or_else(|| self.honest_aad(world));
        let (epoch, key) = (self.epoch(), self.key.clone());
        let made = self.with_mls(twist, |mls, provider| {
            mls.set_aad(aad.to_bytes());
            make(mls, provider, &VillainSigner { key: &key, twist })
        });
        let bytes = made.tls_serialize_detached().expect("a message");
        Crafted::of(epoch, RecordBody::Message(bytes.into()))
    }

    /// A message with a valid header whose ciphertext has a tag of noise.
    ///
    /// # Panics
    /// As [`Villain::message`].
    pub fn noise(&mut self, world: &World) -> Crafted {
        let mut crafted = self.message(world, b"", None, &Twist::default());
        if let RecordBody::Message(message) = &mut crafted.body {
            let mut bytes = message.as_slice().to_vec();
            // The tag of its AEAD (RFC 9420 §6.3.1): what openmls reads before it is as it was.
            let tag = bytes.len() - 16;
            bytes[tag..].fill(0x5a);
            *message = bytes.into();
        }
        crafted
    }

    /// Says that the group has ended after the epoch that this device holds.
    #[must_use]
    pub fn restart(&self, world: &World, cause: RestartCause, successor: GroupId) -> Crafted {
        let (entry, _) = self.cursor(world);
        self.sign_restart(RestartStatement {
            group: self.group,
            parent_epoch: self.epoch(),
            parent_entry_hash: entry,
            cause,
            successor,
            roster_seq: self.roster.0,
            roster_hash: self.roster.1,
            device: self.device,
        })
    }

    /// The same, of any statement.
    #[must_use]
    pub fn sign_restart(&self, statement: RestartStatement) -> Crafted {
        let epoch = statement.parent_epoch;
        let restart = Restart::sign(statement, &self.key);
        Crafted::of(epoch, RecordBody::Restart(restart))
    }

    /// What this device would state about the newest order, true or not.
    ///
    /// # Panics
    /// When there is no order.
    #[must_use]
    pub fn statement(&self, world: &World, verdict: Verdict) -> AttestationStatement {
        let (entry_hash, _) = self.cursor(world);
        let people = &mut world.people.iter().filter(|p| p.is_in());
        let newest = people
            .map(|p| p.engine().roster())
            .max_by_key(|r| r.head().seq);
        let orders = newest.expect("somebody").orders();
        let order = orders.last().expect("an order");
        AttestationStatement {
            order_seq: order.seq,
            order_hash: order.entry_hash,
            group: self.group,
            entry_hash,
            epoch: self.epoch(),
            roster_seq: self.roster.0,
            roster_hash: self.roster.1,
            verdict,
            device: self.device,
        }
    }

    /// Signs a statement with both keys.
    #[must_use]
    pub fn attest(&self, statement: AttestationStatement) -> Crafted {
        let epoch = statement.epoch;
        let attestation = Attestation::sign(statement, &self.key, &self.access_key());
        Crafted::of(epoch, RecordBody::Attestation(attestation))
    }
}

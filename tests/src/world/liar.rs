//! Where a planted bug sits between relay and devices.

use mortise_protocol::wire::{ClientToRelay, RelayToClient};

use super::PersonId;

/// A relay, or a network, that lies. The defaults are honest.
pub trait Liar: Send {
    /// Sees a question before the relay does; `false` swallows it.
    fn question(&mut self, _from: PersonId, _frame: &mut ClientToRelay) -> bool {
        true
    }

    /// Sees an answer or a push before the device does; `false` swallows it.
    fn answer(&mut self, _to: PersonId, _frame: &mut RelayToClient) -> bool {
        true
    }

    /// Whom else to send this frame.
    fn also_to(&mut self, _to: PersonId, _frame: &RelayToClient) -> Option<PersonId> {
        None
    }

    /// What comes on the same connection after the frame that was asked about last.
    fn afterwards(&mut self) -> Vec<RelayToClient> {
        Vec::new()
    }

    /// Whether a connection is closed when the relay says so.
    fn closes(&mut self, _who: PersonId) -> bool {
        true
    }
}

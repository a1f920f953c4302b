//! A relay that withholds, repeats and reorders what it pushes to some of its devices. Each notices, or loses nothing by it.

use std::collections::BTreeMap;

use mortise_protocol::wire::RelayToClient;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;

use crate::world::{Liar, PersonId};

/// How often a push is withheld for ever.
const WITHHELD: f64 = 0.01;
/// How often one comes a second time.
const REPEATED: f64 = 0.05;
/// How often one is overtaken by the next.
const OVERTAKEN: f64 = 0.05;

/// The relay's choices, and what it holds back.
pub(super) struct Mischief {
    rng: ChaCha12Rng,
    held: BTreeMap<PersonId, RelayToClient>,
    again: Vec<RelayToClient>,
}

impl Mischief {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: ChaCha12Rng::seed_from_u64(seed ^ 0x6D69_7363_6869_6566),
            held: BTreeMap::new(),
            again: Vec::new(),
        }
    }

    /// Who is played with.
    pub(super) fn plays_with(who: PersonId) -> bool {
        who.0 % 2 == 1
    }
}

impl Liar for Mischief {
    fn answer(&mut self, to: PersonId, frame: &mut RelayToClient) -> bool {
        if !Self::plays_with(to) || !matches!(frame, RelayToClient::Push(_)) {
            return true;
        }
        self.again.extend(self.held.remove(&to));
        if self.rng.random_bool(WITHHELD) {
            return false;
        }
        if self.again.is_empty() && self.rng.random_bool(OVERTAKEN) {
            self.held.insert(to, frame.clone());
            return false;
        }
        if self.rng.random_bool(REPEATED) {
            self.again.push(frame.clone());
        }
        true
    }

    fn afterwards(&mut self) -> Vec<RelayToClient> {
        std::mem::take(&mut self.again)
    }
}

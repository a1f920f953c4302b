//! Bugs that are planted to see that the model catches them. None touches product code.

use crate::world::World;

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// The relay does not remember what was appended.
    RelayForgetsDuplicates,
}

impl Plant {
    /// Every planted bug.
    pub const ALL: [Self; 1] = [Self::RelayForgetsDuplicates];

    /// Plants the bug.
    pub(super) fn install(self, _world: &mut World) {}
}

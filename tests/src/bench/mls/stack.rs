//! What is asked of an MLS stack, so that all of them live through the same history.

use anyhow::Context as _;

/// What a commit is, for the others.
#[derive(Debug)]
pub(super) struct Commit {
    /// The MLSMessage.
    pub(super) commit: Vec<u8>,
    /// The MLSMessage with the Welcome, if anybody was added.
    pub(super) welcome: Option<Vec<u8>>,
}

/// One device with its own store on disk. Whatever changes its state is durable when it returns.
pub(super) trait Device: Sized {
    /// Makes the device of this number; one that is not kept need not be on disk.
    fn new(number: usize, suite: u16, is_kept: bool) -> anyhow::Result<Self>;
    /// A KeyPackage.
    fn key_package(&mut self) -> anyhow::Result<Vec<u8>>;
    /// Creates the group.
    fn create(&mut self) -> anyhow::Result<()>;
    /// Joins it.
    fn join(&mut self, welcome: &[u8]) -> anyhow::Result<()>;
    /// Makes a commit that adds these, and leaves it pending.
    fn add(&mut self, key_packages: &[Vec<u8>]) -> anyhow::Result<Commit>;
    /// Makes a commit that removes the member at this leaf, and leaves it pending; with none, it refreshes its own.
    fn commit(&mut self, remove: Option<u32>) -> anyhow::Result<Commit>;
    /// Follows the commit that it left pending.
    fn apply_own(&mut self) -> anyhow::Result<()>;
    /// Follows another's commit.
    fn follow(&mut self, commit: &[u8]) -> anyhow::Result<()>;
    /// Encrypts a message.
    fn send(&mut self, text: &[u8]) -> anyhow::Result<Vec<u8>>;
    /// Decrypts one.
    fn receive(&mut self, message: &[u8]) -> anyhow::Result<Vec<u8>>;
    /// The epoch authenticator (RFC 9420 §8.7), to compare states.
    fn authenticator(&self) -> anyhow::Result<Vec<u8>>;
}

/// A group of which some members are kept, and the others have gone as soon as they were added.
pub(super) struct Group<D> {
    /// The creator, at leaf 0.
    pub(super) creator: D,
    /// Other members that are kept, by leaf.
    pub(super) kept: Vec<(usize, D)>,
}

/// Members that one commit adds.
const BATCH: usize = 250;

impl<D: Device> Group<D> {
    /// A group of `members`, filled by commits of 250; `keep` says which leaves, ascending, are kept.
    pub(super) fn fill(members: usize, suite: u16, keep: &[usize]) -> anyhow::Result<Self> {
        let mut group = Self {
            creator: D::new(0, suite, true)?,
            kept: Vec::new(),
        };
        group.creator.create()?;
        let mut next = 1;
        while next < members {
            let batch = next..members.min(next + BATCH);
            let mut joining = Vec::new();
            let mut packages = Vec::new();
            for number in batch.clone() {
                let is_kept = keep.contains(&number);
                let mut device = D::new(number, suite, is_kept)?;
                packages.push(device.key_package()?);
                if is_kept {
                    joining.push((number, device));
                }
            }
            let commit = group.creator.add(&packages)?;
            group.creator.apply_own()?;
            for (_, device) in &mut group.kept {
                device.follow(&commit.commit)?;
            }
            let welcome = commit.welcome.context("no Welcome")?;
            for (number, mut device) in joining {
                device.join(&welcome)?;
                group.kept.push((number, device));
            }
            next = batch.end;
        }
        Ok(group)
    }

    /// Lets the kept members at these leaves commit new keys, one after the other; each is dropped then, unless it is
    /// in `stay`.
    pub(super) fn warm(&mut self, order: &[usize], stay: &[usize]) -> anyhow::Result<()> {
        for leaf in order {
            let at = self.kept.iter().position(|(n, _)| n == leaf);
            let (number, mut device) = self.kept.swap_remove(at.context("not kept")?);
            let commit = device.commit(None)?.commit;
            device.apply_own()?;
            self.creator.follow(&commit)?;
            for (_, other) in &mut self.kept {
                other.follow(&commit)?;
            }
            if stay.contains(&number) {
                self.kept.push((number, device));
            }
        }
        Ok(())
    }

    /// Fails unless everybody who is kept is in the creator's epoch.
    pub(super) fn agree(&self) -> anyhow::Result<()> {
        let ours = self.creator.authenticator()?;
        for (number, device) in &self.kept {
            let same = device.authenticator()? == ours;
            anyhow::ensure!(same, "the device at leaf {number} is in another epoch");
        }
        Ok(())
    }
}

/// One leaf of each eight, in bit-reversed order: how the product warms a tree (REQ-130).
pub(super) fn warming_order(members: usize) -> Vec<usize> {
    const SPAN: usize = 8;
    let spans = members.div_ceil(SPAN);
    let bits = spans.next_power_of_two().trailing_zeros();
    let reversed = (0..1_usize << bits).map(|n| match bits {
        0 => 0,
        bits => n.reverse_bits() >> (usize::BITS - bits),
    });
    let spans = reversed.filter(|span| *span < spans);
    // The creator has leaf 0 and commits last.
    spans
        .map(|span| SPAN * span + 1)
        .filter(|leaf| *leaf < members)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_span_warms_once_in_bit_reversed_order() {
        assert_eq!(warming_order(64), [1, 33, 17, 49, 9, 41, 25, 57]);
        assert_eq!(warming_order(1_000).len(), 125);
        assert_eq!(warming_order(2), [1]);
    }
}

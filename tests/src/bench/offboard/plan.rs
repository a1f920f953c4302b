//! Who is in which group: drawn from a seed.

use std::collections::BTreeSet;

use rand::seq::index;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;

use super::Options;

/// Who is in which group; devices by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The one who goes: the last.
    pub(super) leaver: usize,
    /// Per group, its creator first.
    pub(super) groups: Vec<Vec<usize>>,
    /// Those who stay and are online: the first.
    pub(super) online: usize,
}

impl Plan {
    pub(super) fn draw(options: &Options) -> Self {
        let leaver = options.users - 1;
        let mut rng = ChaCha12Rng::seed_from_u64(options.seed);
        let mut made = vec![0_usize; options.users];
        let groups = (0..options.groups)
            .map(|_| {
                let others = index::sample(&mut rng, leaver, options.members - 1);
                let mut members: Vec<usize> = others.into_iter().collect();
                members.push(leaver);
                let online = members.iter().filter(|m| **m < options.online);
                // Whoever has made the fewest; where nobody is online but the leaver, the leaver.
                let creator = online.min_by_key(|m| (made[**m], **m));
                let creator = creator.copied().unwrap_or(leaver);
                made[creator] += 1;
                members.retain(|m| *m != creator);
                members.insert(0, creator);
                members
            })
            .collect();
        Self {
            leaver,
            groups,
            online: options.online,
        }
    }

    /// Whether anybody is online there who stays.
    pub(super) fn has_online(&self, group: usize) -> bool {
        self.groups[group].iter().any(|m| *m < self.online)
    }

    /// The groups that a device is in.
    pub(super) fn groups_of(&self, device: usize) -> BTreeSet<usize> {
        let all = self.groups.iter().enumerate();
        let of_device = all.filter(|(_, members)| members.contains(&device));
        of_device.map(|(group, _)| group).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leaver_is_in_every_group_and_the_rest_is_drawn() {
        let options = Options {
            groups: 50,
            members: 5,
            users: 20,
            online: 4,
            seed: 7,
            ..Options::default()
        };
        let plan = Plan::draw(&options);
        assert_eq!(plan, Plan::draw(&options));
        assert_eq!(plan.groups.len(), 50);
        for (nth, members) in plan.groups.iter().enumerate() {
            let distinct: BTreeSet<_> = members.iter().collect();
            assert_eq!((members.len(), distinct.len()), (5, 5));
            assert!(distinct.contains(&plan.leaver));
            let stays = members[0] != plan.leaver;
            assert_eq!(plan.has_online(nth), stays && members[0] < 4);
        }
        assert_eq!(plan.groups_of(plan.leaver).len(), 50);
        let sealed = (0..50).filter(|g| !plan.has_online(*g)).count();
        assert!((1..50).contains(&sealed));
    }
}

//! Who is in the story, in which groups, and what is said: distinctive enough to be looked for afterwards.

use rand::Rng;

/// Fewest people: an owner, an administrator, somebody who leaves, and somebody who stays.
pub const FEWEST_PEOPLE: usize = 4;
/// Fewest groups: two that the leaver is in, and one that they are not in.
pub const FEWEST_GROUPS: usize = 3;
/// Most people and groups; beyond, names would repeat.
pub const MOST: usize = 60;

const FIRST_NAMES: [&str; 15] = [
    "Adelheid",
    "Bartolomeo",
    "Cordelia",
    "Dietlinde",
    "Evangeline",
    "Ferdinand",
    "Gwendolyn",
    "Hildegard",
    "Immanuel",
    "Josefine",
    "Konstantin",
    "Leonore",
    "Maximilian",
    "Nathaniel",
    "Ottokar",
];
const LAST_NAMES: [&str; 13] = [
    "Achterberg",
    "Brinkhuizen",
    "Castellanos",
    "Dombrowski",
    "Eskildsen",
    "Fitzgerald",
    "Grünewald",
    "Hämäläinen",
    "Iturralde",
    "Jørgensen",
    "Kowalczyk",
    "Lindqvist",
    "Montgomery",
];
const TRADES: [&str; 10] = [
    "Harbour",
    "Foundry",
    "Orchard",
    "Quarry",
    "Sawmill",
    "Tannery",
    "Vineyard",
    "Brewery",
    "Printworks",
    "Shipyard",
];
const TOPICS: [&str; 7] = [
    "accounts",
    "contracts",
    "night shift",
    "procurement",
    "board papers",
    "customers",
    "quality",
];
const REMARKS: [&str; 6] = [
    "the delivery for the harbour crane moves to Thursday",
    "please look at the revised contract before noon",
    "the customer has agreed to our price",
    "inspection went well, only two small findings",
    "the new locks arrive tomorrow morning",
    "I have put the figures where you asked",
];

/// Somebody's place in the cast; `Cast::people` is in this order.
pub type PersonId = usize;

/// The person who founds the organisation and orders the removal.
pub const OWNER: PersonId = 0;
/// A colleague with the role `admin`, who stays and can be asked how the order stands.
pub const ADMIN: PersonId = 1;

/// A group to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPlan {
    /// Its name.
    pub name: String,
    /// Who makes it.
    pub creator: PersonId,
    /// Everybody in it, the creator first.
    pub members: Vec<PersonId>,
}

/// Everybody and every group.
#[derive(Clone, Debug)]
pub struct Cast {
    /// Full names, the leaver last.
    pub people: Vec<String>,
    /// The groups; the last one is without the leaver, and so is every seventh.
    pub groups: Vec<GroupPlan>,
}

impl Cast {
    /// Plans an organisation of this many people and groups, within the bounds of this module.
    #[must_use]
    pub fn plan(people: usize, groups: usize) -> Self {
        let people = people.clamp(FEWEST_PEOPLE, MOST);
        let groups = groups.clamp(FEWEST_GROUPS, MOST);
        let names = (0..people).map(full_name).collect();
        let plans = (0..groups).map(|n| plan_group(n, people, n + 1 == groups || n % 7 == 6));
        Self {
            people: names,
            groups: plans.collect(),
        }
    }

    /// The person who is removed.
    #[must_use]
    pub fn leaver(&self) -> PersonId {
        self.people.len() - 1
    }

    /// What somebody is called for short.
    #[must_use]
    pub fn first_name(&self, person: PersonId) -> &str {
        let name = &self.people[person];
        name.split_once(' ')
            .map_or(name.as_str(), |(first, _)| first)
    }

    /// Everybody in a group who stays and is online after the owner has gone, in the order of the plan.
    pub fn stayers<'a>(&'a self, group: &'a GroupPlan) -> impl Iterator<Item = PersonId> + 'a {
        let leaver = self.leaver();
        let stays = move |person: &PersonId| *person != OWNER && *person != leaver;
        group.members.iter().copied().filter(stays)
    }

    /// Whether the leaver is in a group.
    #[must_use]
    pub fn has_leaver(&self, group: &GroupPlan) -> bool {
        group.members.contains(&self.leaver())
    }
}

fn full_name(n: usize) -> String {
    // 15 and 13 have no common factor: no pair repeats before 195.
    let first = FIRST_NAMES[n % FIRST_NAMES.len()];
    let last = LAST_NAMES[n % LAST_NAMES.len()];
    format!("{first} {last}")
}

fn group_name(n: usize) -> String {
    let trade = TRADES[n % TRADES.len()];
    let topic = TOPICS[n % TOPICS.len()];
    format!("{trade} {topic}")
}

/// At least two who stay online are in every group; the leaver too, unless `without_leaver`.
fn plan_group(n: usize, people: usize, without_leaver: bool) -> GroupPlan {
    let leaver = people - 1;
    // Everybody but the owner and the leaver, turned by one from group to group.
    let stayers = people - 2;
    let size = if stayers <= 4 {
        stayers
    } else {
        // From a third of them to all of them.
        let smallest = (stayers / 3).max(2);
        smallest + (n * 2) % (stayers - smallest + 1)
    };
    let mut members: Vec<PersonId> = (0..size).map(|k| 1 + (n + k) % stayers).collect();
    if n.is_multiple_of(2) {
        members.push(OWNER);
    }
    if !without_leaver {
        members.push(leaver);
        // The leaver has made some of the groups that they will be put out of.
        if n % 4 == 1 {
            members.rotate_right(1);
        }
    }
    GroupPlan {
        name: group_name(n),
        creator: members[0],
        members,
    }
}

/// A remark that nobody has made before: the number makes it so.
pub fn remark(rng: &mut impl Rng, name: &str) -> String {
    let what = REMARKS[rng.random_range(0..REMARKS.len())];
    let number: u64 = rng.random();
    format!("{name} here: {what} (note {number:016x})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use std::collections::BTreeSet;

    #[test]
    fn every_plan_can_carry_the_story() {
        for people in [FEWEST_PEOPLE, 5, 6, 12, 30, MOST] {
            for groups in [FEWEST_GROUPS, 4, 20, MOST] {
                let cast = Cast::plan(people, groups);
                assert_eq!((cast.people.len(), cast.groups.len()), (people, groups));
                let names: BTreeSet<_> = cast.people.iter().collect();
                assert_eq!(names.len(), people);
                let names: BTreeSet<_> = cast.groups.iter().map(|g| &g.name).collect();
                assert_eq!(names.len(), groups);
                for group in &cast.groups {
                    let members: BTreeSet<_> = group.members.iter().collect();
                    assert_eq!(members.len(), group.members.len());
                    assert!(cast.stayers(group).count() >= 2, "{group:?}");
                    assert_eq!(group.creator, group.members[0]);
                }
                let with = cast.groups.iter().filter(|g| cast.has_leaver(g)).count();
                assert!(with >= 2 && with < groups, "{with} of {groups}");
            }
        }
    }

    #[test]
    fn remarks_differ() {
        let mut rng = rand::rngs::StdRng::from_os_rng();
        assert_ne!(remark(&mut rng, "A"), remark(&mut rng, "A"));
    }
}

//! Users, devices and groups by name or by the beginning of their id.
//!
//! Names are chosen by people, so a name never silently beats an id: whatever fits two is ambiguous.

use std::collections::BTreeMap;
use std::fmt::Display;

use mortise_protocol::engine::{EngineError, GroupStatusView, GroupView};
use mortise_protocol::identity::{DeviceId, GroupId, UserId};

use crate::driver::{ClientEngine, Session};
use crate::error::CliError;
use crate::output::{Person, clean};

/// The beginning of an id must have at least this many hex digits.
const MIN_PREFIX: usize = 4;
/// More candidates than this are not listed.
const MAX_CANDIDATES: usize = 10;

#[derive(Clone, Debug)]
struct KnownUser {
    name: Option<String>,
    belongs: bool,
}

#[derive(Clone, Debug)]
struct KnownGroup {
    name: String,
    turn: Turn,
}

/// Which groups of a name are meant first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// It goes on.
    Lives,
    /// It is over: left or closed.
    Over,
    /// Another group continues it.
    Continued,
}

impl Turn {
    const ALL: [Self; 3] = [Self::Lives, Self::Over, Self::Continued];
}

/// Everybody and everything that has a name, as it was when it was asked for.
#[derive(Clone, Debug, Default)]
pub struct Names {
    users: BTreeMap<UserId, KnownUser>,
    devices: BTreeMap<DeviceId, UserId>,
    groups: BTreeMap<GroupId, KnownGroup>,
}

impl Names {
    /// Asks the session.
    ///
    /// # Errors
    /// What ended the session, or the store's error.
    pub async fn load(session: &Session) -> Result<Self, CliError> {
        Ok(session.query(Self::read).await??)
    }

    fn read(engine: &mut ClientEngine) -> Result<Self, EngineError> {
        let groups = engine.groups()?;
        let roster = engine.roster();
        let known = |(id, record): (UserId, &mortise_protocol::roster::UserRecord)| {
            let user = KnownUser {
                name: engine.name_of(id),
                belongs: !record.is_removed(),
            };
            (id, user)
        };
        Ok(Self {
            users: roster.users().map(known).collect(),
            devices: roster.devices().map(|(id, d)| (id, d.user)).collect(),
            groups: groups.into_iter().map(known_group).collect(),
        })
    }

    /// A user's name.
    #[must_use]
    pub fn user(&self, user: UserId) -> Option<String> {
        self.users.get(&user).and_then(|known| known.name.clone())
    }

    /// A user as reports show them.
    #[must_use]
    pub fn person(&self, user: UserId) -> Person {
        Person {
            user: user.to_string(),
            name: self.user(user),
        }
    }

    /// Whose device it is.
    #[must_use]
    pub fn owner(&self, device: DeviceId) -> Option<UserId> {
        self.devices.get(&device).copied()
    }

    /// A group's name, if this device is or was in it.
    #[must_use]
    pub fn group(&self, group: GroupId) -> Option<String> {
        self.groups.get(&group).map(|known| known.name.clone())
    }

    /// The one user that is meant; those who were removed count only where nobody else fits.
    ///
    /// # Errors
    /// [`CliError::Unknown`], [`CliError::Ambiguous`].
    pub fn find_user(&self, given: &str) -> Result<UserId, CliError> {
        let among = |belongs: bool| {
            self.users
                .iter()
                .filter(move |(_, known)| known.belongs == belongs)
                .map(|(id, known)| (*id, known.name.as_deref()))
        };
        match find("user", given, among(true)) {
            Err(CliError::Unknown { .. }) => find("user", given, among(false)),
            other => other,
        }
    }

    /// All of these users, each once.
    ///
    /// # Errors
    /// As [`Names::find_user`].
    pub fn find_users(&self, given: &[String]) -> Result<Vec<UserId>, CliError> {
        let mut found = Vec::new();
        for name in given {
            let user = self.find_user(name)?;
            if !found.contains(&user) {
                found.push(user);
            }
        }
        Ok(found)
    }

    /// The one group that is meant; those that are over count only where no other fits.
    ///
    /// # Errors
    /// [`CliError::Unknown`], [`CliError::Ambiguous`].
    pub fn find_group(&self, given: &str) -> Result<GroupId, CliError> {
        let among = |turn: Turn| {
            self.groups
                .iter()
                .filter(move |(_, known)| known.turn == turn)
                .map(|(id, known)| (*id, Some(known.name.as_str())))
        };
        let mut found = Turn::ALL
            .into_iter()
            .map(|turn| find("group", given, among(turn)));
        let first = found.find(|found| !matches!(found, Err(CliError::Unknown { .. })));
        first.unwrap_or_else(|| find("group", given, std::iter::empty()))
    }

    /// The one group that is meant; one that this device does not know, by its whole id.
    ///
    /// # Errors
    /// As [`Names::find_group`].
    pub fn find_any_group(&self, given: &str) -> Result<GroupId, CliError> {
        let whole = data_encoding::HEXLOWER_PERMISSIVE
            .decode(given.trim().as_bytes())
            .ok()
            .and_then(|bytes| bytes.try_into().ok());
        match (self.find_group(given), whole) {
            (Err(CliError::Unknown { .. }), Some(id)) => Ok(GroupId(id)),
            (found, _) => found,
        }
    }

    /// The one device that is meant, by id only.
    ///
    /// # Errors
    /// [`CliError::Unknown`], [`CliError::Ambiguous`].
    pub fn find_device(&self, given: &str) -> Result<DeviceId, CliError> {
        find("device", given, self.devices.keys().map(|id| (*id, None)))
    }

    #[cfg(test)]
    pub(crate) fn of<'a>(
        users: impl IntoIterator<Item = (UserId, Option<&'a str>, bool)>,
        groups: impl IntoIterator<Item = (GroupId, &'a str)>,
    ) -> Self {
        let user = |(id, name, belongs): (UserId, Option<&str>, bool)| {
            let name = name.map(Into::into);
            (id, KnownUser { name, belongs })
        };
        Self {
            users: users.into_iter().map(user).collect(),
            devices: BTreeMap::new(),
            groups: groups
                .into_iter()
                .map(|(id, name)| {
                    let name = name.into();
                    let turn = Turn::Lives;
                    (id, KnownGroup { name, turn })
                })
                .collect(),
        }
    }
}

fn known_group(group: GroupView) -> (GroupId, KnownGroup) {
    let known = KnownGroup {
        name: group.name,
        turn: match group.status {
            GroupStatusView::Active | GroupStatusView::Stopped(_) => Turn::Lives,
            GroupStatusView::Removed | GroupStatusView::Closed => Turn::Over,
            GroupStatusView::Continued { .. } => Turn::Continued,
        },
    };
    (group.id, known)
}

fn find<'a, I: Display + Copy>(
    what: &'static str,
    given: &str,
    among: impl Iterator<Item = (I, Option<&'a str>)>,
) -> Result<I, CliError> {
    let given = given.trim();
    let wanted = given.to_lowercase();
    let is_prefix = wanted.len() >= MIN_PREFIX && wanted.bytes().all(|b| b.is_ascii_hexdigit());
    let mut fits = Vec::new();
    for (id, name) in among {
        let text = id.to_string();
        if text == wanted {
            return Ok(id);
        }
        let by_name = name.is_some_and(|name| name.to_lowercase() == wanted);
        if by_name || (is_prefix && text.starts_with(&wanted)) {
            fits.push((id, name));
        }
    }
    match fits.as_slice() {
        [] => Err(CliError::Unknown {
            what,
            given: clean(given),
        }),
        [(id, _)] => Ok(*id),
        several => Err(CliError::Ambiguous {
            what,
            given: clean(given),
            candidates: several.iter().take(MAX_CANDIDATES).map(candidate).collect(),
        }),
    }
}

fn candidate<I: Display>((id, name): &(I, Option<&str>)) -> String {
    let id = id.to_string();
    let short = id.get(..12).unwrap_or(&id);
    match name {
        Some(name) => format!("{} ({short})", clean(name)),
        None => short.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    const ANN: UserId = UserId([0xa1; 16]);
    const BOB: UserId = UserId([0xb2; 16]);
    const OTHER_ANN: UserId = UserId([0xa3; 16]);
    /// Whose name is the beginning of Ann's id.
    const TRICK: UserId = UserId([0xc4; 16]);

    fn names() -> Names {
        Names::of(
            [
                (ANN, Some("Ann"), true),
                (BOB, Some("Bob"), true),
                (OTHER_ANN, Some("ann"), false),
                (TRICK, Some("A1A1"), true),
            ],
            [
                (GroupId([1; 32]), "team"),
                (GroupId([2; 32]), "Team"),
                (GroupId([3; 32]), "ops"),
            ],
        )
    }

    #[test]
    fn users_are_found_by_name_or_by_id() {
        let names = names();
        assert_eq!(names.find_user("ANN").expect("name"), ANN);
        assert_eq!(names.find_user(" bob ").expect("name"), BOB);
        assert_eq!(names.find_user("b2b2").expect("prefix"), BOB);
        assert_eq!(names.find_user("B2B2B").expect("prefix"), BOB);
        assert_eq!(names.find_user(&ANN.to_string()).expect("whole id"), ANN);
        for unknown in ["b2b", "", "Carol", "ffff"] {
            assert_eq!(
                names.find_user(unknown).expect_err("unknown").exit(),
                Exit::Unknown
            );
        }
    }

    #[test]
    fn a_removed_user_is_found_where_nobody_else_fits() {
        let names = Names::of([(ANN, Some("Ann"), false)], []);
        assert_eq!(names.find_user("ann").expect("removed"), ANN);
    }

    #[test]
    fn a_name_does_not_beat_an_id() {
        let error = names().find_user("a1a1").expect_err("ambiguous");
        let CliError::Ambiguous { candidates, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(candidates, &["Ann (a1a1a1a1a1a1)", "A1A1 (c4c4c4c4c4c4)"]);
        assert_eq!(error.exit(), Exit::Unknown);
    }

    #[test]
    fn groups_of_the_same_name_are_ambiguous() {
        let names = names();
        assert_eq!(names.find_group("ops").expect("name"), GroupId([3; 32]));
        assert_eq!(names.find_group("0101").expect("prefix"), GroupId([1; 32]));
        assert!(matches!(
            names.find_group("TEAM"),
            Err(CliError::Ambiguous { .. })
        ));
    }

    #[test]
    fn a_group_that_is_not_known_here_is_named_by_its_whole_id() {
        let names = names();
        let found = names.find_any_group(&"0b".repeat(32)).expect("a whole id");
        assert_eq!(found, GroupId([11; 32]));
        assert_eq!(names.find_any_group("ops").expect("name"), GroupId([3; 32]));
        assert!(names.find_any_group(&"0b".repeat(31)).is_err());
        assert!(names.find_any_group("TEAM").is_err());
    }

    #[test]
    fn a_conversation_s_name_is_that_of_the_group_that_goes_on() {
        let mut names = names();
        let over = names.groups.get_mut(&GroupId([1; 32])).expect("a group");
        over.turn = Turn::Continued;
        assert_eq!(names.find_group("team").expect("name"), GroupId([2; 32]));
        let left = names.groups.get_mut(&GroupId([2; 32])).expect("a group");
        left.turn = Turn::Over;
        assert_eq!(names.find_group("team").expect("name"), GroupId([2; 32]));
        assert_eq!(names.find_group("0101").expect("id"), GroupId([1; 32]));
    }

    #[test]
    fn a_user_is_named_once() {
        let given = ["Ann".to_owned(), "bob".into(), "a1a1a1".into()];
        assert_eq!(names().find_users(&given).expect("users"), [ANN, BOB]);
    }
}

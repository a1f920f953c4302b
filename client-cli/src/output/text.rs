//! Results as people read them: one line each, where it fits on one.

use super::report::{Device, GroupInfo, HistoryLine, Person, Report, User, Whoami};
use super::{clean, report};

/// How much of an id is shown where a whole one would drown the line.
const SHORT: usize = 8;

impl Report {
    /// The text, without a line break at its end; no terminal obeys any of it.
    #[must_use]
    pub fn text(&self) -> String {
        self.raw_text()
            .split('\n')
            .map(clean)
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn raw_text(&self) -> String {
        match self {
            Self::OrgCreated {
                org,
                name,
                suite,
                root_key_file,
                ..
            } => format!(
                "founded organisation {org}, suite {suite}, with {} as its owner\nthe root key is in {}: keep it offline",
                one_line(name),
                one_line(root_key_file),
            ),
            Self::Joined { org, user, device } => {
                format!("joined organisation {org}\nuser    {user}\ndevice  {device}")
            }
            // Alone on stdout, so that `LINK=$(mortise invite Ann)` works.
            Self::Invited { link, .. } => link.clone(),
            Self::User(user) => user_text(user),
            Self::Device(device) => device_text(device),
            Self::Whoami(me) => whoami_text(me),
            Self::SafetyNumber { user, name, number } => format!(
                "{}\n{number}\nCompare it with the number on their screen, over a call or in person.",
                who(user, name.as_deref())
            ),
            Self::RosterEntry {
                seq,
                hash,
                at_ms,
                signer,
                changes,
            } => format!(
                "{seq:>5}  {}  {}  by {}: {}",
                short(hash),
                utc(*at_ms),
                one_line(signer),
                one_line(&changes.join("; "))
            ),
            Self::RosterVerified {
                org,
                entries,
                head_hash,
            } => format!(
                "verified: {entries} entries of organisation {org}, every signature and rule, up to {head_hash}"
            ),
            Self::RoleSet { user, name, role } => {
                format!("{} is now {role}", who(user, name.as_deref()))
            }
            Self::Ordered { .. } | Self::OrderGroup { .. } | Self::OrderResult { .. } => {
                self.order_text()
            }
            Self::GroupCreated { group, group_name } => {
                format!("created group {} ({})", one_line(group_name), short(group))
            }
            Self::MembersAdded {
                group,
                group_name,
                users,
            } => format!(
                "added to {}: {}",
                named(group, group_name.as_deref()),
                people(users)
            ),
            Self::MemberRemoved {
                group,
                group_name,
                user,
                name,
            } => format!(
                "removed from {}: {}",
                named(group, group_name.as_deref()),
                who(user, name.as_deref())
            ),
            Self::Group {
                group,
                group_name,
                status,
                epoch,
                members,
                devices,
            } => format!(
                "{}  {}  {status}, {}, {}, epoch {epoch}",
                short(group),
                one_line(group_name),
                counted(*members, "member"),
                counted(*devices, "device")
            ),
            Self::GroupInfo(info) => group_info_text(info),
            Self::Appended {
                group,
                group_name,
                seq,
            } => {
                format!(
                    "appended to {} at {seq}",
                    named(group, group_name.as_deref())
                )
            }
            Self::Listening => "listening".into(),
            Self::GroupJoined { group, group_name } => {
                format!(
                    "* this device is in group {} now",
                    named(group, group_name.as_deref())
                )
            }
            Self::RosterChanged { seq } => format!("* the roster is at entry {seq}"),
            Self::NamesOpened => "* the organisation's names can be read".into(),
            Self::Expelled => "* this device was put out of the organisation".into(),
            Self::Alarm { message, .. } => format!("! ALARM: {}", one_line(message)),
            Self::Error {
                message, advice, ..
            } => format!("! {} (next: {advice})", one_line(message)),
            _ => self.history_text(),
        }
    }

    fn order_text(&self) -> String {
        match self {
            Self::Ordered {
                seq,
                user,
                name,
                device,
                already,
            } => {
                let verb = if *already {
                    "ordered already"
                } else {
                    "ordered"
                };
                let whom = match (user, device) {
                    (Some(user), _) => format!("removal of {}", who(user, name.as_deref())),
                    (None, device) => format!(
                        "revocation of device {}",
                        short(device.as_deref().unwrap_or("?"))
                    ),
                };
                format!("{verb}: {whom}, seq {seq}")
            }
            Self::OrderGroup {
                group,
                group_name,
                state,
                ..
            } => {
                format!("{state:<8} {}", named(group, group_name.as_deref()))
            }
            Self::OrderResult {
                seq,
                groups,
                rotated,
                clean,
                sealed,
                waited_ms,
            } => format!(
                "order {seq}: {}: {rotated} rotated, {clean} clean, {sealed} sealed, after {}.{:03} s",
                counted(*groups, "group"),
                waited_ms / 1000,
                waited_ms % 1000
            ),
            _ => String::new(),
        }
    }

    fn history_text(&self) -> String {
        let (line, what) = match self {
            Self::Message { line, text } => {
                let by = line
                    .user
                    .as_deref()
                    .map_or_else(|| "?".into(), |user| who(user, line.name.as_deref()));
                return format!("{} {by}: {}", prefix(line), indented(text));
            }
            Self::Unsupported { line } => (line, "a message that this version cannot show".into()),
            Self::OwnUnknown { line } => (
                line,
                "a message of this device from a state that is lost".into(),
            ),
            Self::Opened { line } => (line, "the group is open on this device".into()),
            Self::Added { line, users } => (line, format!("added {}", people(users))),
            Self::Removed { line, users } => (line, format!("removed {}", people(users))),
            Self::Left { line, users } => (line, format!("{} left", people(users))),
            Self::Changed { line } => (line, "the group's policy was changed".into()),
            Self::Rotated { line, order, users } => (
                line,
                format!("keys rotated by order {order} against {}", people(users)),
            ),
            Self::Refreshed { line } => (line, "keys refreshed".into()),
            Self::Faulty {
                line,
                device,
                reason,
            } => (
                line,
                format!(
                    "device {} sent a commit that nobody follows: {}",
                    short(device),
                    one_line(reason)
                ),
            ),
            Self::Continued {
                line,
                successor,
                reason,
            } => (
                line,
                format!(
                    "the conversation goes on in group {}: {}",
                    short(successor),
                    one_line(reason)
                ),
            ),
            Self::Gap {
                line,
                from,
                to,
                policy_changed,
            } => {
                let policy = if *policy_changed {
                    "; the group's policy has changed"
                } else {
                    ""
                };
                (
                    line,
                    format!("this device missed records {from} to {to}{policy}"),
                )
            }
            Self::Refused { line, reason } => {
                (line, format!("a record was refused: {}", one_line(reason)))
            }
            _ => return String::new(),
        };
        let by = line.user.as_deref().map_or_else(String::new, |user| {
            format!(" (by {})", who(user, line.name.as_deref()))
        });
        format!("{} * {what}{by}", prefix(line))
    }
}

fn prefix(line: &HistoryLine) -> String {
    let group = named(&line.group, line.group_name.as_deref());
    format!("[{group} {}] {}", line.seq, utc(line.at_ms))
}

fn user_text(user: &User) -> String {
    let me = if user.me { "  (you)" } else { "" };
    let name = one_line(user.person.name.as_deref().unwrap_or("?"));
    format!(
        "{}  {name}  {}, {}, {}{me}",
        short(&user.person.user),
        user.role,
        user.status,
        counted(user.devices, "device")
    )
}

fn device_text(device: &Device) -> String {
    let this = if device.this { "  (this device)" } else { "" };
    let name = one_line(device.person.name.as_deref().unwrap_or("?"));
    let since = match device.revoked {
        Some(order) => format!("revoked by order {order}"),
        None => format!("admitted by entry {}", device.added),
    };
    format!("{}  {name}  {since}{this}", short(&device.device))
}

fn whoami_text(me: &Whoami) -> String {
    format!(
        "name          {}\nrole          {}\nuser          {}\ndevice        {}\norganisation  {}\nrelay         {}\nrelay key     {}\nroster        entry {}{}",
        one_line(me.person.name.as_deref().unwrap_or("?")),
        me.role.as_deref().unwrap_or("none"),
        me.person.user,
        me.device,
        me.org,
        one_line(&me.relay),
        me.relay_key,
        me.roster_seq,
        if me.expelled {
            "\nthis device was put out of the organisation"
        } else {
            ""
        },
    )
}

fn group_info_text(info: &GroupInfo) -> String {
    let reason = info
        .reason
        .as_deref()
        .map_or_else(String::new, |r| format!(": {}", one_line(r)));
    let mut text = format!(
        "name           {}\ngroup          {}\nstatus         {}{reason}\nsuite          {}\nepoch          {}\nauthenticator  {}",
        one_line(&info.group_name),
        info.group,
        info.status,
        info.suite,
        info.epoch,
        info.epoch_authenticator,
    );
    for member in &info.members {
        text += &member_text(member);
    }
    text
}

fn member_text(member: &report::Member) -> String {
    let admin = if member.admin { ", admin" } else { "" };
    let who = who(&member.person.user, member.person.name.as_deref());
    format!(
        "\nmember         {who}{admin}, {} devices",
        member.devices.len()
    )
}

fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn short(id: &str) -> &str {
    id.get(..SHORT).unwrap_or(id)
}

fn named(id: &str, name: Option<&str>) -> String {
    name.map_or_else(|| short(id).to_owned(), one_line)
}

fn who(user: &str, name: Option<&str>) -> String {
    named(user, name)
}

fn people(users: &[Person]) -> String {
    let names: Vec<_> = users
        .iter()
        .map(|p| who(&p.user, p.name.as_deref()))
        .collect();
    names.join(", ")
}

/// A name cannot begin a new line.
fn one_line(text: &str) -> String {
    clean(text)
}

/// A message's further lines are marked, so that none passes for another message.
fn indented(text: &str) -> String {
    text.split('\n')
        .map(|line| clean(line.trim_end_matches('\r')))
        .collect::<Vec<_>>()
        .join("\n    | ")
}

/// A time as `2026-11-22 11:01:13Z`.
#[must_use]
pub fn utc(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

/// Year, month and day of the n-th day since 1970 (Howard Hinnant's `civil_from_days`).
fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + u64::from(month <= 2);
    (year, month, doy - (153 * mp + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str, name: &str) -> String {
        let line = HistoryLine {
            group: "cd".repeat(32),
            group_name: Some("team".into()),
            seq: 12,
            user: Some("ab".repeat(16)),
            name: Some(name.into()),
            epoch: 1,
            at_ms: 0,
        };
        let text = text.into();
        Report::Message { line, text }.text()
    }

    #[test]
    fn nobody_can_write_a_line_that_looks_like_another_s() {
        assert_eq!(
            message("hi", "Ann"),
            "[team 12] 1970-01-01 00:00:00Z Ann: hi"
        );
        let forged = message("x\n[team 13] 1970-01-01 00:00:00Z Bob: y\u{1b}[1A", "An\nn");
        assert_eq!(
            forged,
            "[team 12] 1970-01-01 00:00:00Z An\u{FFFD}n: x\n    | [team 13] 1970-01-01 00:00:00Z Bob: y\u{FFFD}[1A"
        );
    }

    #[test]
    fn times_are_right() {
        assert_eq!(utc(0), "1970-01-01 00:00:00Z");
        assert_eq!(utc(951_782_400_000), "2000-02-29 00:00:00Z");
        assert_eq!(utc(1_795_345_273_999), "2026-11-22 11:01:13Z");
    }
}

//! Results as people read them: one line each, where it fits on one.

use super::history::PolicyChanged;
use super::words::{counted, named, one_line, people, short, utc};
use super::{Report, clean};

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
            Self::OrgRecovered { org, name, .. } => format!(
                "recovered organisation {org}, with {} as an owner\nremove whom you want out with `mortise offboard`",
                one_line(name)
            ),
            Self::Joined { org, user, device } => {
                format!("joined organisation {org}\nuser    {user}\ndevice  {device}")
            }
            // Alone on stdout, so that `LINK=$(mortise invite Ann)` works.
            Self::Invited { link, .. } => link.clone(),
            Self::Policy(policy) => policy.text(),
            Self::User(user) => user.text(),
            Self::Device(device) => device.text(),
            Self::Whoami(me) => me.text(),
            Self::SafetyNumber {
                user,
                name,
                number,
                compared_at_ms,
                changed,
            } => {
                let whose = named(user, name.as_deref());
                let said = match compared_at_ms.map(utc) {
                    Some(at) if *changed => format!("It has CHANGED since you compared it, {at}: compare it again, and say so with --compared."),
                    Some(at) => format!("You have compared it, {at}."),
                    None => "Compare it with the number on their screen, over a call or in person; then say so with --compared.".into(),
                };
                format!("{whose}\n{number}\n{said}")
            }
            Self::NumberChanged { user, name } => format!(
                "! the safety number of {} has changed: one of you has another device; compare it again with `mortise verify`",
                named(user, name.as_deref())
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
                format!("{} is now {role}", named(user, name.as_deref()))
            }
            Self::ProfileSet { user, name } => {
                format!("{} is {} now", short(user), one_line(name))
            }
            Self::Plan(plan) => plan.text(),
            Self::Certificate(shown) => shown.text(),
            Self::CertificateExported { .. } => self.exported_text(),
            Self::Ordered { .. }
            | Self::OrderGroup { .. }
            | Self::OrderFenced { .. }
            | Self::OrderResult { .. } => self.order_text(),
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
                named(user, name.as_deref())
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
            Self::GroupInfo(info) => info.text(),
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
            Self::GroupChanged { .. }
            | Self::GroupLeft { .. }
            | Self::GroupContinued { .. }
            | Self::GroupClosed { .. }
            | Self::ResyncAsked { .. }
            | Self::CatchingUp { .. } => self.group_text(),
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
            Self::Delayed { group, group_name } => format!(
                "* the relay has no room: what is for {} is kept here and sent when there is room",
                named(group, group_name.as_deref())
            ),
            // Nobody is convicted of anything.
            Self::Alarm {
                kind: "stale" | "clock",
                message,
                ..
            } => format!("! WARNING: {}", one_line(message)),
            Self::Alarm { message, .. } => format!("! ALARM: {}", one_line(message)),
            Self::Error {
                message, advice, ..
            } => format!("! {} (next: {advice})", one_line(message)),
            Self::History(line) => line.text(),
        }
    }

    fn group_text(&self) -> String {
        match self {
            Self::GroupChanged {
                group,
                group_name,
                seq,
                changes,
            } => {
                let group = named(group, group_name.as_deref());
                let changes: Vec<_> = changes.iter().map(PolicyChanged::text).collect();
                let changes = changes.join("; ");
                match seq {
                    Some(seq) => format!("changed {group} at {seq}: {changes}"),
                    None => format!("{group} was so already: {changes}"),
                }
            }
            Self::GroupLeft {
                group,
                group_name,
                done,
                ..
            } => {
                let group = named(group, group_name.as_deref());
                if *done {
                    format!("left {group}")
                } else {
                    format!("leaving {group}: done when the first other member comes online")
                }
            }
            Self::GroupContinued {
                group,
                group_name,
                successor,
            } => format!(
                "* {} goes on in a new group ({})",
                named(group, group_name.as_deref()),
                short(successor)
            ),
            Self::GroupClosed { group, group_name } => {
                format!("closed {}", named(group, group_name.as_deref()))
            }
            Self::ResyncAsked { group, group_name } => format!(
                "asked to be let into {} anew: done when another member comes online",
                named(group, group_name.as_deref())
            ),
            Self::CatchingUp {
                group,
                group_name,
                done,
                total,
            } => format!(
                "* catching up with {}: {done} of {total}",
                named(group, group_name.as_deref())
            ),
            _ => String::new(),
        }
    }

    fn order_text(&self) -> String {
        match self {
            Self::Ordered {
                measure,
                seq,
                user,
                name,
                device,
                and_devices,
                already,
            } => {
                let verb = if *already {
                    "ordered already"
                } else {
                    "ordered"
                };
                let whom = match (user, device) {
                    (Some(user), _) => named(user, name.as_deref()),
                    (None, Some(device)) => {
                        let all = std::iter::once(device).chain(and_devices);
                        let all: Vec<_> = all.map(|id| short(id)).collect();
                        format!("device {}", all.join(", "))
                    }
                    (None, None) => return format!("{verb}: seq {seq}"),
                };
                format!("{verb}: {measure} of {whom}, seq {seq}")
            }
            Self::OrderFenced {
                seq,
                at_ms,
                connections_closed,
            } => format!(
                "order {seq}: fenced since {}, {} cut",
                utc(*at_ms),
                counted(*connections_closed as usize, "connection")
            ),
            Self::OrderGroup {
                group,
                group_name,
                state,
                rotated_at_ms,
                confirmed_at_ms,
                ..
            } => {
                let mut text = format!("{state:<8} {}", named(group, group_name.as_deref()));
                for (what, at_ms) in [("rotated", rotated_at_ms), ("confirmed", confirmed_at_ms)] {
                    if *at_ms > 0 {
                        text += &format!(", {what} {}", utc(*at_ms));
                    }
                }
                text
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

    fn exported_text(&self) -> String {
        let Self::CertificateExported {
            file,
            bytes,
            seq,
            groups,
            sealed,
            receipts,
            disclosed,
        } = self
        else {
            return String::new();
        };
        let shown = if *disclosed {
            "; it shows the whole roster and who else is in the groups"
        } else {
            ""
        };
        format!(
            "certificate of order {seq}: {} ({bytes} bytes): {}, {sealed} sealed, {}{shown}",
            one_line(file),
            counted(*groups, "group"),
            counted(*receipts, "receipt"),
        )
    }
}

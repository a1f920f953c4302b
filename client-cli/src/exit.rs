//! The exit codes of `mortise`: one per kind of trouble, documented in `mortise --help`.

/// How a command ended. The numbers are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// A bug, or a machine in trouble.
    Internal = 1,
    /// The command line is wrong.
    Usage = 2,
    /// There is no profile, it exists already, or another process holds it.
    Profile = 3,
    /// The passphrase is wrong, empty or missing.
    Passphrase = 4,
    /// The profile's files are damaged.
    Corrupt = 5,
    /// This machine's disk is full.
    DiskFull = 6,
    /// The relay does not answer.
    Unreachable = 7,
    /// The relay's key is not the pinned one.
    Fingerprint = 8,
    /// After an order: groups that nobody has rotated yet.
    Sealed = 9,
    /// The organisation does not admit this device.
    NotAdmitted = 10,
    /// The link is damaged, used, expired or withdrawn.
    Link = 11,
    /// No such user, device or group, or more than one.
    Unknown = 12,
    /// Not allowed, or not possible as things stand.
    NotAllowed = 13,
    /// Over a limit.
    TooLarge = 14,
    /// The relay refused, or cannot store.
    Refused = 15,
    /// Not done in time.
    TimedOut = 16,
    /// The `mortise listen` that holds the profile ended or does not answer.
    Daemon = 17,
    /// The relay has shown what no honest relay shows.
    Distrusted = 18,
    /// The relay does not host the organisation.
    NotHosted = 19,
    /// Kept on this device, and done later without being asked again.
    Queued = 20,
    /// No administrator has confirmed the roster for too long.
    Stale = 21,
    /// The root key's file is damaged, or of another organisation.
    RootKey = 22,
    /// This machine's disk does not read or write.
    Disk = 23,
    /// A certificate does not hold.
    Certificate = 24,
}

impl Exit {
    /// Every code, in order.
    pub const ALL: [Self; 25] = [
        Self::Ok,
        Self::Internal,
        Self::Usage,
        Self::Profile,
        Self::Passphrase,
        Self::Corrupt,
        Self::DiskFull,
        Self::Unreachable,
        Self::Fingerprint,
        Self::Sealed,
        Self::NotAdmitted,
        Self::Link,
        Self::Unknown,
        Self::NotAllowed,
        Self::TooLarge,
        Self::Refused,
        Self::TimedOut,
        Self::Daemon,
        Self::Distrusted,
        Self::NotHosted,
        Self::Queued,
        Self::Stale,
        Self::RootKey,
        Self::Disk,
        Self::Certificate,
    ];

    /// The number that the shell sees.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The stable name, as `code` in the JSON of an error.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Internal => "internal",
            Self::Usage => "usage",
            Self::Profile => "profile",
            Self::Passphrase => "passphrase",
            Self::Corrupt => "corrupt",
            Self::DiskFull => "disk_full",
            Self::Unreachable => "unreachable",
            Self::Fingerprint => "fingerprint",
            Self::Sealed => "sealed",
            Self::NotAdmitted => "not_admitted",
            Self::Link => "link",
            Self::Unknown => "unknown",
            Self::NotAllowed => "not_allowed",
            Self::TooLarge => "too_large",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Daemon => "daemon",
            Self::Distrusted => "distrusted",
            Self::NotHosted => "not_hosted",
            Self::Queued => "queued",
            Self::Stale => "stale",
            Self::RootKey => "root_key",
            Self::Disk => "disk",
            Self::Certificate => "certificate",
        }
    }

    /// What it means, for `--help`.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "done",
            Self::Internal => "internal error",
            Self::Usage => "the command line is wrong",
            Self::Profile => "no profile, it exists already, or another process holds it",
            Self::Passphrase => "the passphrase is wrong, empty or missing",
            Self::Corrupt => "the profile's database or key file is damaged",
            Self::DiskFull => "this machine's disk is full",
            Self::Unreachable => "the relay cannot be reached",
            Self::Fingerprint => "the relay's key is not the pinned one",
            Self::Sealed => "after an order, some groups are still sealed",
            Self::NotAdmitted => "the organisation does not admit this device (any more)",
            Self::Link => "the link is damaged, used, expired or withdrawn",
            Self::Unknown => "no such user, device or group, or more than one",
            Self::NotAllowed => "not allowed (role, group admin), or not possible as things stand",
            Self::TooLarge => "over a limit",
            Self::Refused => "the relay refused, or its disk is full",
            Self::TimedOut => "not done in time",
            Self::Daemon => "the `mortise listen` on this profile ended or does not answer",
            Self::Distrusted => "the relay has shown a roster that is forged or not the only one",
            Self::NotHosted => "the relay does not host this organisation",
            Self::Queued => "not done yet: kept on this device and done later; do not repeat it",
            Self::Stale => {
                "no administrator has confirmed the roster for too long, and the policy blocks"
            }
            Self::RootKey => "the root key's file is damaged, or of another organisation",
            Self::Disk => "this machine's disk does not read or write",
            Self::Certificate => "the certificate does not hold",
        }
    }

    /// The table for `mortise --help`.
    #[must_use]
    pub fn table() -> String {
        let mut text = String::from("Exit codes:\n");
        for code in Self::ALL {
            text += &format!("  {:>2}  {}\n", code.number(), code.meaning());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_the_documented_ones() {
        for (number, code) in (0_u8..).zip(Exit::ALL) {
            assert_eq!(code.number(), number);
            assert!(Exit::table().contains(&format!("{number:>2}  {}", code.meaning())));
        }
    }

    #[test]
    fn every_name_is_used_once() {
        let names: std::collections::BTreeSet<_> = Exit::ALL.iter().map(|c| c.name()).collect();
        assert_eq!(names.len(), Exit::ALL.len());
    }
}

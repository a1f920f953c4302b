//! How a session stands, for whoever waits for it.

use std::time::Duration;

use mortise_protocol::engine::EngineError;
use mortise_protocol::store::StoreError;
use mortise_protocol::wire::Refusal;

use crate::error::CliError;
use crate::transport::TransportError;

/// How a session stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Where the relay is.
    pub relay: String,
    /// The line to the relay.
    pub link: Link,
    /// Whether all that the relay had was dealt with, and nothing waits to be sent.
    pub synced: bool,
    /// Whether all was dealt with but what the relay has no room for.
    pub no_room: bool,
    /// Why the relay does not talk to this device, if it said so.
    pub turned_away: Option<Refusal>,
    /// Whether the organisation has put this device out.
    pub expelled: bool,
    /// What convicted the relay, if something did.
    pub distrusted: Option<String>,
    /// What ended the session, if something did.
    pub fault: Option<Fault>,
}

/// The line to the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// Not wanted.
    Offline,
    /// The first attempt.
    Connecting,
    /// Connected.
    Up,
    /// The last connection or attempt failed, and another follows.
    Down(TransportError),
}

/// Why the engine can go no further; the step that met it changed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The disk is full.
    Full,
    /// The store is damaged.
    Corrupt(String),
    /// The disk fails.
    Disk(String),
    /// Another version has written the store.
    OtherVersion(String),
    /// A bug, or something that the engine did not expect of its own store.
    Other(String),
}

impl Fault {
    /// What the engine's error means for whoever waits.
    pub(super) fn of(error: &EngineError) -> Self {
        match error {
            EngineError::OtherSchema { .. } => Self::OtherVersion(error.to_string()),
            EngineError::Damaged { row } => Self::Corrupt(format!("{row} does not read")),
            EngineError::Store(StoreError::Full) => Self::Full,
            EngineError::Store(StoreError::Backend { reason }) => Self::Disk(reason.clone()),
            EngineError::Store(StoreError::Corrupt { reason }) => Self::Corrupt((*reason).into()),
            other => Self::Other(other.to_string()),
        }
    }
}

impl From<Fault> for CliError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Full => Self::DiskFull,
            Fault::Corrupt(reason) => Self::Corrupt {
                file: "database (client.db)",
                reason,
            },
            Fault::Disk(reason) => Self::Disk { reason },
            Fault::OtherVersion(reason) => Self::OtherVersion { reason },
            Fault::Other(reason) => Self::Internal(reason),
        }
    }
}

impl From<EngineError> for CliError {
    fn from(error: EngineError) -> Self {
        Fault::of(&error).into()
    }
}

impl Status {
    pub(super) fn new(relay: String, offline: bool) -> Self {
        Self {
            relay,
            link: if offline {
                Link::Offline
            } else {
                Link::Connecting
            },
            synced: false,
            no_room: false,
            turned_away: None,
            expelled: false,
            distrusted: None,
            fault: None,
        }
    }

    /// What makes waiting pointless.
    pub(super) fn hopeless(&self) -> Option<CliError> {
        if let Some(fault) = &self.fault {
            return Some(fault.clone().into());
        }
        if self.expelled {
            return Some(CliError::Expelled);
        }
        if let Some(reason) = &self.distrusted {
            let reason = reason.clone();
            return Some(CliError::Distrusted { reason });
        }
        if let Some(refusal) = &self.turned_away {
            return Some(refusal.clone().into());
        }
        match &self.link {
            Link::Down(
                error
                @ (TransportError::WrongFingerprint { .. } | TransportError::ProtocolMismatch),
            ) => Some(error.clone().into()),
            _ => None,
        }
    }

    /// The error of somebody who has waited long enough for `what`.
    pub(super) fn too_late(&self, what: &'static str, waited: Duration) -> CliError {
        let after_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        match &self.link {
            Link::Up => CliError::TimedOut { what, after_ms },
            Link::Down(error) => error.clone().into(),
            Link::Offline => CliError::Unreachable {
                reason: "--offline was given".into(),
            },
            Link::Connecting => TransportError::Unreachable {
                address: self.relay.clone(),
                after_ms,
            }
            .into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn a_full_disk_and_a_damaged_store_are_no_internal_errors() {
        let exit = |error: EngineError| CliError::from(error).exit();
        assert_eq!(exit(StoreError::Full.into()), Exit::DiskFull);
        let reason = "I/O error".to_owned();
        assert_eq!(exit(StoreError::Backend { reason }.into()), Exit::Disk);
        let reason = "a row";
        assert_eq!(exit(StoreError::Corrupt { reason }.into()), Exit::Corrupt);
        assert_eq!(exit(EngineError::Damaged { row: "x" }), Exit::Corrupt);
        assert_eq!(exit(EngineError::Bug("x")), Exit::Internal);
        let other = EngineError::OtherSchema { found: 0, known: 1 };
        assert_eq!(exit(other), Exit::Profile);
    }
}
